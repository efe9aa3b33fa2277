"""Many of the ledger's rows at once, past SQLAlchemy: COPY and arrays on PostgreSQL, executemany on SQLite.

SQLAlchemy binds every value of every row by calls of its own; in a batch of thousands that costs more than
the database does. The statements here are made from the same tables, and run on the driver's connection in
the transaction that SQLAlchemy has begun. Ids are hex digits on this side, as everywhere.
"""

from __future__ import annotations

import operator
from collections import namedtuple
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Final, Protocol

import aiosqlite
import asyncpg
from sqlalchemy import Boolean, Column, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from wallet_appservice.ledger.view import ChangedSums
from wallet_appservice.storage.ledger_chain import ChainEnd
from wallet_appservice.storage.ledger_tables import HEAD_ID, LedgerIdType, ledger_refusals, ledger_transfers

LOCK_SECONDS_MAX: Final = 10
"""How long a batch waits for another process's batch before it is tried again."""
LOOKUP_SIZES: Final = (1, 8, 64, 512, 4_096, 30_000)
"""How many ids one SELECT on SQLite may have; few sizes, so that the statements stay prepared. SQLite takes
32,766 parameters at most."""

Values = tuple[Any, ...]
"""A row in the order of its table's columns."""


class Bulk(Protocol):
    """What a batch reads and writes. Nothing to do is done at once; the drivers' own errors come through."""

    async def lock_head(self) -> tuple[int, str | None]:
        """Waits until nobody else changes the ledger; its last position, and PostgreSQL's name of the
        transaction."""
        ...

    async def find(self, table: Table, key: str, ids: Collection[str], *, lock: bool = False) -> list[Any]:
        """The rows whose key is one of the ids, with columns as attributes; with `lock`, locked against
        other writers in the order of their keys."""
        ...

    async def insert(self, table: Table, rows: Collection[Values]) -> None: ...

    async def update(self, table: Table, names: Sequence[str], rows: Sequence[Values]) -> None:
        """Sets the columns so named; the first name is the key that tells which row."""
        ...

    async def delete(self, table: Table, key: str, ids: Collection[str]) -> None: ...

    async def look_up(self, ids: Collection[str]) -> tuple[ChainEnd | None, bool]:
        """The chain's end, and whether there is a transfer or a refusal of any of the ids: mostly there is
        none, and no row has to be read."""
        ...

    async def end_batch(
        self, changed: Sequence[ChangedSums], *, position: int, chain_row: Mapping[str, Any]
    ) -> int:
        """Sets the sums of accounts, in the order given, as far as they are what they were before; the
        ledger's position; and the batch's row of the chain. Returns how many accounts it has set."""
        ...


async def bulk_of(connection: AsyncConnection) -> Bulk:
    """Bulk operations in the connection's transaction, which has begun."""
    driver = (await connection.get_raw_connection()).driver_connection
    if isinstance(driver, aiosqlite.Connection):
        return _SqliteBulk(driver)
    if isinstance(driver, asyncpg.Connection):
        return _PostgresqlBulk(driver)
    raise TypeError(f"the ledger has no bulk operations for {type(driver).__name__}")


_HEAD: Final = f"SELECT position FROM ledger_head WHERE id = {HEAD_ID}"
# For this transaction alone. All is found by ids, so through an index: left to itself, PostgreSQL plans scans
# while a table is small, and prepared statements keep to that when it has grown.
_SETTINGS: Final = {
    "lock_timeout": f"{LOCK_SECONDS_MAX}s",
    **dict.fromkeys(("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit"), "off"),
}
_SET: Final = ", ".join(
    f"set_config('{name}', '{value}', true) AS {name}" for name, value in _SETTINGS.items()
)
# One statement: the rows are joined, and with that the settings made, before the head is locked.
_LOCK_HEAD: Final = f"""
WITH settings AS (SELECT {_SET})
SELECT head.position, CAST(pg_current_xact_id() AS text) AS transaction_id, settings.lock_timeout
FROM ledger_head AS head CROSS JOIN settings WHERE head.id = {HEAD_ID} FOR UPDATE OF head
"""
_CHAIN_END: Final = "SELECT number, last_position, link FROM ledger_chain ORDER BY number DESC LIMIT 1"
_SUM_NAMES: Final = ("debits_pending", "debits_posted", "credits_pending", "credits_posted")
# Counted, not only tried for one: for that PostgreSQL would rather read the tables from their beginning.
_LOOK_UP: Final = """
SELECT number, last_position, link,
    (SELECT count(*) FROM unnest($1::text::uuid[]) AS wanted(id) JOIN ledger_transfers AS found ON found.id = wanted.id)
    + (SELECT count(*) FROM unnest($1::text::uuid[]) AS wanted(id) JOIN ledger_refusals AS found ON found.id = wanted.id)
FROM ledger_chain ORDER BY number DESC LIMIT 1
"""  # noqa: E501
# One statement, because each costs a way to the server and back while nobody else may write.
_END_BATCH: Final = """
WITH changed AS (
    UPDATE ledger_accounts AS old
    SET debits_pending = new.a1, debits_posted = new.a2, credits_pending = new.a3, credits_posted = new.a4
    FROM unnest($1::text::uuid[],
        $2::text::bigint[], $3::text::bigint[], $4::text::bigint[], $5::text::bigint[],
        $6::text::bigint[], $7::text::bigint[], $8::text::bigint[], $9::text::bigint[]
    ) AS new(id, b1, b2, b3, b4, a1, a2, a3, a4)
    WHERE old.id = new.id AND old.debits_pending = new.b1 AND old.debits_posted = new.b2
        AND old.credits_pending = new.b3 AND old.credits_posted = new.b4
    RETURNING 1
), head AS (
    UPDATE ledger_head SET position = $10 WHERE id = 1
), chain AS (
    INSERT INTO ledger_chain (number, first_position, last_position, account_ids, marks, hash, link)
    VALUES ($11, $12, $13, $14, $15, $16, $17)
)
SELECT count(*) FROM changed
"""
_SET_SUMS: Final = (
    f"UPDATE ledger_accounts SET {', '.join(f'{name} = ?' for name in _SUM_NAMES)} "
    f"WHERE id = ? AND {' AND '.join(f'{name} = ?' for name in _SUM_NAMES)}"
)
_SET_HEAD: Final = "UPDATE ledger_head SET position = ? WHERE id = 1"


class _PostgresqlBulk:
    def __init__(self, driver: asyncpg.Connection[asyncpg.Record]) -> None:
        self._driver = driver

    async def lock_head(self) -> tuple[int, str | None]:
        with self._telling_disconnects():
            row = await self._driver.fetchrow(_LOCK_HEAD)
        assert row is not None, "the ledger's head is made by the migrations"
        return row["position"], row["transaction_id"]

    async def find(self, table: Table, key: str, ids: Collection[str], *, lock: bool = False) -> list[Any]:
        if not ids:
            return []
        # Not `key = ANY(array)`: a plan that scans would compare every row with every id.
        statement = (
            f"SELECT {_list(table.columns.keys(), 'found')} FROM unnest($1::text::uuid[]) AS wanted(id) "
            f"JOIN {table.name} AS found ON found.{key} = wanted.id"
        )
        if lock:
            statement += f" ORDER BY found.{key} FOR UPDATE OF found"
        with self._telling_disconnects():
            rows = await self._driver.fetch(statement, _array(ids))
        return _decoded(table, rows, _hex_of_uuid)

    async def insert(self, table: Table, rows: Collection[Values]) -> None:
        if rows:
            with self._telling_disconnects():
                await self._driver.copy_records_to_table(
                    table.name, records=rows, columns=table.columns.keys()
                )

    async def update(self, table: Table, names: Sequence[str], rows: Sequence[Values]) -> None:
        if not rows:
            return
        key, *changed = names
        arrays = ", ".join(f"${number}::{_type(table.c[name])}[]" for number, name in enumerate(names, 1))
        statement = (
            f"UPDATE {table.name} AS old SET {', '.join(f'{name} = new.{name}' for name in changed)} "
            f"FROM unnest({arrays}) AS new({_list(names)}) WHERE old.{key} = new.{key}"
        )
        with self._telling_disconnects():
            await self._driver.execute(statement, *zip(*rows, strict=True))

    async def delete(self, table: Table, key: str, ids: Collection[str]) -> None:
        if ids:
            statement = (
                f"DELETE FROM {table.name} AS old USING unnest($1::text::uuid[]) AS gone(id) "
                f"WHERE old.{key} = gone.id"
            )
            with self._telling_disconnects():
                await self._driver.execute(statement, _array(ids))

    async def look_up(self, ids: Collection[str]) -> tuple[ChainEnd | None, bool]:
        with self._telling_disconnects():
            row = await self._driver.fetchrow(_LOOK_UP, _array(ids))
        if row is None:
            return None, True
        number, last_position, link, known_count = row
        return ChainEnd(number, last_position, link), known_count > 0

    async def end_batch(
        self, changed: Sequence[ChangedSums], *, position: int, chain_row: Mapping[str, Any]
    ) -> int:
        ids, before, after = zip(*changed, strict=True) if changed else ((), (), ())
        sums = zip(*map(operator.add, before, after), strict=True) if changed else [()] * 8
        with self._telling_disconnects():
            count: int = await self._driver.fetchval(
                _END_BATCH, _array(ids), *map(_array_of_numbers, sums), position, *chain_row.values()
            )
        return count

    @contextmanager
    def _telling_disconnects(self) -> Iterator[None]:
        """The driver says in several ways that its connection is gone; to others that is one error."""
        try:
            yield
        except Exception as error:
            if self._driver.is_closed():
                raise ConnectionError(f"the connection to PostgreSQL was lost: {error}") from error
            raise


class _SqliteBulk:
    """`lock` means nothing here: a writing transaction on SQLite is the only one."""

    def __init__(self, driver: aiosqlite.Connection) -> None:
        self._driver = driver

    async def lock_head(self) -> tuple[int, str | None]:
        ((position,),) = await self._driver.execute_fetchall(_HEAD)
        return position, None

    async def find(self, table: Table, key: str, ids: Collection[str], *, lock: bool = False) -> list[Any]:
        rows = await self._rows(_list(table.columns.keys()), table, key, ids)
        return _decoded(table, rows, bytes.hex)

    async def insert(self, table: Table, rows: Collection[Values]) -> None:
        if rows:
            names = table.columns.keys()
            statement = f"INSERT INTO {table.name} ({_list(names)}) VALUES ({', '.join('?' * len(names))})"
            await self._many(statement, _with_bytes(table, names, rows))

    async def update(self, table: Table, names: Sequence[str], rows: Sequence[Values]) -> None:
        if rows:
            key, *changed = names
            values = ", ".join(f"{name} = ?{number}" for number, name in enumerate(changed, 2))
            statement = f"UPDATE {table.name} SET {values} WHERE {key} = ?1"
            await self._many(statement, _with_bytes(table, names, rows))

    async def delete(self, table: Table, key: str, ids: Collection[str]) -> None:
        if ids:
            keys = sorted(map(bytes.fromhex, ids))
            await self._many(f"DELETE FROM {table.name} WHERE {key} = ?", [(key,) for key in keys])

    async def look_up(self, ids: Collection[str]) -> tuple[ChainEnd | None, bool]:
        ends = list(await self._driver.execute_fetchall(_CHAIN_END))
        end = ChainEnd(*ends[0]) if ends else None
        for table in (ledger_transfers, ledger_refusals):
            if await self._rows("1", table, "id", ids):
                return end, True
        return end, False

    async def end_batch(
        self, changed: Sequence[ChangedSums], *, position: int, chain_row: Mapping[str, Any]
    ) -> int:
        rows = [(*after, bytes.fromhex(id), *before) for id, before, after in changed]
        count = await self._many(_SET_SUMS, rows) if rows else 0
        await self._driver.execute_fetchall(_SET_HEAD, (position,))
        names = list(chain_row)
        statement = f"INSERT INTO ledger_chain ({_list(names)}) VALUES ({', '.join('?' * len(names))})"
        await self._driver.execute_fetchall(statement, list(chain_row.values()))
        return count

    async def _rows(self, what: str, table: Table, key: str, ids: Collection[str]) -> list[Sequence[Any]]:
        # In order, because neighbours in the index are neighbours on the disk.
        keys = sorted(map(bytes.fromhex, ids))
        rows: list[Sequence[Any]] = []
        for start in range(0, len(keys), LOOKUP_SIZES[-1]):
            page = keys[start : start + LOOKUP_SIZES[-1]]
            size = next(size for size in LOOKUP_SIZES if size >= len(page))
            page += page[-1:] * (size - len(page))
            statement = f"SELECT {what} FROM {table.name} WHERE {key} IN ({', '.join('?' * size)})"
            rows += await self._driver.execute_fetchall(statement, page)
        return rows

    async def _many(self, statement: str, rows: Sequence[Sequence[Any]]) -> int:
        """Returns how many rows it has changed."""
        cursor = await self._driver.executemany(statement, rows)
        count = cursor.rowcount
        await cursor.close()
        return count


def _decoded(table: Table, rows: Sequence[Sequence[Any]], hex_of: Callable[[Any], str]) -> list[Any]:
    row_type = _row_type(table)
    ids = _places(table, tuple(table.columns.keys()), LedgerIdType)
    flags = _places(table, tuple(table.columns.keys()), Boolean)
    decoded = []
    for row in rows:
        values = list(row)
        for place in ids:
            if values[place] is not None:
                values[place] = hex_of(values[place])
        for place in flags:
            values[place] = bool(values[place])
        decoded.append(row_type._make(values))
    return decoded


def _with_bytes(table: Table, names: Sequence[str], rows: Collection[Values]) -> list[list[Any]]:
    """The rows with their ids as SQLite keeps them."""
    ids = _places(table, tuple(names), LedgerIdType)
    encoded = []
    for row in rows:
        values = list(row)
        for place in ids:
            if values[place] is not None:
                values[place] = bytes.fromhex(values[place])
        encoded.append(values)
    return encoded


def _type(column: Column[Any]) -> str:
    return column.type.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]


def _array(ids: Iterable[str]) -> str:
    """As PostgreSQL writes an array of ids. To bind lists, the driver asks every single element whether it is
    a list itself, which takes longer than the database does."""
    return f"{{{','.join(ids)}}}"


def _array_of_numbers(numbers: Iterable[int]) -> str:
    # Python writes a whole list in half of the time that it takes for each number alone.
    return f"{{{str(list(numbers))[1:-1]}}}"


def _hex_of_uuid(value: Any) -> str:
    digits: str = value.hex
    return digits


@cache
def _row_type(table: Table) -> Any:
    return namedtuple(table.name, table.columns.keys())


@cache
def _places(table: Table, names: tuple[str, ...], type_: type[Any]) -> tuple[int, ...]:
    """Which of the columns are of that type."""
    return tuple(place for place, name in enumerate(names) if isinstance(table.c[name].type, type_))


def _list(names: Sequence[str], alias: str = "") -> str:
    return ", ".join(f"{alias}.{name}" if alias else name for name in names)
