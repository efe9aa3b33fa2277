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
READERS_CHANGE = frozenset({"m.room.member", "m.room.join_rules", "m.room.history_visibility"})
"""State events after which others may read in a room."""

FetchMembers = Callable[[RoomId], Awaitable["Members"]]


@dataclass(frozen=True, slots=True)
class Members:
    """The members of a room: display names of those who joined, and who is invited.

    `is_closed`: nobody else can read there without being invited by one of them.
    """

    joined: Mapping[UserId, str | None]
    invited: frozenset[UserId]
    is_closed: bool

    def people(self, service_users: frozenset[UserId]) -> frozenset[UserId]:
        """Joined and invited members besides the services. Only service users of our own server are none of
        the people, whatever the room's state claims."""
        return frozenset((self.joined.keys() | self.invited) - service_users)


@dataclass(frozen=True, slots=True)
class Room:
    """A room as one service sees it."""

    room_id: RoomId
    members: Members
    service_users: frozenset[UserId]

    @property
    def only_person(self) -> UserId | None:
        """The one person with whom this server's services are alone; None in every other room.

        An invited person counts, since they may read on once they join. In a room that others may join or
        read as they like nobody is alone.
        """
        people = self.members.people(self.service_users)
        if len(people) != 1 or not self.members.is_closed:
            return None
        (person,) = people
        return person if person in self.members.joined else None

    def is_only_for(self, user: UserId) -> bool:
        """Whether nobody but this person, joined or still invited, can read what we write here."""
        return self.members.is_closed and self.members.people(self.service_users) == {user}

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
        """Takes note of an event of a room: what changes who may read makes what was read stale."""
        if event["type"] in READERS_CHANGE:
            room_id = RoomId(event["room_id"])
            self._remembered.pop(room_id, None)
            if room_id in self._changes:
                self._changes[room_id] += 1
