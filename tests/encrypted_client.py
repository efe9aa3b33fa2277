"""A real user's client with end-to-end encryption: matrix-nio as it comes, syncing in the background.

It trusts every device, as a user does who never verified anybody.

    async with EncryptedClient(alice, folder) as client:
        await client.send_text(room_id, "!balance")
        answer = await client.wait_for_text(room_id, sender=bot_id)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Self

from nio import AsyncClient, AsyncClientConfig, Event, MatrixRoom, MegolmEvent
from nio.store import SqliteStore

from tests.synapse import MatrixUser, eventually

JsonObject = dict[str, Any]

SYNC_MILLISECONDS: Final = 5_000
# Without it a burst of more than ten events would leave a gap that nio doesn't fill.
_SYNC_FILTER: Final[JsonObject] = {"room": {"timeline": {"limit": 1000}}}


class EncryptedClient:
    """One device of a user."""

    def __init__(self, user: MatrixUser, folder: Path) -> None:
        self.user = user
        folder.mkdir(parents=True, exist_ok=True)
        config = AsyncClientConfig(store=SqliteStore, store_sync_tokens=True)
        self.nio: Any = AsyncClient(
            user.synapse.url, user.user_id, user.device_id, store_path=str(folder), config=config
        )
        self.nio.restore_login(user.user_id, user.device_id, user.access_token)
        self.events: list[tuple[str, JsonObject]] = []
        """Room id and event, decrypted where it could be; an undecryptable one has type m.room.encrypted."""
        self.to_device: list[Any] = []
        self.nio.add_event_callback(self._on_event, (Event, MegolmEvent))
        self.nio.add_to_device_callback(self.to_device.append, None)
        self._syncing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        # Once by hand, so that the keys are on the homeserver before anybody writes to us.
        await self.nio.sync(timeout=0, full_state=True, sync_filter=_SYNC_FILTER)
        if self.nio.should_upload_keys:
            await self.nio.keys_upload()
        self._syncing = asyncio.create_task(
            self.nio.sync_forever(timeout=SYNC_MILLISECONDS, sync_filter=_SYNC_FILTER)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._syncing is not None:
            self._syncing.cancel()
            await asyncio.gather(self._syncing, return_exceptions=True)
        await self.nio.close()

    @property
    def user_id(self) -> str:
        return self.user.user_id

    async def send(self, room_id: str, content: Mapping[str, Any]) -> str:
        """Sends a message, encrypted once this client knows that the room is; returns its event id."""
        answer = await self.nio.room_send(
            room_id, "m.room.message", dict(content), ignore_unverified_devices=True
        )
        event_id: str = answer.event_id
        return event_id

    async def send_text(self, room_id: str, body: str) -> str:
        return await self.send(room_id, {"msgtype": "m.text", "body": body})

    async def wait_until_encrypted(self, room_id: str, *, members: int) -> None:
        """Waits until this client knows the room as encrypted with that many joined and invited members."""

        async def look() -> bool:
            room = self.nio.rooms.get(room_id)
            return room is not None and room.encrypted and len(room.users) >= members

        await eventually(look)

    async def wait_for(self, room_id: str, matches: Callable[[JsonObject], bool]) -> JsonObject:
        """The first event of the room, of all seen so far or soon, that matches."""

        async def look() -> JsonObject | None:
            return next((event for room, event in self.events if room == room_id and matches(event)), None)

        return await eventually(look)

    async def wait_for_text(self, room_id: str, body: str, *, sender: str) -> JsonObject:
        return await self.wait_for(
            room_id, lambda event: event["sender"] == sender and event["content"].get("body") == body
        )

    async def wait_for_event(self, room_id: str, event_id: str) -> JsonObject:
        """An event by its id, decrypted if it could be."""
        return await self.wait_for(room_id, lambda event: event["event_id"] == event_id)

    async def _on_event(self, room: MatrixRoom, event: Any) -> None:
        self.events.append((room.room_id, dict(event.source)))
