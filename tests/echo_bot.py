"""The least bot that answers: a process that says again what it hears.

What one would write first with matrix-nio, without encryption, storage or commands; benchmarks compare with
it. Arguments: homeserver URL, user id, access token. Prints `ready` once it listens.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from nio import AsyncClient, MatrixRoom, RoomMessageText


async def listen(url: str, user_id: str, access_token: str) -> None:
    client: Any = AsyncClient(url, user_id)
    client.access_token = access_token
    client.user_id = user_id
    await client.sync(timeout=0)

    async def echo(room: MatrixRoom, event: Any) -> None:
        if event.sender != user_id and event.body.startswith("echo "):
            content = {"msgtype": "m.notice", "body": event.body}
            await client.room_send(room.room_id, "m.room.message", content)

    client.add_event_callback(echo, RoomMessageText)
    print("ready", flush=True)
    await client.sync_forever(timeout=30_000)


if __name__ == "__main__":
    asyncio.run(listen(*sys.argv[1:]))
