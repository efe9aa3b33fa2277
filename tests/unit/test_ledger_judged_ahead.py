"""What is judged while the batch before it is written: whatever comes between, its answers are right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.ledger_samples import ALICE, BOB, ISSUANCE, PEOPLE, deposit, payment, refusals, transfer_id
from tests.unit.test_ledger_engine import POISON, Clock, MemoryStore, tea
from wallet_appservice.ledger import engine
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.ledger.store import CommitUnknown, StoreBusy
from wallet_appservice.ledger.submissions import (
    STEP_TRANSFERS,
    LedgerUnavailable,
    Submission,
    SubmissionFailed,
    judge_in_steps,
    judge_submission,
)
from wallet_appservice.ledger.values import (
    StoredTransfer,
    TransferMode,
    TransferRefusal,
    TransferResult,
    posting_of,
)
from wallet_appservice.ledger.view import Loaded, StoredRefusal, View, Wanted


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def ledger(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ledger[str]]:
    """Alice has 1,000, and the ledger knows everybody's account."""
    monkeypatch.setattr(engine, "RETRY_PAUSE_SECONDS", 0.001)
    async with Ledger[str](store, clock=Clock()) as running:
        await running.open_accounts(*PEOPLE)
        await running.submit(Submission(transfers=(deposit("opening", ALICE, 1_000),)))
        store.attempts_count = 0
        yield running


class Judged:
    """Counts how often each transfer is judged, by its id."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counts: dict[str, int] = {}
        judge = judge_submission

        def counting(view: View, waiting: Any, at_ms: int) -> None:
            for transfer in waiting.submission.transfers:
                self.counts[transfer.id] = self.counts.get(transfer.id, 0) + 1
            judge(view, waiting, at_ms)

        monkeypatch.setattr(engine, "judge_submission", counting)

    def __getitem__(self, name: str) -> int:
        return self.counts.get(transfer_id(name), 0)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Judged:
    return Judged(monkeypatch)


@asynccontextmanager
async def being_written(
    ledger: Ledger[str], store: MemoryStore, *submissions: Submission[str]
) -> AsyncIterator[list[asyncio.Task[tuple[TransferResult, ...]]]]:
    """A batch that the store has in hand until the end of the block; its callers' answers."""
    store.may_commit.clear()
    tasks = [asyncio.create_task(ledger.submit(submission)) for submission in submissions]
    await settled()
    yield tasks
    store.may_commit.set()
    await asyncio.wait(tasks)


async def ask(
    ledger: Ledger[str], *submissions: Submission[str]
) -> list[asyncio.Task[tuple[TransferResult, ...]]]:
    """Asks, and lets the ledger do all that it can do by itself."""
    tasks = [asyncio.create_task(ledger.submit(submission)) for submission in submissions]
    await settled()
    return tasks


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_who_comes_while_a_batch_is_written_is_judged_meanwhile_and_only_once(
    ledger: Ledger[str], store: MemoryStore, judged: Judged
) -> None:
    async with being_written(ledger, store, tea("1", 600)):
        behind = await ask(ledger, tea("2", 300), tea("3", 300), tea("4", 100))
        assert [judged["2"], judged["3"], judged["4"]] == [1, 1, 1]
        assert not any(task.done() for task in behind)
    answers = [refusals(await task) for task in behind]
    assert answers == [[None], [TransferRefusal.BALANCE_TOO_LOW], [None]]
    assert [judged["2"], judged["3"], judged["4"]] == [1, 1, 1]
    assert (store.balance(ALICE.id), store.balance(BOB.id)) == (0, 1_000)
    assert store.attempts_count == 2


async def test_another_process_that_comes_between_makes_it_judge_again(
    ledger: Ledger[str], store: MemoryStore, judged: Judged
) -> None:
    other = Ledger[str](store, clock=Clock())
    async with being_written(ledger, store, tea("1", 600)) as first:
        behind = await ask(ledger, tea("2", 300))
        # The other one has the lock as soon as the first batch is stored.
        await steal_lock(store, first, other)
    assert refusals(await behind[0]) == [TransferRefusal.BALANCE_TOO_LOW]
    assert judged["2"] == 2
    assert (store.balance(ALICE.id), store.balance(BOB.id)) == (0, 1_000)
    assert refusals(await ledger.submit(tea("5", 1))) == [TransferRefusal.BALANCE_TOO_LOW]


async def steal_lock(store: MemoryStore, first: list[Any], other: Ledger[str]) -> None:
    """Has the other ledger apply a payment between the first batch and the one behind it."""
    original = store.load

    async def load(wanted: Any) -> Any:
        store.load = original  # type: ignore[method-assign]
        async with other:
            assert refusals(await other.submit(tea("other", 400))) == [None]
        return await original(wanted)

    store.load = load  # type: ignore[method-assign]


async def test_an_id_that_another_process_refused_meanwhile_stays_refused(
    ledger: Ledger[str], store: MemoryStore, judged: Judged
) -> None:
    """A refusal does not move the ledger's position; it is looked for each time."""
    refused = tea("2", 300)
    async with Ledger[str](MemoryStore(), clock=Clock()) as elsewhere:
        await elsewhere.open_accounts(*PEOPLE)
        assert refusals(await elsewhere.submit(refused)) == [TransferRefusal.BALANCE_TOO_LOW]
        answer: StoredRefusal = elsewhere._store.refused[refused.transfers[0].id]  # type: ignore[attr-defined]
    judged.counts.clear()
    async with being_written(ledger, store, tea("1", 600)):
        behind = await ask(ledger, refused, tea("3", 400))
        store.refused[answer.id] = answer
    (result,) = await behind[0]
    assert (result.refusal, result.replayed) == (TransferRefusal.BALANCE_TOO_LOW, True)
    assert refusals(await behind[1]) == [None]
    assert judged["2"] == 2
    assert store.balance(ALICE.id) == 0


async def test_the_same_command_while_it_is_being_written_pays_once(
    ledger: Ledger[str], store: MemoryStore
) -> None:
    async with being_written(ledger, store, tea("1", 600, "effect")) as first:
        behind = await ask(ledger, tea("1", 600), tea("2", 400)._replace())
    ((result,), (again,), (other,)) = await asyncio.gather(*first, *behind)
    assert (result.replayed, again.replayed, again.refusal) == (False, True, None)
    assert other.refusal is None
    assert (store.balance(ALICE.id), store.balance(BOB.id)) == (0, 1_000)


@pytest.mark.parametrize("failure", [StoreBusy("deadlock"), CommitUnknown("connection lost")])
async def test_when_the_batch_before_fails_nothing_of_its_money_is_spent(
    ledger: Ledger[str], store: MemoryStore, failure: Exception
) -> None:
    """Bob's tea was judged as if Alice's payment to him were stored, which it never was."""
    failures = [failure] * engine.ATTEMPTS_MAX if isinstance(failure, StoreBusy) else [failure]
    store.failures = list(failures)
    async with being_written(ledger, store, tea("1", 600)) as first:
        behind = await ask(ledger, Submission(transfers=(payment("2", BOB, ALICE, 500),)))
    with pytest.raises(LedgerUnavailable):
        await first[0]
    assert refusals(await behind[0]) == [TransferRefusal.BALANCE_TOO_LOW]
    assert store.balance(ALICE.id) == 1_000


async def test_a_batch_that_is_halved_is_applied_before_those_behind_it(
    ledger: Ledger[str], store: MemoryStore
) -> None:
    async with being_written(
        ledger, store, tea("poisoned", 100, POISON), tea("1", 300), tea("2", 300), tea("3", 300)
    ) as first:
        behind = await ask(ledger, *(tea(f"behind {number}", 10) for number in range(20)))
    answers = await asyncio.gather(*first, return_exceptions=True)
    assert [isinstance(answer, SubmissionFailed) for answer in answers] == [True, False, False, False]
    assert [refusals(await task)[0] for task in behind].count(None) == 10
    stored = sorted(store.transfers.values(), key=lambda item: item.position)[1:]
    assert [item.position for item in stored] == [*range(2, 15)]
    assert [item.transfer.id for item in stored] == [
        transfer_id(name) for name in ("1", "2", "3", *(f"behind {number}" for number in range(10)))
    ]


async def test_what_must_be_read_first_is_not_guessed_and_keeps_its_place(
    ledger: Ledger[str], store: MemoryStore, judged: Judged
) -> None:
    """An account that is not known yet, the end of a hold, and whoever comes behind these."""
    held = payment("held", ALICE, BOB, 500, mode=TransferMode.PENDING)
    carol = replace(BOB, id=type(BOB.id)("c" * 32), owner="@carol:a.example")
    opening: Submission[str] = Submission(accounts=(carol,), transfers=(payment("2", ALICE, carol, 300),))
    posting: Submission[str] = Submission(transfers=(posting_of(held, id=transfer_id("posted")),))
    async with being_written(ledger, store, Submission(transfers=(held,))):
        behind = await ask(ledger, tea("1", 100), posting, tea("3", 100), opening, tea("4", 1))
        assert [judged["1"], judged["posted"], judged["3"], judged["2"]] == [1, 0, 0, 0]
    answers = [refusals(await task) for task in behind]
    assert answers == [[None], [None], [None], [None], [TransferRefusal.BALANCE_TOO_LOW]]
    assert judged["1"] == 1
    assert [store.balance(id) for id in (ALICE.id, BOB.id, carol.id)] == [0, 700, 300]


async def test_effects_of_what_is_judged_again_are_those_of_its_last_results(
    ledger: Ledger[str], store: MemoryStore
) -> None:
    def effects(results: tuple[TransferResult, ...]) -> list[str]:
        return [f"{result.refusal} {result.replayed}" for result in results]

    async with being_written(ledger, store, tea("1", 600)):
        behind = await ask(
            ledger, tea("1", 600)._replace(effects=effects), tea("2")._replace(effects=effects)
        )
    await asyncio.gather(*behind)
    assert store.effects == ["None True", "None False"]


async def test_a_ledger_that_keeps_few_accounts_reads_them_anew(
    ledger: Ledger[str], store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "ACCOUNTS_KEPT_MAX", 2)
    async with being_written(ledger, store, tea("1", 600)):
        behind = await ask(ledger, tea("2", 300), tea("3", 300))
    assert [refusals(await task) for task in behind] == [[None], [TransferRefusal.BALANCE_TOO_LOW]]
    assert store.balance(ISSUANCE.id) == -1_000


async def test_callers_who_ask_again_when_answered_come_in_two_halves(
    ledger: Ledger[str], store: MemoryStore
) -> None:
    """So one half is judged and answered while the other one is written."""
    store.batch_sizes.clear()
    store.commit_seconds = 0.02

    async def call(caller: int) -> None:
        for number in range(4):
            await ledger.submit(tea(f"{caller} {number}", 1))

    await asyncio.gather(*(call(caller) for caller in range(2 * engine.SPLIT_SUBMISSIONS_MIN)))
    assert max(store.batch_sizes[:-1]) <= engine.SPLIT_SUBMISSIONS_MIN + 1
    assert store.balance(BOB.id) == 8 * engine.SPLIT_SUBMISSIONS_MIN


async def test_an_answer_does_not_wait_for_the_batch_behind_it(
    ledger: Ledger[str], store: MemoryStore
) -> None:
    """Which may have to wait for another process's lock; the answers are ready."""
    original, may_load = store.load, asyncio.Event()

    async def load(wanted: Wanted) -> Loaded:
        await may_load.wait()
        return await original(wanted)

    async with being_written(ledger, store, tea("1", 600)) as first:
        behind = await ask(ledger, tea("2", 300))
        store.load = load  # type: ignore[method-assign]
    assert refusals(await first[0]) == [None]
    assert not behind[0].done()
    may_load.set()
    assert refusals(await behind[0]) == [None]


async def test_a_refusal_judged_ahead_is_stored_with_its_batch(
    ledger: Ledger[str], store: MemoryStore
) -> None:
    async with being_written(ledger, store, tea("1", 600)):
        behind = await ask(ledger, tea("2", 500))
    assert refusals(await behind[0]) == [TransferRefusal.BALANCE_TOO_LOW]
    stored: StoredTransfer | None = await ledger.transfer(transfer_id("2"))
    assert stored is None
    assert store.refused[transfer_id("2")].refusal is TransferRefusal.BALANCE_TOO_LOW
    await ledger.submit(Submission(transfers=(deposit("more", ALICE, 1_000),)))
    (again,) = await ledger.submit(tea("2", 500))
    assert (again.refusal, again.replayed) == (TransferRefusal.BALANCE_TOO_LOW, True)


LONG = 3 * STEP_TRANSFERS


def many_teas(name: str, effects: Callable[[tuple[TransferResult, ...]], list[str]]) -> Submission[str]:
    transfers = tuple(payment(f"{name} {number}", ALICE, BOB, 10) for number in range(LONG))
    return Submission(transfers=transfers, effects=effects)


async def test_a_long_submission_is_judged_in_steps_and_answered_whole(
    ledger: Ledger[str], store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch before it may be stored at any moment; here it is, after the first step."""
    steps: list[int] = []

    def counting(view: View, waiting: Any, at_ms: int) -> Iterator[int]:
        for step in judge_in_steps(view, waiting, at_ms):
            steps.append(step)
            if len(steps) == 1:
                store.may_commit.set()
            yield step

    monkeypatch.setattr(engine, "judge_in_steps", counting)
    async with being_written(ledger, store, tea("1", 500)):
        behind = await ask(ledger, many_teas("2", lambda results: [str(len(results))]), tea("3", 1))
    answers = await behind[0]
    assert [result.refusal for result in answers].count(None) == 50
    assert {result.refusal for result in answers[50:]} == {TransferRefusal.BALANCE_TOO_LOW}
    assert refusals(await behind[1]) == [TransferRefusal.BALANCE_TOO_LOW]
    assert steps == [STEP_TRANSFERS, STEP_TRANSFERS]
    assert store.effects == [str(LONG)]
    assert (store.balance(ALICE.id), store.balance(BOB.id)) == (0, 1_000)


@pytest.mark.parametrize("is_before_lost", [False, True])
async def test_a_long_submission_whose_effects_fail_leaves_nothing(
    ledger: Ledger[str], store: MemoryStore, is_before_lost: bool
) -> None:
    def effects(_results: tuple[TransferResult, ...]) -> list[str]:
        raise RuntimeError("no receipt can be written")

    store.failures = [CommitUnknown("connection lost")] if is_before_lost else []
    async with being_written(ledger, store, tea("1", 500)) as first:
        behind = await ask(ledger, many_teas("2", effects), tea("3", 500))
    await asyncio.wait([*first, *behind])
    assert isinstance(behind[0].exception(), RuntimeError)
    assert refusals(await behind[1]) == [None]
    assert store.balance(BOB.id) == (500 if is_before_lost else 1_000)
