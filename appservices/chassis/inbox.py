"""The inbox: events from the homeserver, stored before they are answered for, each applied once and in order.

The order is a room's; reactions keep only that of their sender in the room.

An event's effects and the mark that it is done are one database transaction. A handler that fails is tried
again with growing pauses while later events of its room wait; after the last try the event is put aside as
failed and the room goes on. An encrypted event whose key has not come is parked until keys arrive.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, bindparam, delete, insert, select, update

from appservices.chassis.clock import Clock
from appservices.chassis.database import Database, Write
from appservices.chassis.stored_queue import WAITING, StoredQueue
from appservices.chassis.tables import inbox
from appservices.vocabulary.ids import EventId, RoomId

logger = logging.getLogger(__name__)

ROOMS_AT_ONCE_MAX = 32
POLL_SECONDS = 5.0
RETRY_PAUSES_SECONDS = (0.5, 2.0, 5.0, 15.0, 30.0, 60.0)
PARKED_MS_MAX = 24 * 3600 * 1000
KEPT_MS = 30 * 24 * 3600 * 1000
PROBLEM_LENGTH_MAX = 500

DONE, PARKED, FAILED = "done", "parked", "failed"

_SET_STATE = (
    update(inbox)
    .where(inbox.c.position == bindparam("at_position"))
    .values(state=bindparam("new_state"), event=bindparam("new_event"), problem=bindparam("new_problem"))
)


class KeyNotYetHere(Exception):
    """An encrypted event can't be read yet; it is parked until keys arrive."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as the homeserver sent it. `done` marks it as applied; it belongs to its effects."""

    position: int
    room_id: RoomId
    event_id: EventId
    event: Mapping[str, Any]
    received_at_ms: int

    @property
    def done(self) -> Write:
        return _mark(self.position, DONE)


EventHandler = Callable[[StoredEvent], Awaitable[Sequence[Write] | None]]
"""Returns the event's effects, to be committed with its mark; None if it has committed both already."""


class Inbox:
    """Stores events and hands each to `handle`, in order per room."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        handle: EventHandler,
        on_effects: Callable[[], None],
        on_given_up: Callable[[StoredEvent], Awaitable[Sequence[Write]]],
    ) -> None:
        self._database = database
        self._clock = clock
        self._handle = handle
        self._on_effects = on_effects
        self._on_given_up = on_given_up
        self._queue: StoredQueue[StoredEvent] = StoredQueue(
            database,
            inbox,
            read_row=_stored_event,
            work=self._apply,
            purge=self._purge,
            finished_state=DONE,
            parallel_max=ROOMS_AT_ONCE_MAX,
            poll_seconds=POLL_SECONDS,
        )

    async def accept(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Stores a transaction's events, except those that are known already; returns when they are durable.

        Events are known by their own ids. Transaction ids must not count: Synapse on SQLite begins again
        at 1 when it starts, and new events would be taken for old ones.
        """
        now_ms = self._clock()
        by_id = {str(event["event_id"]): event for event in events}
        async with self._database.begin() as work:
            known = await work.execute(select(inbox.c.event_id).where(inbox.c.event_id.in_(list(by_id))))
            known_ids = set(known.scalars())
            rows = [
                {
                    "event_id": event_id,
                    "room_id": event["room_id"],
                    "event": json.dumps(event, separators=(",", ":")),
                    "state": WAITING,
                    "received_at_ms": now_ms,
                    "problem": "",
                }
                for event_id, event in by_id.items()
                if event_id not in known_ids
            ]
            if rows:
                await work.execute(insert(inbox), rows)
                work.after_commit(self._queue.wake)
                await work.commit()

    async def retry_parked(self) -> None:
        """To be called when new keys have arrived: parked events are tried again."""
        async with self._database.begin() as work:
            changed = await work.execute(update(inbox).where(inbox.c.state == PARKED).values(state=WAITING))
            if changed.rowcount:
                work.after_commit(self._queue.wake)
                await work.commit()

    async def counts(self) -> dict[str, int]:
        """How many events are waiting, parked and failed."""
        return await self._queue.counts()

    async def run(self) -> None:
        """Applies what waits, until cancelled."""
        await self._queue.run()

    async def _apply(self, stored: StoredEvent) -> None:
        for pause_seconds in (*RETRY_PAUSES_SECONDS, None):
            try:
                writes = await self._handle(stored)
                if writes is not None:
                    await self._commit([*writes, stored.done])
                self._on_effects()
                return
            except KeyNotYetHere:
                await self._park(stored)
                return
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"[:PROBLEM_LENGTH_MAX]
                if pause_seconds is None:
                    logger.exception("event %s could not be applied and is put aside", stored.event_id)
                    failed = _mark(
                        stored.position, FAILED, event=json.dumps(dict(stored.event)), problem=problem
                    )
                    await self._commit([*await self._on_given_up(stored), failed])
                    self._on_effects()
                else:
                    logger.warning(
                        "event %s failed (%s); next try in %s s", stored.event_id, problem, pause_seconds
                    )
                    await asyncio.sleep(pause_seconds)

    async def _park(self, stored: StoredEvent) -> None:
        too_old = self._clock() - stored.received_at_ms > PARKED_MS_MAX
        await self._commit(
            [
                _mark(stored.position, FAILED, problem="its key never came")
                if too_old
                else _mark(stored.position, PARKED, event=json.dumps(dict(stored.event)))
            ]
        )

    async def _commit(self, writes: Sequence[Write]) -> None:
        async with self._database.begin() as work:
            await work.apply(writes)
            await work.commit()

    async def _purge(self) -> None:
        before_ms = self._clock() - KEPT_MS
        async with self._database.begin() as work:
            await work.execute(delete(inbox).where(inbox.c.state == DONE, inbox.c.received_at_ms < before_ms))
            await work.commit()


def _stored_event(row: Row[Any]) -> tuple[str, StoredEvent]:
    """The event and what it keeps its order in: its room, and for a reaction only what the same person does
    there by reactions, so that many who tap at once don't wait for one another."""
    stored = StoredEvent(
        position=row.position,
        room_id=RoomId(row.room_id),
        event_id=EventId(row.event_id),
        event=json.loads(row.event),
        received_at_ms=row.received_at_ms,
    )
    if stored.event.get("type") == "m.reaction":
        return f"{stored.room_id} {stored.event.get('sender')}", stored
    return stored.room_id, stored


def _mark(position: int, state: str, *, event: str = "", problem: str = "") -> Write:
    return Write(
        _SET_STATE,
        {"at_position": position, "new_state": state, "new_event": event, "new_problem": problem},
    )
