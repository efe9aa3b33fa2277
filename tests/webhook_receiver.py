"""A merchant's own web server for tests: it takes notifications and answers as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from standardwebhooks import Webhook

from tests.synapse import free_port
from tests.web_stack import served


@dataclass
class WebhookReceiver:
    """What came, and what is answered: the statuses in their order, the last one for ever."""

    url: str
    statuses: list[int] = field(default_factory=lambda: [204])
    pause_seconds: float = 0.0
    came: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def verified(self, secret: str) -> list[dict[str, Any]]:
        """The contents, verified as any receiver with the Standard Webhooks library does."""
        return [Webhook(secret).verify(body, headers) for headers, body in self.came]

    async def wait_for(self, count: int, *, seconds_max: float = 60.0) -> None:
        async with asyncio.timeout(seconds_max):
            while len(self.came) < count:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def webhook_receiver() -> AsyncIterator[WebhookReceiver]:
    port = free_port()
    receiver = WebhookReceiver(f"http://127.0.0.1:{port}/hook")
    app = FastAPI()

    @app.post("/hook")
    async def hook(request: Request) -> Response:
        receiver.came.append((dict(request.headers), await request.body()))
        await asyncio.sleep(receiver.pause_seconds)
        status = receiver.statuses.pop(0) if len(receiver.statuses) > 1 else receiver.statuses[0]
        return Response(status_code=status, headers={"Location": receiver.url} if status == 302 else None)

    async with served(app, port=port):
        yield receiver
