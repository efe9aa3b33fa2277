"""What has gone wrong in other people's ledgers, tried on this one, on both databases.

Two processes that commit at once, and a process killed in between, are in `test_ledger_crashes`; balance and
effects as one commit, in `test_ledger_store`; all of it at random, in `test_ledger_simulation`.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select

from appservices.chassis.database import Database, Write, open_database
from tests.ledger_samples import (
    ALICE,
    BOB,
    EUR,
    PEOPLE,
    deposit,
    open_ledger,
    payment,
    refusals,
    submit,
    transfer_id,
)
from tests.simulation.faults import Fault, FaultKind, FaultyDriver
from wallet_appservice.ledger import engine
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.ledger.submissions import LedgerUnavailable, Submission
from wallet_appservice.ledger.values import (
    Account,
    AccountKind,
    TransferCode,
    TransferMode,
    TransferRefusal,
    account_for,
    posting_of,
)
from wallet_appservice.storage.ledger_check import verify
from wallet_appservice.storage.ledger_store import SqlLedgerStore
from wallet_appservice.storage.ledger_tables import ledger_accounts, ledger_transfers

pytest_plugins = ["tests.database_fixtures"]

PENDING = TransferMode.PENDING
FEES = account_for(AccountKind.FEE, owner="fees", currency=EUR)
START_MS = 1_795_305_600_000


async def account(ledger: Ledger[Write], id: Any) -> Account:
    found = await ledger.account(id)
    assert found is not None
    return found


async def test_a_pending_debit_counts_against_the_balance(ledger: Ledger[Write]) -> None:
    """Else the same money is promised to two people, as long as neither promise is kept yet."""
    await submit(ledger, deposit("salary", ALICE, 100))
    assert await submit(ledger, payment("held", ALICE, BOB, 70, mode=PENDING)) == [None]
    for mode in (TransferMode.SINGLE_PHASE, PENDING):
        answer = await submit(ledger, payment(f"too much {mode}", ALICE, BOB, 31, mode=mode))
        assert answer == [TransferRefusal.BALANCE_TOO_LOW]
    assert await submit(ledger, payment("the rest", ALICE, BOB, 30)) == [None]
    assert (await account(ledger, ALICE.id)).available_minor == 0


async def test_what_was_promised_can_not_be_spent_before_it_comes(ledger: Ledger[Write]) -> None:
    await submit(ledger, deposit("promised", ALICE, 100, mode=PENDING))
    assert await submit(ledger, payment("tea", ALICE, BOB, 1)) == [TransferRefusal.BALANCE_TOO_LOW]


async def test_balance_and_record_are_one_commit(ledger: Ledger[Write], ledger_database: Database) -> None:
    """Whoever reads while others pay sees balances that follow from the transfers that they see."""
    await submit(ledger, deposit("salary", ALICE, 1_000))
    paying = asyncio.gather(*(submit(ledger, payment(f"{n}", ALICE, BOB, 1)) for n in range(400)))
    looks = 0
    while not paying.done() or looks == 0:
        async with ledger_database.read() as work:
            rows = (await work.execute(select(ledger_transfers))).all()
            bob = (await work.execute(select(ledger_accounts).where(ledger_accounts.c.id == BOB.id))).one()
        assert bob.credits_posted == sum(row.amount_minor for row in rows if row.credit_account_id == BOB.id)
        looks += 1
    await paying
    assert (await account(ledger, BOB.id)).available_minor == 400


async def test_a_held_amount_is_released_after_its_time_out(ledger_database: Database) -> None:
    """Also when the process that held it is gone; nobody has to remember it."""
    now_ms = START_MS
    store = SqlLedgerStore(ledger_database)
    held = payment("held", ALICE, BOB, 80, mode=PENDING, timeout_seconds=60)
    async with Ledger(store, clock=lambda: now_ms) as ledger:
        await ledger.open_accounts(*PEOPLE)
        await submit(ledger, deposit("salary", ALICE, 100), held)
    now_ms += 60_000
    async with Ledger(store, clock=lambda: now_ms) as ledger:
        assert (await account(ledger, ALICE.id)).available_minor == 20
        assert await ledger.expire_pending() == 1
        assert (await account(ledger, ALICE.id)).available_minor == 100
        late = posting_of(held, id=transfer_id("late"))
        assert await submit(ledger, late) == [TransferRefusal.PENDING_EXPIRED]
        assert (await account(ledger, BOB.id)).credits_posted == 0
    assert (await verify(ledger_database)).is_right


async def test_a_fee_does_not_overdraw(ledger: Ledger[Write]) -> None:
    """The payment alone would be covered, the fee after it is not: neither happens."""
    await ledger.open_accounts(FEES)
    await submit(ledger, deposit("salary", ALICE, 100))

    def with_fee(name: str, amount: int, fee: int) -> Submission[Write]:
        paid = payment(name, ALICE, BOB, amount, linked=True)
        return Submission(transfers=(paid, payment(f"{name} fee", ALICE, FEES, fee, code=TransferCode.FEE)))

    assert refusals(await ledger.submit(with_fee("dear", 99, 2))) == [
        TransferRefusal.LINKED_CHAIN_BROKEN,
        TransferRefusal.BALANCE_TOO_LOW,
    ]
    assert (await account(ledger, ALICE.id)).available_minor == 100
    assert refusals(await ledger.submit(with_fee("fitting", 98, 2))) == [None, None]
    assert (await account(ledger, ALICE.id)).available_minor == 0
    assert (await account(ledger, FEES.id)).available_minor == 2


async def test_read_modify_write_loses_no_update(
    ledger_database: Database, database_url: str, tmp_path: Path
) -> None:
    """Two ledgers, as of two processes, read a balance, decide, and write it, each as if it were alone."""
    other = open_database(database_url, folder=tmp_path)
    async with open_ledger(ledger_database) as one, open_ledger(other) as two:
        await one.open_accounts(*PEOPLE)
        await submit(one, deposit("salary", ALICE, 100))
        answers = await asyncio.gather(
            *(submit((one, two)[n % 2], payment(f"{n}", ALICE, BOB, 7)) for n in range(40))
        )
        assert answers.count([None]) == 14
        assert (await account(one, ALICE.id)).available_minor == 2
        assert (await account(one, BOB.id)).available_minor == 98
    await other.close()


def test_sqlite_would_let_read_modify_write_lose_an_update(tmp_path: Path) -> None:
    """What the ledger is spared: SQLite stops neither of two who read, decide, and then write."""
    path = tmp_path / "naive.db"
    with closing(_naive(path)) as one, closing(_naive(path)) as two:
        one.execute("CREATE TABLE accounts (balance INTEGER)")
        one.execute("INSERT INTO accounts VALUES (100)")
        seen = [connection.execute("SELECT balance FROM accounts").fetchone()[0] for connection in (one, two)]
        for connection, balance in zip((one, two), seen, strict=True):
            connection.execute("UPDATE accounts SET balance = ?", (balance - 70,))
        assert one.execute("SELECT balance FROM accounts").fetchone() == (30,), "140 were paid out of 100"

        # In a deferred transaction the second one fails, however long it is willing to wait.
        for connection in (one, two):
            connection.execute("BEGIN")
            connection.execute("SELECT balance FROM accounts").fetchone()
        one.execute("UPDATE accounts SET balance = 1")
        one.execute("COMMIT")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            two.execute("UPDATE accounts SET balance = 2")


def _naive(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=5)
    connection.execute("PRAGMA journal_mode = WAL")
    return connection


async def test_a_batch_on_sqlite_writes_from_its_beginning(tmp_path: Path) -> None:
    """So that it never reads what another is about to change."""
    database = open_database("sqlite:///ledger.db", folder=tmp_path)
    begun: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_other: Any) -> None:
        begun.append(statement)

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    async with database.begin() as work:
        await work.commit()
    assert begun == ["BEGIN IMMEDIATE"]
    await database.close()


@pytest.fixture
async def failing(
    ledger_database: Database, database_url: str, tmp_path: Path
) -> AsyncIterator[tuple[Ledger[Write], FaultyDriver]]:
    """A ledger whose statements can be made to fail."""
    async with open_ledger(ledger_database) as ledger:
        await ledger.open_accounts(*PEOPLE)
    database = open_database(database_url, folder=tmp_path)
    driver = FaultyDriver(database)
    async with open_ledger(database) as ledger:
        yield ledger, driver
    await database.close()


async def test_deadlocks_are_tried_again_so_many_times_and_no_more(
    failing: tuple[Ledger[Write], FaultyDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry without a bound turns one deadlock into a standstill."""
    monkeypatch.setattr(engine, "RETRY_PAUSE_SECONDS", 0.001)
    ledger, driver = failing
    tea: Submission[Write] = Submission(transfers=(deposit("tea", ALICE, 5),))
    driver.arm(Fault(FaultKind.BUSY, 3))
    (result,) = await ledger.submit(tea)
    assert driver.struck is not None
    assert (result.refusal, result.replayed) == (None, False)

    driver.arm(Fault(FaultKind.BUSY, 2, lasts=True))
    with pytest.raises(LedgerUnavailable, match="nothing was committed") as caught:
        await ledger.submit(Submission(transfers=(deposit("coffee", ALICE, 5),)))
    assert not caught.value.outcome_unknown
    assert driver.strikes == engine.ATTEMPTS_MAX
    driver.arm(None)
    assert (await account(ledger, ALICE.id)).available_minor == 5


async def test_absurd_amounts_move_nothing_and_harm_no_neighbour(
    ledger: Ledger[Write], ledger_database: Database
) -> None:
    """Not even of the same submission; and their ids stay free for the right amount."""
    absurd: dict[Any, TransferRefusal] = {
        **dict.fromkeys((math.nan, math.inf, 0.1, 10.0), TransferRefusal.AMOUNT_NOT_WHOLE),
        **dict.fromkeys((True, None, Decimal(7), "10"), TransferRefusal.AMOUNT_NOT_WHOLE),
        0: TransferRefusal.AMOUNT_ZERO,
        -10: TransferRefusal.AMOUNT_NEGATIVE,
        **dict.fromkeys((2**53, 2**63, 10**40), TransferRefusal.AMOUNT_TOO_BIG),
    }
    transfers = [deposit("before", ALICE, 100)]
    transfers += [payment(f"absurd {amount!r}", ALICE, BOB, amount) for amount in absurd]
    transfers.append(payment("after", ALICE, BOB, 1))
    answers: Sequence[TransferRefusal | None] = await submit(ledger, *transfers)
    assert answers == [None, *absurd.values(), None]
    right = [payment(f"absurd {amount!r}", ALICE, BOB, 2) for amount in absurd]
    assert await submit(ledger, *right) == [None] * len(absurd)
    assert (await account(ledger, BOB.id)).available_minor == 1 + 2 * len(absurd)
    assert (await verify(ledger_database)).is_right
