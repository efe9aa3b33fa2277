"""The homeserver's media store as this service uses it: by its own user, and through authenticated media."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from appservices.chassis.homeserver import MatrixRefused
from appservices.chassis.intents import Intent

_MXC: Final = re.compile(r"mxc://([^/\s]{1,255})/([A-Za-z0-9_-]{1,255})")


class HomeserverMedia:
    """Up and down; what is on other homeservers Synapse fetches."""

    def __init__(self, intent: Callable[[], Intent]) -> None:
        self._intent = intent

    async def download(self, mxc: str) -> bytes:
        """Raises MatrixRefused when there is no such file, MatrixUnavailable when it can't be had now."""
        match = _MXC.fullmatch(mxc)
        if match is None:
            raise MatrixRefused(status=404, errcode="M_NOT_FOUND", sentence="not an mxc:// address")
        server, media_id = (quote(part, safe="") for part in match.groups())
        intent = self._intent()
        response = await intent.homeserver.send(
            "GET",
            f"/_matrix/client/v1/media/download/{server}/{media_id}",
            None,
            None,
            user_id=intent.user_id,
        )
        return await response.read()

    async def upload(self, data: bytes, *, media_type: str) -> str:
        """The name of the file tells nobody anything."""
        suffix = media_type.partition("/")[2]
        return await self._intent().upload(data, content_type=media_type, filename=f"moment.{suffix}")
