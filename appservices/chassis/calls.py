"""What somebody asks of a service in a room, by a command or a reaction, and the means to answer it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from appservices.chassis.database import Write
from appservices.chassis.inbox import StoredEvent
from appservices.chassis.messages import notice
from appservices.chassis.outbox import Outgoing
from appservices.chassis.rooms import Room
from appservices.vocabulary.ids import EventId, OutboxId, RoomId, UserId, derived_id
from appservices.vocabulary.languages import _


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One event by which somebody asks for something. Answers are derived from it, so that the same event
    is answered once however often it reaches us."""

    event_id: EventId
    sender: UserId
    room: Room
    stored: StoredEvent
    service_user: UserId
    now_ms: int

    @property
    def is_private(self) -> bool:
        """Whether nobody but the sender and this server's services reads along."""
        return self.room.only_person == self.sender

    @property
    def answered(self) -> EventId:
        """The event that an answer in the room replies to."""
        return self.event_id

    def reply(self, text: str, *, formatted: str | None = None) -> Write:
        """An answer in the room, as a reply to the event."""
        content = notice(text, formatted=formatted, reply_to=self.answered)
        return self._outgoing("reply", content, room_id=self.room.room_id)

    def answer_privately(
        self,
        text: str,
        *,
        formatted: str | None = None,
        elsewhere: str | None = None,
    ) -> list[Write]:
        """An answer that only the sender may read: here when alone with them, else by direct message.

        In the second case `elsewhere` is what the room is told; nothing when it is empty.
        """
        if elsewhere is None:
            elsewhere = _("I have answered you in our direct room.")
        if self.is_private:
            return [self.reply(text, formatted=formatted)]
        direct = self._outgoing("direct", notice(text, formatted=formatted), to_user=self.sender)
        return [direct, self.reply(elsewhere)] if elsewhere else [direct]

    def _outgoing(
        self,
        purpose: str,
        content: dict[str, Any],
        *,
        room_id: RoomId | None = None,
        to_user: UserId | None = None,
    ) -> Write:
        outbox_id = OutboxId(derived_id(purpose, self.service_user, self.event_id))
        return Outgoing(outbox_id, content, room_id=room_id, to_user=to_user).write(now_ms=self.now_ms)
