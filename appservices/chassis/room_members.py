"""What a bot must know of a room before it may write there: is it encrypted, and who may read.

Filled from the homeserver on first use and kept right by `observe`. Three rules keep plain text out of
encrypted rooms: a room once seen as encrypted stays so for ever, here and on the disk; "not encrypted" is
never remembered but asked anew before each message; and an error is never taken for "not encrypted".
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from appservices.chassis.homeserver import path_of
from appservices.chassis.intents import Intent
from appservices.chassis.olm_machine import MEGOLM, Rotation
from appservices.vocabulary.ids import RoomId, UserId, is_user_id

ROOMS_KEPT_MAX: Final = 5_000
"""Rooms whose members are remembered; those longest unused are asked for again."""
MEMBERS_TRUSTED_SECONDS: Final = 600.0
"""Members are asked for again after this time, should their changes not have reached us."""
SINGLE_LOOKUPS_MAX: Final = 10
"""With more changed members than this, all are asked for at once."""
ROUNDS_MAX: Final = 10
"""How often changes that come in while we ask are followed, before we go on with what is known."""


class EncryptionUnsupported(Exception):
    """The room asks for an encryption that Weft doesn't have; nothing may be sent there."""


@dataclass(slots=True)
class _Known:
    """A room's readers as of `asked_at`; `changed` names members who must be looked up again."""

    rotation: Rotation | None = None
    readers: set[UserId] = field(default_factory=set)
    outdated: bool = True
    invited_read: bool = True
    asked_at: float = 0.0
    changed: set[UserId] = field(default_factory=set)


class RoomMembers:
    """The rooms of one bot."""

    def __init__(
        self, intent: Intent, *, encrypted: set[RoomId], remember_encrypted: Callable[[RoomId], None]
    ) -> None:
        self._intent = intent
        self._encrypted = encrypted
        self._remember_encrypted = remember_encrypted
        self._rooms: OrderedDict[RoomId, _Known] = OrderedDict()

    def observe(self, event: Mapping[str, Any]) -> UserId | None:
        """Takes note of a room event. Returns the user whose membership it changes, if it does."""
        room_id, state_key = event.get("room_id"), event.get("state_key")
        if not isinstance(room_id, str) or not isinstance(state_key, str):
            return None
        known = self._rooms.get(RoomId(room_id))
        match event.get("type"):
            case "m.room.encryption" if state_key == "":
                # Even one with nonsense in it: to be careless is the one way to leak.
                self._mark_encrypted(RoomId(room_id))
                if known is not None:
                    known.rotation = None
            case "m.room.member" if is_user_id(state_key):
                if known is not None:
                    # Events may come late and out of order, so what they say is looked up, not believed.
                    known.changed.add(UserId(state_key))
                return UserId(state_key)
            case "m.room.history_visibility" if known is not None:
                known.outdated = True
            case _:
                pass
        return None

    async def rotation(self, room_id: RoomId) -> Rotation | None:
        """How the room's key is rotated; None when the room is not encrypted.

        Raises EncryptionUnsupported, MatrixRefused and MatrixUnavailable.
        """
        known = self._known(room_id)
        if known.rotation is not None and room_id in self._encrypted:
            return known.rotation
        content = await self._intent.state_event(room_id, "m.room.encryption")
        if content is None and room_id not in self._encrypted:
            return None
        self._mark_encrypted(room_id)
        algorithm = (content or {}).get("algorithm", MEGOLM)
        if algorithm != MEGOLM:
            raise EncryptionUnsupported(
                f"{room_id} is encrypted with {str(algorithm)[:80]!r}, which Weft doesn't have"
            )
        known.rotation = Rotation.of(content or {})
        return known.rotation

    async def readers(self, room_id: RoomId) -> frozenset[UserId]:
        """Who gets the room's key: joined members, and invited ones unless history starts at one's own join.

        As Element does it. Raises MatrixRefused and MatrixUnavailable.
        """
        known = self._known(room_id)
        for _ in range(ROUNDS_MAX):
            if (
                known.outdated
                or len(known.changed) > SINGLE_LOOKUPS_MAX
                or time.monotonic() - known.asked_at > MEMBERS_TRUSTED_SECONDS
            ):
                await self._ask_for_all(room_id, known)
            elif known.changed:
                await self._ask_for_one(room_id, known)
            else:
                break
        return frozenset(known.readers)

    def _known(self, room_id: RoomId) -> _Known:
        known = self._rooms.setdefault(room_id, _Known())
        self._rooms.move_to_end(room_id)
        while len(self._rooms) > ROOMS_KEPT_MAX:
            self._rooms.popitem(last=False)
        return known

    def _mark_encrypted(self, room_id: RoomId) -> None:
        if room_id not in self._encrypted:
            self._remember_encrypted(room_id)
            self._encrypted.add(room_id)

    async def _ask_for_all(self, room_id: RoomId, known: _Known) -> None:
        # What changes from here on may be newer than the answers; it is looked up in the next round.
        known.outdated = False
        known.changed.clear()
        try:
            await self._fill(room_id, known)
        except BaseException:
            known.outdated = True
            raise

    async def _fill(self, room_id: RoomId, known: _Known) -> None:
        visibility = await self._intent.state_event(room_id, "m.room.history_visibility")
        known.invited_read = (visibility or {}).get("history_visibility") != "joined"
        answer = await self._intent.call(
            "GET", path_of("rooms", room_id, "members"), parameters={"not_membership": "leave"}
        )
        known.readers = {
            UserId(event["state_key"])
            for event in answer["chunk"]
            if is_user_id(event["state_key"]) and self._reads(known, event["content"].get("membership"))
        }
        known.asked_at = time.monotonic()

    async def _ask_for_one(self, room_id: RoomId, known: _Known) -> None:
        user_id = known.changed.pop()
        try:
            content = await self._intent.state_event(room_id, "m.room.member", state_key=user_id)
        except BaseException:
            known.changed.add(user_id)
            raise
        if self._reads(known, (content or {}).get("membership")):
            known.readers.add(user_id)
        else:
            known.readers.discard(user_id)

    @staticmethod
    def _reads(known: _Known, membership: object) -> bool:
        return membership == "join" or (membership == "invite" and known.invited_read)
