"""What callers submit to the ledger, and how one submission is judged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Generic, NamedTuple

from appservices.vocabulary.ids import AccountId, TransferId, is_ledger_id
from wallet_appservice.ledger.rules import AccountResult, judge, open_accounts
from wallet_appservice.ledger.store import Effect
from wallet_appservice.ledger.values import NewAccount, Transfer, TransferRefusal, TransferResult
from wallet_appservice.ledger.view import Loaded, View, Wanted

STEP_TRANSFERS: Final = 32
"""Judged in one step; beside steps, the database is listened to."""


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


class Submission(NamedTuple, Generic[Effect]):
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


class Answer(NamedTuple):
    accounts: tuple[AccountResult, ...]
    transfers: tuple[TransferResult, ...]


@dataclass(slots=True)
class Waiting(Generic[Effect]):
    """A submission and the caller who waits for its answer."""

    submission: Submission[Effect]
    content_refusals: Sequence[TransferRefusal | None]
    """Of each of its transfers, told before it waits: such a fault is its caller's alone."""
    account_ids: Sequence[AccountId]
    """Of the accounts that it opens, valid ids only."""
    answer: asyncio.Future[Answer]
    # Set for the current attempt only, until its batch is durable.
    judged: Answer | None = None
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


@dataclass(slots=True)
class Ahead(Generic[Effect]):
    """The beginning of a batch, judged before its turn."""

    submissions: list[Waiting[Effect]] = field(default_factory=list)
    transfers_count: int = 0
    at_ms: int | None = None
    """The time of the whole batch, once one of it is judged."""
    is_closed: bool = False
    """Nobody comes in any more: their ids are being looked up."""
    rest: Iterator[int] | None = None
    """Judges the rest of the last one, which has so many transfers that it is judged in steps."""
    loaded: Loaded | None = None
    """What was found of what they want, accounts that are known left out."""

    def go_on(self) -> int:
        """Judges a step of the rest, if there is one; how many transfers."""
        step_transfers = 0 if self.rest is None else next(self.rest, 0)
        if step_transfers == 0:
            self.rest = None
        return step_transfers

    def finish(self) -> None:
        while self.rest is not None:
            self.go_on()


def judge_submission(view: View, waiting: Waiting[Effect], at_ms: int) -> None:
    """Judges one submission; when its effects raise, it alone is at fault and leaves nothing behind."""
    for _ in judge_in_steps(view, waiting, at_ms):
        pass


def judge_in_steps(view: View, waiting: Waiting[Effect], at_ms: int) -> Iterator[int]:
    """As `judge_submission`, and tells after each step how many transfers it has judged."""
    submission = waiting.submission
    waiting.judged, waiting.fault, waiting.effects = None, None, ()
    mark = view.mark()
    try:
        accounts: tuple[AccountResult, ...] = ()
        refused: Sequence[AccountId] = ()
        if submission.accounts:
            accounts = open_accounts(view, submission.accounts)
            refused = [result.account.id for result in accounts if result.refusal is not None]
        results = judge(
            view,
            submission.transfers,
            at_ms=at_ms,
            accounts_refused=refused,
            content_refusals=waiting.content_refusals,
        )
        judged: list[TransferResult] = []
        while len(submission.transfers) - len(judged) > STEP_TRANSFERS:
            step = list(islice(results, STEP_TRANSFERS))
            judged += step
            yield len(step)
        transfers = (*judged, *results)
        waiting.effects = tuple(submission.effects(transfers))
        waiting.judged = Answer(accounts, transfers)
    except Exception as error:
        view.roll_back(mark)
        waiting.fault = error


def is_known(view: View, waiting: Waiting[Effect]) -> bool:
    """Whether the view has all that the submission speaks of, except answers to its ids."""
    known = view.sums
    for transfer, refusal in zip(waiting.submission.transfers, waiting.content_refusals, strict=True):
        if refusal is None and (
            transfer.pending_id is not None
            or transfer.debit_account_id not in known
            or transfer.credit_account_id not in known
        ):
            return False
    return not waiting.account_ids or all(account_id in known for account_id in waiting.account_ids)


def wanted_by(batch: Sequence[Waiting[Effect]], *, known: Container[AccountId] = ()) -> Wanted:
    """The ids that a batch speaks of, but not accounts that are known.

    A malformed one is looked up nowhere, and the rules refuse it.
    """
    account_ids: set[AccountId] = set()
    transfer_ids: set[TransferId] = set()
    pending_ids: set[TransferId] = set()
    for waiting in batch:
        if waiting.account_ids:
            account_ids.update(id for id in waiting.account_ids if id not in known)
        for transfer, refusal in zip(waiting.submission.transfers, waiting.content_refusals, strict=True):
            if refusal is None:
                transfer_ids.add(transfer.id)
                if transfer.debit_account_id not in known:
                    account_ids.add(transfer.debit_account_id)
                if transfer.credit_account_id not in known:
                    account_ids.add(transfer.credit_account_id)
                if transfer.pending_id is not None:
                    pending_ids.add(transfer.pending_id)
            elif is_ledger_id(transfer.id):
                # Nothing of it matters but whether its id was answered before.
                transfer_ids.add(transfer.id)
    return Wanted(account_ids, transfer_ids, pending_ids)
