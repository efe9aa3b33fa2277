"""The outbox: events that wait to be sent, written in the same database transaction as what they tell of.

The outbox id is the Matrix transaction id, so that sending again after a crash can't post twice. Events for
one destination go in order; a homeserver that is away only delays them.

A message may have new versions (edits, `m.replace`). Of several versions that wait only the last is sent, so
a message that changes often costs its room few events.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from appservices.chassis.clock import Clock
from appservices.chassis.database import Database, Write
from appservices.chassis.homeserver import MatrixRefused
from appservices.chassis.stored_queue import WAITING, StoredQueue
from appservices.chassis.tables import outbox
from appservices.vocabulary.ids import EventId, OutboxId, RoomId, UserId

logger = logging.getLogger(__name__)

DESTINATIONS_AT_ONCE_MAX = 16
POLL_SECONDS = 1.0
RETRY_PAUSE_SECONDS_MAX = 60.0
KEPT_MS = 60 * 24 * 3600 * 1000
"""How long a sent event is known by what it is about; nothing that people react to stays open longer."""
PROBLEM_LENGTH_MAX = 500
SUBJECT_PAUSES_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8)

SENT, FAILED = "sent", "failed"
REDACTION = "m.room.redaction"
"""The event type of what takes a message back: `replaces` names the message, with all its versions."""

_INSERT = insert(outbox)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An event to be sent: to a room, or to a user wherever the service talks to them alone."""

    outbox_id: OutboxId
    content: Mapping[str, Any]
    room_id: RoomId | None = None
    to_user: UserId | None = None
    event_type: str = "m.room.message"
    subject: str = ""
    """What it is about, `kind:id`, for whoever reacts or replies to it."""
    replaces: OutboxId | None = None
    """The message that this is a new version of; `content` is then the whole new content."""

    def write(self, *, now_ms: int) -> Write:
        """The outbox row, to be committed with what it tells of."""
        if (self.room_id is None) == (self.to_user is None):
            raise ValueError("an outgoing event has either a room or a user as its destination")
        return Write(
            _INSERT,
            {
                "outbox_id": self.outbox_id,
                "room_id": self.room_id,
                "to_user": self.to_user,
                "event_type": self.event_type,
                "content": json.dumps(self.content, separators=(",", ":")),
                "state": WAITING,
                "created_at_ms": now_ms,
                "subject": self.subject,
                "replaces": self.replaces,
                "problem": "",
            },
        )


@dataclass(frozen=True, slots=True)
class Sent:
    """Where an event was sent, and as which."""

    room_id: RoomId
    event_id: EventId


SendEvent = Callable[[Outgoing], Awaitable[Sent]]
"""Sends one event with its outbox id as transaction id. Raises MatrixRefused or MatrixUnavailable."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    position: int
    outgoing: Outgoing


class FirstVersionWaits(Exception):
    """A new version of a message that is still to be sent, elsewhere in the queue; it is tried again."""


class Outbox:
    """Sends what waits in the outbox of one service."""

    def __init__(
        self, database: Database, *, clock: Clock, send: SendEvent, kept_ms: int | None = KEPT_MS
    ) -> None:
        """`kept_ms` is how long sent events are known, None for ever."""
        self._database = database
        self._kept_ms = kept_ms
        self._clock = clock
        self._send = send
        self._queue: StoredQueue[_Waiting] = StoredQueue(
            database,
            outbox,
            read_row=_waiting,
            work=self._deliver,
            purge=self._purge,
            finished_state=SENT,
            parallel_max=DESTINATIONS_AT_ONCE_MAX,
            poll_seconds=POLL_SECONDS,
        )

    def wake(self) -> None:
        """To be called after a commit that may have written outbox rows."""
        self._queue.wake()

    async def knows(self, outbox_id: OutboxId) -> bool:
        """Whether an event of that id was put in here within the last KEPT_MS."""
        async with self._database.read() as work:
            found = await work.execute(select(outbox.c.position).where(outbox.c.outbox_id == outbox_id))
            return found.first() is not None

    async def subject_of(self, event_id: EventId) -> str | None:
        """What one of our events is about; "" when about nothing, None when it is not known as ours.

        An event can be reacted to before it is recorded as sent, so while something is being sent this
        looks again for a moment.
        """
        for pause_seconds in SUBJECT_PAUSES_SECONDS:
            subject, is_sending = await self._look_up(event_id)
            if subject is not None or not is_sending:
                return subject
            await asyncio.sleep(pause_seconds)
        return None

    async def counts(self) -> dict[str, int]:
        """How many events are waiting and how many were refused for good."""
        return await self._queue.counts()

    async def run(self) -> None:
        """Sends until cancelled."""
        await self._queue.run()

    async def _deliver(self, waiting: _Waiting) -> None:
        pause_seconds = 1.0
        while True:
            try:
                outgoing = await self._resolved(waiting)
                if outgoing is None:
                    await self._record(waiting, state=SENT)
                else:
                    await self._record(waiting, state=SENT, sent=await self._send(outgoing))
                return
            except MatrixRefused as refused:
                logger.warning("event %s was refused: %s", waiting.outgoing.outbox_id, refused)
                await self._record(waiting, state=FAILED, problem=str(refused))
                return
            except Exception as error:
                logger.warning(
                    "event %s not sent yet (%s); next try in %s s",
                    waiting.outgoing.outbox_id,
                    f"{type(error).__name__}: {error}"[:PROBLEM_LENGTH_MAX],
                    pause_seconds,
                )
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, RETRY_PAUSE_SECONDS_MAX)

    async def _resolved(self, waiting: _Waiting) -> Outgoing | None:
        """What is to be sent: for a new version, an edit of the event that the first one became.

        None when it need not be sent, since a later version waits or there is nothing to be replaced.
        """
        outgoing = waiting.outgoing
        if outgoing.replaces is None:
            return outgoing
        async with self._database.read() as work:
            later = await work.execute(
                select(outbox.c.position).where(
                    outbox.c.replaces == outgoing.replaces,
                    outbox.c.position > waiting.position,
                    outbox.c.state == WAITING,
                )
            )
            if later.first() is not None:
                return None
            found = await work.execute(select(outbox).where(outbox.c.outbox_id == outgoing.replaces))
            first = found.first()
            edits = await work.execute(
                select(outbox.c.event_id).where(
                    outbox.c.replaces == outgoing.replaces,
                    outbox.c.position < waiting.position,
                    outbox.c.event_type != REDACTION,
                    outbox.c.event_id.is_not(None),
                )
            )
            versions = [str(event_id) for event_id in edits.scalars()]
        if first is None or first.state == FAILED:
            return None
        if first.event_id is None or first.sent_room_id is None:
            raise FirstVersionWaits(f"{outgoing.replaces} has not been sent yet")
        if outgoing.event_type == REDACTION:
            content: dict[str, Any] = {"redacts": [*versions, first.event_id]}
        else:
            content = _edit(outgoing.content, EventId(first.event_id))
        return replace(
            outgoing,
            content=content,
            room_id=RoomId(first.sent_room_id),
            to_user=None,
        )

    async def _look_up(self, event_id: EventId) -> tuple[str | None, bool]:
        async with self._database.read() as work:
            found = await work.execute(select(outbox.c.subject).where(outbox.c.event_id == event_id))
            row = found.first()
            if row is not None:
                return str(row.subject), False
            waiting = await work.execute(select(outbox.c.position).where(outbox.c.state == WAITING).limit(1))
            return None, waiting.first() is not None

    async def _record(
        self, waiting: _Waiting, *, state: str, sent: Sent | None = None, problem: str = ""
    ) -> None:
        async with self._database.begin() as work:
            await work.execute(
                update(outbox)
                .where(outbox.c.position == waiting.position)
                .values(
                    state=state,
                    event_id=sent.event_id if sent else None,
                    sent_room_id=sent.room_id if sent else None,
                    problem=problem[:PROBLEM_LENGTH_MAX],
                )
            )
            await work.commit()

    async def _purge(self) -> None:
        if self._kept_ms is None:
            return
        async with self._database.begin() as work:
            await work.execute(
                delete(outbox).where(
                    outbox.c.state == SENT, outbox.c.created_at_ms < self._clock() - self._kept_ms
                )
            )
            await work.commit()


def _waiting(row: Row[Any]) -> tuple[str, _Waiting]:
    outgoing = Outgoing(
        outbox_id=OutboxId(row.outbox_id),
        content=json.loads(row.content),
        room_id=RoomId(row.room_id) if row.room_id else None,
        to_user=UserId(row.to_user) if row.to_user else None,
        event_type=row.event_type,
        subject=row.subject,
        replaces=OutboxId(row.replaces) if row.replaces else None,
    )
    return row.room_id or row.to_user, _Waiting(row.position, outgoing)


def _edit(content: Mapping[str, Any], event_id: EventId) -> dict[str, Any]:
    """The content as a new version of the event (Matrix spec, "Event replacements"): whom it mentions is not
    told again, and what it answered stays as it was."""
    new = {name: value for name, value in content.items() if name != "m.relates_to"}
    return {
        **new,
        "body": f"* {new.get('body', '')}",
        "m.mentions": {},
        "m.new_content": new,
        "m.relates_to": {"rel_type": "m.replace", "event_id": event_id},
    }
