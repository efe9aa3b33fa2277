"""A wallet moves from SQLite to PostgreSQL, whole or not at all, and goes on there."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, text

from appservices.chassis.config import WeftConfig, load_config
from appservices.chassis.database import Database, Write, open_database
from appservices.chassis.migrations import migrate
from appservices.chassis.tables import direct_rooms, inbox, outbox
from appservices.vocabulary.ids import UserId
from appservices.vocabulary.money import CurrencyCode, Money
from scripts.weft_cli.composition import WALLET_BRANCHES, build_payments
from tests.ledger_samples import open_ledger, payment, submit, transfer_id
from tests.postgres import Postgresql
from tests.stack import WEFT, run_weft
from wallet_appservice.ledger.values import TransferMode
from wallet_appservice.payments.accounts import user_account
from wallet_appservice.payments.records import Movement, PaymentOrder, PaymentRecord
from wallet_appservice.storage.database_move import (
    MoveRefused,
    move_database,
    open_alone,
    wallet_database_tables,
)

pytest_plugins = ["tests.database_fixtures"]

EUR = CurrencyCode("EUR")
ALICE, BOB = UserId("@alice:localhost"), UserId("@bob:localhost")
PAYMENTS_COUNT = 12


class TellsNobody:
    async def prepare(self, _movement: Movement) -> Callable[[PaymentRecord], Sequence[Write]]:
        return lambda record: [Write(insert(outbox), _outbox_row(record.id))]


def _outbox_row(id: str) -> dict[str, object]:
    return {
        "outbox_id": id,
        "to_user": BOB,
        "event_type": "m.room.message",
        "content": '{"body": "☕ \\u0000 \'\\""}',
        "state": "waiting",
        "created_at_ms": 1,
    }


async def pay(config: WeftConfig, database: Database, *numbers: int) -> None:
    """Deposits and payments with memos, receipts and messages to be sent."""

    async def user_exists(_user: UserId) -> bool:
        return True

    async with open_ledger(database) as ledger:
        payments = build_payments(
            config,
            database=database,
            ledger=ledger,
            announcer=TellsNobody(),
            user_exists=user_exists,
            on_commit=lambda: None,
        )
        for number in numbers:
            order = PaymentOrder(
                id=transfer_id(f"payment {number}"),
                payer=ALICE,
                payee=BOB,
                money=Money(10 + number, EUR),
                memo=f"☕ {number}",
            )
            await payments.deposit(user=ALICE, money=Money(1_000, EUR), id=transfer_id(f"deposit {number}"))
            assert isinstance(await payments.pay(order), PaymentRecord)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("move") / "data"
    assert run_weft("init", data=folder).returncode == 0
    asyncio.run(_fill(folder))
    assert run_weft("wallet", "checkpoint", data=folder).returncode == 0
    return folder


async def _fill(folder: Path) -> None:
    config = load_config(folder)
    database = open_database(config.wallet.database, folder=folder)
    await migrate(database, *WALLET_BRANCHES)
    await pay(config, database, *range(PAYMENTS_COUNT))
    alice, bob = user_account(ALICE, EUR), user_account(BOB, EUR)
    async with open_ledger(database) as ledger:
        await submit(ledger, payment("held", alice, bob, 30, mode=TransferMode.PENDING, timeout_seconds=60))
        assert await submit(ledger, payment("too much", alice, bob, 10**9)) != [None]
    async with database.begin() as work:
        event = {"event_id": "$1", "room_id": "!r", "event": "{}", "state": "done", "received_at_ms": 1}
        await work.execute(insert(inbox), event)
        # Names that a language sorts in another order than their bytes.
        rooms = [{"user_id": name, "room_id": "!r"} for name in ("@b:x", "@B:x", "@_:x", "@a:x", "@ä:x")]
        await work.execute(insert(direct_rooms), rooms)
        await work.commit()
    await database.close()


@pytest.fixture
def data(filled: Path, tmp_path: Path) -> Path:
    """A data folder of the test's own with a filled wallet."""
    return Path(shutil.copytree(filled, tmp_path / "data"))


@pytest.fixture
def target_url(postgresql: Postgresql) -> str:
    return postgresql.create_database()


def move(data: Path, target_url: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return run_weft("wallet", "migrate-database", "--to", target_url, *flags, data=data)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


async def rows_count(url: str, folder: Path) -> int:
    database = open_database(url, folder=folder)
    async with database.read() as work:
        counts = [
            (await work.execute(select(func.count()).select_from(table))).scalar_one()
            for table in wallet_database_tables()
        ]
    await database.close()
    return sum(counts)


def test_a_wallet_moves_and_pays_on(data: Path, target_url: str) -> None:
    before = run_weft("wallet", "verify", data=data).stdout
    sqlite = data / "wallet.db"
    done = move(data, target_url, "--switch")
    assert done.returncode == 0, done.stderr
    assert f"payments: {2 * PAYMENTS_COUNT} rows, the same in both" in done.stdout
    assert "direct_rooms: 5 rows" in done.stdout
    config = load_config(data)
    assert config.wallet.database == target_url
    assert run_weft("wallet", "verify", data=data).stdout == before
    assert sqlite.exists()

    async def pay_on() -> None:
        database = open_database(target_url, folder=data)
        await migrate(database, *WALLET_BRANCHES)
        # Repeated ones get their first answers, new ones get the next numbers.
        await pay(config, database, 0, PAYMENTS_COUNT, PAYMENTS_COUNT + 1)
        async with database.read() as work:
            last = (await work.execute(text("SELECT max(position), count(*) FROM payments"))).one()
        await database.close()
        assert last == (2 * PAYMENTS_COUNT + 4, 2 * PAYMENTS_COUNT + 4)

    asyncio.run(pay_on())
    said = run_weft("wallet", "verify", data=data).stdout
    assert f"The ledger is right: {2 * PAYMENTS_COUNT + 5} transfers" in said
    assert "there is nothing to move" in refused(move(data, target_url))


def test_without_switch_it_says_which_line_to_change(data: Path, target_url: str) -> None:
    before = (data / "weft.yaml").read_text()
    done = move(data, target_url)
    assert done.returncode == 0, done.stderr
    assert f'database: "{target_url}"' in done.stdout
    assert (data / "weft.yaml").read_text() == before
    assert "not empty" in refused(move(data, target_url))


def test_a_wallet_that_somebody_has_open_is_not_moved(data: Path, target_url: str) -> None:
    async def move_while_open() -> subprocess.CompletedProcess[str]:
        database = open_database("sqlite:///wallet.db", folder=data)
        async with database.read() as work:
            await work.execute(text("SELECT count(*) FROM payments"))
        # It does nothing now, as a service between two payments.
        done = await asyncio.to_thread(move, data, target_url)
        await database.close()
        return done

    assert "has the SQLite database open" in refused(asyncio.run(move_while_open()))
    assert move(data, target_url).returncode == 0


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:///other.db", "must be PostgreSQL"),
        ("mysql://x/y", "take sqlite or postgresql"),
        ("postgresql://weft@127.0.0.1:1/weft", "Nothing was moved"),
    ],
)
def test_a_target_that_can_not_be_used_is_one_sentence(data: Path, url: str, words: str) -> None:
    assert words in refused(move(data, url))


def test_a_target_with_other_tables_is_refused(data: Path, target_url: str) -> None:
    async def use() -> None:
        database = open_database(target_url, folder=data)
        async with database.begin() as work:
            await work.execute(text("CREATE TABLE theirs (id integer)"))
            await work.commit()
        await database.close()

    asyncio.run(use())
    assert "it holds theirs" in refused(move(data, target_url))


def test_a_ledger_that_is_not_right_is_not_moved(data: Path, target_url: str) -> None:
    async def tamper() -> None:
        database = open_database("sqlite:///wallet.db", folder=data)
        async with database.begin() as work:
            await work.execute(text("UPDATE ledger_transfers SET amount_minor = 1 WHERE position = 2"))
            await work.commit()
        await database.close()

    asyncio.run(tamper())
    assert "the ledger in SQLite is not right: transfer 2" in refused(move(data, target_url))


async def test_a_row_that_postgresql_can_not_hold_is_one_sentence_and_nothing_is_kept(
    data: Path, target_url: str
) -> None:
    source = open_database("sqlite:///wallet.db", folder=data)
    async with source.begin() as work:
        await work.execute(text("UPDATE outbox SET content = 'a' || char(0) || 'b' WHERE position = 3"))
        await work.commit()
    await source.close()
    done = await asyncio.to_thread(move, data, target_url)
    assert "PostgreSQL did not take it" in refused(done)
    assert await rows_count(target_url, data) == 2


async def test_a_crash_in_the_middle_leaves_the_target_empty_and_the_move_can_begin_again(
    data: Path, target_url: str
) -> None:
    content = (data / "wallet.db").read_bytes()
    target = open_database(target_url, folder=data)
    for steps in (1, 5, 9, 12):
        calls = count(1)

        def crash(_done: int, _total: int, *, calls: count[int] = calls, steps: int = steps) -> None:
            if next(calls) == steps:
                raise KeyError

        with pytest.raises(KeyError):
            async with open_alone("sqlite:///wallet.db", folder=data) as source:
                await move_database(source, target, *WALLET_BRANCHES, on_progress=crash)
        # The ledger's head and the chain's beginning are what migrations make.
        assert await rows_count(target_url, data) == 2
    assert (data / "wallet.db").read_bytes() == content
    async with open_alone("sqlite:///wallet.db", folder=data) as source:
        await move_database(source, target, *WALLET_BRANCHES, on_progress=lambda _done, _total: None)
    with pytest.raises(MoveRefused, match="not empty"):
        async with open_alone("sqlite:///wallet.db", folder=data) as source:
            await move_database(source, target, *WALLET_BRANCHES, on_progress=lambda _done, _total: None)
    await target.close()


async def test_a_killed_move_can_begin_again(data: Path, target_url: str) -> None:
    """It is killed while it waits for a table that somebody holds, in the middle of its transaction."""
    target = open_database(target_url, folder=data)
    await migrate(target, *WALLET_BRANCHES)
    async with target.begin() as work:
        await work.execute(text("LOCK TABLE payments IN ACCESS EXCLUSIVE MODE"))
        moving = await asyncio.create_subprocess_exec(
            *(str(WEFT), "wallet", "migrate-database", "--data", str(data), "--to", target_url),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        async with asyncio.timeout(60):
            while not (await work.execute(waiting)).scalar_one():
                assert moving.returncode is None
                await asyncio.sleep(0.05)
        moving.send_signal(signal.SIGKILL)
        await moving.wait()
    await target.close()
    assert move(data, target_url).returncode == 0
