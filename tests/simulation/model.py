"""The ledger as a list of transfers: a second, plain implementation, to compare the real one with.

It shares no code with the rules. Nothing is kept that follows from the list: every sum is added up again, and
a refusal is the most fundamental of all reasons that hold, in the order in which they are declared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from appservices.vocabulary.ids import AccountId, TransferId
from appservices.vocabulary.money import AMOUNT_MINOR_MAX
from tests.simulation.state import State
from wallet_appservice.ledger.values import (
    Account,
    AccountRefusal,
    NewAccount,
    StoredTransfer,
    Transfer,
    TransferMode,
    TransferRefusal,
)

REASONS: Final = list(TransferRefusal)
ACCOUNT_REASONS: Final = list(AccountRefusal)
ENDED: Final = {
    TransferMode.POST_PENDING: TransferRefusal.PENDING_ALREADY_POSTED,
    TransferMode.VOID_PENDING: TransferRefusal.PENDING_ALREADY_VOIDED,
    TransferMode.EXPIRE_PENDING: TransferRefusal.PENDING_EXPIRED,
}
FORGOTTEN: Final = (TransferRefusal.ID_EXISTS_WITH_DIFFERENT_CONTENT, TransferRefusal.PENDING_NOT_EXPIRED)
"""Refusals that do not spend their id."""
MOVES_AT_ONCE: Final = (TransferMode.SINGLE_PHASE, TransferMode.POST_PENDING)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a caller must be told."""

    refusal: TransferRefusal | None
    at_ms: int
    replayed: bool


@dataclass(frozen=True, slots=True)
class Spent:
    """An id that was answered: a transfer that was applied, or one that was refused."""

    transfer: Transfer
    at_ms: int
    refusal: TransferRefusal | None = None


@dataclass(slots=True)
class Model:
    """All that was committed."""

    accounts: dict[AccountId, NewAccount] = field(default_factory=dict)
    applied: list[Spent] = field(default_factory=list)
    refused: dict[TransferId, Spent] = field(default_factory=dict)

    def copy(self) -> Model:
        return Model(dict(self.accounts), list(self.applied), dict(self.refused))

    def submit(
        self, accounts: Sequence[NewAccount], transfers: Sequence[Transfer], at_ms: int
    ) -> tuple[list[AccountRefusal | None], list[Answer]]:
        """Applies one submission and says how it must be answered."""
        opened = [self._open(account) for account in accounts]
        bad = [account.id for account, refusal in zip(accounts, opened, strict=True) if refusal is not None]
        answers: list[Answer] = []
        chain: list[Transfer] = []
        for number, transfer in enumerate(transfers):
            chain.append(transfer)
            if not transfer.linked or number == len(transfers) - 1:
                one = len(chain) == 1 and not transfer.linked
                answers += [self._judge(transfer, at_ms, bad)] if one else self._chain(chain, at_ms, bad)
                chain = []
        return opened, answers

    def state(self) -> State:
        """What the database must hold, the transfers' effects included."""
        ended = self._endings()
        return State(
            accounts={id: self.account(id) for id in self.accounts},
            transfers=[
                _stored(spent, position, ended_by=None) for position, spent in enumerate(self.applied, 1)
            ],
            refusals={id: (str(spent.refusal), spent.at_ms) for id, spent in self.refused.items()},
            open_pending={
                stored.transfer.id: (stored.position, stored.expires_at_ms)
                for stored in (_stored(spent, n, ended_by=None) for n, spent in enumerate(self.applied, 1))
                if stored.transfer.mode is TransferMode.PENDING and stored.transfer.id not in ended
            },
            position=len(self.applied),
            notes=sorted(spent.transfer.id for spent in self.applied),
        )

    def account(self, id: AccountId) -> Account:
        """The account with its sums."""
        new, ended = self.accounts[id], self._endings()
        sums = {"debits_pending": 0, "debits_posted": 0, "credits_pending": 0, "credits_posted": 0}
        for side, account_id in (("debits", "debit_account_id"), ("credits", "credit_account_id")):
            for spent in self.applied:
                transfer = spent.transfer
                if getattr(transfer, account_id) != id:
                    continue
                if transfer.mode in MOVES_AT_ONCE:
                    sums[f"{side}_posted"] += transfer.amount_minor
                elif transfer.mode is TransferMode.PENDING and transfer.id not in ended:
                    sums[f"{side}_pending"] += transfer.amount_minor
        return Account(
            id=id,
            kind=new.kind,
            currency=new.currency,
            owner=new.owner,
            debits_must_not_exceed_credits=new.debits_must_not_exceed_credits,
            credits_must_not_exceed_debits=new.credits_must_not_exceed_debits,
            **sums,
        )

    def transfer(self, id: TransferId) -> StoredTransfer | None:
        for number, spent in enumerate(self.applied):
            if spent.transfer.id == id:
                return self._with_ending(number)
        return None

    def due(self, now_ms: int) -> list[StoredTransfer]:
        """Held past its time, in order."""
        held = [
            self._with_ending(number)
            for number, spent in enumerate(self.applied)
            if spent.transfer.timeout_seconds is not None
        ]
        return [
            stored
            for stored in held
            if stored.ended_by is None and stored.expires_at_ms is not None and stored.expires_at_ms <= now_ms
        ]

    def _open(self, new: NewAccount) -> AccountRefusal | None:
        known = self.accounts.get(new.id)
        holds = {
            AccountRefusal.ID_INVALID: not _is_id(new.id),
            AccountRefusal.EXISTS_WITH_DIFFERENT_CONTENT: known is not None and known != new,
            AccountRefusal.OWNER_INVALID: not 0 < len(new.owner) <= 255 or "\x00" in new.owner,
            AccountRefusal.CURRENCY_INVALID: re.fullmatch("[A-Z]{3,8}", new.currency) is None,
        }
        refusal = min((reason for reason in holds if holds[reason]), key=ACCOUNT_REASONS.index, default=None)
        if refusal is None:
            self.accounts.setdefault(new.id, new)
        return refusal

    def _judge(self, transfer: Transfer, at_ms: int, bad: Sequence[AccountId]) -> Answer:
        first = self._first_answer(transfer, at_ms)
        return first or self._answer(transfer, at_ms, self._reason(transfer, at_ms, bad))

    def _chain(self, chain: Sequence[Transfer], at_ms: int, bad: Sequence[AccountId]) -> list[Answer]:
        firsts = [self._first_answer(transfer, at_ms) for transfer in chain]
        known = [first for first in firsts if first is not None]
        if len(known) == len(chain) and all(first.refusal is None for first in known):
            return known
        reasons = [_content_reason(transfer) for transfer in chain]
        if chain[-1].linked:
            reasons[-1] = TransferRefusal.LINKED_CHAIN_OPEN
        if not known and not any(reasons):
            trial = self.copy()
            answers = [trial._judge(transfer, at_ms, bad) for transfer in chain]
            culprits = [number for number, answer in enumerate(answers) if answer.refusal or answer.replayed]
            if not culprits:
                self.applied = trial.applied
                return answers
            twice = TransferRefusal.ID_EXISTS_WITH_DIFFERENT_CONTENT
            reasons[culprits[0]] = answers[culprits[0]].refusal or twice
        told: list[Answer] = []
        for transfer, first, reason in zip(chain, firsts, reasons, strict=True):
            if first is not None and first.refusal is not None:
                told.append(first)
            elif first is not None:
                told.append(Answer(TransferRefusal.ID_EXISTS_WITH_DIFFERENT_CONTENT, at_ms, replayed=False))
            else:
                told.append(self._answer(transfer, at_ms, reason or TransferRefusal.LINKED_CHAIN_BROKEN))
        return told

    def _first_answer(self, transfer: Transfer, at_ms: int) -> Answer | None:
        """The first answer, if the id had one; other content is refused."""
        spent = self._spent(transfer.id)
        if spent is None:
            return None
        # Not `==`: to that, a float and a truth value may be the same as a whole number.
        if repr(spent.transfer) == repr(transfer):
            return Answer(spent.refusal, spent.at_ms, replayed=True)
        return Answer(TransferRefusal.ID_EXISTS_WITH_DIFFERENT_CONTENT, at_ms, replayed=False)

    def _answer(self, transfer: Transfer, at_ms: int, reason: TransferRefusal | None) -> Answer:
        """Remembers what is to be remembered."""
        if reason is None:
            self.applied.append(Spent(transfer, at_ms))
        elif (
            reason not in FORGOTTEN and _content_reason(transfer) is None and self._spent(transfer.id) is None
        ):
            self.refused[transfer.id] = Spent(transfer, at_ms, reason)
        return Answer(reason, at_ms, replayed=False)

    def _reason(self, transfer: Transfer, at_ms: int, bad: Sequence[AccountId]) -> TransferRefusal | None:
        content = _content_reason(transfer)
        if content is not None:
            return content
        debit_id, credit_id = transfer.debit_account_id, transfer.credit_account_id
        if debit_id in self.accounts and credit_id in self.accounts:
            debit, credit = self.account(debit_id), self.account(credit_id)
            holds = {
                TransferRefusal.CURRENCY_DIFFERS: transfer.currency != debit.currency
                or transfer.currency != credit.currency
            }
            if transfer.pending_id is None:
                debits = debit.debits_pending + debit.debits_posted + transfer.amount_minor
                credits = credit.credits_pending + credit.credits_posted + transfer.amount_minor
                holds[TransferRefusal.BALANCE_OVERFLOW] = max(debits, credits) >= 2**63
                holds[TransferRefusal.BALANCE_TOO_LOW] = (
                    debit.debits_must_not_exceed_credits and debits > debit.credits_posted
                )
                holds[TransferRefusal.BALANCE_TOO_HIGH] = (
                    credit.credits_must_not_exceed_debits and credits > credit.debits_posted
                )
            else:
                holds |= self._ending_reasons(transfer, self.transfer(transfer.pending_id), at_ms)
        else:
            holds = {
                TransferRefusal.DEBIT_ACCOUNT_NOT_FOUND: debit_id not in self.accounts,
                TransferRefusal.CREDIT_ACCOUNT_NOT_FOUND: credit_id not in self.accounts,
            }
        holds[TransferRefusal.ACCOUNT_REFUSED] = debit_id in bad or credit_id in bad
        return min((reason for reason in holds if holds[reason]), key=REASONS.index, default=None)

    def _ending_reasons(
        self, transfer: Transfer, pending: StoredTransfer | None, at_ms: int
    ) -> dict[TransferRefusal, bool]:
        if pending is None:
            return {TransferRefusal.PENDING_NOT_FOUND: True}
        held = pending.transfer
        if held.mode is not TransferMode.PENDING:
            return {TransferRefusal.NOT_PENDING: True}
        is_over = pending.expires_at_ms is not None and at_ms >= pending.expires_at_ms
        expires = transfer.mode is TransferMode.EXPIRE_PENDING
        posts = transfer.mode is TransferMode.POST_PENDING
        holds = {
            TransferRefusal.PENDING_DIFFERS: (
                (held.debit_account_id, held.credit_account_id, held.currency, held.code)
                != (transfer.debit_account_id, transfer.credit_account_id, transfer.currency, transfer.code)
            )
            or (not posts and held.amount_minor != transfer.amount_minor),
            TransferRefusal.PENDING_EXPIRED: is_over and not expires,
            TransferRefusal.PENDING_NOT_EXPIRED: expires and not is_over,
            TransferRefusal.AMOUNT_EXCEEDS_PENDING: transfer.amount_minor > held.amount_minor,
        }
        if pending.ended_by is not None:
            holds[ENDED[pending.ended_by]] = True
        return holds

    def _spent(self, id: TransferId) -> Spent | None:
        applied = next((spent for spent in self.applied if spent.transfer.id == id), None)
        return applied or self.refused.get(id)

    def _with_ending(self, number: int) -> StoredTransfer:
        spent = self.applied[number]
        return _stored(spent, number + 1, ended_by=self._endings().get(spent.transfer.id))

    def _endings(self) -> dict[TransferId | None, TransferMode]:
        return {
            spent.transfer.pending_id: spent.transfer.mode
            for spent in self.applied
            if spent.transfer.pending_id is not None
        }


def _stored(spent: Spent, position: int, *, ended_by: TransferMode | None) -> StoredTransfer:
    timeout = spent.transfer.timeout_seconds
    return StoredTransfer(
        transfer=spent.transfer._replace(),
        position=position,
        at_ms=spent.at_ms,
        expires_at_ms=None if timeout is None else spent.at_ms + timeout * 1000,
        ended_by=ended_by,
    )


def _content_reason(transfer: Transfer) -> TransferRefusal | None:
    amount: object = transfer.amount_minor
    pending_id, timeout = transfer.pending_id, transfer.timeout_seconds
    ends = transfer.mode not in (TransferMode.SINGLE_PHASE, TransferMode.PENDING)
    whole = isinstance(amount, int) and not isinstance(amount, bool)
    checks: dict[TransferRefusal, Callable[[], bool]] = {
        TransferRefusal.ID_INVALID: lambda: not _is_id(transfer.id),
        TransferRefusal.ACCOUNT_ID_INVALID: lambda: (
            not _is_id(transfer.debit_account_id) or not _is_id(transfer.credit_account_id)
        ),
        TransferRefusal.PENDING_ID_INVALID: lambda: (
            pending_id is None or not _is_id(pending_id) or pending_id == transfer.id
            if ends
            else pending_id is not None
        ),
        TransferRefusal.TIMEOUT_INVALID: lambda: (
            timeout is not None
            and (
                transfer.mode is not TransferMode.PENDING
                or repr(timeout) != str(int(timeout))
                or not 1 <= timeout <= 3660 * 86400
            )
        ),
        TransferRefusal.REFERENCE_INVALID: lambda: (
            len(transfer.reference) > 128 or re.search("[\0\ud800-\udfff]", transfer.reference) is not None
        ),
        TransferRefusal.CURRENCY_INVALID: lambda: re.fullmatch("[A-Z]{3,8}", transfer.currency) is None,
        TransferRefusal.AMOUNT_NOT_WHOLE: lambda: not whole,
        TransferRefusal.AMOUNT_ZERO: lambda: whole and transfer.amount_minor == 0,
        TransferRefusal.AMOUNT_NEGATIVE: lambda: whole and transfer.amount_minor < 0,
        TransferRefusal.AMOUNT_TOO_BIG: lambda: whole and transfer.amount_minor > AMOUNT_MINOR_MAX,
        TransferRefusal.SAME_ACCOUNT: lambda: transfer.debit_account_id == transfer.credit_account_id,
    }
    return min((reason for reason, holds in checks.items() if holds()), key=REASONS.index, default=None)


def _is_id(text: str) -> bool:
    return len(text) == 32 and set(text) <= set("0123456789abcdef")
