"""The engine's promises to its callers, on a store in memory that fails on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import pytest

from appservices.vocabulary.ids import AccountId, TransferId
from tests.ledger_samples import ALICE, BOB, PEOPLE, deposit, four_sums, payment, refusals, with_sums
from wallet_appservice.ledger import engine
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.ledger.store import CommitUnknown, StoreBusy, StoreRefused
from wallet_appservice.ledger.submissions import (
    LedgerUnavailable,
    Submission,
    SubmissionFailed,
    SubmissionTooBig,
)
from wallet_appservice.ledger.values import (
    Account,
    AccountRefusal,
    StoredTransfer,
    TransferMode,
    TransferRefusal,
    TransferResult,
)
from wallet_appservice.ledger.view import Changes, Loaded, StoredRefusal, Wanted

POISON = "poison"
Key = TypeVar("Key")
Value = TypeVar("Value")


class MemoryStore:
    """A LedgerStore without a disk. Effects are texts; POISON is one that it refuses."""

    def __init__(self) -> None:
        self.accounts: dict[AccountId, Account] = {}
        self.transfers: dict[TransferId, StoredTransfer] = {}
        self.refused: dict[TransferId, StoredRefusal] = {}
        self.effects: list[str] = []
        self.batch_sizes: list[int] = []
        self.attempts_count = 0
        self.failures: list[Exception] = []
        self.commits_before_failing = False
        self.commit_seconds = 0.0
        self.may_commit = asyncio.Event()
        self.may_commit.set()
        self._is_free = asyncio.Event()
        self._is_free.set()

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[MemoryStore]:
        yield self

    async def lock(self) -> None:
        await self._is_free.wait()

    async def load(self, wanted: Wanted) -> Loaded:
        self.attempts_count += 1
        await asyncio.sleep(0)
        return Loaded(
            accounts=_found(self.accounts, wanted.account_ids),
            transfers=_found(self.transfers, wanted.transfer_ids | wanted.pending_ids),
            refusals=_found(self.refused, wanted.transfer_ids),
            position=len(self.transfers),
        )

    async def commit(self, changes: Changes, effects: Sequence[str]) -> None:
        self._is_free.clear()
        try:
            await self._commit(changes, effects)
        finally:
            self._is_free.set()

    async def _commit(self, changes: Changes, effects: Sequence[str]) -> None:
        await self.may_commit.wait()
        # As with a database, others go on meanwhile.
        await asyncio.sleep(self.commit_seconds)
        if POISON in effects:
            raise StoreRefused("the effect breaks a constraint")
        failure = self.failures.pop(0) if self.failures else None
        if failure is None or self.commits_before_failing:
            self.accounts.update({account.id: account for account in changes.opened})
            for id, before, after in changes.changed:
                assert four_sums(self.accounts[id]) == before
                self.accounts[id] = with_sums(self.accounts[id], after)
            self.transfers.update({stored.transfer.id: stored for stored in changes.transfers})
            self.refused.update({stored.id: stored for stored in changes.refusals})
            self.effects.extend(effects)
            self.batch_sizes.append(len(changes.transfers))
        if failure is not None:
            raise failure

    async def account(self, account_id: AccountId) -> Account | None:
        return self.accounts.get(account_id)

    async def accounts_of(self, owner: str) -> tuple[Account, ...]:
        return tuple(account for account in self.accounts.values() if account.owner == owner)

    async def transfer(self, transfer_id: TransferId) -> StoredTransfer | None:
        return self.transfers.get(transfer_id)

    async def transfers_of(
        self, account_id: AccountId, *, limit: int, before: int | None
    ) -> tuple[StoredTransfer, ...]:
        return ()

    async def due(self, *, now_ms: int, limit: int, after: int) -> tuple[StoredTransfer, ...]:
        ended = {stored.transfer.pending_id for stored in self.transfers.values()}
        found = [
            stored
            for stored in self.transfers.values()
            if stored.expires_at_ms is not None
            and stored.expires_at_ms <= now_ms
            and stored.position > after
            and stored.transfer.id not in ended
        ]
        return tuple(found[:limit])

    def balance(self, account_id: AccountId) -> int:
        return self.accounts[account_id].available_minor


class Clock:
    """A clock that stands still until it is told the time."""

    def __init__(self) -> None:
        self.now_ms = 1_795_305_600_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def ledger(store: MemoryStore, clock: Clock) -> AsyncIterator[Ledger[str]]:
    async with Ledger[str](store, clock=clock) as running:
        await running.open_accounts(*PEOPLE)
        await running.submit(Submission(transfers=(deposit("opening", ALICE, 1_000),)))
        store.batch_sizes.clear()
        store.attempts_count = 0
        yield running


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "RETRY_PAUSE_SECONDS", 0.001)


def tea(name: str, amount_minor: int = 1, *effects: str) -> Submission[str]:
    return Submission(transfers=(payment(name, ALICE, BOB, amount_minor),), effects=lambda _results: effects)


async def test_concurrent_callers_share_a_commit_and_each_gets_its_own_answer(
    ledger: Ledger[str], store: MemoryStore
) -> None:
    answers = await asyncio.gather(
        *(ledger.submit(tea(str(number), 1 if number % 2 else 5_000)) for number in range(200))
    )
    assert [refusals(answer)[0] for answer in answers] == [
        None if number % 2 else TransferRefusal.BALANCE_TOO_LOW for number in range(200)
    ]
    assert len(store.batch_sizes) <= 3
    assert store.balance(BOB.id) == 100


async def test_submissions_are_applied_in_the_order_of_their_arrival(
    ledger: Ledger[str], store: MemoryStore
) -> None:
    await asyncio.gather(*(ledger.submit(tea(str(number))) for number in range(50)))
    amounts = sorted(store.transfers.values(), key=lambda stored: stored.position)[1:]
    assert [stored.transfer for stored in amounts] == [
        payment(str(number), ALICE, BOB, 1) for number in range(50)
    ]


async def test_a_batch_is_bounded(
    ledger: Ledger[str], store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BATCH_TRANSFERS_MAX", 7)
    await asyncio.gather(*(ledger.submit(tea(str(number))) for number in range(30)))
    assert max(store.batch_sizes) == 7


async def test_no_answer_comes_before_the_commit(ledger: Ledger[str], store: MemoryStore) -> None:
    store.may_commit.clear()
    asked = asyncio.create_task(ledger.submit(tea("slow")))
    done, _ = await asyncio.wait({asked}, timeout=0.05)
    assert not done
    store.may_commit.set()
    assert refusals(await asked) == [None]


async def test_effects_see_the_results_also_of_refusals_and_are_committed_with_them(
    ledger: Ledger[str], store: MemoryStore
) -> None:
    woken: list[str] = []
    submission: Submission[str] = Submission(
        transfers=(payment("1", ALICE, BOB, 10), payment("2", ALICE, BOB, 9_999)),
        effects=lambda results: [str(result.refusal) for result in results],
        on_commit=lambda: woken.append(store.effects[-1]),
    )
    await ledger.submit(submission)
    assert store.effects == ["None", "balance_too_low"]
    assert woken == ["balance_too_low"]


async def test_effects_that_raise_fail_their_own_submission_only(
    ledger: Ledger[str], store: MemoryStore
) -> None:
    def bug(_results: tuple[TransferResult, ...]) -> Sequence[str]:
        raise ZeroDivisionError("a bug in somebody's effects")

    poisoned = tea("poisoned", 900)._replace(effects=bug)
    answers = await asyncio.gather(
        ledger.submit(tea("1", 600)),
        ledger.submit(poisoned),
        ledger.submit(tea("2", 400)),
        return_exceptions=True,
    )
    assert isinstance(answers[1], ZeroDivisionError)
    assert store.balance(BOB.id) == 1_000
    assert poisoned.transfers[0].id not in {*store.transfers, *store.refused}


async def test_an_effect_that_the_database_refuses_fails_its_own_submission_only(
    ledger: Ledger[str], store: MemoryStore
) -> None:
    submissions = [tea(str(number), 1, "fine") for number in range(40)]
    for number in (3, 17, 18):
        submissions[number] = tea(str(number), 1, POISON)
    answers = await asyncio.gather(*map(ledger.submit, submissions), return_exceptions=True)
    assert [number for number, answer in enumerate(answers) if isinstance(answer, SubmissionFailed)] == [
        3,
        17,
        18,
    ]
    assert (store.balance(BOB.id), store.effects.count("fine")) == (37, 37)


async def test_a_busy_database_is_asked_again(ledger: Ledger[str], store: MemoryStore) -> None:
    store.failures = [StoreBusy("deadlock"), StoreBusy("deadlock")]
    assert refusals(await ledger.submit(tea("1", 10, "effect"))) == [None]
    assert store.attempts_count == 3
    assert (store.balance(BOB.id), store.effects) == (10, ["effect"])


async def test_retries_end_and_the_caller_learns_that_nothing_happened(
    ledger: Ledger[str], store: MemoryStore
) -> None:
    store.failures = [StoreBusy("away")] * 100
    with pytest.raises(LedgerUnavailable) as caught:
        await ledger.submit(tea("1"))
    assert not caught.value.outcome_unknown
    assert store.attempts_count == engine.ATTEMPTS_MAX
    store.failures = []
    assert refusals(await ledger.submit(tea("1"))) == [None]


async def test_a_lost_answer_to_the_commit_is_told_as_unknown_and_asking_again_pays_once(
    ledger: Ledger[str], store: MemoryStore
) -> None:
    store.failures = [CommitUnknown("connection lost")]
    store.commits_before_failing = True
    with pytest.raises(LedgerUnavailable) as caught:
        await ledger.submit(tea("1", 10))
    assert caught.value.outcome_unknown
    (again,) = await ledger.submit(tea("1", 10))
    assert (again.refusal, again.replayed, store.balance(BOB.id)) == (None, True, 10)


async def test_a_caller_that_goes_away_does_not_stop_what_it_submitted(
    ledger: Ledger[str], store: MemoryStore
) -> None:
    store.may_commit.clear()
    leaving = asyncio.create_task(ledger.submit(tea("1", 10)))
    staying = asyncio.create_task(ledger.submit(tea("2", 10)))
    await asyncio.wait({leaving}, timeout=0.02)
    leaving.cancel()
    store.may_commit.set()
    assert refusals(await staying) == [None]
    assert leaving.cancelled()
    assert store.balance(BOB.id) == 20


async def test_a_wake_up_that_fails_changes_no_answer(ledger: Ledger[str]) -> None:
    def broken() -> None:
        raise RuntimeError("the sender is gone")

    assert refusals(await ledger.submit(tea("1")._replace(on_commit=broken))) == [None]


async def test_stopping_applies_what_waits_and_takes_nothing_new(store: MemoryStore, clock: Clock) -> None:
    ledger: Ledger[str] = Ledger(store, clock=clock)
    await ledger.start()
    await ledger.open_accounts(*PEOPLE)
    waiting = [
        asyncio.create_task(ledger.submit(Submission(transfers=(deposit(str(number), ALICE, 1),))))
        for number in range(20)
    ]
    await asyncio.sleep(0)
    await asyncio.gather(ledger.stop(), ledger.stop())
    assert [refusals(await task) for task in waiting] == [[None]] * 20
    with pytest.raises(LedgerUnavailable):
        await ledger.submit(tea("late"))


async def test_a_full_queue_makes_callers_wait_and_stopping_leaves_nobody_waiting(
    store: MemoryStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "QUEUE_SUBMISSIONS_MAX", 2)
    monkeypatch.setattr(engine, "BATCH_SUBMISSIONS_MAX", 2)
    ledger: Ledger[str] = Ledger(store, clock=clock)
    await ledger.start()
    await ledger.open_accounts(*PEOPLE)
    store.may_commit.clear()
    tasks = [
        asyncio.create_task(ledger.submit(Submission(transfers=(deposit(str(number), ALICE, 1),))))
        for number in range(12)
    ]
    await asyncio.wait(tasks, timeout=0.02)
    stopping = asyncio.create_task(ledger.stop())
    await asyncio.wait({stopping}, timeout=0.02)
    store.may_commit.set()
    await asyncio.wait_for(stopping, 5)
    answers = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    applied = sum(not isinstance(answer, BaseException) for answer in answers)
    assert store.balance(ALICE.id) == applied >= 4
    assert all(isinstance(answer, LedgerUnavailable | tuple) for answer in answers)


async def test_a_cancelled_writer_leaves_nobody_waiting(store: MemoryStore, clock: Clock) -> None:
    ledger: Ledger[str] = Ledger(store, clock=clock)
    await ledger.start()
    await ledger.open_accounts(*PEOPLE)
    store.may_commit.clear()
    asked = [asyncio.create_task(ledger.submit(tea(str(number)))) for number in range(3)]
    await asyncio.wait(asked, timeout=0.02)
    writer = next(task for task in asyncio.all_tasks() if task.get_name() == "ledger writer")
    writer.cancel()
    answers = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5)
    assert all(isinstance(answer, LedgerUnavailable) for answer in answers)


async def test_a_submission_has_a_limit(ledger: Ledger[str]) -> None:
    many = tuple(payment(str(number), ALICE, BOB, 1) for number in range(engine.SUBMISSION_ITEMS_MAX + 1))
    with pytest.raises(SubmissionTooBig):
        await ledger.submit(Submission(transfers=many))


async def test_malformed_types_fail_their_caller_before_they_reach_a_batch(ledger: Ledger[str]) -> None:
    malformed = payment("1", ALICE, BOB, 1)._replace(id=12)  # type: ignore[arg-type]
    answers = await asyncio.gather(
        ledger.submit(Submission(transfers=(malformed,))),
        ledger.submit(Submission(transfers=(payment("3", ALICE, BOB, 1)._replace(reference=None),))),  # type: ignore[arg-type]
        ledger.open_accounts(replace(BOB, id=[])),  # type: ignore[arg-type]
        ledger.submit(tea("2")),
        return_exceptions=True,
    )
    assert all(isinstance(answer, TypeError) for answer in answers[:3])
    assert isinstance(answers[3], tuple)


async def test_accounts_are_opened_with_the_transfers_that_need_them(
    ledger: Ledger[str], store: MemoryStore
) -> None:
    carol = replace(BOB, id=AccountId("c" * 32), owner="@carol:a.example")
    submission: Submission[str] = Submission(accounts=(carol,), transfers=(payment("1", ALICE, carol, 5),))
    assert refusals(await ledger.submit(submission)) == [None]
    changed = submission._replace(accounts=(replace(carol, owner="@eve:a.example"),))
    changed = changed._replace(transfers=(payment("2", ALICE, carol, 5),))
    assert refusals(await ledger.submit(changed)) == [TransferRefusal.ACCOUNT_REFUSED]
    (result,) = await ledger.open_accounts(replace(carol, owner="@eve:a.example"))
    assert result.refusal is AccountRefusal.EXISTS_WITH_DIFFERENT_CONTENT


async def test_expiry_releases_what_is_due_and_tells_each_once(
    ledger: Ledger[str], store: MemoryStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "EXPIRY_PAGE", 2)
    holds = [
        payment(str(number), ALICE, BOB, 10, mode=TransferMode.PENDING, timeout_seconds=60)
        for number in range(5)
    ]
    await ledger.submit(Submission(transfers=tuple(holds)))
    assert (await ledger.expire_pending(), store.balance(ALICE.id)) == (0, 950)
    clock.now_ms += 60_000
    counts = await asyncio.gather(
        *(ledger.expire_pending(lambda pending, _result: [f"expired {pending.id}"]) for _ in range(2))
    )
    assert sum(counts) == 5
    assert (await ledger.expire_pending(), store.balance(ALICE.id)) == (0, 1_000)
    assert sorted(store.effects) == sorted(f"expired {hold.id}" for hold in holds)


async def test_one_expiry_that_fails_does_not_hold_up_the_others(
    ledger: Ledger[str], store: MemoryStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "EXPIRY_PAGE", 1)
    holds = [
        payment(str(number), ALICE, BOB, 10, mode=TransferMode.PENDING, timeout_seconds=60)
        for number in range(3)
    ]
    await ledger.submit(Submission(transfers=tuple(holds)))
    clock.now_ms += 60_000
    assert await ledger.expire_pending(lambda pending, _: [POISON] if pending == holds[0] else []) == 2
    assert await ledger.expire_pending() == 1


def _found(known: dict[Key, Value], ids: Iterable[Key]) -> list[Value]:
    return [known[id] for id in ids if id in known]
