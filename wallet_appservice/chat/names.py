"""How people are called in sentences: as the room calls them, or as they call themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from appservices.chassis.homeserver import MatrixRefused
from appservices.chassis.messages import shown_name
from appservices.chassis.rooms import Room, Rooms
from appservices.vocabulary.ids import RoomId, UserId, server_of

DisplayName = Callable[[UserId], Awaitable[str | None]]


class Names:
    """Looks up rooms and names for whoever writes about people."""

    def __init__(self, rooms: Rooms, display_name: DisplayName, wallet_user: UserId) -> None:
        self._rooms = rooms
        self._display_name = display_name
        self._wallet_user = wallet_user

    async def room(self, room_id: RoomId | None) -> Room | None:
        """The room, where the wallet is in it. Raises MatrixUnavailable when that can't be known."""
        if room_id is None:
            return None
        try:
            room = await self._rooms.room(room_id)
        except MatrixRefused:
            return None
        return room if self._wallet_user in room.members.joined else None

    async def of(self, people: Iterable[UserId], room: Room | None) -> dict[UserId, str]:
        return {user: await self._name(user, room) for user in dict.fromkeys(people)}

    async def _name(self, user: UserId, room: Room | None) -> str:
        if room is not None and user in room.members.joined:
            return room.name_of(user)
        if server_of(user) != server_of(self._wallet_user):
            # Another homeserver may be away, and what is told must not wait for it.
            return shown_name(user, None)
        return shown_name(user, await self._display_name(user))
