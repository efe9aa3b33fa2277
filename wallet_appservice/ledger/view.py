"""The part of the ledger that batches touch, held in memory, and what a batch changes of it.

A view is loaded under the store's locks, changed by the rules, and handed back as Changes to be written. What
was changed since a mark can be taken back, so that a chain or a submission leaves either all or nothing.

Accounts stay in the view from one batch to the next: their sums change by transfers alone, and every transfer
adds one to the ledger's position, so whoever finds that position under the lock where this view has left it
knows them. Answers to ids don't stay: refusals leave no trace in the position, and are looked up each time.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, NamedTuple

from appservices.vocabulary.ids import AccountId, TransferId
from wallet_appservice.ledger.chain import transfer_record
from wallet_appservice.ledger.values import (
    Account,
    NewAccount,
    StoredTransfer,
    Transfer,
    TransferMode,
    TransferRefusal,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRefusal:
    """The answer to an id that was refused: it stays refused, for the same reason."""

    id: TransferId
    content: str
    """A hash of the transfer, to tell a repetition from another transfer with this id."""
    refusal: TransferRefusal
    at_ms: int


class Wanted(NamedTuple):
    """What a submission or a batch needs to know, valid ids only."""

    account_ids: AbstractSet[AccountId]
    transfer_ids: AbstractSet[TransferId]
    """Of its own transfers."""
    pending_ids: AbstractSet[TransferId]
    """Of the transfers that its transfers are to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What the store found of what was wanted."""

    accounts: Collection[Account] = ()
    transfers: Collection[StoredTransfer] = ()
    refusals: Collection[StoredRefusal] = ()
    position: int = 0
    """Of the ledger's last transfer."""


FourSums = tuple[int, int, int, int]
"""Debits pending and posted, credits pending and posted: the order of an account's columns."""


class ChangedSums(NamedTuple):
    """What a batch does to an account that was there before it. `before` is what the batch was judged by."""

    id: AccountId
    before: FourSums
    after: FourSums


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a batch changes. Accounts that it opened are given with the sums that they have after it."""

    opened: tuple[Account, ...]
    changed: tuple[ChangedSums, ...]
    """In the order of their ids."""
    transfers: tuple[StoredTransfer, ...]
    records: tuple[bytes, ...]
    """Of each transfer, for the hash chain."""
    refusals: tuple[StoredRefusal, ...]
    position: int


Mark = tuple[int, int, int]
"""A moment to which a view can be taken back: how many were opened, applied and refused until then."""


_SINGLE_PHASE: Final = TransferMode.SINGLE_PHASE

NOTHING: Final[Mark] = (0, 0, 0)
"""The moment before a batch has changed anything."""


@dataclass(slots=True)
class Sums:
    """The four sums of an account while batches are judged."""

    account: Account
    """As it was loaded; of it only what never changes still holds."""
    debits_pending: int
    debits_posted: int
    credits_pending: int
    credits_posted: int
    before: FourSums
    """As they were when the batch began."""

    @classmethod
    def of(cls, account: Account) -> Sums:
        four = (
            account.debits_pending,
            account.debits_posted,
            account.credits_pending,
            account.credits_posted,
        )
        return cls(account, *four, before=four)

    def now(self) -> FourSums:
        return self.debits_pending, self.debits_posted, self.credits_pending, self.credits_posted

    def as_account(self) -> Account:
        account = self.account
        return Account(
            id=account.id,
            kind=account.kind,
            currency=account.currency,
            owner=account.owner,
            debits_pending=self.debits_pending,
            debits_posted=self.debits_posted,
            credits_pending=self.credits_pending,
            credits_posted=self.credits_posted,
            debits_must_not_exceed_credits=account.debits_must_not_exceed_credits,
            credits_must_not_exceed_debits=account.credits_must_not_exceed_debits,
        )


class View:
    """A working copy of a part of the ledger, for one batch after another."""

    def __init__(self, loaded: Loaded) -> None:
        self.sums: dict[AccountId, Sums] = {}
        self.transfers: dict[TransferId, StoredTransfer] = {}
        self.refusals: dict[TransferId, StoredRefusal] = {}
        self.position = loaded.position
        """Of the last transfer applied, whether or not it is stored yet."""
        self._opened: list[AccountId] = []
        self._new_transfers: list[StoredTransfer] = []
        self._new_records: list[bytes] = []
        self._new_refusals: list[StoredRefusal] = []
        self.learn(loaded)

    def learn(self, loaded: Loaded) -> None:
        """Adds what the store found, of the same moment as what the view holds."""
        for account in loaded.accounts:
            self.sums[account.id] = Sums.of(account)
        for stored in loaded.transfers:
            self.transfers[stored.transfer.id] = stored
        for refusal in loaded.refusals:
            self.refusals[refusal.id] = refusal

    @property
    def begin_position(self) -> int:
        """The last transfer's before the batch."""
        return self.position - len(self._new_transfers)

    def open(self, new: NewAccount) -> None:
        account = Account(
            id=new.id,
            kind=new.kind,
            currency=new.currency,
            owner=new.owner,
            debits_pending=0,
            debits_posted=0,
            credits_pending=0,
            credits_posted=0,
            debits_must_not_exceed_credits=new.debits_must_not_exceed_credits,
            credits_must_not_exceed_debits=new.credits_must_not_exceed_debits,
        )
        self.sums[new.id] = Sums.of(account)
        self._opened.append(new.id)

    def apply(self, transfer: Transfer, *, at_ms: int) -> None:
        """Moves the money of a transfer that the rules have allowed."""
        position, timeout = self.position + 1, transfer.timeout_seconds
        stored = StoredTransfer(
            transfer, position, at_ms, None if timeout is None else at_ms + timeout * 1000
        )
        # All that could fail comes before the first change, so that nothing is ever half applied.
        record = transfer_record(transfer, position, at_ms)
        self._move(transfer, 1)
        self.position = position
        if transfer.pending_id is not None:
            self._set_ending(transfer.pending_id, transfer.mode)
        self.transfers[transfer.id] = stored
        self._new_transfers.append(stored)
        self._new_records.append(record)

    def refuse(self, refusal: StoredRefusal) -> None:
        self.refusals[refusal.id] = refusal
        self._new_refusals.append(refusal)

    def mark(self) -> Mark:
        return len(self._opened), len(self._new_transfers), len(self._new_refusals)

    def roll_back(self, mark: Mark) -> None:
        """Takes back all that happened since the mark, latest first."""
        opened, transfers, refusals = mark
        while len(self._new_transfers) > transfers:
            transfer = self._new_transfers.pop().transfer
            self._new_records.pop()
            self._move(transfer, -1)
            if transfer.pending_id is not None:
                self._set_ending(transfer.pending_id, None)
            del self.transfers[transfer.id]
            self.position -= 1
        while len(self._new_refusals) > refusals:
            del self.refusals[self._new_refusals.pop().id]
        while len(self._opened) > opened:
            del self.sums[self._opened.pop()]

    def changes(self) -> Changes:
        """What the batch has changed so far."""
        opened = set(self._opened)
        touched = {stored.transfer.debit_account_id for stored in self._new_transfers}
        touched.update(stored.transfer.credit_account_id for stored in self._new_transfers)
        changed = []
        for account_id in sorted(touched - opened if opened else touched):
            sums = self.sums[account_id]
            changed.append(ChangedSums(account_id, sums.before, sums.now()))
        return Changes(
            opened=tuple(self.sums[account_id].as_account() for account_id in self._opened),
            changed=tuple(changed),
            transfers=tuple(self._new_transfers),
            records=tuple(self._new_records),
            refusals=tuple(self._new_refusals),
            position=self.position,
        )

    def begin_next(self, changes: Changes) -> None:
        """Goes on from what the batch has changed, as if that were stored, to the next batch."""
        for changed in changes.changed:
            self.sums[changed.id].before = changed.after
        for account in changes.opened:
            sums = self.sums[account.id]
            sums.before = sums.now()
        # New ones, not cleared ones: the batch's own may still be in use.
        self.transfers, self.refusals = {}, {}
        self._opened, self._new_transfers, self._new_records, self._new_refusals = [], [], [], []

    def _move(self, transfer: Transfer, sign: int) -> None:
        debit = self.sums[transfer.debit_account_id]
        credit = self.sums[transfer.credit_account_id]
        amount = sign * transfer.amount_minor
        mode = transfer.mode
        if transfer.pending_id is not None:
            held = sign * self.transfers[transfer.pending_id].transfer.amount_minor
            debit.debits_pending -= held
            credit.credits_pending -= held
        if mode is _SINGLE_PHASE or mode is TransferMode.POST_PENDING:
            debit.debits_posted += amount
            credit.credits_posted += amount
        elif mode is TransferMode.PENDING:
            debit.debits_pending += amount
            credit.credits_pending += amount

    def _set_ending(self, pending_id: TransferId, ended_by: TransferMode | None) -> None:
        self.transfers[pending_id] = self.transfers[pending_id]._replace(ended_by=ended_by)
