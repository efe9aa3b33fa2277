"""The ledger on SQLite and on PostgreSQL: the same tests, the same answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select, text

from appservices.chassis.database import Database, Write, open_database
from appservices.vocabulary.ids import AccountId
from appservices.vocabulary.money import AMOUNT_MINOR_MAX
from tests.ledger_samples import (
    ALICE,
    BOB,
    ISSUANCE,
    PEOPLE,
    deposit,
    open_ledger,
    payment,
    refusals,
    submit,
    transfer_id,
)
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.ledger.submissions import LedgerUnavailable, Submission, SubmissionFailed
from wallet_appservice.ledger.values import (
    AccountKind,
    TransferMode,
    TransferRefusal,
    TransferResult,
    account_for,
    posting_of,
    voiding_of,
)
from wallet_appservice.storage.ledger_check import verify
from wallet_appservice.storage.ledger_store import SqlLedgerStore

pytest_plugins = ["tests.database_fixtures"]

effects_metadata = MetaData()
notes = Table(
    "test_notes", effects_metadata, Column("id", Integer, primary_key=True), Column("words", String(64))
)
INSERT_NOTE = insert(notes)
PENDING = TransferMode.PENDING


@pytest.fixture
async def noted(ledger_database: Database) -> Database:
    """The database with a table for effects."""
    async with ledger_database.begin() as work:
        await work.connection.run_sync(effects_metadata.create_all)
        await work.commit()
    return ledger_database


async def available(ledger: Ledger[Write], account_id: AccountId) -> int:
    account = await ledger.account(account_id)
    assert account is not None
    return account.available_minor


async def all_notes(database: Database) -> list[tuple[int, str]]:
    async with database.read() as work:
        return [(row.id, row.words) for row in await work.execute(select(notes).order_by(notes.c.id))]


def note(id: int, words: str = "") -> Write:
    return Write(INSERT_NOTE, {"id": id, "words": words})


def always(*writes: Write) -> Callable[[tuple[TransferResult, ...]], Sequence[Write]]:
    return lambda _results: writes


async def test_hundreds_of_callers_on_one_hot_account(
    ledger: Ledger[Write], ledger_database: Database
) -> None:
    people = [
        account_for(AccountKind.USER, owner=f"@{number}:a.example", currency=ALICE.currency)
        for number in range(40)
    ]
    await ledger.open_accounts(*people)
    await submit(ledger, deposit("opening", ALICE, 500))
    answers = await asyncio.gather(
        *(submit(ledger, payment(str(number), ALICE, people[number % 40], 1)) for number in range(600))
    )
    assert sum(answer == [None] for answer in answers) == 500
    assert sum(answer == [TransferRefusal.BALANCE_TOO_LOW] for answer in answers) == 100
    assert await available(ledger, ALICE.id) == 0
    check = await verify(ledger_database)
    assert (check.difference, check.transfers_count) == (None, 501)
    assert check.in_circulation_minor == {"EUR": 500}


async def test_two_ledgers_at_once_spend_the_same_money_once(
    ledger: Ledger[Write], ledger_database: Database
) -> None:
    """Each judges ahead by what it knows, and is overtaken by the other again and again."""
    await submit(ledger, deposit("opening", ALICE, 500))
    answers: list[TransferRefusal | None] = []

    async def pay(which: Ledger[Write], name: str) -> None:
        for number in range(4):
            answers.extend(await submit(which, payment(f"{name} {number}", ALICE, BOB, 1)))
            # The same command at both, a moment later.
            answers.extend(await submit(ledger, payment(f"{name} {number}", ALICE, BOB, 1)))

    async with open_ledger(ledger_database) as other:
        callers = [
            pay(which, f"{index} {n}") for n in range(80) for index, which in enumerate((ledger, other))
        ]
        await asyncio.gather(*callers)
    assert answers.count(None) == 1_000
    assert answers.count(TransferRefusal.BALANCE_TOO_LOW) == 280
    assert (await available(ledger, ALICE.id), await available(ledger, BOB.id)) == (0, 500)
    check = await verify(ledger_database)
    assert (check.difference, check.transfers_count) == (None, 501)


async def test_what_is_stored_reads_back_unchanged(ledger: Ledger[Write]) -> None:
    held = deposit("held", ALICE, AMOUNT_MINOR_MAX, mode=PENDING, timeout_seconds=90, reference="→ ☕ '\"%s")
    chain = (deposit("1", ALICE, 70, linked=True), payment("2", ALICE, BOB, 20))
    assert await submit(ledger, held, *chain) == [None, None, None]
    stored = await ledger.transfer(held.id)
    assert stored is not None
    assert (stored.transfer, stored.position, stored.ended_by) == (held, 1, None)
    assert stored.expires_at_ms == stored.at_ms + 90_000
    assert await submit(ledger, voiding_of(held, id=transfer_id("void"))) == [None]
    stored = await ledger.transfer(held.id)
    assert stored is not None
    assert stored.ended_by is TransferMode.VOID_PENDING
    linked = await ledger.transfer(chain[0].id)
    assert linked is not None
    assert linked.transfer == chain[0]
    assert await ledger.transfer(transfer_id("never")) is None
    (account,) = await ledger.accounts_of("@alice:a.example")
    assert (account.id, account.kind, account.available_minor) == (ALICE.id, AccountKind.USER, 50)
    assert await ledger.accounts_of("@nobody:a.example") == ()
    assert await ledger.account(AccountId("f" * 32)) is None


async def test_a_statement_pages_through_both_sides_latest_first(ledger: Ledger[Write]) -> None:
    await submit(ledger, deposit("0", ALICE, 100))
    for number in range(1, 8):
        debit, credit = (ALICE, BOB) if number % 3 else (BOB, ALICE)
        await submit(ledger, payment(str(number), debit, credit, 1))
    await submit(ledger, deposit("not hers", BOB, 5))
    positions: list[int] = []
    before: int | None = None
    while page := await ledger.transfers_of(ALICE.id, limit=3, before=before):
        positions += [stored.position for stored in page]
        before = page[-1].position
    assert positions == [8, 7, 6, 5, 4, 3, 2, 1]


async def test_the_same_id_in_later_batches_gets_its_first_answer(
    ledger: Ledger[Write], ledger_database: Database
) -> None:
    opening, tea, car = deposit("o", ALICE, 10), payment("t", ALICE, BOB, 4), payment("c", ALICE, BOB, 99)
    first = await ledger.submit(Submission(transfers=(opening, tea, car)))
    await submit(ledger, deposit("more", ALICE, 1_000))
    async with open_ledger(ledger_database) as another:
        again = await another.submit(Submission(transfers=(opening, tea, car)))
    assert again == tuple(result._replace(replayed=True) for result in first)
    other = tea._replace(amount_minor=5)
    assert await submit(ledger, other) == [TransferRefusal.ID_EXISTS_WITH_DIFFERENT_CONTENT]
    assert await available(ledger, BOB.id) == 4


async def test_the_same_id_many_times_at_once_pays_once(ledger: Ledger[Write]) -> None:
    await submit(ledger, deposit("opening", ALICE, 100))
    answers = await asyncio.gather(
        *(ledger.submit(Submission(transfers=(payment("tea", ALICE, BOB, 10),))) for _ in range(60))
    )
    results = [result for (result,) in answers]
    assert {result.refusal for result in results} == {None}
    assert sum(not result.replayed for result in results) == 1
    assert await available(ledger, BOB.id) == 10


async def test_effects_and_transfers_are_one_commit(ledger: Ledger[Write], noted: Database) -> None:
    def receipts(results: tuple[TransferResult, ...]) -> Sequence[Write]:
        return [note(number, str(result.refusal)) for number, result in enumerate(results)]

    transfers = (deposit("1", ALICE, 10), payment("2", ALICE, BOB, 11))
    await ledger.submit(Submission(transfers=transfers, effects=receipts))
    assert await all_notes(noted) == [(0, "None"), (1, "balance_too_low")]
    refused = (deposit("3", ALICE, 10),)
    with pytest.raises(SubmissionFailed):
        await ledger.submit(Submission(transfers=refused, effects=receipts))
    assert await ledger.transfer(refused[0].id) is None
    assert await available(ledger, ALICE.id) == 10
    assert len(await all_notes(noted)) == 2


@pytest.mark.parametrize(
    "poison",
    [note(1, "taken"), Write(INSERT_NOTE, {"id": object()}), Write(text("SELECT * FROM nothing"), {})],
    ids=["constraint", "not storable", "no such table"],
)
async def test_poison_effects_fail_nobody_else(ledger: Ledger[Write], noted: Database, poison: Write) -> None:
    await ledger.submit(Submission(effects=always(note(1))))
    submissions = [
        Submission(
            transfers=(deposit(str(number), ALICE, 1),),
            effects=always(poison if number == 20 else note(100 + number)),
        )
        for number in range(50)
    ]
    answers = await asyncio.gather(*map(ledger.submit, submissions), return_exceptions=True)
    failed = [number for number, answer in enumerate(answers) if isinstance(answer, BaseException)]
    assert failed == [20]
    assert isinstance(answers[20], SubmissionFailed)
    assert await available(ledger, ALICE.id) == 49
    assert len(await all_notes(noted)) == 50
    assert (await verify(noted)).is_right


async def test_a_pending_transfer_ends_once_whoever_tries(ledger: Ledger[Write]) -> None:
    held = payment("held", ALICE, BOB, 60, mode=PENDING)
    assert await submit(ledger, deposit("opening", ALICE, 100), held) == [None, None]
    assert await submit(ledger, payment("tea", ALICE, BOB, 41)) == [TransferRefusal.BALANCE_TOO_LOW]
    endings = [posting_of(held, id=transfer_id(f"p{number}")) for number in range(20)]
    endings += [voiding_of(held, id=transfer_id(f"v{number}")) for number in range(20)]
    answers = await asyncio.gather(*(submit(ledger, ending) for ending in endings))
    assert answers.count([None]) == 1
    assert await available(ledger, BOB.id) == 60


async def test_expiry_finds_what_is_due_and_nothing_else(noted: Database) -> None:
    now_ms = 1_795_305_600_000
    ledger: Ledger[Write] = Ledger(SqlLedgerStore(noted), clock=lambda: now_ms)
    async with ledger:
        await ledger.open_accounts(*PEOPLE)
        await submit(ledger, deposit("opening", ALICE, 100))
        timeouts = {"soon": 60, "posted": 60, "later": 600, "never": None}
        holds = {
            name: payment(name, ALICE, BOB, 10, mode=PENDING, timeout_seconds=timeout)
            for name, timeout in timeouts.items()
        }
        await submit(ledger, *holds.values(), posting_of(holds["posted"], id=transfer_id("post")))
        assert await ledger.expire_pending() == 0
        now_ms += 60_000
        assert await ledger.expire_pending(lambda pending, _result: [note(1, pending.id)]) == 1
        assert await ledger.expire_pending(lambda pending, _result: [note(2, pending.id)]) == 0
        stored = await ledger.transfer(holds["soon"].id)
        assert stored is not None
        assert stored.ended_by is TransferMode.EXPIRE_PENDING
        assert await available(ledger, ALICE.id) == 70
    assert await all_notes(noted) == [(1, holds["soon"].id)]
    assert (await verify(noted)).is_right


async def test_a_batch_of_thousands_is_one_commit(ledger: Ledger[Write], ledger_database: Database) -> None:
    transfers = tuple(deposit(str(number), ALICE, 1) for number in range(4_000))
    results = await ledger.submit(Submission(transfers=transfers))
    assert set(refusals(results)) == {None}
    assert await available(ledger, ALICE.id) == 4_000
    assert (await verify(ledger_database)).transfers_count == 4_000


async def test_a_database_without_the_ledger_is_a_clear_refusal(database_url: str, tmp_path: Path) -> None:
    database = open_database(database_url, folder=tmp_path)
    async with open_ledger(database) as ledger:
        with pytest.raises(LedgerUnavailable, match="nothing was committed"):
            await ledger.open_accounts(ISSUANCE)
    await database.close()
