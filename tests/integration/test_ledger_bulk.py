"""Rows in bulk, on SQLite and on PostgreSQL: the same rows come back, however many."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from appservices.chassis.database import Database, open_database
from appservices.vocabulary.ids import derived_id
from tests.postgres import Postgresql, running_postgresql
from wallet_appservice.storage.database_errors import is_disconnect
from wallet_appservice.storage.ledger_bulk import LOOKUP_SIZES, Values, bulk_of
from wallet_appservice.storage.ledger_tables import ledger_open_pending, ledger_refusals, ledger_transfers

pytest_plugins = ["tests.database_fixtures"]


def refusal_values(number: int) -> Values:
    return (derived_id("bulk", str(number)), derived_id("content", str(number)), "balance_too_low", number)


def transfer_values(number: int, pending_id: str | None) -> Values:
    ids = [derived_id("bulk", f"{name} {number}") for name in ("transfer", "debit", "credit")]
    mode = "single_phase" if pending_id is None else "post_pending"
    return (number, *ids, 5, "EUR", "payment", mode, pending_id, None, False, "→ ☕ '\"%s\\", 12)


@pytest.mark.parametrize("count", [0, 1, 9, LOOKUP_SIZES[-1] + 5])
async def test_any_number_of_rows_is_written_and_found(ledger_database: Database, count: int) -> None:
    rows = [refusal_values(number) for number in range(count)]
    async with ledger_database.begin() as work:
        await work.execute(text("SELECT 1"))
        bulk = await bulk_of(work.connection)
        await bulk.insert(ledger_refusals, rows)
        unknown = {derived_id("bulk", "unknown")}
        found = await bulk.find(ledger_refusals, "id", {row[0] for row in rows} | unknown)
        assert sorted(map(tuple, found)) == sorted(rows)
        await bulk.delete(ledger_refusals, "id", {row[0] for row in rows[:3]})
        left = await bulk.find(ledger_refusals, "id", [row[0] for row in rows])
        assert sorted(map(tuple, left)) == sorted(rows[3:])


async def test_values_of_every_type_come_back_as_they_were(ledger_database: Database) -> None:
    rows = [transfer_values(1, None), transfer_values(2, derived_id("bulk", "pending"))]
    async with ledger_database.begin() as work:
        await work.execute(text("SELECT 1"))
        bulk = await bulk_of(work.connection)
        await bulk.insert(ledger_transfers, rows)
        found = await bulk.find(ledger_transfers, "id", [row[1] for row in rows])
        assert sorted(map(tuple, found)) == rows
        assert all(type(row.linked) is bool for row in found)
        (ending,) = await bulk.find(ledger_transfers, "pending_id", [derived_id("bulk", "pending")])
        assert ending.position == 2


async def test_an_update_changes_the_rows_of_its_keys_alone(ledger_database: Database) -> None:
    ids = sorted(derived_id("bulk", str(number)) for number in range(3))
    async with ledger_database.begin() as work:
        await work.execute(text("SELECT 1"))
        bulk = await bulk_of(work.connection)
        await bulk.insert(ledger_open_pending, [(id, 1, None) for id in ids])
        names = ("id", "position", "expires_at_ms")
        await bulk.update(ledger_open_pending, names, [(ids[0], 2, 20), (ids[2], 3, None)])
        found = await bulk.find(ledger_open_pending, "id", ids, lock=True)
        assert sorted(map(tuple, found)) == [(ids[0], 2, 20), (ids[1], 1, None), (ids[2], 3, None)]


@pytest.fixture
def own_postgresql() -> Iterator[Postgresql]:
    """A server that may crash without disturbing other tests."""
    with running_postgresql() as server:
        yield server


async def test_a_lost_connection_is_told_as_one(own_postgresql: Postgresql, tmp_path: Path) -> None:
    url = await asyncio.to_thread(own_postgresql.create_database)
    database = open_database(url, folder=tmp_path)
    async with database.engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        bulk = await bulk_of(connection)
        await asyncio.to_thread(own_postgresql.crash)
        for _ in range(2):
            with pytest.raises(OSError) as caught:
                await bulk.find(ledger_refusals, "id", [derived_id("bulk", "1")])
            assert is_disconnect(caught.value)
        await connection.invalidate()
    await database.close()
