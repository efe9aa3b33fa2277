"""Works through the rows of a table that wait: under the inbox and the outbox.

A row is worked on once at a time, in order per key. What is done with it, its new state included, is its
worker's; a row that still waits afterwards is taken again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from sqlalchemy import Row, Table, func, select

from appservices.chassis.database import Database
from appservices.chassis.keyed_queue import KeyedQueue

LOADED_MAX = 1_000
PURGE_EVERY_SECONDS = 3600.0
WAITING = "waiting"

Item = TypeVar("Item")


class StoredQueue(Generic[Item]):
    """The waiting rows of one table, which has columns `position` and `state`."""

    def __init__(
        self,
        database: Database,
        table: Table,
        *,
        read_row: Callable[[Row[Any]], tuple[str, Item]],
        work: Callable[[Item], Awaitable[None]],
        purge: Callable[[], Awaitable[None]],
        finished_state: str,
        parallel_max: int,
        poll_seconds: float,
    ) -> None:
        """`read_row` gives a row's key and item; `purge` is called now and then; rows of `finished_state`
        are not counted."""
        self._database = database
        self._table = table
        self._read_row = read_row
        self._work = work
        self._purge = purge
        self._finished_state = finished_state
        self._poll_seconds = poll_seconds
        self._queue: KeyedQueue[str, tuple[int, Item]] = KeyedQueue(self._work_on, parallel_max=parallel_max)
        self._loaded: set[int] = set()
        self._worked_on: set[int] = set()
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """To be called after a commit that may have left rows waiting."""
        self._wake.set()

    async def counts(self) -> dict[str, int]:
        """How many rows there are of each state but the finished one."""
        state = self._table.c.state
        async with self._database.read() as work:
            rows = await work.execute(
                select(state, func.count().label("rows")).where(state != self._finished_state).group_by(state)
            )
            return {row.state: row.rows for row in rows}

    async def run(self) -> None:
        """Works until cancelled. Looks on its own too, since other processes write the table."""
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
                    await asyncio.wait_for(self._wake.wait(), self._poll_seconds)
        finally:
            await self._queue.close()

    async def _load(self) -> None:
        # A row whose work ends while we read may be read as still waiting: it counts as loaded until the
        # next time, or it would be worked on twice.
        self._loaded -= self._worked_on
        self._worked_on.clear()
        columns = self._table.c
        async with self._database.read() as work:
            rows = await work.execute(
                select(self._table)
                .where(columns.state == WAITING)
                .order_by(columns.position)
                .limit(LOADED_MAX)
            )
            for row in rows:
                if row.position not in self._loaded and self._queue.size < LOADED_MAX:
                    self._loaded.add(row.position)
                    key, item = self._read_row(row)
                    self._queue.put(key, (row.position, item))

    async def _work_on(self, loaded: tuple[int, Item]) -> None:
        position, item = loaded
        try:
            await self._work(item)
        finally:
            self._worked_on.add(position)
            if self._queue.size == LOADED_MAX // 2:
                # More may wait than fitted in.
                self._wake.set()
