"""The ledger's engine: group commit.

Callers submit concurrently; one writer takes all that waits and applies it as one database transaction, in
the order of arrival. A caller gets its answer when its batch is durable. Effects of a submission (receipt,
outgoing messages, "this event is done") are committed together with its transfers, or not at all.

What the engine refuses to do: answer before the commit, answer "failed" when it can't know, let one faulty
submission fail its neighbours, retry for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic

from appservices.vocabulary.ids import AccountId, TransferId, is_ledger_id
from wallet_appservice.ledger.rules import AccountResult, content_refusal, judge, open_accounts
from wallet_appservice.ledger.store import CommitUnknown, Effect, LedgerStore, StoreBusy, StoreRefused
from wallet_appservice.ledger.values import (
    Account,
    NewAccount,
    StoredTransfer,
    Transfer,
    TransferRefusal,
    TransferResult,
    expiry_of,
)
from wallet_appservice.ledger.view import View, Wanted

BATCH_TRANSFERS_MAX: Final = 5_000
"""A batch stops taking submissions once it holds this many transfers."""
BATCH_SUBMISSIONS_MAX: Final = 5_000
SUBMISSION_ITEMS_MAX: Final = 5_000
"""Transfers and accounts of one submission."""
QUEUE_SUBMISSIONS_MAX: Final = 50_000
"""Submissions that wait; whoever comes then waits for a place."""
ATTEMPTS_MAX: Final = 6
"""Of one batch while the database is busy or away."""
RETRY_PAUSE_SECONDS: Final = 0.05
"""Before the second attempt; doubled before each further one."""
EXPIRY_PAGE: Final = 500
PAGE_TRANSFERS_MAX: Final = 1_000

logger = logging.getLogger(__name__)


class LedgerUnavailable(Exception):
    """The submission was not applied, or, with `outcome_unknown`, perhaps it was.

    In both cases the same submission may be made again: ids that were applied are answered by their first
    result.
    """

    def __init__(self, message: str, *, outcome_unknown: bool = False) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown


class SubmissionFailed(Exception):
    """The submission alone was at fault, such as by an effect that the database refuses; nothing of it was
    applied."""


class SubmissionTooBig(ValueError):
    """A submission of more than SUBMISSION_ITEMS_MAX transfers and accounts; nothing of it was applied."""


def no_effects(_results: tuple[TransferResult, ...]) -> tuple[()]:
    """The effects of a submission that wants none."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission(Generic[Effect]):
    """What one caller wants: accounts opened if missing, then transfers judged in order.

    `effects` is a pure function from the results to writes for the same database transaction; it is called
    whatever the results are, perhaps several times (a batch may be tried again), and the writes of the last
    call count. For a result with `replayed` the effects were committed before, with the first answer.
    `on_commit` is called once they are durable; it must return at once.
    """

    transfers: tuple[Transfer, ...] = ()
    accounts: tuple[NewAccount, ...] = ()
    effects: Callable[[tuple[TransferResult, ...]], Sequence[Effect]] = no_effects
    on_commit: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    accounts: tuple[AccountResult, ...]
    transfers: tuple[TransferResult, ...]


@dataclass(slots=True)
class _Waiting(Generic[Effect]):
    """A submission and the caller who waits for its answer."""

    submission: Submission[Effect]
    content_refusals: Sequence[TransferRefusal | None]
    """Of each of its transfers, told before it waits: such a fault is its caller's alone."""
    account_ids: Sequence[AccountId]
    """Of the accounts that it opens, valid ids only."""
    answer: asyncio.Future[_Answer]
    # Set for the current attempt only, until its batch is durable.
    judged: _Answer | None = None
    fault: Exception | None = None
    effects: Sequence[Effect] = ()

    def resolve(self) -> None:
        if self.fault is not None:
            self.fail(self.fault)
        elif self.judged is not None and not self.answer.done():
            self.answer.set_result(self.judged)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Ledger(Generic[Effect]):
    """The way in to a ledger database. Several processes may have one on the same database.

        async with Ledger(store, clock=system_clock) as ledger:
            results = await ledger.submit(Submission(transfers=(transfer,)))

    `clock` returns Unix time in milliseconds.
    """

    def __init__(self, store: LedgerStore[Effect], *, clock: Callable[[], int]) -> None:
        self._store = store
        self._clock = clock
        self._queue: asyncio.Queue[_Waiting[Effect] | None] = asyncio.Queue(QUEUE_SUBMISSIONS_MAX)
        self._writer: asyncio.Task[None] | None = None
        self._accepts = False
        self._has_ended = False

    async def start(self) -> None:
        if self._writer is not None:
            raise RuntimeError("this ledger was started already")
        self._accepts = True
        self._writer = asyncio.create_task(self._write_batches(), name="ledger writer")

    async def stop(self) -> None:
        """Takes nothing new, applies what waits, and ends."""
        if self._writer is None:
            return
        if self._accepts:
            self._accepts = False
            await self._queue.put(None)
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
        return (await self._submit(submission)).transfers

    async def open_accounts(self, *accounts: NewAccount) -> tuple[AccountResult, ...]:
        """Opens accounts that are missing. Raises as `submit` does."""
        return (await self._submit(Submission(accounts=accounts))).accounts

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

    async def _submit(self, submission: Submission[Effect]) -> _Answer:
        if len(submission.transfers) + len(submission.accounts) > SUBMISSION_ITEMS_MAX:
            raise SubmissionTooBig(f"a submission has at most {SUBMISSION_ITEMS_MAX} transfers and accounts")
        if not self._accepts:
            raise LedgerUnavailable("the ledger is not running")
        answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        contents = [content_refusal(transfer) for transfer in submission.transfers]
        account_ids = [account.id for account in submission.accounts if is_ledger_id(account.id)]
        await self._queue.put(_Waiting(submission, contents, account_ids, answer))
        if self._has_ended:
            # It found its place in the queue only when nobody took from it any more.
            raise LedgerUnavailable("the ledger was stopped")
        return await answer

    async def _read_due(self, after: int) -> tuple[StoredTransfer, ...]:
        try:
            return await self._store.due(now_ms=self._clock(), limit=EXPIRY_PAGE, after=after)
        except StoreBusy as error:
            raise LedgerUnavailable(f"the database can't be read: {error}") from error

    async def _write_batches(self) -> None:
        batch: list[_Waiting[Effect]] = []
        ended = False
        try:
            while not ended:
                batch, ended = await self._next_batch()
                await self._apply(batch)
        finally:
            # Something is left here only when the writer was cancelled, or came behind the last in the queue.
            self._accepts = False
            self._has_ended = True
            for waiting in batch:
                waiting.fail(LedgerUnavailable("the ledger was stopped", outcome_unknown=True))
            while not self._queue.empty():
                rest = self._queue.get_nowait()
                if rest is not None:
                    rest.fail(LedgerUnavailable("the ledger was stopped"))

    async def _next_batch(self) -> tuple[list[_Waiting[Effect]], bool]:
        batch: list[_Waiting[Effect]] = []
        transfers_count = 0
        item = await self._queue.get()
        while item is not None:
            batch.append(item)
            transfers_count += len(item.submission.transfers)
            if (
                self._queue.empty()
                or transfers_count >= BATCH_TRANSFERS_MAX
                or len(batch) >= BATCH_SUBMISSIONS_MAX
            ):
                return batch, False
            item = self._queue.get_nowait()
        return batch, True

    async def _apply(self, batch: Sequence[_Waiting[Effect]]) -> None:
        """Applies a batch and answers all of its callers, whatever happens."""
        if not batch:
            return
        try:
            await self._attempt_until_done(batch)
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
                await self._apply(batch[:middle])
                await self._apply(batch[middle:])
                return
            logger.error("a submission failed alone, nothing of it was committed", exc_info=error)
            failed = SubmissionFailed(f"nothing of this was committed: {error}")
            failed.__cause__ = error
            batch[0].fail(failed)
        except Exception:
            logger.exception("a bug met a batch of %d", len(batch))
            _fail_all(batch, "the ledger failed; ask again", outcome_unknown=True)

    async def _attempt_until_done(self, batch: Sequence[_Waiting[Effect]]) -> None:
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                await self._attempt(batch)
                break
            except StoreBusy as error:
                if attempt == ATTEMPTS_MAX:
                    raise
                logger.warning("a batch of %d is tried again: %s", len(batch), error)
                await asyncio.sleep(RETRY_PAUSE_SECONDS * 2 ** (attempt - 1))
        for waiting in batch:
            waiting.resolve()
            if waiting.fault is None and waiting.submission.on_commit is not None:
                _wake(waiting.submission.on_commit)

    async def _attempt(self, batch: Sequence[_Waiting[Effect]]) -> None:
        async with self._store.batch() as store_batch:
            view = View(await store_batch.load(_wanted(batch)))
            at_ms = self._clock()
            for waiting in batch:
                _judge(view, waiting, at_ms)
            effects = [effect for waiting in batch for effect in waiting.effects]
            await store_batch.commit(view.changes(), effects)


def _judge(view: View, waiting: _Waiting[Effect], at_ms: int) -> None:
    """Judges one submission; when its effects raise, it alone is at fault and leaves nothing behind."""
    submission = waiting.submission
    waiting.judged, waiting.fault, waiting.effects = None, None, ()
    mark = view.mark()
    try:
        accounts = open_accounts(view, submission.accounts) if submission.accounts else ()
        refused = [result.account.id for result in accounts if result.refusal is not None]
        transfers = judge(
            view,
            submission.transfers,
            at_ms=at_ms,
            accounts_refused=refused,
            content_refusals=waiting.content_refusals,
        )
        waiting.effects = tuple(submission.effects(transfers))
        waiting.judged = _Answer(accounts, transfers)
    except Exception as error:
        view.roll_back(mark)
        waiting.fault = error


def _wanted(batch: Sequence[_Waiting[Effect]]) -> Wanted:
    """The ids that a batch speaks of. A malformed one is looked up nowhere, and the rules refuse it."""
    account_ids: set[AccountId] = set()
    transfer_ids: set[TransferId] = set()
    pending_ids: set[TransferId] = set()
    for waiting in batch:
        account_ids.update(waiting.account_ids)
        for transfer, refusal in zip(waiting.submission.transfers, waiting.content_refusals, strict=True):
            if refusal is None:
                transfer_ids.add(transfer.id)
                account_ids.add(transfer.debit_account_id)
                account_ids.add(transfer.credit_account_id)
                if transfer.pending_id is not None:
                    pending_ids.add(transfer.pending_id)
            elif is_ledger_id(transfer.id):
                # Nothing of it matters but whether its id was answered before.
                transfer_ids.add(transfer.id)
    return Wanted(account_ids=account_ids, transfer_ids=transfer_ids, pending_ids=pending_ids)


def _expiry_submission(
    pending: Transfer, effects: Callable[[Transfer, TransferResult], Sequence[Effect]] | None
) -> Submission[Effect]:
    def effects_if_released(results: tuple[TransferResult, ...]) -> Sequence[Effect]:
        (result,) = results
        if effects is None or result.refusal is not None or result.replayed:
            return ()
        return effects(pending, result)

    return Submission(transfers=(expiry_of(pending),), effects=effects_if_released)


def _fail_all(batch: Sequence[_Waiting[Effect]], message: str, *, outcome_unknown: bool = False) -> None:
    for waiting in batch:
        waiting.fail(LedgerUnavailable(message, outcome_unknown=outcome_unknown))


def _wake(on_commit: Callable[[], None]) -> None:
    try:
        on_commit()
    except Exception:
        logger.exception("a wake-up after the commit failed; what was committed stays")
