"""Copies a wallet's database from SQLite to PostgreSQL, whole, and proves that both hold the same.

The source is opened for this process alone, so nobody writes to it or even has it open meanwhile, and it is
only read. All rows reach the target in one transaction, which is committed after every table's rows were read
back and found equal; a crash before that leaves the target empty, and the copy can be begun again.

What it refuses: a source that somebody has open or whose tables it does not all know, a target that holds
anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from asyncpg import PostgresError
from sqlalchemy import (
    Column,
    Row,
    String,
    Table,
    collate,
    delete,
    event,
    func,
    inspect,
    literal,
    select,
    text,
    tuple_,
)
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from appservices.chassis import tables as chassis_tables
from appservices.chassis.database import Database, UnitOfWork, async_url
from appservices.chassis.migrations import migrate
from wallet_appservice.storage import metadata as wallet_tables
from wallet_appservice.storage.ledger_bulk import bulk_of
from wallet_appservice.storage.ledger_chain import ledger_chain
from wallet_appservice.storage.ledger_tables import ledger_head

PAGE_ROWS: Final = 5_000
VERSION_TABLE: Final = "alembic_version"
_ORDER_OF_BYTES: Final = {"sqlite": "BINARY", "postgresql": "C"}
# Migrations put one row into each of these.
_BEGUN: Final = {ledger_head.name: 1, ledger_chain.name: 1}


class MoveRefused(Exception):
    """Nothing was copied; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class CopiedTable:
    """A table that was copied. `digest` is the SHA-256 of its rows, the same on both sides."""

    name: str
    rows_count: int
    digest: str


def wallet_database_tables() -> list[Table]:
    """All tables of the wallet's database, those that others point to first."""
    # The modules with tables must be loaded; the imports of this one do so for the ledger only.
    from appservices.chassis.links import tables as link_tables  # noqa: F401
    from wallet_appservice.storage import (  # noqa: F401
        audit_tables,
        category_tables,
        clearing_tables,
        ledger_checkpoints,
        limit_tables,
        merchant_tables,
        payment_tables,
        proof_tables,
        red_packet_tables,
        refund_tables,
        request_tables,
        settings_tables,
    )

    return [*chassis_tables.metadata.sorted_tables, *wallet_tables.metadata.sorted_tables]


@asynccontextmanager
async def open_alone(url: str, *, folder: Path) -> AsyncIterator[Database]:
    """Opens an SQLite database that nobody else may open meanwhile, and takes it as it is.

    Raises MoveRefused when somebody has it open: a running service has, also while it is idle.
    """
    engine = create_async_engine(async_url(url, folder=folder), pool_size=1, max_overflow=0)
    event.listen(engine.sync_engine, "connect", _open_exclusively)
    event.listen(engine.sync_engine, "begin", _begin)
    database = Database(engine)
    try:
        try:
            async with database.read() as work:
                await work.execute(text("SELECT count(*) FROM sqlite_master"))
        except OperationalError as error:
            raise MoveRefused(
                "somebody has the SQLite database open: stop Weft (`weft down`) and whatever else uses it"
            ) from error
        yield database
    finally:
        await database.close()


async def move_database(
    source: Database, target: Database, *branches: Path, on_progress: Callable[[int, int], None]
) -> list[CopiedTable]:
    """Copies and compares; `branches` are the migrations of both.

    `on_progress` gets the rows done and the rows in all: each is copied and read back. Raises MoveRefused.
    """
    if target.is_sqlite:
        raise MoveRefused("the target must be PostgreSQL")
    tables = wallet_database_tables()
    async with source.read() as work:
        await _check_source(work, tables)
        total = 2 * sum([await _count(work, table) for table in tables])
    await _check_target(target, tables)
    try:
        await migrate(target, *branches)
        async with source.read() as reading, target.begin() as writing:
            copied = await _copy(reading, writing, tables, _Progress(on_progress, total))
            await _commit(writing)
            return copied
    except (DBAPIError, PostgresError) as error:
        words = str(getattr(error, "orig", error)).strip().partition("\n")[0]
        raise MoveRefused(f"PostgreSQL did not take it, and holds nothing of it: {words}") from error


async def _commit(writing: UnitOfWork) -> None:
    try:
        await writing.commit()
    except (DBAPIError, OSError) as error:
        raise MoveRefused(
            "the connection broke during the commit, so it is unknown whether PostgreSQL keeps the copy: "
            "make the target empty and begin again"
        ) from error


async def _check_source(work: UnitOfWork, tables: Sequence[Table]) -> None:
    found = set(await work.connection.run_sync(lambda connection: inspect(connection).get_table_names()))
    unknown = found - {table.name for table in tables} - {VERSION_TABLE}
    if unknown:
        raise MoveRefused(
            f"the SQLite database holds tables that are not the wallet's: {', '.join(sorted(unknown))}"
        )


async def _check_target(target: Database, tables: Sequence[Table]) -> None:
    """Nothing but what an earlier attempt may have left: the tables, without a row."""
    async with target.read() as work:
        found = set(await work.connection.run_sync(lambda connection: inspect(connection).get_table_names()))
        others = found - {table.name for table in tables} - {VERSION_TABLE}
        if others:
            raise MoveRefused(
                f"the target is not empty: it holds {', '.join(sorted(others)[:5])}; take another database"
            )
        for table in tables:
            if table.name in found:
                await _check_empty(work, table)


async def _check_empty(work: UnitOfWork, table: Table) -> None:
    if await _count(work, table) > _BEGUN.get(table.name, 0):
        raise MoveRefused(f"the target is not empty: its table {table.name} has rows")
    if table is ledger_head and (await work.execute(select(func.max(table.c.position)))).scalar_one():
        raise MoveRefused("the target is not empty: it holds a ledger")


async def _copy(
    reading: UnitOfWork, writing: UnitOfWork, tables: Sequence[Table], progress: _Progress
) -> list[CopiedTable]:
    names = ", ".join(table.name for table in tables)
    # A service that was started on the target too early waits here, and nothing comes between.
    await writing.execute(text(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE"))
    for table in tables:
        await _check_empty(writing, table)
        await writing.execute(delete(table))
    bulk = await bulk_of(writing.connection)
    copied = []
    for table in tables:
        digest = hashlib.sha256()
        rows_count = 0
        async for page in _pages(reading, table):
            await bulk.insert(table, [tuple(row) for row in page])
            _add_rows(digest, page)
            rows_count += len(page)
            progress.add(len(page))
        await _continue_numbers(reading, writing, table)
        copied.append(CopiedTable(table.name, rows_count, digest.hexdigest()))
    for table, written in zip(tables, copied, strict=True):
        digest = hashlib.sha256()
        rows_count = 0
        async for page in _pages(writing, table):
            _add_rows(digest, page)
            rows_count += len(page)
            progress.add(len(page))
        if (rows_count, digest.hexdigest()) != (written.rows_count, written.digest):
            raise MoveRefused(f"the rows of {table.name} read back differently, so nothing was kept")
    return copied


async def _pages(work: UnitOfWork, table: Table) -> AsyncIterator[Sequence[Row[Any]]]:
    """All rows in the order of the primary key."""
    keys = list(table.primary_key.columns)
    # SQLite compares bytes; a language's order, which PostgreSQL may have, is another one.
    collation = _ORDER_OF_BYTES[work.connection.dialect.name]
    in_order = [collate(key, collation) if _is_text(key) else key for key in keys]
    query = select(table).order_by(*in_order).limit(PAGE_ROWS)
    page = (await work.execute(query)).all()
    while page:
        yield page
        last = [literal(getattr(page[-1], key.name), key.type) for key in keys]
        page = (await work.execute(query.where(tuple_(*in_order) > tuple_(*last)))).all()


async def _continue_numbers(reading: UnitOfWork, writing: UnitOfWork, table: Table) -> None:
    """Numbers that the database gives go on behind the last one."""
    column = table.autoincrement_column
    if column is None:
        return
    last = (await reading.execute(select(func.max(column)))).scalar_one() or 0
    await writing.execute(
        text("SELECT setval(pg_get_serial_sequence(:table, :column), :last, :is_used)"),
        {"table": table.name, "column": column.name, "last": max(last, 1), "is_used": last > 0},
    )


def _is_text(column: Column[Any]) -> bool:
    return isinstance(column.type, String)


def _add_rows(digest: Any, page: Sequence[Row[Any]]) -> None:
    for row in page:
        digest.update(repr(tuple(row)).encode())


async def _count(work: UnitOfWork, table: Table) -> int:
    return int((await work.execute(select(func.count()).select_from(table))).scalar_one())


class _Progress:
    def __init__(self, report: Callable[[int, int], None], total: int) -> None:
        self._report = report
        self._total = total
        self._done = 0

    def add(self, rows: int) -> None:
        self._done += rows
        self._report(self._done, self._total)


def _open_exclusively(dbapi_connection: Any, _record: object) -> None:
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    # Before anything is read: in this mode even an idle connection of somebody else is in the way.
    for pragma in ("busy_timeout = 0", "locking_mode = EXCLUSIVE"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Any) -> None:
    # A write lock, though nothing is written: it is what makes the file this process's own.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
