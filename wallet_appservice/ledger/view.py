"""The part of the ledger that a batch touches, held in memory, and what the batch changes of it.

A view is loaded under the store's locks, changed by the rules, and handed back as Changes to be written. What
was changed since a mark can be taken back, so that a chain or a submission leaves either all or nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import NamedTuple

from appservices.vocabulary.ids import AccountId, TransferId
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a batch needs to know, valid ids only."""

    account_ids: AbstractSet[AccountId]
    transfer_ids: AbstractSet[TransferId]
    """Of the batch's own transfers."""
    pending_ids: AbstractSet[TransferId]
    """Of the transfers that the batch's transfers are to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What the store found of what was wanted."""

    accounts: Iterable[Account] = ()
    transfers: Iterable[StoredTransfer] = ()
    refusals: Iterable[StoredRefusal] = ()
    position: int = 0
    """Of the ledger's last transfer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a batch changes. Accounts are given with the sums that they have after it."""

    opened: tuple[Account, ...]
    changed: tuple[Account, ...]
    transfers: tuple[StoredTransfer, ...]
    refusals: tuple[StoredRefusal, ...]
    position: int


class Mark(NamedTuple):
    """A moment to which a view can be taken back."""

    opened: int
    transfers: int
    refusals: int


@dataclass(slots=True)
class Sums:
    """The four sums of an account while a batch is judged."""

    account: Account
    debits_pending: int
    debits_posted: int
    credits_pending: int
    credits_posted: int

    @classmethod
    def of(cls, account: Account) -> Sums:
        return cls(
            account,
            account.debits_pending,
            account.debits_posted,
            account.credits_pending,
            account.credits_posted,
        )

    def as_account(self) -> Account:
        account = self.account
        # Not by `replace`, which takes twice as long: this is done for each account of each batch.
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
    """A working copy of a part of the ledger. One batch, one view."""

    def __init__(self, loaded: Loaded) -> None:
        self.sums = {account.id: Sums.of(account) for account in loaded.accounts}
        self.transfers = {stored.transfer.id: stored for stored in loaded.transfers}
        self.refusals = {stored.id: stored for stored in loaded.refusals}
        self._position = loaded.position
        self._opened: list[AccountId] = []
        self._new_transfers: list[StoredTransfer] = []
        self._new_refusals: list[StoredRefusal] = []

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
        self._position += 1
        timeout = transfer.timeout_seconds
        stored = StoredTransfer(
            transfer=transfer,
            position=self._position,
            at_ms=at_ms,
            expires_at_ms=None if timeout is None else at_ms + timeout * 1000,
        )
        self._move(transfer, 1)
        self._set_ending(transfer, transfer.mode)
        self.transfers[transfer.id] = stored
        self._new_transfers.append(stored)

    def refuse(self, refusal: StoredRefusal) -> None:
        self.refusals[refusal.id] = refusal
        self._new_refusals.append(refusal)

    def mark(self) -> Mark:
        return Mark(len(self._opened), len(self._new_transfers), len(self._new_refusals))

    def roll_back(self, mark: Mark) -> None:
        """Takes back all that happened since the mark, latest first."""
        while len(self._new_transfers) > mark.transfers:
            transfer = self._new_transfers.pop().transfer
            self._move(transfer, -1)
            self._set_ending(transfer, None)
            del self.transfers[transfer.id]
            self._position -= 1
        while len(self._new_refusals) > mark.refusals:
            del self.refusals[self._new_refusals.pop().id]
        while len(self._opened) > mark.opened:
            del self.sums[self._opened.pop()]

    def changes(self) -> Changes:
        opened = set(self._opened)
        touched = {
            account_id: None
            for stored in self._new_transfers
            for account_id in (stored.transfer.debit_account_id, stored.transfer.credit_account_id)
            if account_id not in opened
        }
        return Changes(
            opened=tuple(self.sums[account_id].as_account() for account_id in self._opened),
            changed=tuple(self.sums[account_id].as_account() for account_id in touched),
            transfers=tuple(self._new_transfers),
            refusals=tuple(self._new_refusals),
            position=self._position,
        )

    def _move(self, transfer: Transfer, sign: int) -> None:
        debit = self.sums[transfer.debit_account_id]
        credit = self.sums[transfer.credit_account_id]
        amount = sign * transfer.amount_minor
        if transfer.pending_id is not None:
            held = sign * self.transfers[transfer.pending_id].transfer.amount_minor
            debit.debits_pending -= held
            credit.credits_pending -= held
        if transfer.mode is TransferMode.PENDING:
            debit.debits_pending += amount
            credit.credits_pending += amount
        elif transfer.mode in (TransferMode.SINGLE_PHASE, TransferMode.POST_PENDING):
            debit.debits_posted += amount
            credit.credits_posted += amount

    def _set_ending(self, transfer: Transfer, ended_by: TransferMode | None) -> None:
        if transfer.pending_id is not None:
            pending = self.transfers[transfer.pending_id]
            self.transfers[transfer.pending_id] = replace(pending, ended_by=ended_by)
