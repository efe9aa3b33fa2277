"""Fills a ledger with a long history in bulk, to measure what it costs to have one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from sqlalchemy import insert, text, update

from appservices.chassis.database import Database
from wallet_appservice.ledger.values import NewAccount
from wallet_appservice.storage.ledger_chain import ledger_chain
from wallet_appservice.storage.ledger_tables import ledger_head

ID_SPACE: Final = 16**15
"""The ids' first 60 bits: spread evenly as derived ids are."""
GAP: Final = 3
"""Ids ascend, which is quick to fill, but each third one comes in a second pass: so the pages of their index
have room left, as those of an index that has grown by ids in any order."""
SQLITE_FILL_CACHE_KB: Final = 2_000_000

_POSTGRESQL: Final = """
INSERT INTO ledger_transfers
SELECT position, (lpad(to_hex({step} * CASE
        WHEN position <= {first} THEN position + (position - 1) / {others}
        ELSE (position - {first}) * {gap}
    END), 15, '0') || '00000000000000000')::uuid,
    (CAST(:debit_ids AS uuid[]))[1 + position % :debits], CAST(:credit_id AS uuid),
    1, CAST(:currency AS text), 'payment', 'single_phase', NULL, NULL, false, '', 0
FROM generate_series(1, CAST({count} AS bigint)) AS position
"""
_SQLITE: Final = (
    "INSERT INTO ledger_transfers VALUES (?, ?, ?, ?, 1, ?, 'payment', 'single_phase', NULL, NULL, 0, '', 0)"
)


async def fill(database: Database, count: int, *, debits: Sequence[NewAccount], credit: NewAccount) -> None:
    """Writes so many transfers from the accounts to the one, into an empty ledger that goes on after them.

    They are in no account's sums and have no true hash: nothing but time is to be measured with them.
    """
    step = ID_SPACE // (count + GAP)
    async with database.begin() as work:
        if database.is_sqlite:
            cache_size = (await work.execute(text("PRAGMA cache_size"))).scalar_one()
            await work.execute(text(f"PRAGMA cache_size = -{SQLITE_FILL_CACHE_KB}"))
            driver = (await work.connection.get_raw_connection()).driver_connection
            assert driver is not None
            await driver.executemany(_SQLITE, _rows(count, step, debits, credit))
            await work.execute(text(f"PRAGMA cache_size = {cache_size}"))
        else:
            await work.execute(
                text(
                    _POSTGRESQL.format(
                        step=step, count=count, first=_first_pass(count), gap=GAP, others=GAP - 1
                    )
                ),
                {
                    "debit_ids": [account.id for account in debits],
                    "debits": len(debits),
                    "credit_id": credit.id,
                    "currency": credit.currency,
                },
            )
        await work.execute(update(ledger_head).values(position=count))
        end = {"number": 1, "first_position": 1, "last_position": count, "account_ids": b"", "marks": b""}
        await work.execute(insert(ledger_chain), {**end, "hash": bytes(32), "link": bytes(32)})
        await work.commit()
    await _settle(database)


def _first_pass(count: int) -> int:
    """How many are not the third one."""
    return count - count // GAP


async def _settle(database: Database) -> None:
    """Does what a database that has grown slowly would have done meanwhile."""
    if database.is_sqlite:
        async with database.engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            await driver.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
        return
    async with database.engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("VACUUM ANALYZE ledger_transfers"))
        await connection.execute(text("CHECKPOINT"))


def _rows(
    count: int, step: int, debits: Sequence[NewAccount], credit: NewAccount
) -> Iterator[tuple[object, ...]]:
    debit_ids = [bytes.fromhex(account.id) for account in debits]
    credit_id, currency = bytes.fromhex(credit.id), credit.currency
    first = _first_pass(count)
    for position in range(1, count + 1):
        place = position + (position - 1) // (GAP - 1) if position <= first else (position - first) * GAP
        id = (place * step << 68).to_bytes(16, "big")
        yield position, id, debit_ids[position % len(debit_ids)], credit_id, currency
