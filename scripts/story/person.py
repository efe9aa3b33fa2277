"""A person with a Matrix client: matrix-nio with end-to-end encryption, as it comes from its makers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from nio import AsyncClient, AsyncClientConfig, Event, MatrixRoom, MegolmEvent
from nio.store import SqliteStore

from appservices.vocabulary.events import RECEIPT
from scripts.story.homes import Home

JsonObject = dict[str, Any]
_Found = TypeVar("_Found")

SYNC_MILLISECONDS: Final = 10_000
WAIT_SECONDS: Final = 60.0
PASSWORD: Final = "once-upon-a-time"


class NothingCame(Exception):
    """What was waited for did not happen in time."""


class Person:
    """Someone with an account on a home, and one client signed in."""

    def __init__(self, name: str, home: Home, folder: Path) -> None:
        self.name = name
        self.home = home
        folder.mkdir(parents=True, exist_ok=True)
        self.client: Any = AsyncClient(
            home.url,
            home.user(name.lower()),
            store_path=str(folder),
            config=AsyncClientConfig(store=SqliteStore, store_sync_tokens=True),
        )
        self._events: list[tuple[str, JsonObject]] = []
        self._changed = asyncio.Condition()
        self._syncing: asyncio.Task[None] | None = None

    @property
    def user_id(self) -> str:
        user_id: str = self.client.user_id
        return user_id

    async def sign_up(self) -> None:
        """Registers, shows a name, and begins to sync."""
        answer = await self.client.register(self.name.lower(), PASSWORD)
        if not self.client.access_token:
            raise NothingCame(f"{self.name} could not register: {answer}")
        self.client.load_store()
        await self.client.set_displayname(self.name)
        self.client.add_event_callback(self._note, (Event, MegolmEvent))
        await self._sync_once()
        self._syncing = asyncio.create_task(self.client.sync_forever(timeout=SYNC_MILLISECONDS))

    async def sign_off(self) -> None:
        if self._syncing is not None:
            self._syncing.cancel()
            await asyncio.gather(self._syncing, return_exceptions=True)
        await self.client.close()

    async def home_room(self) -> str:
        """The Home room that Weft made, once it is there with both services in it."""
        services = {self.home.user("weft"), self.home.user("wallet")}

        def find() -> str | None:
            for room in self.client.rooms.values():
                if room.room_type == "dev.weft.home" and services <= set(room.users):
                    return str(room.room_id)
            return None

        return await self._until(find, f"{self.name}'s Home room")

    async def make_room(self, name: str, *, encrypted: bool, invite: list[str]) -> str:
        state = []
        if encrypted:
            state.append({"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}})
        answer = await self.client.room_create(name=name, invite=invite, initial_state=state)
        room_id: str = answer.room_id
        return room_id

    async def join(self, room_id: str) -> None:
        await self._until(lambda: room_id in self.client.invited_rooms or None, f"{self.name}'s invitation")
        await self.client.join(room_id)

    async def sees_members(self, room_id: str, *user_ids: str, encrypted: bool = False) -> None:
        """Waits until this client knows all of them as joined."""

        def look() -> bool | None:
            room = self.client.rooms.get(room_id)
            if room is None or (encrypted and not room.encrypted):
                return None
            joined = set(room.users) - set(room.invited_users)
            return set(user_ids) <= joined or None

        await self._until(look, f"the members of a room, for {self.name}")

    async def say(self, room_id: str, text: str) -> str:
        answer = await self.client.room_send(
            room_id, "m.room.message", {"msgtype": "m.text", "body": text}, ignore_unverified_devices=True
        )
        event_id: str = answer.event_id
        return event_id

    async def react(self, room_id: str, event_id: str, key: str) -> str:
        """Taps an emoji on a message; reactions are never encrypted."""
        relation = {"rel_type": "m.annotation", "event_id": event_id, "key": key}
        answer = await self.client.room_send(
            room_id, "m.reaction", {"m.relates_to": relation}, ignore_unverified_devices=True
        )
        reaction_id: str = answer.event_id
        return reaction_id

    async def reads(self, room_id: str, words: str) -> JsonObject:
        """The first message of the room with these words in it, new versions included."""

        def has_words(event: JsonObject) -> bool:
            return words in str(event["content"].get("body", ""))

        return await self.hears(room_id, has_words, f"“{words}”")

    async def hears(self, room_id: str, matches: Callable[[JsonObject], bool], what: str) -> JsonObject:
        """The first message of the room that matches, of those seen or soon to come."""

        def find() -> JsonObject | None:
            return next((event for room, event in self._events if room == room_id and matches(event)), None)

        return await self._until(find, what)

    async def answer_to(self, room_id: str, event_id: str, *, sender: str) -> JsonObject:
        """A service's reply to a message."""

        def is_answer(event: JsonObject) -> bool:
            relation = event["content"].get("m.relates_to", {})
            replied_to = relation.get("m.in_reply_to", {}).get("event_id")
            return bool(event["sender"] == sender and replied_to == event_id)

        return await self.hears(room_id, is_answer, f"{sender}'s answer")

    async def receipt(self, room_id: str, memo: str) -> Mapping[str, Any]:
        """The receipt with that memo, as it came to this room."""

        def is_receipt(event: JsonObject) -> bool:
            return bool(event["content"].get(RECEIPT, {}).get("memo") == memo)

        event = await self.hears(room_id, is_receipt, f"the receipt for “{memo}”")
        content: Mapping[str, Any] = event["content"]
        return content

    def receipts_seen(self, room_id: str) -> list[str]:
        """The memos of all receipts that came to this room so far."""
        contents = [event["content"] for room, event in self._events if room == room_id]
        return [content[RECEIPT].get("memo", "") for content in contents if RECEIPT in content]

    def bodies_seen(self, room_id: str, *, sender: str) -> list[str]:
        """What somebody has said in this room so far."""
        return [
            str(event["content"].get("body", ""))
            for room, event in self._events
            if room == room_id and event["sender"] == sender
        ]

    async def _sync_once(self) -> None:
        await self.client.sync(timeout=0, full_state=True)
        if self.client.should_upload_keys:
            await self.client.keys_upload()

    async def _note(self, room: MatrixRoom, event: Any) -> None:
        async with self._changed:
            self._events.append((room.room_id, dict(event.source)))
            self._changed.notify_all()

    async def _until(self, look: Callable[[], _Found | None], what: str) -> _Found:
        async def wait() -> _Found:
            while True:
                found = look()
                if found is not None:
                    return found
                async with self._changed:
                    # Room state changes without an event of its own, so look now and then in any case.
                    try:
                        await asyncio.wait_for(self._changed.wait(), 0.2)
                    except TimeoutError:
                        continue

        try:
            return await asyncio.wait_for(wait(), WAIT_SECONDS)
        except TimeoutError:
            raise NothingCame(f"{what} did not come within {WAIT_SECONDS:.0f} seconds") from None
