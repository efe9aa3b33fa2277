"""The room of a link: made by whoever needs it first, private, with the two service users in it.

Whoever is invited joins, goes on there and stays in the room it had. So when both make one at the same time,
each ends up in the other's, and hears what is said in either, whichever invite was lost or late. Which room a
message came in does not matter, since it is signed; the room is only where the next one goes. Nobody declines
an invite or leaves a room that the other one may speak in, for two who give way to each other at the same
moment would never meet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from appservices.chassis.homeserver import ONCE, MatrixRefused, MatrixUnavailable, path_of
from appservices.chassis.intents import Intent
from appservices.chassis.links.storage import LinkStorage, StoredLink, room_write
from appservices.vocabulary.events import KEYS, LINK
from appservices.vocabulary.ids import RoomId, UserId, server_of
from appservices.vocabulary.schemas import BlockInvalid, check_block

logger = logging.getLogger(__name__)

INVITE_SECONDS: Final = 10.0
"""After which a peer that has not joined is invited again; doubled up to INVITE_SECONDS_MAX."""
INVITE_SECONDS_MAX: Final = 600.0
LOOK_SECONDS: Final = 5.0
"""After which the members are looked at, in case the peer's join was not told us."""


@dataclass(slots=True)
class _Presence:
    """What is known of the peer in a link's room since this process began."""

    room_id: RoomId
    joined: bool = False
    look_at: float = 0.0
    invite_at: float = 0.0
    invite_seconds: float = field(default_factory=lambda: INVITE_SECONDS)


class LinkRooms:
    """The rooms of all links of one service."""

    def __init__(
        self,
        own_user: UserId,
        *,
        intent: Callable[[], Intent],
        keys: Mapping[str, str],
        storage: LinkStorage,
        on_room: Callable[[StoredLink], None],
    ) -> None:
        """`on_room` is told of a link that has a room, or another one, once that is committed."""
        self._own_user = own_user
        self._intent = intent
        self._keys = keys
        self._storage = storage
        self._on_room = on_room
        self._presences: dict[UserId, _Presence] = {}
        self._earlier: dict[UserId, RoomId] = {}
        """The room before the present one, in which the peer may still speak."""
        self._locks: dict[UserId, asyncio.Lock] = {}

    async def is_open(self, link: StoredLink) -> bool:
        presence = self._presences.get(link.peer)
        if presence is not None and presence.joined and presence.room_id == link.room_id:
            return True
        async with self._lock(link.peer):
            # It may have got its room while we waited.
            link = await self._storage.one(link.peer) or link
            if link.room_id is None:
                await self._make(link)
                return False
            return await self._is_joined(link, link.room_id)

    async def send(self, link: StoredLink, content: Mapping[str, Any], *, transaction_id: str) -> None:
        if link.room_id is None:
            return
        try:
            await self._intent().send(link.room_id, LINK, content, transaction_id=transaction_id)
        except MatrixRefused as refused:
            if refused.status == 403:
                await self._forget(link)
            raise

    async def peer_keys(self, link: StoredLink) -> Mapping[str, str] | None:
        if link.room_id is None:
            return None
        content = await self._intent().state_event(link.room_id, KEYS, state_key=link.peer)
        try:
            check_block("keys", content)
        except BlockInvalid:
            return None
        assert content is not None
        return dict(content["keys"]) if content["service"] == link.peer else None

    async def invited(self, link: StoredLink, room_id: RoomId) -> None:
        """The peer, with whom a link is allowed, wants to talk in that room."""
        async with self._lock(link.peer):
            link = await self._storage.one(link.peer) or link
            earlier = link.room_id
            has_joined = await self._join(link, room_id)
            if has_joined and earlier is not None and earlier != room_id:
                await self._keep_one_earlier(link.peer, earlier)

    def peer_joined(self, peer: UserId, room_id: RoomId) -> None:
        """The peer has joined the room, as an event says."""
        presence = self._presence(peer, room_id)
        presence.joined = True

    def peer_left(self, peer: UserId, room_id: RoomId) -> None:
        self._presence(peer, room_id).joined = False

    async def _make(self, link: StoredLink) -> None:
        room_id = await self._intent().create_room(
            preset="private_chat",
            visibility="private",
            name=f"{self._own_user} and {link.peer}",
            topic="Two services talk here. Please leave it to them.",
            creation_content={"type": LINK},
            initial_state=[self._published_keys()],
            # The peer publishes its keys as well; nobody else is ever there.
            power_level_content_override={"events": {KEYS: 0}, "invite": 100, "kick": 100},
        )
        # Known before anybody is invited: a peer that can't be reached now makes us make no second one.
        await self._set_room(link, room_id, is_ours=True)
        await self._invite(link, room_id)

    async def _is_joined(self, link: StoredLink, room_id: RoomId) -> bool:
        presence = self._presence(link.peer, room_id)
        now = self._now()
        if not presence.joined and now >= presence.look_at:
            presence.look_at = now + LOOK_SECONDS
            try:
                members = await self._intent().joined_members(room_id)
            except MatrixRefused as refused:
                logger.warning("the room %s of the link with %s is lost: %s", room_id, link.peer, refused)
                await self._forget(link)
                return False
            presence.joined = link.peer in members
        if not presence.joined and link.room_is_ours and now >= presence.invite_at:
            await self._invite(link, room_id)
        if not presence.joined and not link.room_is_ours:
            # Whoever invited us there has left it: a room of ours is as good.
            await self._forget(link)
        return presence.joined

    async def _invite(self, link: StoredLink, room_id: RoomId) -> None:
        presence = self._presence(link.peer, room_id)
        presence.invite_at = self._now() + presence.invite_seconds
        try:
            path = path_of("rooms", room_id, "invite")
            await self._intent().call("POST", path, {"user_id": link.peer}, retries=ONCE)
            presence.invite_seconds = min(2 * presence.invite_seconds, INVITE_SECONDS_MAX)
        except (MatrixRefused, MatrixUnavailable) as problem:
            # It may be there already, or its homeserver can't be reached just now.
            logger.info("%s could not be invited to %s: %s", link.peer, room_id, problem)
            presence.look_at = 0.0

    async def _join(self, link: StoredLink, room_id: RoomId) -> bool:
        intent = self._intent()
        await intent.join(room_id, via=[server_of(link.peer)])
        try:
            content = self._published_keys()["content"]
            await intent.send_state(room_id, KEYS, content, state_key=self._own_user)
        except MatrixRefused as refused:
            # The peer keeps us from being believed there: a room of ours will do.
            logger.warning("%s invites us to a room where we can't show our keys: %s", link.peer, refused)
            await self._leave(room_id)
            return False
        # Whoever invited us may have left since: that is looked at, not assumed.
        self._presence(link.peer, room_id)
        await self._set_room(link, room_id, is_ours=False)
        return True

    async def _keep_one_earlier(self, peer: UserId, earlier: RoomId) -> None:
        """A peer that invites us to one room after the other does not fill our homeserver with them."""
        before = self._earlier.pop(peer, None)
        self._earlier[peer] = earlier
        if before is None or before in (earlier, self._presences[peer].room_id):
            return
        await self._leave(before)

    async def _leave(self, room_id: RoomId) -> None:
        try:
            await self._intent().leave(room_id)
        except MatrixRefused as refused:
            logger.info("room %s was left already: %s", room_id, refused)

    async def _forget(self, link: StoredLink) -> None:
        self._presences.pop(link.peer, None)
        await self._set_room(link, None, is_ours=False)

    async def _set_room(self, link: StoredLink, room_id: RoomId | None, *, is_ours: bool) -> None:
        await self._storage.write([room_write(link.peer, room_id, is_ours=is_ours)])
        self._on_room(replace(link, room_id=room_id, room_is_ours=is_ours))

    def _published_keys(self) -> dict[str, Any]:
        content = {"service": self._own_user, "keys": dict(self._keys)}
        return {"type": KEYS, "state_key": self._own_user, "content": content}

    def _presence(self, peer: UserId, room_id: RoomId) -> _Presence:
        presence = self._presences.get(peer)
        if presence is None or presence.room_id != room_id:
            presence = self._presences[peer] = _Presence(room_id)
        return presence

    def _lock(self, peer: UserId) -> asyncio.Lock:
        return self._locks.setdefault(peer, asyncio.Lock())

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
