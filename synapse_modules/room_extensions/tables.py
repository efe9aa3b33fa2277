"""The module's own tables in Synapse's database, on SQLite and PostgreSQL with the same statements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from synapse.module_api import LoggingTransaction, ModuleApi

from synapse_modules.making_tables import make_tables

_MAKE: Final = (
    """
    CREATE TABLE IF NOT EXISTS weft_errands (
        kind TEXT NOT NULL,
        lane TEXT NOT NULL,
        subject TEXT NOT NULL,
        payload TEXT NOT NULL,
        mark TEXT NOT NULL,
        made_ms BIGINT NOT NULL,
        due_ms BIGINT NOT NULL,
        PRIMARY KEY (kind, lane, subject)
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS weft_home_rooms (
        user_id TEXT NOT NULL PRIMARY KEY,
        room_id TEXT,
        furnished TEXT
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS weft_moments_rooms (
        user_id TEXT NOT NULL PRIMARY KEY,
        room_id TEXT,
        furnished TEXT
    )
    """,
)
_UNLIMIT: Final = """
    INSERT INTO ratelimit_override (user_id, messages_per_second, burst_count) VALUES (?, 0, 0)
    ON CONFLICT (user_id) DO NOTHING
"""


class Tables:
    """Statements on Synapse's database, the module's tables being made before the first one."""

    def __init__(self, api: ModuleApi, *, unlimited_users: Sequence[str]) -> None:
        """`unlimited_users` get what the admin API calls a rate-limit override: a service user joins a room
        for each of thousands of people, and Synapse limits joins and invites by their sender."""
        self._api = api
        self._unlimited_users = tuple(unlimited_users)
        self._made = False

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        """One statement in a transaction of its own."""
        await self.make()
        await self._api.run_db_interaction("weft_execute", _execute, statement, parameters)

    async def rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of one query."""
        await self.make()
        found: list[tuple[Any, ...]] = await self._api.run_db_interaction(
            "weft_rows", _rows, statement, parameters
        )
        return found

    async def make(self) -> None:
        """Makes the tables once."""
        if not self._made:
            await make_tables(self._api, "weft_make_tables", _make, self._unlimited_users)
            self._made = True


def _make(transaction: LoggingTransaction, unlimited_users: tuple[str, ...]) -> None:
    for statement in _MAKE:
        transaction.execute(statement)
    for user in unlimited_users:
        transaction.execute(_UNLIMIT, (user,))


def _execute(transaction: LoggingTransaction, statement: str, parameters: Sequence[Any]) -> None:
    transaction.execute(statement, parameters)


def _rows(
    transaction: LoggingTransaction, statement: str, parameters: Sequence[Any]
) -> list[tuple[Any, ...]]:
    transaction.execute(statement, parameters)
    return list(transaction.fetchall())
