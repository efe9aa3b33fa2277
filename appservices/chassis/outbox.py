"""The outbox: events that wait to be sent, written in the same database transaction as what they tell of.

The outbox id is the Matrix transaction id, so that sending again after a crash can't post twice. Events for
one destination go in order; a homeserver that is away only delays them.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from appservices.chassis.clock import Clock
from appservices.chassis.database import Database, Write
from appservices.chassis.homeserver import MatrixRefused
from appservices.chassis.keyed_queue import KeyedQueue
from appservices.chassis.tables import outbox
from appservices.vocabulary.ids import EventId, OutboxId, RoomId, UserId

logger = logging.getLogger(__name__)

LOADED_MAX = 500
DESTINATIONS_AT_ONCE_MAX = 16
POLL_SECONDS = 1.0
RETRY_PAUSE_SECONDS_MAX = 60.0
KEPT_MS = 7 * 24 * 3600 * 1000
PURGE_EVERY_SECONDS = 3600.0
PROBLEM_LENGTH_MAX = 500

WAITING, SENT, FAILED = "waiting", "sent", "failed"

_INSERT = insert(outbox)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An event to be sent: to a room, or to a user wherever the service talks to them alone."""

    outbox_id: OutboxId
    content: Mapping[str, Any]
    room_id: RoomId | None = None
    to_user: UserId | None = None
    event_type: str = "m.room.message"

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
                "problem": "",
            },
        )


SendEvent = Callable[[Outgoing], Awaitable[EventId]]
"""Sends one event with its outbox id as transaction id. Raises MatrixRefused or MatrixUnavailable."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    position: int
    outgoing: Outgoing


class Outbox:
    """Sends what waits in the outbox of one service."""

    def __init__(self, database: Database, *, clock: Clock, send: SendEvent) -> None:
        self._database = database
        self._clock = clock
        self._send = send
        self._queue: KeyedQueue[str, _Waiting] = KeyedQueue(
            self._deliver, parallel_max=DESTINATIONS_AT_ONCE_MAX
        )
        self._loaded: set[int] = set()
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """To be called after a commit that may have written outbox rows."""
        self._wake.set()

    async def knows(self, outbox_id: OutboxId) -> bool:
        """Whether an event of that id was put in here within the last KEPT_MS."""
        async with self._database.read() as work:
            found = await work.execute(select(outbox.c.position).where(outbox.c.outbox_id == outbox_id))
            return found.first() is not None

    async def counts(self) -> dict[str, int]:
        """How many events are waiting and how many were refused for good."""
        async with self._database.read() as work:
            rows = await work.execute(
                select(outbox.c.state, func.count().label("events"))
                .where(outbox.c.state != SENT)
                .group_by(outbox.c.state)
            )
            return {row.state: row.events for row in rows}

    async def run(self) -> None:
        """Sends until cancelled. Looks on its own each second, since other processes write here too."""
        loop = asyncio.get_running_loop()
        purge_at = loop.time()
        try:
            while True:
                self._wake.clear()
                if loop.time() >= purge_at:
                    purge_at = loop.time() + PURGE_EVERY_SECONDS
                    await self._purge()
                await self._load()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), POLL_SECONDS)
        finally:
            await self._queue.close()

    async def _load(self) -> None:
        async with self._database.read() as work:
            rows = await work.execute(
                select(outbox).where(outbox.c.state == WAITING).order_by(outbox.c.position).limit(LOADED_MAX)
            )
            for row in rows:
                if row.position in self._loaded or self._queue.size >= LOADED_MAX:
                    continue
                self._loaded.add(row.position)
                outgoing = Outgoing(
                    outbox_id=OutboxId(row.outbox_id),
                    content=json.loads(row.content),
                    room_id=RoomId(row.room_id) if row.room_id else None,
                    to_user=UserId(row.to_user) if row.to_user else None,
                    event_type=row.event_type,
                )
                self._queue.put(row.room_id or row.to_user, _Waiting(row.position, outgoing))

    async def _deliver(self, waiting: _Waiting) -> None:
        pause_seconds = 1.0
        try:
            while True:
                try:
                    event_id = await self._send(waiting.outgoing)
                    await self._record(waiting, state=SENT, event_id=event_id)
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
        finally:
            self._loaded.discard(waiting.position)

    async def _record(
        self, waiting: _Waiting, *, state: str, event_id: EventId | None = None, problem: str = ""
    ) -> None:
        async with self._database.begin() as work:
            await work.execute(
                update(outbox)
                .where(outbox.c.position == waiting.position)
                .values(state=state, event_id=event_id, problem=problem[:PROBLEM_LENGTH_MAX])
            )
            await work.commit()

    async def _purge(self) -> None:
        async with self._database.begin() as work:
            await work.execute(
                delete(outbox).where(outbox.c.state == SENT, outbox.c.created_at_ms < self._clock() - KEPT_MS)
            )
            await work.commit()
