"""The rules of the ledger: which transfers may happen. Deterministic, no I/O, no clock of its own.

An id that was answered is spent. What was applied is answered by the same result again; what was refused
stays refused for the same reason, so that nobody is told "refused" and pays a moment later by a repetition of
the same command. Only what follows from the transfer's own content needs no memory: it is refused alike each
time.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from appservices.vocabulary.ids import AccountId, derived_id, is_ledger_id
from wallet_appservice.ledger.values import (
    BALANCE_MINOR_MAX,
    ENDING_MODES,
    OWNER_LENGTH_MAX,
    REFERENCE_LENGTH_MAX,
    TIMEOUT_SECONDS_MAX,
    TRANSFER_AMOUNT_MINOR_MAX,
    Account,
    AccountRefusal,
    NewAccount,
    StoredTransfer,
    Transfer,
    TransferMode,
    TransferRefusal,
    TransferResult,
)
from wallet_appservice.ledger.view import StoredRefusal, View

_CURRENCY = re.compile(r"[A-Z]{3,8}")
_CURRENCIES_KEPT: Final = 256
_NEVER_STORED: Final = frozenset(
    {TransferRefusal.ID_EXISTS_WITH_DIFFERENT_CONTENT, TransferRefusal.PENDING_NOT_EXPIRED}
)
_SINGLE_PHASE: Final = TransferMode.SINGLE_PHASE
_ENDED: Final = {
    TransferMode.POST_PENDING: TransferRefusal.PENDING_ALREADY_POSTED,
    TransferMode.VOID_PENDING: TransferRefusal.PENDING_ALREADY_VOIDED,
    TransferMode.EXPIRE_PENDING: TransferRefusal.PENDING_EXPIRED,
}


@dataclass(frozen=True, slots=True)
class AccountResult:
    """Whether an account is there now as it was asked for."""

    account: NewAccount
    refusal: AccountRefusal | None


def open_accounts(view: View, accounts: Sequence[NewAccount]) -> tuple[AccountResult, ...]:
    """Opens what is missing. An account that is there with the same content is no refusal."""
    results = []
    for new in accounts:
        refusal = _account_refusal(view, new)
        if refusal is None and new.id not in view.sums:
            view.open(new)
        results.append(AccountResult(new, refusal))
    return tuple(results)


def judge(
    view: View,
    transfers: Sequence[Transfer],
    *,
    at_ms: int,
    accounts_refused: Collection[AccountId] = (),
    content_refusals: Sequence[TransferRefusal | None] | None = None,
) -> Iterator[TransferResult]:
    """Applies to the view what the rules allow and answers each transfer, in order, no further than its
    answers are taken; those of a chain come of one piece.

    `content_refusals` are what `content_refusal` says of each, from whoever has asked it already.
    """
    if content_refusals is None:
        content_refusals = [content_refusal(transfer) for transfer in transfers]
    judgement = _Judgement(view, at_ms, accounts_refused)
    start = 0
    for end, transfer in enumerate(transfers, 1):
        if transfer.linked and end < len(transfers):
            continue
        # Here a chain ends; what is linked to nothing is a chain of one.
        if transfers[start].linked:
            yield from judgement.of_chain(transfers[start:end], content_refusals[start:end])
        else:
            yield judgement.of_one(transfer, content_refusals[start])
        start = end


def content_refusal(transfer: Transfer) -> TransferRefusal | None:
    """The first reason to refuse that follows from the transfer alone, whatever the accounts hold."""
    amount = transfer.amount_minor
    if not is_ledger_id(transfer.id):
        return TransferRefusal.ID_INVALID
    if not is_ledger_id(transfer.debit_account_id) or not is_ledger_id(transfer.credit_account_id):
        return TransferRefusal.ACCOUNT_ID_INVALID
    is_plain = transfer.mode is _SINGLE_PHASE and transfer.pending_id is None
    if not is_plain and not _pending_id_fits(transfer):
        return TransferRefusal.PENDING_ID_INVALID
    if transfer.timeout_seconds is not None and not _timeout_fits(transfer, transfer.timeout_seconds):
        return TransferRefusal.TIMEOUT_INVALID
    reference = transfer.reference
    if reference != "" and (len(reference) > REFERENCE_LENGTH_MAX or not _is_storable(reference)):
        return TransferRefusal.REFERENCE_INVALID
    if not _is_currency(transfer.currency):
        return TransferRefusal.CURRENCY_INVALID
    if type(amount) is not int:
        return TransferRefusal.AMOUNT_NOT_WHOLE
    if amount == 0:
        return TransferRefusal.AMOUNT_ZERO
    if amount < 0:
        return TransferRefusal.AMOUNT_NEGATIVE
    if amount > TRANSFER_AMOUNT_MINOR_MAX:
        return TransferRefusal.AMOUNT_TOO_BIG
    if transfer.debit_account_id == transfer.credit_account_id:
        return TransferRefusal.SAME_ACCOUNT
    return None


def state_refusal(
    view: View, transfer: Transfer, *, at_ms: int, accounts_refused: Collection[AccountId] = ()
) -> TransferRefusal | None:
    """The first reason to refuse that follows from the ledger as it stands, once the content is right."""
    debit_id, credit_id = transfer.debit_account_id, transfer.credit_account_id
    if debit_id in accounts_refused or credit_id in accounts_refused:
        return TransferRefusal.ACCOUNT_REFUSED
    debit, credit = view.sums.get(debit_id), view.sums.get(credit_id)
    if debit is None:
        return TransferRefusal.DEBIT_ACCOUNT_NOT_FOUND
    if credit is None:
        return TransferRefusal.CREDIT_ACCOUNT_NOT_FOUND
    if not debit.account.currency == credit.account.currency == transfer.currency:
        return TransferRefusal.CURRENCY_DIFFERS
    if transfer.pending_id is not None:
        # The amount was held, so no limit can be broken by moving or releasing it.
        return _ending_refusal(transfer, view.transfers.get(transfer.pending_id), at_ms)
    debits = debit.debits_pending + debit.debits_posted + transfer.amount_minor
    credits = credit.credits_pending + credit.credits_posted + transfer.amount_minor
    if debits > BALANCE_MINOR_MAX or credits > BALANCE_MINOR_MAX:
        return TransferRefusal.BALANCE_OVERFLOW
    if debit.account.debits_must_not_exceed_credits and debits > debit.credits_posted:
        return TransferRefusal.BALANCE_TOO_LOW
    if credit.account.credits_must_not_exceed_debits and credits > credit.debits_posted:
        return TransferRefusal.BALANCE_TOO_HIGH
    return None


@dataclass(slots=True)
class _Judgement:
    """Judges one transfer or chain and keeps the view in step."""

    view: View
    at_ms: int
    accounts_refused: Collection[AccountId]

    def of_one(self, transfer: Transfer, content: TransferRefusal | None) -> TransferResult:
        known = self._known(transfer)
        if known is not None:
            return known
        refusal = content if content is not None else self._state_refusal(transfer)
        if refusal is not None:
            return self._refused(transfer, refusal)
        return self._applied(transfer)

    def of_chain(
        self, chain: Sequence[Transfer], contents: Sequence[TransferRefusal | None]
    ) -> list[TransferResult]:
        """All or none. The chain is part of its transfers' content: one that was applied in other company
        is not applied again, and does not make the rest valid."""
        known = [self._known(transfer) for transfer in chain]
        if all(result is not None and result.refusal is None for result in known):
            return [result for result in known if result is not None]
        reasons = list(contents)
        if chain[-1].linked:
            reasons[-1] = TransferRefusal.LINKED_CHAIN_OPEN
        if not any(reasons) and not any(known):
            results, culprit = self._attempt(chain)
            if culprit is None:
                return results
            reasons[len(results)] = culprit
        return [
            self._of_broken(transfer, result, reason)
            for transfer, result, reason in zip(chain, known, reasons, strict=True)
        ]

    def _attempt(self, chain: Sequence[Transfer]) -> tuple[list[TransferResult], TransferRefusal | None]:
        mark = self.view.mark()
        results: list[TransferResult] = []
        for transfer in chain:
            if self._known(transfer) is not None:
                culprit: TransferRefusal | None = TransferRefusal.ID_EXISTS_WITH_DIFFERENT_CONTENT
            else:
                culprit = self._state_refusal(transfer)
            if culprit is not None:
                self.view.roll_back(mark)
                return results, culprit
            results.append(self._applied(transfer))
        return results, None

    def _of_broken(
        self, transfer: Transfer, known: TransferResult | None, reason: TransferRefusal | None
    ) -> TransferResult:
        if known is not None and known.refusal is not None:
            return known
        if known is not None:
            return self._refused(transfer, TransferRefusal.ID_EXISTS_WITH_DIFFERENT_CONTENT)
        return self._refused(transfer, reason or TransferRefusal.LINKED_CHAIN_BROKEN)

    def _known(self, transfer: Transfer) -> TransferResult | None:
        """The first answer again, when the id had one."""
        applied = self.view.transfers.get(transfer.id)
        # To `==` a float is the same as a whole number; to the ledger it is not.
        if applied is not None and applied.transfer == transfer and content_refusal(transfer) is None:
            return TransferResult(applied.transfer, None, applied.at_ms, replayed=True)
        refused = self.view.refusals.get(transfer.id)
        if refused is not None and content_refusal(transfer) is None and refused.content == _hash(transfer):
            return TransferResult(transfer, refused.refusal, refused.at_ms, replayed=True)
        if applied is not None or refused is not None:
            return TransferResult(transfer, TransferRefusal.ID_EXISTS_WITH_DIFFERENT_CONTENT, self.at_ms)
        return None

    def _state_refusal(self, transfer: Transfer) -> TransferRefusal | None:
        return state_refusal(self.view, transfer, at_ms=self.at_ms, accounts_refused=self.accounts_refused)

    def _applied(self, transfer: Transfer) -> TransferResult:
        self.view.apply(transfer, at_ms=self.at_ms)
        return TransferResult(transfer, None, self.at_ms)

    def _refused(self, transfer: Transfer, refusal: TransferRefusal) -> TransferResult:
        spent = transfer.id in self.view.transfers or transfer.id in self.view.refusals
        if not spent and refusal not in _NEVER_STORED and content_refusal(transfer) is None:
            self.view.refuse(
                StoredRefusal(id=transfer.id, content=_hash(transfer), refusal=refusal, at_ms=self.at_ms)
            )
        return TransferResult(transfer, refusal, self.at_ms)


def _ending_refusal(transfer: Transfer, pending: StoredTransfer | None, at_ms: int) -> TransferRefusal | None:
    if pending is None:
        return TransferRefusal.PENDING_NOT_FOUND
    held = pending.transfer
    if held.mode is not TransferMode.PENDING:
        return TransferRefusal.NOT_PENDING
    posts = transfer.mode is TransferMode.POST_PENDING
    if (
        held.debit_account_id != transfer.debit_account_id
        or held.credit_account_id != transfer.credit_account_id
        or held.currency != transfer.currency
        or held.code != transfer.code
        or (not posts and held.amount_minor != transfer.amount_minor)
    ):
        return TransferRefusal.PENDING_DIFFERS
    if pending.ended_by is not None:
        return _ENDED[pending.ended_by]
    is_over = pending.expires_at_ms is not None and at_ms >= pending.expires_at_ms
    if transfer.mode is TransferMode.EXPIRE_PENDING:
        return None if is_over else TransferRefusal.PENDING_NOT_EXPIRED
    if is_over:
        return TransferRefusal.PENDING_EXPIRED
    if transfer.amount_minor > held.amount_minor:
        return TransferRefusal.AMOUNT_EXCEEDS_PENDING
    return None


def _account_refusal(view: View, new: NewAccount) -> AccountRefusal | None:
    if not is_ledger_id(new.id):
        return AccountRefusal.ID_INVALID
    known = view.sums.get(new.id)
    if known is not None:
        same = _is_same_account(known.account, new)
        return None if same else AccountRefusal.EXISTS_WITH_DIFFERENT_CONTENT
    if not 0 < len(new.owner) <= OWNER_LENGTH_MAX or not _is_storable(new.owner):
        return AccountRefusal.OWNER_INVALID
    if not _is_currency(new.currency):
        return AccountRefusal.CURRENCY_INVALID
    return None


def _is_same_account(account: Account, new: NewAccount) -> bool:
    return (
        account.kind is new.kind
        and account.currency == new.currency
        and account.owner == new.owner
        and account.debits_must_not_exceed_credits == new.debits_must_not_exceed_credits
        and account.credits_must_not_exceed_debits == new.credits_must_not_exceed_debits
    )


def _pending_id_fits(transfer: Transfer) -> bool:
    if transfer.mode not in ENDING_MODES:
        return transfer.pending_id is None
    return (
        transfer.pending_id is not None
        and is_ledger_id(transfer.pending_id)
        and transfer.pending_id != transfer.id
    )


def _timeout_fits(transfer: Transfer, timeout: object) -> bool:
    return (
        transfer.mode is TransferMode.PENDING and type(timeout) is int and 0 < timeout <= TIMEOUT_SECONDS_MAX
    )


@lru_cache(maxsize=_CURRENCIES_KEPT)
def _is_currency(text: str) -> bool:
    return _CURRENCY.fullmatch(text) is not None


def _is_storable(text: str) -> bool:
    """Whether both databases can keep the text: no NUL, no half of a surrogate pair."""
    return "\x00" not in text and (
        text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
    )


def _hash(transfer: Transfer) -> str:
    """Tells transfers of one id apart by all of their content."""
    return derived_id(
        "transfer",
        transfer.id,
        transfer.debit_account_id,
        transfer.credit_account_id,
        str(transfer.amount_minor),
        transfer.currency,
        transfer.code,
        transfer.mode,
        transfer.pending_id or "",
        str(transfer.timeout_seconds or ""),
        str(transfer.linked),
        transfer.reference,
    )
