"""The database of a service: SQLite or PostgreSQL through SQLAlchemy 2 async, one code path.

A unit of work is one database transaction. It writes nothing unless `commit` is called, and what is to
happen after the commit (waking a sender) is registered on it. On SQLite every writing transaction begins
with BEGIN IMMEDIATE: a read-modify-write under a deferred transaction loses updates.

On PostgreSQL the driver is told of beginning and end itself, while SQLAlchemy believes in autocommit: its own
way to a BEGIN takes longer than PostgreSQL does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import CursorResult, Executable, Insert, Table, UpdateBase, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.sql import visitors

logger = logging.getLogger(__name__)

SQLITE_BUSY_TIMEOUT_SECONDS = 30
SQLITE_CACHE_KB = 64 * 1024
"""At most, of each connection. SQLite's own 2 MB hold no index of a wallet that has run for years."""
SQLITE_LOG_PAGES = 16_000
"""Of the write-ahead log (64 MB), before they are copied into the database file. A page that changes again
until then is copied once; SQLite's own 1,000 are a few batches of a busy ledger."""
POOL_SIZE = 8
STALE_CONNECTIONS_MAX = 20
"""As many as the pool and its overflow may hold since before PostgreSQL was started anew."""
ROLL_BACK_SECONDS_MAX = 2.0
"""Then the connection is given up, and PostgreSQL rolls back when it notices."""
CLOSE_SECONDS_MAX = 5.0
_READ_ONLY = "weft_read_only"
_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}


class DatabaseUrlInvalid(ValueError):
    """The URL names no database that Weft can use; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Write:
    """A statement to be executed inside somebody else's transaction, as an effect of what they decide.

    Keep the statement as a constant of its module: writes of the very same statement object become one
    bulk execution.
    """

    statement: Executable
    parameters: Mapping[str, Any]


class UnitOfWork:
    """One open database transaction. Leaving it without `commit` rolls everything back."""

    def __init__(
        self, connection: AsyncConnection, driver: asyncpg.Connection[asyncpg.Record] | None = None
    ) -> None:
        """`driver` is PostgreSQL's, in whose transaction this is."""
        self.connection = connection
        self.driver = driver
        self.committed = False
        self._after_commit: list[Callable[[], None]] = []

    async def execute(
        self, statement: Executable, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    ) -> CursorResult[Any]:
        return await self.connection.execute(statement, parameters)

    async def apply(self, writes: Sequence[Write]) -> None:
        """Executes the writes as if one after another, equal statements in bulk.

        A write joins an earlier bulk of its statement only when nothing in between touches the same
        tables or is what its foreign keys point to, so the outcome is that of the given order.
        """
        for bulk in _bulks(writes):
            await self.connection.execute(bulk.statement, bulk.parameters)

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Registers what to call once the commit is durable; it must not fail."""
        self._after_commit.append(callback)

    async def commit(self) -> None:
        if self.driver is None:
            await self.connection.commit()
        elif await _tell(self.driver, "COMMIT") != "COMMIT":
            # What PostgreSQL says when a statement before has failed.
            raise OperationalError("COMMIT", None, RuntimeError("the transaction was rolled back"))
        self.committed = True
        for callback in self._after_commit:
            callback()


class Database:
    """An engine and its two ways in: `begin` to write, `read` to look."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        # SQLite has one writer; queueing for it here is fair, its busy handler is not.
        self._writer = asyncio.Lock() if self.is_sqlite else None

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[UnitOfWork]:
        if self._writer is None:
            async with self._postgresql_work("BEGIN") as work:
                yield work
            return
        async with self._writer, self.engine.connect() as connection:
            await connection.begin()
            work = UnitOfWork(connection)
            yield work
            if not work.committed:
                await connection.rollback()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[UnitOfWork]:
        """A consistent view that can't be committed and takes no write lock."""
        if not self.is_sqlite:
            # PostgreSQL's usual level would show each statement another moment.
            async with self._postgresql_work("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") as work:
                yield work
            return
        async with self.engine.connect() as connection:
            await connection.execution_options(**{_READ_ONLY: True})
            await connection.begin()
            yield UnitOfWork(connection)
            await connection.rollback()

    @asynccontextmanager
    async def _postgresql_work(self, beginning: str) -> AsyncIterator[UnitOfWork]:
        for left in range(STALE_CONNECTIONS_MAX, -1, -1):
            async with self.engine.connect() as connection:
                driver = await _driver_of(connection)
                work = UnitOfWork(connection, driver)
                try:
                    try:
                        await _tell(driver, beginning)
                    except OperationalError as error:
                        if not error.connection_invalidated or not left:
                            raise
                        # Lost while nobody used it. The pool makes a new one for it, or tells why not.
                        await connection.invalidate()
                        continue
                    yield work
                    return
                finally:
                    # Also when who waited for the beginning was cancelled: it may have begun.
                    if not work.committed and not connection.invalidated:
                        await _roll_back(connection, driver)

    async def close(self) -> None:
        """Closes all connections; a server that has gone silent is not waited for."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS_MAX):
                await self.engine.dispose()
        except TimeoutError:
            logger.warning("the database %s did not let its connections go", self.engine.url.database)


def open_database(url: str, *, folder: Path) -> Database:
    """Opens `sqlite:///name.db` (relative to the folder) or `postgresql://user@host/name`.

    Makes no connection yet. Raises DatabaseUrlInvalid when the URL is neither.
    """
    place = async_url(url, folder=folder)
    if make_url(place).get_backend_name() == "postgresql":
        return Database(create_async_engine(place, pool_size=POOL_SIZE, isolation_level="AUTOCOMMIT"))
    engine = create_async_engine(place, pool_size=POOL_SIZE)
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return Database(engine)


def async_url(url: str, *, folder: Path) -> str:
    """The URL with its asyncio driver and, for SQLite, an absolute path."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise DatabaseUrlInvalid(
            "a database is named by sqlite:///FILE or postgresql://USER@HOST/NAME"
        ) from error
    family = parsed.drivername.split("+")[0]
    if family not in _DRIVERS:
        raise DatabaseUrlInvalid(f"{family} is not a database that Weft can use: take sqlite or postgresql")
    parsed = parsed.set(drivername=_DRIVERS[family])
    if family == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise DatabaseUrlInvalid("an SQLite database needs a file: sqlite:///wallet.db")
        parsed = parsed.set(database=str(folder / parsed.database))
    return parsed.render_as_string(hide_password=False)


async def _driver_of(connection: AsyncConnection) -> asyncpg.Connection[asyncpg.Record]:
    driver = (await connection.get_raw_connection()).driver_connection
    assert isinstance(driver, asyncpg.Connection)
    return driver


async def _tell(driver: asyncpg.Connection[asyncpg.Record], statement: str) -> str:
    """Has a statement without parameters executed; errors are as SQLAlchemy tells them."""
    try:
        status: str = await driver.execute(statement)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise OperationalError(statement, None, error, connection_invalidated=driver.is_closed()) from error
    return status


async def _roll_back(connection: AsyncConnection, driver: asyncpg.Connection[asyncpg.Record]) -> None:
    """Ends what may have begun; a connection that can't do that goes to nobody else."""
    ended = False
    try:
        async with asyncio.timeout(ROLL_BACK_SECONDS_MAX):
            await driver.execute("ROLLBACK")
        ended = True
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        logger.warning("a transaction was left to the database to roll back: %r", error)
    finally:
        if not ended:
            await connection.invalidate()


def _prepare_sqlite(dbapi_connection: Any, _record: object) -> None:
    # The driver's own implicit BEGIN is switched off, so that _begin_sqlite decides.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    for pragma in (
        f"busy_timeout = {SQLITE_BUSY_TIMEOUT_SECONDS * 1000}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        f"cache_size = -{SQLITE_CACHE_KB}",
        f"wal_autocheckpoint = {SQLITE_LOG_PAGES}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    read_only = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


@dataclass(frozen=True, slots=True)
class _Bulk:
    """Writes of one statement object with the same parameter names."""

    statement: Executable
    names: frozenset[str]
    tables: frozenset[Table] | None
    """What the statement reads or writes; None when that can't be known, as in plain SQL text."""
    parameters: list[Mapping[str, Any]] = field(default_factory=list)

    def lets_pass(self, later: Executable, tables: frozenset[Table] | None) -> bool:
        """Whether a later statement may be executed before this bulk with the same outcome."""
        if self.tables is None or tables is None or self.tables & tables:
            return False
        if _points_to(tables, self.tables):
            return False
        return isinstance(later, Insert) or not _points_to(self.tables, tables)


def _bulks(writes: Sequence[Write]) -> list[_Bulk]:
    bulks: list[_Bulk] = []
    tables_of: dict[int, frozenset[Table] | None] = {}
    for write in writes:
        statement, names = write.statement, frozenset(write.parameters)
        if id(statement) not in tables_of:
            tables_of[id(statement)] = _tables(statement)
        tables = tables_of[id(statement)]
        home: _Bulk | None = None
        for bulk in reversed(bulks):
            if bulk.statement is statement and bulk.names == names:
                home = bulk
                break
            if not bulk.lets_pass(statement, tables):
                break
        if home is None:
            home = _Bulk(statement, names, tables)
            bulks.append(home)
        home.parameters.append(write.parameters)
    return bulks


def _tables(statement: Executable) -> frozenset[Table] | None:
    if not isinstance(statement, UpdateBase):
        return None
    elements = [statement.table, *visitors.iterate(statement)]
    return frozenset(element for element in elements if isinstance(element, Table))


def _points_to(sources: frozenset[Table], targets: frozenset[Table]) -> bool:
    return any(key.column.table in targets for table in sources for key in table.foreign_keys)
