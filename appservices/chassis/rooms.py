"""What a service knows of the rooms it is in: who is there, and whether it is alone with one person.

Read from the homeserver when first needed, dropped when an event changes it. After a restart nothing is
remembered and everything is read anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from appservices.chassis.messages import shown_name
from appservices.vocabulary.ids import RoomId, UserId

ROOMS_REMEMBERED_MAX = 2_000

FetchMembers = Callable[[RoomId], Awaitable["Members"]]


@dataclass(frozen=True, slots=True)
class Members:
    """The members of a room: display names of those who joined, and who is invited."""

    joined: Mapping[UserId, str | None]
    invited: frozenset[UserId]


@dataclass(frozen=True, slots=True)
class Room:
    """A room as one service sees it."""

    room_id: RoomId
    members: Members
    service_users: frozenset[UserId]

    @property
    def only_person(self) -> UserId | None:
        """The one person with whom this server's services are alone; None in every other room.

        Only service users of our own server don't count as people, whatever the room's state claims; an
        invited person counts, since they may read on once they join.
        """
        people = (self.members.joined.keys() | self.members.invited) - self.service_users
        if len(people) != 1:
            return None
        (person,) = people
        return person if person in self.members.joined else None

    def name_of(self, user_id: UserId) -> str:
        """How a sentence in this room calls the user; shared names carry the user id too."""
        name = shown_name(user_id, self.members.joined.get(user_id))
        sharing = sum(1 for other, given in self.members.joined.items() if shown_name(other, given) == name)
        return f"{name} ({user_id})" if sharing > 1 else name

    def users_named(self, name: str) -> list[UserId]:
        """Those members whose display name is this one, in any case."""
        wanted = " ".join(name.split()).casefold()
        return [
            user_id
            for user_id, given in self.members.joined.items()
            if given and shown_name(user_id, given).casefold() == wanted
        ]


class Rooms:
    """A bounded memory of rooms."""

    def __init__(self, fetch_members: FetchMembers, *, service_users: frozenset[UserId]) -> None:
        self._fetch_members = fetch_members
        self._service_users = service_users
        self._remembered: OrderedDict[RoomId, Room] = OrderedDict()
        self._changes: dict[RoomId, int] = {}

    async def room(self, room_id: RoomId) -> Room:
        """Raises MatrixRefused when the service is not in the room, MatrixUnavailable when it can't know."""
        room = self._remembered.get(room_id)
        if room is not None:
            self._remembered.move_to_end(room_id)
            return room
        changes_before = self._changes.setdefault(room_id, 0)
        room = Room(room_id, await self._fetch_members(room_id), self._service_users)
        if self._changes.get(room_id) == changes_before:
            self._remembered[room_id] = room
            while len(self._remembered) > ROOMS_REMEMBERED_MAX:
                forgotten, _ = self._remembered.popitem(last=False)
                self._changes.pop(forgotten, None)
        return room

    def observe(self, event: Mapping[str, Any]) -> None:
        """Takes note of an event of a room: a change of membership makes what was read stale."""
        if event["type"] == "m.room.member":
            room_id = RoomId(event["room_id"])
            self._remembered.pop(room_id, None)
            if room_id in self._changes:
                self._changes[room_id] += 1
