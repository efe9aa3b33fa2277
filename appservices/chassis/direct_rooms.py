"""Where a service talks to one person alone: their Home room, a direct chat they began, or one we make.

What is told there is for that person's eyes alone, so a room is never taken for a direct one because
somebody happens to be alone in it: it must be the Home room, or have been begun as a direct chat.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sqlalchemy import delete, insert, select

from appservices.chassis.database import Database, Write
from appservices.chassis.homeserver import MatrixRefused
from appservices.chassis.rooms import Rooms
from appservices.chassis.tables import direct_rooms
from appservices.vocabulary.ids import RoomId, UserId

_FORGET = delete(direct_rooms)

CreateDirectRoom = Callable[[UserId], Awaitable[RoomId]]


class DirectRooms:
    """Remembers one room per person and makes sure, at each use, that nobody else is in it."""

    def __init__(self, database: Database, rooms: Rooms, create: CreateDirectRoom) -> None:
        self._database = database
        self._rooms = rooms
        self._create = create

    async def room_for(self, user: UserId) -> RoomId:
        """The room to write to this person in; it is made when there is none.

        Raises MatrixRefused or MatrixUnavailable when it can't be made.
        """
        known = await self._known(user)
        if known is not None and await self._is_only_for(known, user):
            return known
        room_id = await self._create(user)
        await self.remember(user, room_id)
        return room_id

    async def remember(self, user: UserId, room_id: RoomId) -> None:
        async with self._database.begin() as work:
            await work.apply(
                [
                    Write(_FORGET.where(direct_rooms.c.user_id == user), {}),
                    Write(insert(direct_rooms), {"user_id": user, "room_id": room_id}),
                ]
            )
            await work.commit()

    async def note_home(self, room_id: RoomId) -> UserId | None:
        """A Home room that the service has joined is its person's direct room from now on; whose it is."""
        person = (await self._rooms.room(room_id)).only_person
        if person is not None:
            await self.remember(person, room_id)
        return person

    async def note_direct_chat(self, room_id: RoomId, user: UserId) -> None:
        """The user began a direct chat with the service; it serves while there is no other room for them."""
        known = await self._known(user)
        if known is None or not await self._is_only_for(known, user):
            await self.remember(user, room_id)

    async def _known(self, user: UserId) -> RoomId | None:
        async with self._database.read() as work:
            found = await work.execute(select(direct_rooms.c.room_id).where(direct_rooms.c.user_id == user))
            room_id = found.scalar_one_or_none()
            return RoomId(room_id) if room_id else None

    async def _is_only_for(self, room_id: RoomId, user: UserId) -> bool:
        try:
            return (await self._rooms.room(room_id)).is_only_for(user)
        except MatrixRefused:
            return False
