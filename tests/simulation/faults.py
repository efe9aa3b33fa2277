"""What stands between a simulated process and its database, and goes wrong at a chosen statement.

The drivers' own connections are replaced by ones that count what is asked of them, below SQLAlchemy and below
the store, so nothing passes uncounted. A process that has died reaches its database by no statement any more;
whatever the code of the dead process then does, says or writes is without effect, as after `kill -9`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

import asyncpg
from sqlalchemy import event

from appservices.chassis.database import Database
from tests.postgres import Postgresql

Result = TypeVar("Result")

_STARTER: Final = ThreadPoolExecutor(1, "PostgreSQL's starter")
"""A server ends with the thread that started it, so that thread must outlive the event loop."""
FAIL_AS_DEADLOCK: Final = "DO $$ BEGIN RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01'; END $$"


class FaultKind(StrEnum):
    DEATH = "the process dies"
    BUSY = "the statement fails, and would not fail again"
    AWAY = "all statements fail from here on"
    LINE = "the connection breaks"
    """PostgreSQL only."""
    SERVER_CRASH = "the server crashes and comes back"
    """PostgreSQL only."""


SQLITE_FAULTS: Final = (FaultKind.DEATH, FaultKind.BUSY, FaultKind.AWAY)


@dataclass(frozen=True, slots=True)
class Fault:
    """Happens at the n-th statement, or the n-th commit, from when it is armed; counted from 1."""

    kind: FaultKind
    at: int
    of_commits: bool = False
    after: bool = False
    """The statement was executed, and only its answer is lost; for deaths, lines and servers."""
    lasts: bool = False
    """Comes back at the n-th statement of each transaction; for what passes otherwise."""


class ProcessDied(BaseException):
    """Ends the code of a process that is dead. Not an Exception: nothing may handle it and go on."""


class FaultyDriver:
    """The database connections of one simulated process."""

    def __init__(self, database: Database, *, server: Postgresql | None = None) -> None:
        self.is_dead = False
        self.struck: str | None = None
        """The statement at which the armed fault happened."""
        self.strikes = 0
        """How often it happened."""
        self._count = 0
        self._fault: Fault | None = None
        self._is_away = False
        self._server = server
        self._connections: list[Any] = []
        self._sqlite = _sqlite_connection(self)
        self._postgresql = _postgresql_connection(self)
        self._is_sqlite = database.is_sqlite
        event.listen(database.engine.sync_engine, "do_connect", self._connect)

    def arm(self, fault: Fault | None) -> None:
        """From now on; None ends what was armed before."""
        self._fault, self.struck, self.strikes = fault, None, 0
        self._count, self._is_away = 0, False

    def hang_up(self) -> None:
        """What the operating system does for the sockets and the locks of a dead process."""
        for connection in self._connections:
            if isinstance(connection, sqlite3.Connection):
                connection.close()
            else:
                connection.terminate()
        self._connections.clear()

    def run(self, words: str, call: Callable[[], Result]) -> Result:
        """A statement on SQLite."""
        fault = self._strike(words)
        if fault is None:
            return call()
        if fault.kind is FaultKind.DEATH:
            if fault.after:
                call()
            raise ProcessDied
        busy = fault.kind is FaultKind.BUSY
        error = sqlite3.OperationalError("database is locked" if busy else "disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY if busy else sqlite3.SQLITE_IOERR
        raise error

    async def run_remotely(
        self, connection: Any, words: str, call: Callable[[], Awaitable[Result]]
    ) -> Result:
        """A statement on PostgreSQL."""
        fault = self._strike(words)
        if fault is None:
            return await call()
        if fault.kind is FaultKind.BUSY:
            await self._fail_at_the_server(connection, words)
        if fault.after:
            result = await call()
        if fault.kind is FaultKind.SERVER_CRASH:
            assert self._server is not None
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(_STARTER, self._server.crash)
            await loop.run_in_executor(_STARTER, self._server.start)
            return result if fault.after else await call()
        if fault.kind is FaultKind.DEATH:
            raise ProcessDied
        connection.terminate()
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    def _strike(self, words: str) -> Fault | None:
        """Counts a statement, and returns what is to happen to it."""
        if self.is_dead:
            raise ProcessDied
        fault = self._fault
        if fault is not None and fault.lasts and words.startswith("BEGIN"):
            self._count = 0
        if fault is None or not self._can_meet(words, fault.kind):
            return None
        self._count += not fault.of_commits or words.startswith("COMMIT")
        if self._count == fault.at and (fault.lasts or self.struck is None):
            self.struck, self.strikes = words, self.strikes + 1
            self.is_dead = fault.kind is FaultKind.DEATH
            self._is_away = fault.kind is FaultKind.AWAY
            return fault
        return fault if self._is_away else None

    def _can_meet(self, words: str, kind: FaultKind) -> bool:
        """Whether that ever happens: a rollback never fails, PostgreSQL's BEGIN with its connection only."""
        if kind is FaultKind.BUSY and words.startswith("BEGIN"):
            return self._is_sqlite
        return kind is FaultKind.DEATH or not words.startswith("ROLLBACK")

    async def _fail_at_the_server(self, connection: Any, words: str) -> None:
        """As the server itself would do it: the transaction is over."""
        if words.startswith("COMMIT"):
            await asyncpg.Connection.execute(connection, "ROLLBACK")
            raise asyncpg.SerializationError("could not serialize access")
        await asyncpg.Connection.execute(connection, FAIL_AS_DEADLOCK)

    def _connect(
        self, _dialect: object, _record: object, _arguments: Sequence[object], parameters: dict[str, Any]
    ) -> None:
        if self.is_dead:
            raise ProcessDied
        if self._is_sqlite:
            # From another thread it is only hung up.
            parameters.update(factory=self._sqlite, check_same_thread=False)
        elif self._is_away:
            raise ConnectionRefusedError("the server is away")
        else:
            parameters["connection_class"] = self._postgresql

    def remember(self, connection: Any) -> None:
        self._connections.append(connection)


def _sqlite_connection(driver: FaultyDriver) -> type[sqlite3.Connection]:
    class Cursor(sqlite3.Cursor):
        def execute(self, sql: str, parameters: Any = ()) -> Any:
            return driver.run(sql, lambda: sqlite3.Cursor.execute(self, sql, parameters))

        def executemany(self, sql: str, parameters: Any) -> Any:
            return driver.run(sql, lambda: sqlite3.Cursor.executemany(self, sql, parameters))

    class Connection(sqlite3.Connection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            driver.remember(self)

        def cursor(self, _factory: Any = None) -> Any:
            return sqlite3.Connection.cursor(self, Cursor)

        def execute(self, sql: str, parameters: Any = ()) -> Any:
            return self.cursor().execute(sql, parameters)

        def executemany(self, sql: str, parameters: Any) -> Any:
            return self.cursor().executemany(sql, parameters)

        def commit(self) -> None:
            driver.run("COMMIT", lambda: sqlite3.Connection.commit(self))

        def close(self) -> None:
            """An unfinished SELECT would keep the connection, and its lock, alive."""
            with suppress(sqlite3.ProgrammingError):
                sqlite3.Connection.rollback(self)
            sqlite3.Connection.close(self)

        def rollback(self) -> None:
            driver.run("ROLLBACK", lambda: sqlite3.Connection.rollback(self))

    return Connection


def _postgresql_connection(driver: FaultyDriver) -> Any:
    base: Any = asyncpg.Connection

    class Prepared:
        """A prepared statement, whose executions count."""

        def __init__(self, connection: Any, statement: Any) -> None:
            self._connection = connection
            self._statement = statement

        def __getattr__(self, name: str) -> Any:
            found = getattr(self._statement, name)
            if name not in ("fetch", "fetchrow", "fetchval", "fetchmany", "executemany"):
                return found

            async def counted(*arguments: Any, **options: Any) -> Any:
                words = self._statement.get_query()
                return await driver.run_remotely(
                    self._connection, words, lambda: found(*arguments, **options)
                )

            return counted

    class Connection(base):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            driver.remember(self)

        async def prepare(self, *arguments: Any, **options: Any) -> Any:
            if driver.is_dead:
                raise ProcessDied
            return Prepared(self, await base.prepare(self, *arguments, **options))

    def counting(name: str) -> Any:
        original = getattr(base, name)

        async def counted(self: Any, words: str, *arguments: Any, **options: Any) -> Any:
            return await driver.run_remotely(
                self, words, lambda: original(self, words, *arguments, **options)
            )

        return counted

    for name in (
        "execute",
        "executemany",
        "fetch",
        "fetchrow",
        "fetchval",
        "fetchmany",
        "copy_records_to_table",
    ):
        setattr(Connection, name, counting(name))
    return Connection
