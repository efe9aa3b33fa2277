"""Many of the ledger's rows at once, past SQLAlchemy: COPY and arrays on PostgreSQL, executemany on SQLite.

SQLAlchemy binds every value of every row by calls of its own; in a batch of thousands that costs more than
the database does. The statements here are made from the same tables, and run on the driver's connection in
the transaction that SQLAlchemy has begun. Ids are hex digits on this side, as everywhere.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Final, Protocol

import aiosqlite
import asyncpg
from sqlalchemy import Boolean, Column, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from wallet_appservice.storage.ledger_tables import LedgerIdType

LOOKUP_SIZES: Final = (1, 8, 64, 512, 4_096, 30_000)
"""How many ids one SELECT on SQLite may have; few sizes, so that the statements stay prepared. SQLite takes
32,766 parameters at most."""

Values = tuple[Any, ...]
"""A row in the order of its table's columns."""


class Bulk(Protocol):
    """What a batch reads and writes. Nothing to do is done at once; the drivers' own errors come through."""

    async def find(self, table: Table, key: str, ids: Collection[str], *, lock: bool = False) -> list[Any]:
        """The rows whose key is one of the ids, with columns as attributes; with `lock`, locked against
        other writers in the order of their keys."""
        ...

    async def insert(self, table: Table, rows: Collection[Values]) -> None: ...

    async def update(self, table: Table, names: Sequence[str], rows: Sequence[Values]) -> None:
        """Sets the columns so named; the first name is the key that tells which row."""
        ...

    async def delete(self, table: Table, key: str, ids: Collection[str]) -> None: ...


async def bulk_of(connection: AsyncConnection) -> Bulk:
    """Bulk operations in the connection's transaction, in which a statement has run already."""
    driver = (await connection.get_raw_connection()).driver_connection
    if isinstance(driver, aiosqlite.Connection):
        return _SqliteBulk(driver)
    if isinstance(driver, asyncpg.Connection):
        return _PostgresqlBulk(driver)
    raise TypeError(f"the ledger has no bulk operations for {type(driver).__name__}")


class _PostgresqlBulk:
    def __init__(self, driver: asyncpg.Connection[asyncpg.Record]) -> None:
        self._driver = driver

    async def find(self, table: Table, key: str, ids: Collection[str], *, lock: bool = False) -> list[Any]:
        if not ids:
            return []
        # Not `key = ANY(array)`: a plan that scans would compare every row with every id.
        statement = (
            f"SELECT {_list(table.columns.keys(), 'found')} FROM unnest($1::uuid[]) AS wanted(id) "
            f"JOIN {table.name} AS found ON found.{key} = wanted.id"
        )
        if lock:
            statement += f" ORDER BY found.{key} FOR UPDATE OF found"
        with self._telling_disconnects():
            rows = await self._driver.fetch(statement, list(ids))
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
                f"DELETE FROM {table.name} AS old USING unnest($1::uuid[]) AS gone(id) "
                f"WHERE old.{key} = gone.id"
            )
            with self._telling_disconnects():
                await self._driver.execute(statement, list(ids))

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

    async def find(self, table: Table, key: str, ids: Collection[str], *, lock: bool = False) -> list[Any]:
        # In order, because neighbours in the index are neighbours on the disk.
        keys = sorted(map(bytes.fromhex, ids))
        rows: list[Sequence[Any]] = []
        for start in range(0, len(keys), LOOKUP_SIZES[-1]):
            page = keys[start : start + LOOKUP_SIZES[-1]]
            size = next(size for size in LOOKUP_SIZES if size >= len(page))
            page += page[-1:] * (size - len(page))
            statement = (
                f"SELECT {_list(table.columns.keys())} FROM {table.name} "
                f"WHERE {key} IN ({', '.join('?' * size)})"
            )
            rows += await self._driver.execute_fetchall(statement, page)
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

    async def _many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        cursor = await self._driver.executemany(statement, rows)
        await cursor.close()


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


@cache
def _type(column: Column[Any]) -> str:
    return column.type.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
