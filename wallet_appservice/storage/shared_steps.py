"""Many callers' small steps on the rows of one table, committed together.

A step reads one row, decides by a pure function, and changes it or not. One writer takes all steps that wait
and does them as one transaction, in the order of arrival, as the ledger does with transfers: a commit for
each step would cost more than all else that a popular shop's order costs. Rows are locked while they are
decided on, so that several processes may do this with one table.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import asyncpg
from sqlalchemy import Table, text
from sqlalchemy.exc import IntegrityError

from appservices.chassis.database import Database, Write
from wallet_appservice.ledger.submissions import LedgerUnavailable
from wallet_appservice.storage.database_errors import is_passing
from wallet_appservice.storage.ledger_bulk import bulk_of

STEPS_MAX: Final = 500
"""In one transaction."""
WAITING_MAX: Final = 10_000
ATTEMPTS_MAX: Final = 5
RETRY_PAUSE_SECONDS: Final = 0.05
_BEGIN: Final = text("SELECT 1")

Row = TypeVar("Row")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Decided(Generic[Row]):
    """What a step comes to: the row as it is after it, whether that is a change, and writes to go with it."""

    row: Row | None
    changed: bool = False
    writes: Sequence[Write] = ()
    answer: Any = None


Decide = Callable[[Row | None], Decided[Row]]
"""Decides on a row, None where there is none. Pure and quick; it may be called several times."""


@dataclass(slots=True)
class _Waiting(Generic[Row]):
    id: str
    decide: Decide[Row]
    answer: asyncio.Future[Decided[Row]]
    decided: Decided[Row] | None = None


class SharedSteps(Generic[Row]):
    """The steps of one table in this process. To be started and stopped as the ledger is."""

    def __init__(
        self,
        database: Database,
        table: Table,
        *,
        read_row: Callable[[Any], Row],
        values_of: Callable[[Row], tuple[Any, ...]],
        on_commit: Callable[[], None] = lambda: None,
    ) -> None:
        """`values_of` gives a row's values in the order of the table's columns, of which the first is its
        key, a ledger id."""
        self._database = database
        self._table = table
        self._read_row = read_row
        self._values_of = values_of
        self._on_commit = on_commit
        self._queue: asyncio.Queue[_Waiting[Row] | None] = asyncio.Queue(WAITING_MAX)
        self._writer: asyncio.Task[None] | None = None

    async def __aenter__(self) -> SharedSteps[Row]:
        self._writer = asyncio.create_task(self._write(), name=f"steps of {self._table.name}")
        return self

    async def __aexit__(self, *_exception: object) -> None:
        if self._writer is not None:
            await self._queue.put(None)
            await asyncio.shield(self._writer)
            self._writer = None

    async def step(self, id: str, decide: Decide[Row]) -> Decided[Row]:
        """Answers once what was decided is durable. Raises LedgerUnavailable."""
        if self._writer is None or self._writer.done():
            raise LedgerUnavailable("the wallet is stopping")
        waiting = _Waiting(id, decide, asyncio.get_running_loop().create_future())
        await self._queue.put(waiting)
        return await waiting.answer

    async def _write(self) -> None:
        ended = False
        while not ended:
            first = await self._queue.get()
            batch: list[_Waiting[Row]] = []
            while first is not None:
                batch.append(first)
                if self._queue.empty() or len(batch) >= STEPS_MAX:
                    break
                first = self._queue.get_nowait()
            ended = first is None
            if batch:
                await self._apply(batch)
        while not self._queue.empty():
            left = self._queue.get_nowait()
            if left is not None:
                _fail(left, LedgerUnavailable("the wallet is stopping"))

    async def _apply(self, batch: Sequence[_Waiting[Row]]) -> None:
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                await self._attempt(batch)
            except Exception as error:
                if _is_taken(error) and attempt == 1:
                    # A row that another process made meanwhile is there when we look again.
                    continue
                if is_passing(error) and attempt < ATTEMPTS_MAX:
                    await asyncio.sleep(RETRY_PAUSE_SECONDS * 2 ** (attempt - 1))
                    continue
                if len(batch) > 1 and not is_passing(error):
                    middle = len(batch) // 2
                    await self._apply(batch[:middle])
                    await self._apply(batch[middle:])
                    return
                logger.error("%d steps failed", len(batch), exc_info=error)
                for waiting in batch:
                    _fail(waiting, LedgerUnavailable("the database did not take it; ask again"))
                return
            break
        for waiting in batch:
            if not waiting.answer.done() and waiting.decided is not None:
                waiting.answer.set_result(waiting.decided)

    async def _attempt(self, batch: Sequence[_Waiting[Row]]) -> None:
        columns = self._table.columns.keys()
        key = columns[0]
        async with self._database.begin() as work:
            await work.execute(_BEGIN)
            bulk = await bulk_of(work.connection)
            found = await bulk.find(self._table, key, {waiting.id for waiting in batch}, lock=True)
            rows: dict[str, Row | None] = {getattr(row, key): self._read_row(row) for row in found}
            stored = set(rows)
            changed: dict[str, Row] = {}
            writes: list[Write] = []
            for waiting in batch:
                decided = waiting.decided = waiting.decide(rows.get(waiting.id))
                writes += decided.writes
                if decided.changed and decided.row is not None:
                    rows[waiting.id] = changed[waiting.id] = decided.row
            if not changed and not writes:
                return
            await bulk.insert(
                self._table, [self._values_of(row) for id, row in changed.items() if id not in stored]
            )
            await bulk.update(
                self._table, columns, [self._values_of(row) for id, row in changed.items() if id in stored]
            )
            await work.apply(writes)
            await work.commit()
        if writes:
            self._on_commit()


def _is_taken(error: Exception) -> bool:
    """Whether a row of that key was there already, as either driver or SQLAlchemy says it."""
    return isinstance(error, IntegrityError | asyncpg.UniqueViolationError | sqlite3.IntegrityError)


def _fail(waiting: _Waiting[Any], error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
