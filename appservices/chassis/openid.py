"""Matrix OpenID tokens: how a widget, or any program that has a Matrix access token, shows who its user is.

A client asks its homeserver for one (`POST /_matrix/client/v3/user/{userId}/openid/request_token`); we ask
our own homeserver whose it is. Users of other homeservers are refused: they have a Weft of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import httpx

from appservices.chassis.config import WeftConfig
from appservices.vocabulary.ids import UserId, is_user_id, server_of

CHECK_TIMEOUT_SECONDS: Final = 10.0
CHECKS_MAX: Final = 32
"""Checks under way at once; whoever comes on top is asked to come again."""


class OpenIdRefused(Exception):
    """The token shows nobody of ours; the message is one sentence."""


class OpenIdUnchecked(Exception):
    """The token could not be checked now; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class OpenIdToken:
    """What `openid/request_token` answers, as far as it is needed."""

    access_token: str
    matrix_server_name: str


class OpenIdCheck:
    """Asks our own homeserver whose an OpenID token is."""

    def __init__(self, config: WeftConfig, http: httpx.AsyncClient) -> None:
        self._server_name = config.server_name
        self._url = f"{config.homeserver.url.rstrip('/')}/_matrix/federation/v1/openid/userinfo"
        self._http = http
        self._under_way = 0

    async def user_of(self, token: OpenIdToken) -> UserId:
        """Raises OpenIdRefused or OpenIdUnchecked. Source: Matrix server-server API, OpenID."""
        if token.matrix_server_name != self._server_name:
            raise OpenIdRefused(f"Only users of {self._server_name} can sign in here.")
        if self._under_way >= CHECKS_MAX:
            raise OpenIdUnchecked("Too many people sign in at this moment; try again soon.")
        self._under_way += 1
        try:
            answer = await self._http.get(
                self._url, params={"access_token": token.access_token}, timeout=CHECK_TIMEOUT_SECONDS
            )
        except httpx.HTTPError as error:
            raise OpenIdUnchecked("The homeserver does not answer; try again soon.") from error
        finally:
            self._under_way -= 1
        if answer.status_code >= 500 or answer.status_code == 404:
            raise OpenIdUnchecked("The homeserver can't check OpenID tokens; its listener needs `openid`.")
        user_id = _subject(answer)
        if user_id is None:
            raise OpenIdRefused("The homeserver does not know this OpenID token, or it has expired.")
        if server_of(user_id) != self._server_name:
            raise OpenIdRefused(f"Only users of {self._server_name} can sign in here.")
        return user_id


def _subject(answer: httpx.Response) -> UserId | None:
    if answer.status_code != 200:
        return None
    try:
        content = answer.json()
    except ValueError:
        return None
    subject = content.get("sub") if isinstance(content, dict) else None
    return UserId(subject) if isinstance(subject, str) and is_user_id(subject) else None
