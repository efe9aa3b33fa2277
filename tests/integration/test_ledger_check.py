"""What `weft wallet verify` finds, and that migrations make the schema which the program declares."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, inspect, text

from appservices.chassis.database import Database, Write, open_database
from tests.ledger_samples import ALICE, BOB, ISSUANCE, deposit, payment, submit, transfer_id
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.ledger.values import Transfer, TransferMode, posting_of
from wallet_appservice.storage import ledger_tables, payment_check
from wallet_appservice.storage.ledger_check import verify
from wallet_appservice.storage.metadata import metadata
from wallet_appservice.storage.payment_tables import payments

pytest_plugins = ["tests.database_fixtures"]

HELD = payment("held", ALICE, BOB, 30, mode=TransferMode.PENDING, timeout_seconds=60)
OPEN = payment("open", ALICE, BOB, 5, mode=TransferMode.PENDING, timeout_seconds=60)


@pytest.fixture
async def used(ledger: Ledger[Write], ledger_database: Database) -> Database:
    """Six transfers: deposit, payment, held, posted, open, and a refused one that is none."""
    transfers = (deposit("salary", ALICE, 100), payment("tea", ALICE, BOB, 10), HELD)
    await submit(ledger, *transfers, posting_of(HELD, id=transfer_id("post"), amount_minor=20), OPEN)
    await submit(ledger, payment("car", ALICE, BOB, 5_000))
    return ledger_database


async def tamper(database: Database, statement: str, **parameters: Any) -> None:
    """Changes a row as somebody with access to the database could."""
    async with database.begin() as work:
        bound = {
            name: ledger_tables.LedgerIdType().process_bind_param(value, database.engine.dialect)
            for name, value in parameters.items()
        }
        await work.execute(text(statement), bound)
        await work.commit()


async def test_an_untouched_ledger_is_right_and_progress_is_told(used: Database) -> None:
    progress: list[tuple[int, int]] = []
    check = await verify(used, lambda done, total: progress.append((done, total)))
    assert check.is_right
    assert (check.accounts_count, check.transfers_count, check.position) == (3, 5, 5)
    assert check.in_circulation_minor == {"EUR": 100}
    assert (progress[0], progress[-1]) == ((0, 8), (8, 8))


async def test_an_empty_ledger_is_right(ledger_database: Database) -> None:
    check = await verify(ledger_database)
    assert (check.difference, check.accounts_count, check.transfers_count) == (None, 0, 0)


@pytest.mark.parametrize(
    ("statement", "table", "words"),
    [
        (
            "UPDATE ledger_accounts SET credits_posted = credits_posted + 1 WHERE id = :alice",
            "ledger_accounts",
            "credits_posted is 101, but its transfers add up to 100",
        ),
        (
            "UPDATE ledger_transfers SET amount_minor = 11 WHERE position = 2",
            "ledger_transfers",
            "not what was written",
        ),
        (
            "UPDATE ledger_transfers SET amount_minor = 101 WHERE position = 2",
            "ledger_transfers",
            "overdraws",
        ),
        ("UPDATE ledger_transfers SET amount_minor = 31 WHERE position = 4", "ledger_transfers", "more than"),
        ("UPDATE ledger_transfers SET currency = 'USD' WHERE position = 2", "ledger_transfers", "in EUR"),
        (
            "UPDATE ledger_transfers SET debit_account_id = :nobody WHERE position = 2",
            "ledger_transfers",
            "does not exist",
        ),
        (
            "UPDATE ledger_transfers SET credit_account_id = :issuance WHERE position = 4",
            "ledger_transfers",
            "differs from the pending transfer",
        ),
        (
            "UPDATE ledger_transfers SET pending_id = :open WHERE position = 4",
            "ledger_transfers",
            "not pending",
        ),
        ("UPDATE ledger_transfers SET at_ms = at_ms + 60000 WHERE position = 4", "ledger_transfers", "after"),
        (
            "UPDATE ledger_open_pending SET expires_at_ms = expires_at_ms + 60000",
            "ledger_open_pending",
            "time",
        ),
        ("DELETE FROM ledger_transfers WHERE position = 2", "ledger_transfers", "transfer 2 is missing"),
        ("DELETE FROM ledger_transfers WHERE position = 5", "ledger_transfers", "transfer 5 is missing"),
        ("UPDATE ledger_transfers SET position = 6 WHERE position = 5", "ledger_transfers", "5 is missing"),
        ("UPDATE ledger_head SET position = 4", "ledger_head", "ends at 4"),
        ("DELETE FROM ledger_head", "ledger_head", "missing"),
        ("DELETE FROM ledger_open_pending", "ledger_open_pending", "not listed as open"),
        ("UPDATE ledger_open_pending SET id = :held", "ledger_open_pending", "not pending"),
        ("UPDATE ledger_refusals SET id = :held", "ledger_refusals", "was refused"),
        ("DELETE FROM ledger_accounts WHERE id = :bob", "ledger_accounts", "is missing: batch 1 opened it"),
    ],
)
async def test_the_first_row_that_differs_is_named(
    used: Database, statement: str, table: str, words: str
) -> None:
    known = {
        "alice": ALICE.id,
        "bob": BOB.id,
        "issuance": ISSUANCE.id,
        "nobody": "0" * 32,
        "held": HELD.id,
        "open": OPEN.id,
    }
    await tamper(used, statement, **{name: value for name, value in known.items() if f":{name}" in statement})
    difference = (await verify(used)).difference
    assert difference is not None
    assert difference.table == table
    assert words in difference.sentence


INSERT_PAYMENT = insert(payments)


async def pay(database: Database, *transfers: Transfer, **other: Any) -> None:
    """Stores payments as people see them, of these transfers."""
    async with database.begin() as work:
        for transfer in transfers:
            values = {
                "id": transfer.id,
                "kind": "payment",
                "state": "completed",
                "payer": "@alice:a.example",
                "payee": "@bob:a.example",
                "amount_minor": transfer.amount_minor,
                "currency": transfer.currency,
                "memo": "",
                "at_ms": 0,
                "receipt": "{}",
            }
            await work.execute(INSERT_PAYMENT, {**values, **other})
        await work.commit()


async def test_payments_are_held_against_their_transfers(
    used: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A payment that was held, whole or in part posted or not at all, is of the amount that was held."""
    monkeypatch.setattr(payment_check, "PAGE_ROWS", 2)
    await pay(used, payment("tea", ALICE, BOB, 10), HELD, OPEN)
    assert (await verify(used)).is_right


@pytest.mark.parametrize(
    ("transfer", "other", "words"),
    [
        (payment("tea", ALICE, BOB, 10), {"amount_minor": 1_000}, "is of 1000 EUR"),
        (payment("tea", ALICE, BOB, 10), {"currency": "USD"}, "is of 10 USD"),
        (payment("never made", ALICE, BOB, 10), {}, "has no transfer"),
        (payment("car", ALICE, BOB, 5_000), {}, "has no transfer"),
        (payment("tea", ALICE, BOB, 10), {"id": "Tea"}, "has no transfer"),
    ],
)
async def test_the_first_payment_that_is_not_as_its_transfer_is_named(
    used: Database, transfer: Transfer, other: dict[str, Any], words: str
) -> None:
    await pay(used, HELD)
    await pay(used, transfer, **other)
    difference = (await verify(used)).difference
    assert difference is not None
    assert (difference.table, difference.row) == ("payments", "2")
    assert words in difference.sentence


async def test_migrations_make_the_schema_that_the_program_declares(
    ledger_database: Database, database_url: str, tmp_path: Path
) -> None:
    if ledger_database.is_sqlite:
        declared = open_database("sqlite:///declared.db", folder=tmp_path)
    else:
        schema = "CREATE SCHEMA declared"
        await tamper(ledger_database, schema)
        declared = open_database(database_url, folder=tmp_path)
    async with declared.begin() as work:
        if not declared.is_sqlite:
            await work.execute(text("SET LOCAL search_path TO declared"))
        await work.connection.run_sync(metadata.create_all)
        by_metadata = await work.connection.run_sync(_described)
    async with ledger_database.read() as work:
        by_migrations = await work.connection.run_sync(_described)
    await declared.close()
    assert by_migrations == by_metadata
    assert len(by_migrations) >= 5


def _described(connection: Connection) -> dict[str, Any]:
    """All that the database itself knows of the ledger's tables."""
    found = inspect(connection)
    return {
        name: {
            "columns": [{**column, "type": str(column["type"])} for column in found.get_columns(name)],
            "primary key": found.get_pk_constraint(name)["constrained_columns"],
            "indices": sorted(map(_plain, found.get_indexes(name)), key=str),
            "unique": sorted(map(_plain, found.get_unique_constraints(name)), key=str),
            "checks": sorted(map(_plain, found.get_check_constraints(name)), key=str),
        }
        for name in metadata.tables
        if name.startswith("ledger_")
    }


def _plain(value: Any) -> Any:
    """A description with its SQL as text, so that two of them compare."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in sorted(value.items())}
    return [_plain(item) for item in value] if isinstance(value, list) else str(value)
