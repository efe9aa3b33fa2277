"""The ledger's engine: group commit.

Callers submit concurrently; one writer takes what waits and applies it as one database transaction, in the
order of arrival. A caller gets its answer when its batch is durable. Effects of a submission (receipt,
outgoing messages, "this event is done") are committed together with its transfers, or not at all.

While the database writes a batch, those behind it are judged ahead of their turn, as if it were stored
already and as if their ids were new: so neither the database nor the program waits for the other. That is a
guess, and nothing is written or answered because of it before it is proven. In its own transaction the next
batch takes the ledger's lock, which all batches of all processes need, and

- finds the ledger's position where the guess has it: every transfer adds one, so none came between;
- asks whether any of its ids was answered before, as a transfer or as a refusal.

If either is not as guessed, the batch is judged again, by what is stored; if the batch before it failed, all
that was judged ahead is forgotten, with everything known of the ledger. And whatever the guess was: the store
changes an account only where it still holds the sums by which it was judged.

What the engine refuses to do: answer before the commit, answer "failed" when it can't know, let one faulty
submission fail its neighbours, retry for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, Generic, NamedTuple

from appservices.vocabulary.ids import AccountId, TransferId, is_ledger_id
from wallet_appservice.ledger.rules import AccountResult, content_refusal
from wallet_appservice.ledger.store import (
    CommitUnknown,
    Effect,
    LedgerBatch,
    LedgerStore,
    StoreBusy,
    StoreRefused,
)
from wallet_appservice.ledger.submissions import (
    STEP_TRANSFERS,
    Ahead,
    Answer,
    LedgerUnavailable,
    Submission,
    SubmissionFailed,
    SubmissionTooBig,
    Waiting,
    is_known,
    judge_in_steps,
    judge_submission,
    wanted_by,
)
from wallet_appservice.ledger.values import (
    Account,
    NewAccount,
    StoredTransfer,
    Transfer,
    TransferResult,
    expiry_of,
)
from wallet_appservice.ledger.view import NOTHING, Loaded, View

BATCH_TRANSFERS_MAX: Final = 5_000
"""A batch stops taking submissions once it holds this many transfers."""
BATCH_SUBMISSIONS_MAX: Final = 5_000
SUBMISSION_ITEMS_MAX: Final = 5_000
"""Transfers and accounts of one submission."""
QUEUE_SUBMISSIONS_MAX: Final = 50_000
"""Submissions that wait; whoever comes then waits for a place."""
SPLIT_SUBMISSIONS_MIN: Final = 64
"""From so many on, half of those who wait come into a batch while nothing is being written: callers who ask
again when they are answered would else all be in the database, or all out of it, and one of two processors
would always be idle."""
ANSWERS_STEP: Final = 8
"""Callers who are answered before the database is listened to again; mostly they have more to do then."""
ANSWER_SECONDS_MAX: Final = 0.003
"""So long callers wait at most while the database is given the next batch, which is ready, before they are
answered: it would else be idle meanwhile."""
ACCOUNTS_KEPT_MAX: Final = 50_000
"""In memory from one batch to the next, some 700 bytes each; beyond it they are all read anew."""
ATTEMPTS_MAX: Final = 6
"""Of one batch while the database is busy or away."""
RETRY_PAUSE_SECONDS: Final = 0.05
"""Before the second attempt; doubled before each further one."""
EXPIRY_PAGE: Final = 500
PAGE_TRANSFERS_MAX: Final = 1_000

logger = logging.getLogger(__name__)


class _OpenBatch(NamedTuple, Generic[Effect]):
    """A database transaction with the ledger's lock, and what ends it."""

    stack: AsyncExitStack
    batch: LedgerBatch[Effect]


class Ledger(Generic[Effect]):
    """The way in to a ledger database. Several processes may have one on the same database.

        async with Ledger(store, clock=system_clock) as ledger:
            results = await ledger.submit(Submission(transfers=(transfer,)))

    `clock` returns Unix time in milliseconds.
    """

    def __init__(self, store: LedgerStore[Effect], *, clock: Callable[[], int]) -> None:
        self._store = store
        self._clock = clock
        self._waiting: deque[Waiting[Effect]] = deque()
        """In the order of their arrival, behind those that are judged ahead."""
        self._ahead: Ahead[Effect] = Ahead()
        self._view: View | None = None
        """The ledger after the last batch that was written or is being written; None when not known."""
        self._is_writing = False
        self._is_judging_ahead = False
        self._next: asyncio.Task[_OpenBatch[Effect]] | None = None
        """The transaction of the next batch, which waits for the ledger's lock while this one is written."""
        self._durable: deque[Waiting[Effect]] = deque()
        """Those whose batch is durable and who are still to be answered."""
        self._arrival = asyncio.Event()
        self._place = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop
        self._accepts = False
        self._has_ended = False

    async def start(self) -> None:
        if self._writer is not None:
            raise RuntimeError("this ledger was started already")
        # Asked for it each time, Python asks the operating system which process this is.
        self._loop = asyncio.get_running_loop()
        self._accepts = True
        self._writer = asyncio.create_task(self._write_batches(), name="ledger writer")

    async def stop(self) -> None:
        """Takes nothing new, applies what waits, and ends."""
        if self._writer is None:
            return
        self._accepts = False
        self._arrival.set()
        await asyncio.shield(self._writer)

    async def __aenter__(self) -> Ledger[Effect]:
        await self.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.stop()

    async def submit(self, submission: Submission[Effect]) -> tuple[TransferResult, ...]:
        """Answers each transfer once the batch with all that it changed is durable.

        A caller that is cancelled does not cancel what it submitted. Raises LedgerUnavailable,
        SubmissionFailed, SubmissionTooBig, or what the submission's own `effects` raised.
        """
        waiting = self._prepared(submission)
        if len(self._waiting) >= QUEUE_SUBMISSIONS_MAX:
            await self._wait_for_place()
        return (await self._enqueue(waiting)).transfers

    async def open_accounts(self, *accounts: NewAccount) -> tuple[AccountResult, ...]:
        """Opens accounts that are missing. Raises as `submit` does."""
        waiting = self._prepared(Submission(accounts=accounts))
        await self._wait_for_place()
        return (await self._enqueue(waiting)).accounts

    async def expire_pending(
        self, effects: Callable[[Transfer, TransferResult], Sequence[Effect]] | None = None
    ) -> int:
        """Releases what is held by pending transfers past their time-out; returns how many it released.

        `effects` is called for each one that is released now, with the pending transfer and the result, and
        its writes are committed with the release. One that fails is logged and tried again at the next call.
        """
        expired, after = 0, 0
        while True:
            due = await self._read_due(after)
            results = await asyncio.gather(
                *(self.submit(_expiry_submission(stored.transfer, effects)) for stored in due),
                return_exceptions=True,
            )
            for stored, result in zip(due, results, strict=True):
                if isinstance(result, Exception):
                    logger.error("pending transfer %s can't be expired", stored.transfer.id, exc_info=result)
                elif isinstance(result, BaseException):
                    raise result
                elif result[0].refusal is None and not result[0].replayed:
                    expired += 1
            if len(due) < EXPIRY_PAGE:
                return expired
            after = due[-1].position

    async def account(self, account_id: AccountId) -> Account | None:
        return await self._store.account(account_id)

    async def accounts_of(self, owner: str) -> tuple[Account, ...]:
        return await self._store.accounts_of(owner)

    async def transfer(self, transfer_id: TransferId) -> StoredTransfer | None:
        """The transfer as it was applied; None when it never was, also when it was refused."""
        return await self._store.transfer(transfer_id)

    async def transfers_of(
        self, account_id: AccountId, *, limit: int = 50, before: int | None = None
    ) -> tuple[StoredTransfer, ...]:
        """The account's transfers, latest first; `before` is the position where the last page ended."""
        bounded = max(1, min(limit, PAGE_TRANSFERS_MAX))
        return await self._store.transfers_of(account_id, limit=bounded, before=before)

    def _prepared(self, submission: Submission[Effect]) -> Waiting[Effect]:
        """Tells faults that are the caller's alone before the submission waits."""
        if len(submission.transfers) + len(submission.accounts) > SUBMISSION_ITEMS_MAX:
            raise SubmissionTooBig(f"a submission has at most {SUBMISSION_ITEMS_MAX} transfers and accounts")
        if not self._accepts:
            raise LedgerUnavailable("the ledger is not running")
        contents = [content_refusal(transfer) for transfer in submission.transfers]
        account_ids = (
            [account.id for account in submission.accounts if is_ledger_id(account.id)]
            if submission.accounts
            else ()
        )
        return Waiting(submission, contents, account_ids, self._loop.create_future())

    async def _wait_for_place(self) -> None:
        while len(self._waiting) >= QUEUE_SUBMISSIONS_MAX:
            self._place.clear()
            await self._place.wait()
        if self._has_ended:
            # There is place only because nobody takes from the queue any more.
            raise LedgerUnavailable("the ledger was stopped")

    def _enqueue(self, waiting: Waiting[Effect]) -> asyncio.Future[Answer]:
        self._waiting.append(waiting)
        self._arrival.set()
        self._continue_ahead()
        return waiting.answer

    async def _read_due(self, after: int) -> tuple[StoredTransfer, ...]:
        try:
            return await self._store.due(now_ms=self._clock(), limit=EXPIRY_PAGE, after=after)
        except StoreBusy as error:
            raise LedgerUnavailable(f"the database can't be read: {error}") from error

    async def _write_batches(self) -> None:
        batch: list[Waiting[Effect]] = []
        try:
            while batch := await self._next_batch():
                ahead, self._ahead = self._ahead, Ahead()
                ahead.finish()
                await self._apply(batch, ahead)
        finally:
            while self._durable:
                self._answer_some()
            await self._close_next()
            # Something is left here only when the writer was cancelled.
            self._accepts = False
            self._has_ended = True
            for waiting in batch:
                waiting.fail(LedgerUnavailable("the ledger was stopped", outcome_unknown=True))
            self._forget()
            while self._waiting:
                self._waiting.popleft().fail(LedgerUnavailable("the ledger was stopped"))
            self._place.set()

    async def _next_batch(self) -> list[Waiting[Effect]]:
        """Those that were judged ahead, then those that wait; nobody when the ledger is to stop."""
        while not self._ahead.submissions and not self._waiting and self._accepts:
            # The lock is held for nobody.
            await self._close_next()
            self._arrival.clear()
            await self._arrival.wait()
        batch, transfers_count = self._ahead.submissions.copy(), self._ahead.transfers_count
        if self._ahead.is_closed:
            return batch
        submissions_max = BATCH_SUBMISSIONS_MAX
        if not batch and len(self._waiting) >= SPLIT_SUBMISSIONS_MIN:
            submissions_max = min(submissions_max, (len(self._waiting) + 1) // 2)
        while self._waiting and len(batch) < submissions_max and transfers_count < BATCH_TRANSFERS_MAX:
            batch.append(self._waiting.popleft())
            transfers_count += len(batch[-1].submission.transfers)
        self._place.set()
        return batch

    def _continue_ahead(self) -> None:
        """Has those who wait judged ahead, unless that is under way."""
        if self._is_writing and not self._is_judging_ahead and (self._waiting or self._ahead.rest):
            self._is_judging_ahead = True
            self._loop.call_soon(self._judge_ahead)

    def _judge_ahead(self) -> None:
        """Judges some of those who wait, up to the first for whom something must be read before: an account,
        or a pending transfer that it ends."""
        self._is_judging_ahead = False
        view, ahead = self._view, self._ahead
        if view is None or not self._is_writing:
            return
        if ahead.at_ms is None:
            ahead.at_ms = self._clock()
        step_transfers = ahead.go_on()
        while (
            self._waiting
            and step_transfers < STEP_TRANSFERS
            and not ahead.is_closed
            and ahead.transfers_count < BATCH_TRANSFERS_MAX
            and len(ahead.submissions) < BATCH_SUBMISSIONS_MAX
        ):
            if not is_known(view, self._waiting[0]):
                break
            waiting = self._waiting.popleft()
            transfers_count = len(waiting.submission.transfers)
            ahead.submissions.append(waiting)
            ahead.transfers_count += transfers_count
            if transfers_count > STEP_TRANSFERS:
                ahead.rest = judge_in_steps(view, waiting, ahead.at_ms)
                step_transfers += ahead.go_on()
            else:
                judge_submission(view, waiting, ahead.at_ms)
                step_transfers += transfers_count or 1
        self._place.set()
        if ahead.submissions and self._next is None:
            self._next = asyncio.create_task(self._open_batch(), name="next ledger batch")
        if step_transfers >= STEP_TRANSFERS:
            self._continue_ahead()

    def _forget(self) -> None:
        """Nothing is known of the ledger's end any more; what was judged ahead of its turn waits again."""
        self._view = None
        self._waiting.extendleft(reversed(self._ahead.submissions))
        self._ahead = Ahead()

    async def _apply(
        self,
        batch: Sequence[Waiting[Effect]],
        ahead: Ahead[Effect] | None = None,
        *,
        is_followed: bool = False,
    ) -> None:
        """Applies a batch and answers all of its callers, whatever happens.

        `ahead` is what of it was judged already. When others are to be applied between it and those who wait,
        it `is_followed`, and nothing is judged ahead.
        """
        try:
            await self._attempt_until_done(batch, ahead, is_followed)
        except CommitUnknown as error:
            logger.error("a batch of %d may or may not be committed: %s", len(batch), error)
            _fail_all(batch, "it is unknown whether this was committed; ask again", outcome_unknown=True)
        except StoreBusy as error:
            logger.error("a batch of %d failed, nothing was committed: %s", len(batch), error)
            _fail_all(batch, f"the database did not take it, nothing was committed: {error}")
        except StoreRefused as error:
            # Something in the batch is wrong: halve it, in order, until the one at fault stands alone.
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._apply(batch[:middle], is_followed=True)
                await self._apply(batch[middle:], is_followed=is_followed)
                return
            logger.error("a submission failed alone, nothing of it was committed", exc_info=error)
            failed = SubmissionFailed(f"nothing of this was committed: {error}")
            failed.__cause__ = error
            batch[0].fail(failed)
        except Exception:
            logger.exception("a bug met a batch of %d", len(batch))
            _fail_all(batch, "the ledger failed; ask again", outcome_unknown=True)

    async def _attempt_until_done(
        self, batch: Sequence[Waiting[Effect]], ahead: Ahead[Effect] | None, is_followed: bool
    ) -> None:
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                await self._attempt(batch, ahead if attempt == 1 else None, is_followed)
                break
            except StoreBusy as error:
                if attempt == ATTEMPTS_MAX:
                    raise
                logger.warning("a batch of %d is tried again: %s", len(batch), error)
                await asyncio.sleep(RETRY_PAUSE_SECONDS * 2 ** (attempt - 1))
        self._durable.extend(batch)
        if self._ahead.submissions:
            self._loop.call_later(ANSWER_SECONDS_MAX, self._answer_some)
        else:
            self._answer_some()

    def _answer_some(self) -> None:
        """Answers callers whose batch is durable, a few at a time, all of them soon."""
        for _ in range(min(len(self._durable), ANSWERS_STEP)):
            waiting = self._durable.popleft()
            waiting.resolve()
            if waiting.fault is None and waiting.submission.on_commit is not None:
                _wake(waiting.submission.on_commit)
        if self._durable:
            self._loop.call_soon(self._answer_some)

    async def _attempt(
        self, batch: Sequence[Waiting[Effect]], ahead: Ahead[Effect] | None, is_followed: bool
    ) -> None:
        try:
            async with self._transaction() as store_batch:
                view = await self._judge_batch(store_batch, batch, ahead or Ahead())
                effects = [effect for waiting in batch for effect in waiting.effects]
                changes = view.changes()
                view.begin_next(changes)
                self._view = view
                self._is_writing = not is_followed
                self._continue_ahead()
                # Not before the database has got its work.
                self._loop.call_soon(self._answer_some)
                await store_batch.commit(changes, effects)
        except BaseException:
            self._forget()
            raise
        finally:
            self._is_writing = False

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[LedgerBatch[Effect]]:
        """The one that waits already, whatever it was meant for: while it is open, no other gets the lock."""
        if self._next is None:
            async with self._store.batch() as store_batch:
                yield store_batch
        else:
            opening, self._next = self._next, None
            stack, store_batch = await opening
            async with stack:
                yield store_batch

    async def _open_batch(self) -> _OpenBatch[Effect]:
        """Waits for the lock, and looks up what those who were judged ahead till then speak of."""
        async with AsyncExitStack() as stack:
            store_batch = await stack.enter_async_context(self._store.batch())
            await store_batch.lock()
            view, ahead = self._view, self._ahead
            if view is not None and ahead.submissions and not ahead.is_closed:
                ahead.is_closed = True
                ahead.loaded = await store_batch.load(wanted_by(ahead.submissions, known=view.sums.keys()))
            return _OpenBatch(stack.pop_all(), store_batch)

    async def _close_next(self) -> None:
        if self._next is not None:
            opening, self._next = self._next, None
            try:
                stack, _ = await opening
                await stack.aclose()
            except StoreBusy as error:
                logger.warning("a transaction that nobody needs was not opened: %s", error)

    async def _judge_batch(
        self, store_batch: LedgerBatch[Effect], batch: Sequence[Waiting[Effect]], ahead: Ahead[Effect]
    ) -> View:
        """Judges a batch under the ledger's lock; what was judged ahead only if it is not as guessed."""
        view, judged_count, at_ms = self._view, len(ahead.submissions), ahead.at_ms
        if view is not None and len(view.sums) > ACCOUNTS_KEPT_MAX:
            view = None
        loaded = None
        if view is not None:
            loaded = ahead.loaded or await store_batch.load(wanted_by(batch, known=view.sums.keys()))
        if view is None or loaded is None or loaded.position != view.begin_position:
            # Nothing is known, or another process came between.
            loaded = await store_batch.load(wanted_by(batch))
            view, judged_count = View(loaded), 0
        else:
            if judged_count and _has_answers(loaded, batch):
                view.roll_back(NOTHING)
                judged_count = 0
            view.learn(loaded)
        if at_ms is None or judged_count == 0:
            at_ms = self._clock()
        for waiting in batch[judged_count:]:
            judge_submission(view, waiting, at_ms)
        return view


def _has_answers(loaded: Loaded, batch: Sequence[Waiting[Effect]]) -> bool:
    """Whether an id was answered before; what else was loaded are pending transfers that are to end."""
    if loaded.refusals or not loaded.transfers:
        return bool(loaded.refusals)
    ids = wanted_by(batch).transfer_ids
    return any(stored.transfer.id in ids for stored in loaded.transfers)


def _expiry_submission(
    pending: Transfer, effects: Callable[[Transfer, TransferResult], Sequence[Effect]] | None
) -> Submission[Effect]:
    def effects_if_released(results: tuple[TransferResult, ...]) -> Sequence[Effect]:
        (result,) = results
        if effects is None or result.refusal is not None or result.replayed:
            return ()
        return effects(pending, result)

    return Submission(transfers=(expiry_of(pending),), effects=effects_if_released)


def _fail_all(batch: Sequence[Waiting[Effect]], message: str, *, outcome_unknown: bool = False) -> None:
    for waiting in batch:
        waiting.fail(LedgerUnavailable(message, outcome_unknown=outcome_unknown))


def _wake(on_commit: Callable[[], None]) -> None:
    try:
        on_commit()
    except Exception:
        logger.exception("a wake-up after the commit failed; what was committed stays")
