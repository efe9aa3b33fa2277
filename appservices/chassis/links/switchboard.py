"""All links of one service: finds the one that an event belongs to, makes new ones, keeps them running."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from appservices.chassis.clock import Clock
from appservices.chassis.database import Database, Write
from appservices.chassis.inbox import StoredEvent
from appservices.chassis.intents import Intent
from appservices.chassis.links.feature import LinkFeature, Road
from appservices.chassis.links.link import Link
from appservices.chassis.links.protocol import Item
from appservices.chassis.links.rooms import LinkRooms
from appservices.chassis.links.storage import (
    LinkStorage,
    StoredLink,
    item_write,
    link_write,
    new_link,
)
from appservices.vocabulary.events import LINK
from appservices.vocabulary.ids import RoomId, UserId
from appservices.vocabulary.signing import SigningKey

logger = logging.getLogger(__name__)

LINKS_MAX: Final = 10_000
TICK_SECONDS: Final = 1.0
"""How often wishes of the command line are looked for and counts written down."""
PURGE_EVERY_SECONDS: Final = 3600.0


class LinkRefused(Exception):
    """No link may be made with that service; the message says why."""


class Switchboard:
    """The links of one service user."""

    def __init__(
        self,
        own_user: UserId,
        *,
        database: Database,
        key: SigningKey,
        feature: LinkFeature,
        intent: Callable[[], Intent],
        clock: Clock,
        road: Road | None = None,
    ) -> None:
        """`road` is how messages travel when not through rooms of Matrix."""
        self._own_user = own_user
        self._key = key
        self._feature = feature
        self._clock = clock
        self.storage = LinkStorage(database)
        self._links: dict[UserId, Link] = {}
        self._tasks: dict[UserId, asyncio.Task[None]] = {}
        self._making = asyncio.Lock()
        self._running = False
        self._loaded = asyncio.Event()
        self._rooms = LinkRooms(
            own_user,
            intent=intent,
            keys={key.key_id: key.public_base64},
            storage=self.storage,
            on_room=self._room_changed,
        )
        self._road = road or self._rooms

    def is_wanted(self, event: Mapping[str, Any]) -> bool:
        """Whether an event is a message of a link, not our own."""
        return event["type"] == LINK and event["sender"] != self._own_user and "state_key" not in event

    def item(self, peer: UserId, item: Item) -> Write:
        """An item for the peer, to be committed with what it tells of; then `wake`."""
        return item_write(peer, item)

    def wake(self, peer: UserId) -> None:
        """To be called after a commit that has left items for the peer."""
        link = self._links.get(peer)
        if link is not None:
            link.wake()

    async def link(self, peer: UserId) -> Link:
        """The link with that service, made if there is none. Raises LinkRefused when it may not be made."""
        link = self._links.get(peer)
        if link is not None:
            return link
        if not await self._feature.allows(peer):
            raise LinkRefused(f"a link with {peer} is not allowed here")
        return await self._made(peer)

    def known(self, peer: UserId) -> Link | None:
        return self._links.get(peer)

    async def run(self) -> None:
        """Keeps all links going until cancelled."""
        purge_at = 0.0
        loop = asyncio.get_running_loop()
        self._running = True
        try:
            for stored in await self.storage.all():
                self._begin(stored)
            self._loaded.set()
            while True:
                try:
                    await self._tick()
                    if loop.time() >= purge_at:
                        purge_at = loop.time() + PURGE_EVERY_SECONDS
                        await self.storage.purge(now_ms=self._clock())
                except Exception:
                    logger.exception("the links could not be looked after; that is tried again")
                await asyncio.sleep(TICK_SECONDS)
        finally:
            self._running = False
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            for link in self._links.values():
                await link.flush_counts()
            self._tasks.clear()
            self._links.clear()
            self._loaded.clear()

    # What comes from Matrix.

    async def received(self, stored: StoredEvent) -> Sequence[Write] | None:
        """A message of a link. None when its effects and its mark were committed."""
        await self._loaded.wait()
        peer = UserId(stored.event["sender"])
        link = self._links.get(peer)
        if link is None:
            if not await self._feature.allows(peer):
                logger.warning("a link message from %s, with whom there is no link, is ignored", peer)
                return []
            link = await self._made(peer)
        return None if await link.receive(stored.event["content"], done=stored.done) else []

    async def invited(self, stored: StoredEvent) -> bool:
        """Whether an invite was to a link's room; then it is answered here."""
        event = stored.event
        if _invited_room_type(event) != LINK:
            return False
        await self._loaded.wait()
        peer = UserId(event["sender"])
        if not await self._feature.allows(peer):
            logger.warning("%s wants to link with us, which is not allowed here", peer)
            return False
        link = self._links.get(peer) or await self._made(peer)
        await self._rooms.invited(link.state, stored.room_id)
        return True

    def member(self, event: Mapping[str, Any]) -> None:
        """A membership event of anybody, in any room."""
        user = UserId(event.get("state_key", ""))
        link = self._links.get(user)
        if link is None or link.state.room_id != event["room_id"]:
            return
        membership = event["content"].get("membership")
        if membership == "join":
            self._rooms.peer_joined(user, RoomId(event["room_id"]))
            link.wake()
        elif membership in ("leave", "ban"):
            self._rooms.peer_left(user, RoomId(event["room_id"]))

    # Life.

    async def _made(self, peer: UserId) -> Link:
        async with self._making:
            link = self._links.get(peer)
            if link is not None:
                return link
            stored = await self.storage.one(peer)
            if stored is None:
                if len(self._links) >= LINKS_MAX:
                    raise LinkRefused(f"this service has {LINKS_MAX} links already")
                stored = new_link(self._own_user, peer, now_ms=self._clock())
                await self.storage.write([link_write(stored)])
            return self._begin(stored)

    def _begin(self, stored: StoredLink) -> Link:
        link = self._links.get(stored.peer)
        if link is not None:
            return link
        link = Link(
            stored,
            own_user=self._own_user,
            key=self._key,
            storage=self.storage,
            road=self._road,
            feature=self._feature,
            clock=self._clock,
        )
        self._links[stored.peer] = link
        if self._running:
            self._tasks[stored.peer] = asyncio.create_task(link.run(), name=f"link with {stored.peer}")
        return link

    async def _tick(self) -> None:
        for peer, wish in (await self.storage.wishes()).items():
            link = self._links.get(peer)
            if link is not None:
                await link.fulfil_wish(wish)
        for peer in await self.storage.peers_with_items():
            # Written by another process, such as the command line.
            if peer not in self._links and await self._feature.allows(peer):
                await self._made(peer)
            self.wake(peer)
        for link in self._links.values():
            await link.flush_counts()

    def _room_changed(self, stored: StoredLink) -> None:
        link = self._links.get(stored.peer)
        if link is not None:
            link.set_room(stored)


def _invited_room_type(event: Mapping[str, Any]) -> str | None:
    """The type of the room that an invite is to, as its stripped state tells."""
    states = event.get("unsigned", {}).get("invite_room_state", [])
    for state in states if isinstance(states, list) else ():
        if isinstance(state, dict) and state.get("type") == "m.room.create":
            content = state.get("content")
            kind = content.get("type") if isinstance(content, dict) else None
            return kind if isinstance(kind, str) else None
    return None
