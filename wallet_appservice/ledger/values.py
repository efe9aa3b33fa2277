"""What the ledger speaks of: accounts, transfers, results and refusals. Pure values.

Names and model are TigerBeetle's: a transfer debits one account and credits another by the same amount, is
never changed once it is applied, and has an id chosen by the caller. A user's money is a credit balance:
what was credited less what was debited.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from appservices.vocabulary.ids import AccountId, TransferId, derived_id
from appservices.vocabulary.money import AMOUNT_MINOR_MAX, CurrencyCode

BALANCE_MINOR_MAX: Final = 2**63 - 1
"""The most that an account's debits, or its credits, may add up to, pending ones included."""
OWNER_LENGTH_MAX: Final = 255
REFERENCE_LENGTH_MAX: Final = 128
TIMEOUT_SECONDS_MAX: Final = 10 * 366 * 24 * 3600
TRANSFER_AMOUNT_MINOR_MAX: Final = AMOUNT_MINOR_MAX


class AccountKind(StrEnum):
    """What an account is for. The ledger treats all kinds alike; limits are the account's own flags."""

    USER = "user"
    MERCHANT = "merchant"
    ISSUANCE = "issuance"
    """Where a currency enters and leaves: its debit balance is what is in circulation."""
    FEE = "fee"
    EXCHANGE = "exchange"
    PEER = "peer"
    """Another wallet's claims on this one and the other way round."""
    ESCROW = "escrow"
    SUSPENSE = "suspense"
    """Money whose owner is not clear yet."""


class TransferCode(StrEnum):
    """Why money moved. Opaque to the rules."""

    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    PAYMENT = "payment"
    REFUND = "refund"
    RETURN = "return"
    """What nobody took, such as the rest of a red packet, goes back."""
    RED_PACKET = "red_packet"
    FEE = "fee"
    EXCHANGE = "exchange"
    CLEARING = "clearing"
    SETTLEMENT = "settlement"
    ADJUSTMENT = "adjustment"


class TransferMode(StrEnum):
    """How a transfer moves money: at once, or by holding it first and ending that hold exactly once."""

    SINGLE_PHASE = "single_phase"
    PENDING = "pending"
    """Holds the amount on both accounts until it is posted, voided or expired."""
    POST_PENDING = "post_pending"
    """Moves what was held, or less; what is left of the hold is released."""
    VOID_PENDING = "void_pending"
    """Releases what was held."""
    EXPIRE_PENDING = "expire_pending"
    """Releases what was held past its time-out. Refused before that time, whoever asks."""


ENDING_MODES: Final = frozenset(
    {TransferMode.POST_PENDING, TransferMode.VOID_PENDING, TransferMode.EXPIRE_PENDING}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAccount:
    """An account to be opened unless it is there already with the same content."""

    id: AccountId
    kind: AccountKind
    currency: CurrencyCode
    owner: str
    """A Matrix user id, or the name of a role such as `issuance`."""
    debits_must_not_exceed_credits: bool = False
    credits_must_not_exceed_debits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account as it stands. All sums are minor units of its currency and never negative."""

    id: AccountId
    kind: AccountKind
    currency: CurrencyCode
    owner: str
    debits_pending: int
    debits_posted: int
    credits_pending: int
    credits_posted: int
    debits_must_not_exceed_credits: bool
    credits_must_not_exceed_debits: bool

    @property
    def posted_minor(self) -> int:
        """What has really moved: credits less debits. Negative on issuance and other debit accounts."""
        return self.credits_posted - self.debits_posted

    @property
    def held_minor(self) -> int:
        """What pending transfers hold back from being spent."""
        return self.debits_pending

    @property
    def incoming_minor(self) -> int:
        """What pending transfers promise; it can't be spent yet."""
        return self.credits_pending

    @property
    def available_minor(self) -> int:
        """What can be spent now under `debits_must_not_exceed_credits`: a pending debit counts already."""
        return self.credits_posted - self.debits_posted - self.debits_pending


class Transfer(NamedTuple):
    """One movement of money, immutable. `reference` is the caller's own and opaque here.

    A named tuple, as stored transfers, results and submissions are: some of each are made for every payment,
    and a frozen dataclass takes three times as long.
    """

    id: TransferId
    debit_account_id: AccountId
    credit_account_id: AccountId
    amount_minor: int
    currency: CurrencyCode
    code: TransferCode
    mode: TransferMode = TransferMode.SINGLE_PHASE
    pending_id: TransferId | None = None
    """The pending transfer that this one ends; for the three ending modes only."""
    timeout_seconds: int | None = None
    """After which a pending transfer may be expired; None means that it waits for ever."""
    linked: bool = False
    """Succeeds or fails together with the next transfer of the same submission."""
    reference: str = ""


class StoredTransfer(NamedTuple):
    """A transfer as it was applied. `position` counts all transfers of the ledger from 1, without gaps."""

    transfer: Transfer
    position: int
    at_ms: int
    expires_at_ms: int | None = None
    ended_by: TransferMode | None = None
    """How a pending transfer ended; None while it is open, and for transfers that hold nothing."""


class TransferRefusal(StrEnum):
    """Why a transfer was refused, most fundamental reason first."""

    LINKED_CHAIN_BROKEN = "linked_chain_broken"
    """Another transfer of its chain was refused, and that one tells why."""
    LINKED_CHAIN_OPEN = "linked_chain_open"
    """The last transfer of a submission is linked to nothing."""
    ID_INVALID = "id_invalid"
    ID_EXISTS_WITH_DIFFERENT_CONTENT = "id_exists_with_different_content"
    """The id was answered before for another transfer, or for the same one in another chain."""
    ACCOUNT_ID_INVALID = "account_id_invalid"
    PENDING_ID_INVALID = "pending_id_invalid"
    """Missing where the mode needs one, given where it has none, or malformed."""
    TIMEOUT_INVALID = "timeout_invalid"
    """Not a whole number of seconds, out of bounds, or on a transfer that is not pending."""
    REFERENCE_INVALID = "reference_invalid"
    """Too long, or not storable as text."""
    CURRENCY_INVALID = "currency_invalid"
    AMOUNT_NOT_WHOLE = "amount_not_whole"
    """Not an integer: a float, a NaN, a text, a truth value."""
    AMOUNT_ZERO = "amount_zero"
    AMOUNT_NEGATIVE = "amount_negative"
    AMOUNT_TOO_BIG = "amount_too_big"
    SAME_ACCOUNT = "same_account"
    ACCOUNT_REFUSED = "account_refused"
    """One of its accounts was to be opened by the same submission and that was refused."""
    DEBIT_ACCOUNT_NOT_FOUND = "debit_account_not_found"
    CREDIT_ACCOUNT_NOT_FOUND = "credit_account_not_found"
    CURRENCY_DIFFERS = "currency_differs"
    """From the currency of either account."""
    PENDING_NOT_FOUND = "pending_not_found"
    NOT_PENDING = "not_pending"
    """What it is to end is a transfer that holds nothing."""
    PENDING_DIFFERS = "pending_differs"
    """From what it is to end: in accounts, currency or code, or in amount where all is to be released."""
    PENDING_ALREADY_POSTED = "pending_already_posted"
    PENDING_ALREADY_VOIDED = "pending_already_voided"
    PENDING_EXPIRED = "pending_expired"
    """Its time is over, whether or not what it held is released already."""
    PENDING_NOT_EXPIRED = "pending_not_expired"
    """It was to be expired before its time. The one refusal that does not spend the id."""
    AMOUNT_EXCEEDS_PENDING = "amount_exceeds_pending"
    BALANCE_OVERFLOW = "balance_overflow"
    BALANCE_TOO_LOW = "balance_too_low"
    """The debit account's debits must not exceed its credits; pending debits count."""
    BALANCE_TOO_HIGH = "balance_too_high"
    """The credit account's credits must not exceed its debits; pending credits count."""


class AccountRefusal(StrEnum):
    """Why an account was not opened, most fundamental reason first."""

    ID_INVALID = "id_invalid"
    EXISTS_WITH_DIFFERENT_CONTENT = "exists_with_different_content"
    OWNER_INVALID = "owner_invalid"
    """Empty, too long, or not storable as text."""
    CURRENCY_INVALID = "currency_invalid"


class TransferResult(NamedTuple):
    """The ledger's final answer to a transfer.

    `replayed` means that the id was answered before: this is that first answer again, with its time, and
    nothing was moved now.
    """

    transfer: Transfer
    refusal: TransferRefusal | None
    at_ms: int
    replayed: bool = False


def account_for(kind: AccountKind, *, owner: str, currency: CurrencyCode, name: str = "") -> NewAccount:
    """The account that an owner has of that kind and currency, its id derived from these.

    Accounts of people, merchants and escrow can't be overdrawn; those of the wallet itself may stand on
    either side. `name` tells several accounts of one owner apart.
    """
    return NewAccount(
        id=AccountId(derived_id("account", kind.value, owner, currency, name)),
        kind=kind,
        currency=currency,
        owner=owner,
        debits_must_not_exceed_credits=kind in _NEVER_OVERDRAWN,
    )


def posting_of(
    pending: Transfer, *, id: TransferId, amount_minor: int | None = None, reference: str | None = None
) -> Transfer:
    """The transfer that posts a pending one, wholly unless a smaller amount is given."""
    return _ending(
        pending,
        id=id,
        mode=TransferMode.POST_PENDING,
        amount_minor=pending.amount_minor if amount_minor is None else amount_minor,
        reference=reference,
    )


def voiding_of(pending: Transfer, *, id: TransferId, reference: str | None = None) -> Transfer:
    """The transfer that voids a pending one."""
    return _ending(
        pending,
        id=id,
        mode=TransferMode.VOID_PENDING,
        amount_minor=pending.amount_minor,
        reference=reference,
    )


def expiry_of(pending: Transfer) -> Transfer:
    """The transfer that expires a pending one; its id is derived, so that several sweepers make the same."""
    return _ending(
        pending,
        id=TransferId(derived_id("expiry", pending.id)),
        mode=TransferMode.EXPIRE_PENDING,
        amount_minor=pending.amount_minor,
        reference=None,
    )


_NEVER_OVERDRAWN = frozenset({AccountKind.USER, AccountKind.MERCHANT, AccountKind.ESCROW})


def _ending(
    pending: Transfer, *, id: TransferId, mode: TransferMode, amount_minor: int, reference: str | None
) -> Transfer:
    return Transfer(
        id=id,
        debit_account_id=pending.debit_account_id,
        credit_account_id=pending.credit_account_id,
        amount_minor=amount_minor,
        currency=pending.currency,
        code=pending.code,
        mode=mode,
        pending_id=pending.id,
        reference=pending.reference if reference is None else reference,
    )
