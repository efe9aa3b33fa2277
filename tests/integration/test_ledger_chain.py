"""The hash chain and signed checkpoints: what somebody with access to the database can't change unseen."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, select, text

from appservices.chassis.clock import system_clock
from appservices.chassis.database import Database, Write
from appservices.vocabulary.ids import UserId
from appservices.vocabulary.signing import SigningKey
from tests.ledger_samples import ALICE, BOB, WALLET_MIGRATIONS, deposit, open_ledger, payment, submit
from wallet_appservice.ledger.chain import FIRST_LINK
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.ledger.values import TransferMode
from wallet_appservice.payments.daily_checkpoints import make_daily_checkpoints
from wallet_appservice.storage.checkpoint_check import CheckpointSigner
from wallet_appservice.storage.ledger_chain import (
    chain_row,
    ledger_chain,
    record_of_account,
    record_of_row,
)
from wallet_appservice.storage.ledger_check import LedgerCheck, verify
from wallet_appservice.storage.ledger_checkpoints import (
    Checkpoint,
    CheckpointInvalid,
    make_checkpoint,
    read_checkpoint,
    stored_contents,
)
from wallet_appservice.storage.ledger_difference import Difference
from wallet_appservice.storage.ledger_tables import LedgerIdType, ledger_accounts, ledger_transfers

pytest_plugins = ["tests.database_fixtures"]

WALLET = UserId("@wallet:a.example")
KEY = SigningKey.generate()
SIGNER = CheckpointSigner(WALLET, {KEY.key_id: KEY.public_base64})
TEN_MORE = (
    "UPDATE ledger_transfers SET amount_minor = 15 WHERE position = 3",
    "UPDATE ledger_accounts SET debits_posted = debits_posted + 10 WHERE id = :alice",
    "UPDATE ledger_accounts SET credits_posted = credits_posted + 10 WHERE id = :bob",
)
"""Another amount, and balances that follow from it."""


@pytest.fixture
async def used(ledger: Ledger[Write], ledger_database: Database) -> Database:
    """Five batches: accounts, a deposit, four transfers in one, a held one, and an account."""
    await submit(ledger, deposit("salary", ALICE, 100))
    await submit(ledger, *(payment(f"tea {number}", ALICE, BOB, 5) for number in range(4)))
    held = payment("held", ALICE, BOB, 7, mode=TransferMode.PENDING, reference="ä\n b")
    await submit(ledger, held)
    return ledger_database


async def tamper(database: Database, *statements: str, **parameters: Any) -> None:
    """Changes rows as somebody with access to the database could."""
    known = {"alice": ALICE.id, "bob": BOB.id}
    async with database.begin() as work:
        for statement in statements:
            bound = {
                name: LedgerIdType().process_bind_param(value, database.engine.dialect)
                for name, value in known.items()
                if f":{name}" in statement
            }
            await work.execute(text(statement), {**bound, **parameters})
        await work.commit()


async def forge_chain(database: Database) -> None:
    """Writes the chain anew over the rows as they are now, as somebody could who knows how it is made."""
    async with database.begin() as work:
        accounts = {row.id: row for row in await work.execute(select(ledger_accounts))}
        transfers = (await work.execute(select(ledger_transfers).order_by(ledger_transfers.c.position))).all()
        batches = (await work.execute(select(ledger_chain).order_by(ledger_chain.c.number))).all()
        link = FIRST_LINK
        for batch in batches[1:]:
            ids = [
                batch.account_ids[start : start + 16].hex() for start in range(0, len(batch.account_ids), 16)
            ]
            rows = transfers[batch.first_position - 1 : batch.last_position]
            records = [*(record_of_account(accounts[id]) for id in ids), *map(record_of_row, rows)]
            values = chain_row(
                batch.number,
                first_position=batch.first_position,
                account_ids=ids,
                records=records,
                previous=link,
            )
            link = values["link"]
            await work.execute(
                ledger_chain.update().where(ledger_chain.c.number == batch.number).values(values)
            )
        await work.commit()


async def checkpoint(database: Database) -> Checkpoint:
    return await make_checkpoint(database, wallet=WALLET, key=KEY, clock=system_clock)


async def checked(database: Database, *given: Checkpoint) -> LedgerCheck:
    return await verify(database, signer=SIGNER, checkpoints=given)


async def difference_in(database: Database, *given: Checkpoint) -> Difference:
    difference = (await checked(database, *given)).difference
    assert difference is not None
    return difference


async def test_every_batch_adds_one_link(used: Database) -> None:
    check = await checked(used)
    assert (check.difference, check.batches_count, check.transfers_count) == (None, 4, 6)
    assert len(check.link) == 64


async def test_ledgers_of_two_processes_make_one_chain(used: Database) -> None:
    async with open_ledger(used) as first, open_ledger(used) as second:
        await asyncio.gather(
            *(
                submit(ledger, deposit(str(number), ALICE, 1))
                for number in range(20)
                for ledger in (first, second)
            )
        )
    check = await checked(used)
    assert (check.difference, check.transfers_count) == (None, 26)


async def test_a_refused_submission_adds_no_link(used: Database) -> None:
    async with open_ledger(used) as ledger:
        await submit(ledger, payment("car", ALICE, BOB, 100_000))
    assert (await checked(used)).batches_count == 4


@pytest.mark.parametrize(
    ("statements", "table", "row", "words"),
    [
        (TEN_MORE, "ledger_transfers", "3", "not what was written"),
        (
            ("UPDATE ledger_transfers SET reference = 'other' WHERE position = 4",),
            "ledger_transfers",
            "4",
            "not what was written",
        ),
        (
            (
                "DELETE FROM ledger_transfers WHERE position = 6",
                "DELETE FROM ledger_open_pending",
                "UPDATE ledger_accounts SET debits_pending = 0, credits_pending = 0",
                "UPDATE ledger_head SET position = 5",
            ),
            "ledger_transfers",
            "6",
            "transfer 6 is missing: batch 4 applied it",
        ),
        (
            (
                "INSERT INTO ledger_transfers SELECT 7, :new, debit_account_id, credit_account_id, 1, "
                "currency, code, mode, pending_id, timeout_seconds, linked, reference, at_ms "
                "FROM ledger_transfers WHERE position = 3",
                "UPDATE ledger_head SET position = 7",
            ),
            "ledger_transfers",
            "7",
            "in no batch",
        ),
        (
            ("UPDATE ledger_accounts SET owner = '@eve:a.example' WHERE id = :bob",),
            "ledger_accounts",
            BOB.id,
            "account",
        ),
        (
            (
                "INSERT INTO ledger_accounts SELECT :new, kind, currency, owner, 0, 0, 0, 0, "
                "debits_must_not_exceed_credits, credits_must_not_exceed_debits FROM ledger_accounts "
                "WHERE id = :bob",
            ),
            "ledger_accounts",
            "e" * 32,
            "opened in no batch",
        ),
        (
            ("DELETE FROM ledger_chain WHERE number = 2",),
            "ledger_chain",
            "2",
            "batch 2 of the chain is missing",
        ),
        (("DELETE FROM ledger_chain WHERE number = 4",), "ledger_transfers", "6", "in no batch"),
        (("DELETE FROM ledger_chain WHERE number = 0",), "ledger_chain", "0", "beginning is missing"),
        (("UPDATE ledger_chain SET link = hash WHERE number = 2",), "ledger_chain", "2", "another link"),
        (("UPDATE ledger_chain SET hash = link WHERE number = 2",), "ledger_chain", "2", "another hash"),
        (
            ("UPDATE ledger_chain SET first_position = 3 WHERE number = 3",),
            "ledger_chain",
            "3",
            "begins with",
        ),
        (("UPDATE ledger_chain SET marks = hash WHERE number = 2",), "ledger_chain", "2", "another count"),
    ],
)
async def test_what_was_changed_is_named(
    used: Database, statements: tuple[str, ...], table: str, row: str, words: str
) -> None:
    parameters = {"new": LedgerIdType().process_bind_param("e" * 32, used.engine.dialect)}
    for statement in statements:
        await tamper(used, statement, **(parameters if ":new" in statement else {}))
    difference = await difference_in(used)
    assert (difference.table, difference.row) == (table, row)
    assert words in difference.sentence


async def test_changed_marks_are_not_blamed_on_the_transfer(used: Database) -> None:
    async with used.begin() as work:
        await work.execute(ledger_chain.update().where(ledger_chain.c.number == 2).values(marks=bytes(4)))
        await work.commit()
    difference = await difference_in(used)
    assert (difference.table, difference.row) == ("ledger_chain", "2")
    assert "other marks" in difference.sentence


async def test_the_first_changed_row_of_a_batch_is_named_though_a_later_one_breaks_a_rule(
    used: Database,
) -> None:
    await tamper(used, "UPDATE ledger_transfers SET reference = 'x' WHERE position = 2")
    await tamper(used, "UPDATE ledger_transfers SET amount_minor = 1000 WHERE position = 4")
    assert (await difference_in(used)).row == "2"


async def test_a_change_that_also_forges_the_marks_is_found_by_the_hash(used: Database) -> None:
    async with used.read() as work:
        before = {row.number: row for row in await work.execute(select(ledger_chain))}
    await tamper(used, *TEN_MORE)
    await forge_chain(used)
    async with used.begin() as work:
        for number, row in before.items():
            await work.execute(
                ledger_chain.update()
                .where(ledger_chain.c.number == number)
                .values(hash=row.hash, link=row.link)
            )
        await work.commit()
    difference = await difference_in(used)
    assert (difference.table, difference.row) == ("ledger_transfers", "2-5")


async def test_a_chain_written_anew_is_found_by_a_checkpoint(used: Database) -> None:
    first = await checkpoint(used)
    async with open_ledger(used) as ledger:
        await submit(ledger, deposit("more", ALICE, 50))
    await checkpoint(used)
    check = await checked(used, first)
    assert (check.difference, check.checkpoints_count) == (None, 3)
    await tamper(used, *TEN_MORE)
    await forge_chain(used)
    assert (await verify(used)).is_right
    difference = await difference_in(used)
    assert (difference.table, difference.row) == ("ledger_transfers", "1-6")
    assert "checkpoint 1" in difference.sentence
    await tamper(used, "DELETE FROM ledger_checkpoints")
    assert (await checked(used)).is_right
    assert "the given checkpoint 1" in (await difference_in(used, first)).sentence


async def test_an_end_cut_off_with_its_chain_is_found_by_a_checkpoint(used: Database) -> None:
    kept = await checkpoint(used)
    await tamper(
        used,
        "DELETE FROM ledger_transfers WHERE position = 6",
        "DELETE FROM ledger_chain WHERE number = 4",
        "DELETE FROM ledger_open_pending",
        "UPDATE ledger_accounts SET debits_pending = 0, credits_pending = 0",
        "UPDATE ledger_head SET position = 5",
    )
    assert (await verify(used)).is_right
    difference = await difference_in(used, kept)
    assert (difference.table, difference.row) == ("ledger_transfers", "6")
    assert "the ledger ends at transfer 5" in difference.sentence


async def test_a_checkpoint_says_what_each_kind_of_account_adds_up_to(used: Database) -> None:
    document = json.loads((await checkpoint(used)).content)
    assert (document["number"], document["position"], document["batch"]) == (1, 6, 4)
    assert document["sums"]["EUR"]["issuance"]["debits_posted"] == "100"
    assert document["sums"]["EUR"]["user"] == {
        "debits_pending": "7",
        "debits_posted": "20",
        "credits_pending": "7",
        "credits_posted": "120",
    }


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DELETE FROM ledger_checkpoints WHERE number = 1", "checkpoint 1 is missing"),
        ("DELETE FROM ledger_checkpoints WHERE number = 2", "checkpoint 2 is missing"),
        ("UPDATE ledger_checkpoints SET content = replace(content, '\"120\"', '\"121\"')", "does not fit"),
        ("UPDATE ledger_checkpoints SET content = 'x'", "not a checkpoint"),
    ],
)
async def test_a_stored_checkpoint_that_was_changed_is_named(
    used: Database, statement: str, words: str
) -> None:
    for _ in range(3):
        await checkpoint(used)
    await tamper(used, statement)
    difference = await difference_in(used)
    assert difference.table == "ledger_checkpoints"
    assert words in difference.sentence


async def test_a_checkpoint_is_of_one_wallet_and_key(used: Database) -> None:
    content = (await checkpoint(used)).content
    assert read_checkpoint(content, wallet=WALLET, keys=SIGNER.keys).content == content
    other = SigningKey.generate()
    with pytest.raises(CheckpointInvalid, match="does not fit"):
        read_checkpoint(content, wallet=WALLET, keys={other.key_id: other.public_base64})
    with pytest.raises(CheckpointInvalid, match="not signed by"):
        read_checkpoint(content, wallet=UserId("@other:a.example"), keys=SIGNER.keys)


async def test_checkpoints_made_at_once_are_numbered_one_after_another(used: Database) -> None:
    made = await asyncio.gather(*(checkpoint(used) for _ in range(3)))
    assert sorted(item.number for item in made) == [1, 2, 3]
    assert (await checked(used)).checkpoints_count == 3


async def test_payments_stop_when_the_chain_was_cut(used: Database) -> None:
    await tamper(used, "DELETE FROM ledger_chain WHERE number = 4")
    with pytest.raises(CheckpointInvalid, match="do not end"):
        await checkpoint(used)
    async with open_ledger(used) as ledger:
        with pytest.raises(Exception, match="its chain ends at transfer 5"):
            await submit(ledger, deposit("more", ALICE, 50))


async def test_a_ledger_of_before_the_chain_gets_the_same_one_on_every_run(used: Database) -> None:
    links = set()
    for _ in range(2):
        await tamper(used, "DROP TABLE ledger_chain", "DROP TABLE ledger_checkpoints")
        async with used.begin() as work:
            # That revision alone: those after it have been applied and touch nothing of this.
            await work.connection.run_sync(_add_the_chain)
            await work.commit()
        check = await checked(used)
        assert (check.difference, check.batches_count, check.transfers_count) == (None, 2, 6)
        links.add(check.link)
    assert len(links) == 1
    async with open_ledger(used) as ledger:
        await submit(ledger, deposit("more", ALICE, 50))
    assert (await checked(used)).batches_count == 3


async def test_a_running_service_makes_a_checkpoint_a_day(used: Database) -> None:
    now = 1_800_000_000_000
    running = asyncio.create_task(
        make_daily_checkpoints(used, wallet=WALLET, key=KEY, clock=lambda: now, look_seconds=0.01)
    )
    try:
        await _until_checkpoints(used, 1)
        now += 23 * 3_600_000
        await asyncio.sleep(0.1)
        assert await _checkpoints_count(used) == 1
        now += 3_600_000
        await _until_checkpoints(used, 2)
    finally:
        running.cancel()
    assert (await checked(used)).checkpoints_count == 2


async def _checkpoints_count(database: Database) -> int:
    async with database.read() as work:
        return len(await stored_contents(work))


async def _until_checkpoints(database: Database, count: int) -> None:
    async with asyncio.timeout(60):
        while await _checkpoints_count(database) < count:
            await asyncio.sleep(0.01)


def _add_the_chain(connection: Connection) -> None:
    scripts = ScriptDirectory(str(WALLET_MIGRATIONS), version_locations=[str(WALLET_MIGRATIONS)])
    with Operations.context(MigrationContext.configure(connection)):
        scripts.get_revision("wallet_0003").module.upgrade()
