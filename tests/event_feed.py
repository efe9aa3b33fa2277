"""The least that receives application-service transactions: it keeps every event, in order.

For tests of what stands below the real endpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import yaml
from aiohttp import web

from tests.synapse import eventually, free_port

JsonObject = dict[str, Any]


class EventFeed:
    """One application service: its registration file, and the events that Synapse has pushed."""

    def __init__(self, folder: Path, *, service: str, users: str, rate_limited: bool = False) -> None:
        """`users` is a regular expression for the localparts of the service's namespace."""
        self.port = free_port()
        self.as_token = f"as-token-of-{service}-for-tests"
        self.events: list[JsonObject] = []
        self.on_event: Callable[[JsonObject], None] | None = None
        self.registration_path = folder / f"{service}.yaml"
        registration = {
            "id": service,
            "url": f"http://127.0.0.1:{self.port}",
            "as_token": self.as_token,
            "hs_token": f"hs-token-of-{service}-for-tests",
            "sender_localpart": f"_{service}",
            "rate_limited": rate_limited,
            "io.element.msc4190": True,
            "namespaces": {"users": [{"regex": f"@{users}:.*", "exclusive": True}]},
        }
        self.registration_path.write_text(yaml.safe_dump(registration))
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_put("/_matrix/app/v1/transactions/{transaction}", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def event(self, event_id: str) -> JsonObject:
        """The event of that id, once it has been pushed."""

        async def look() -> JsonObject | None:
            return next((event for event in self.events if event["event_id"] == event_id), None)

        return await eventually(look)

    async def _take(self, request: web.Request) -> web.Response:
        for event in (await request.json())["events"]:
            self.events.append(event)
            if self.on_event is not None:
                self.on_event(event)
        return web.json_response({})
