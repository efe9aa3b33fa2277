"""Addresses of pictures. An address says nothing but which picture of which Moment; who may have it is judged
at each request.

Pictures of a page are asked for by the browser itself: in the portal with the session's cookie, in a widget
without anything. There the address says for whom it was made, for an hour, sealed by a secret of this
process.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from fastapi import Request

from appservices.chassis.clock import Clock
from appservices.chassis.signed_in import SessionGuard, SignedIn
from appservices.vocabulary.ids import UserId, is_user_id

FOR: Final = "for"
SEAL: Final = "seal"
VALID_MS: Final = 3_600_000

AddressOf = Callable[[str], str]
"""The address, for one viewer, of what stands below the given path."""


class PictureAddresses:
    """Makes and reads such addresses."""

    def __init__(self, clock: Clock, *, secret: bytes) -> None:
        self._clock = clock
        self._secret = secret

    def of(self, signed_in: SignedIn) -> AddressOf:
        """How the pages of this person name pictures."""

        def address(path: str) -> str:
            if signed_in.by_cookie:
                return path
            until = f"{self._clock() + VALID_MS} {signed_in.user_id}"
            separator = "&" if "?" in path else "?"
            return f"{path}{separator}{FOR}={quote(until)}&{SEAL}={self._seal(until)}"

        return address

    async def viewer(self, request: Request, guard: SessionGuard) -> UserId | None:
        """For whom a picture is asked for; None for nobody whom we know."""
        until, seal = request.query_params.get(FOR, ""), request.query_params.get(SEAL, "")
        if until and hmac.compare_digest(self._seal(until).encode(), seal.encode("utf-8", "replace")):
            at, _space, user = until.partition(" ")
            if at.isdigit() and int(at) >= self._clock() and is_user_id(user):
                return UserId(user)
        signed_in = await guard.of_request(request)
        return None if signed_in is None else signed_in.user_id

    def _seal(self, text: str) -> str:
        return hmac.new(self._secret, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()
