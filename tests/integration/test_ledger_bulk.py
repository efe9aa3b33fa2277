"""Rows in bulk, on SQLite and on PostgreSQL: the same rows come back, however many."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from appservices.chassis.database import Database, open_database
from appservices.vocabulary.ids import AccountId, derived_id
from tests.postgres import Postgresql, running_postgresql
from wallet_appservice.ledger.view import ChangedSums
from wallet_appservice.storage.database_errors import is_disconnect
from wallet_appservice.storage.ledger_bulk import LOOKUP_SIZES, Values, bulk_of
from wallet_appservice.storage.ledger_chain import ChainEnd, chain_row
from wallet_appservice.storage.ledger_tables import ledger_accounts, ledger_refusals, ledger_transfers

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


async def test_sums_are_set_only_where_they_are_what_they_were(ledger_database: Database) -> None:
    ids = sorted(derived_id("bulk", str(number)) for number in range(3))
    async with ledger_database.begin() as work:
        await work.execute(text("SELECT 1"))
        bulk = await bulk_of(work.connection)
        static = ("user", "EUR", "@alice:a.example")
        await bulk.insert(ledger_accounts, [(id, *static, 1, 2, 30, 40, True, False) for id in ids])
        before, after = (1, 2, 30, 40), (0, 3, 29, 41)
        wanted = [
            ChangedSums(AccountId(ids[0]), before, after),
            ChangedSums(AccountId(ids[1]), (1, 2, 30, 41), after),
            ChangedSums(AccountId(derived_id("bulk", "unknown")), before, after),
        ]
        end, _ = await bulk.look_up(ids)
        assert end == ChainEnd(0, 0, bytes(32))
        row = chain_row(1, first_position=1, account_ids=[], records=[b"7"] * 7, previous=end.link)
        assert await bulk.end_batch(wanted, position=7, chain_row=row) == 1
        found = await bulk.find(ledger_accounts, "id", ids, lock=True)
        assert [tuple(item)[4:8] for item in sorted(found)] == [after, before, before]
        assert (await work.execute(text("SELECT position FROM ledger_head"))).scalar_one() == 7
        end, _ = await bulk.look_up(ids)
        assert end == ChainEnd(1, 7, row["link"])
        assert await bulk.end_batch([], position=7, chain_row={**row, "number": 2}) == 0


async def test_ids_with_a_transfer_or_a_refusal_are_known(ledger_database: Database) -> None:
    rows = [transfer_values(1, None), transfer_values(2, derived_id("bulk", "pending"))]
    refused = refusal_values(7)
    async with ledger_database.begin() as work:
        await work.execute(text("SELECT 1"))
        bulk = await bulk_of(work.connection)
        await bulk.insert(ledger_transfers, rows)
        await bulk.insert(ledger_refusals, [refused])
        new = [derived_id("bulk", f"new {number}") for number in range(70)]
        for ids, is_known in (([], False), (new, False), ([*new, rows[1][1]], True), ([refused[0]], True)):
            assert (await bulk.look_up(ids))[1] is is_known


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
