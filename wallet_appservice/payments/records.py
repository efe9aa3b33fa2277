"""What a payment is, to those who ask for one, read one, or show one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from appservices.vocabulary.ids import EventId, RoomId, ServerName, TransferId, UserId, server_of
from appservices.vocabulary.money import CurrencyCode, Money
from wallet_appservice.ledger.values import NewAccount

MEMO_LENGTH_MAX = 200
HOLD_SECONDS = 24 * 3600
"""How long a payment waits for its payee's acceptance before it goes back."""


class PaymentKind(StrEnum):
    """What a record is of."""

    PAYMENT = "payment"
    DEPOSIT = "deposit"
    """Money that came in from outside; its payer is the wallet."""
    WITHDRAWAL = "withdrawal"
    """Money that was paid out outside; its payee is the wallet."""
    REFUND = "refund"
    """All or part of an earlier payment, given back by who was paid."""
    RED_PACKET = "red_packet"
    """Money put into a red packet; its payee is the wallet, which keeps it for whoever opens it."""
    SHARE = "share"
    """What somebody found in a red packet; its payer is the wallet, and `of` names the packet's payment."""
    RETURN = "return"
    """What nobody took, given back to whom it came from; its payer is the wallet."""
    PURCHASE = "purchase"
    """Money paid to a merchant, for an order or by a payment code; its payee is the merchant's owner, and
    the money the merchant's."""
    PAYOUT = "payout"
    """Money that a merchant's owner takes out of the merchant's account."""


class PaymentState(StrEnum):
    """Where a payment stands. All but `pending` are final."""

    PENDING = "pending"
    """Held, until it is accepted, declined, or its time is over; or until another wallet has answered."""
    POSTED = "posted"
    RETURNED = "returned"
    """What was held went back; nothing moved."""


class Ending(StrEnum):
    """How a pending payment ends: by its payee, by the payee's wallet elsewhere, or by its time."""

    ACCEPTED = "accepted"
    DECLINED = "declined"
    EXPIRED = "expired"


class Authority(StrEnum):
    """How a payer has shown that the payment is theirs, the weakest first."""

    CHAT = "chat"
    """A command or a reaction in a room."""
    CODE = "code"
    """A payment code that the payer showed to a till."""
    SESSION = "session"
    """A page, or a program with a session of the payer's."""
    CONFIRMED = "confirmed"
    """A session, and the PIN or a passkey for this very payment."""
    OPERATOR = "operator"
    """The operator's own command line."""


@dataclass(frozen=True, slots=True)
class MerchantName:
    """The merchant in a payment, as its receipt names it."""

    id: str
    name: str


class MerchantSide(StrEnum):
    """Whose place the merchant takes in a payment: its owner is named there, but it isn't their money."""

    NONE = ""
    PAYER = "payer"
    PAYEE = "payee"


def merchant_side(kind: PaymentKind, merchant: MerchantName | None) -> MerchantSide:
    if merchant is None:
        return MerchantSide.NONE
    return MerchantSide.PAYEE if kind is PaymentKind.PURCHASE else MerchantSide.PAYER


@dataclass(frozen=True, slots=True)
class PaymentOrder:
    """A payment that somebody wants. The id makes it safe to ask again."""

    id: TransferId
    payer: UserId
    payee: UserId
    money: Money
    memo: str = ""
    room_id: RoomId | None = None
    in_reply_to: EventId | None = None
    """The command in that room which the receipt answers; no part of what makes the order itself."""
    authority: Authority = Authority.CHAT
    """No part of what makes the order itself either."""
    subject: str = ""
    """What the payment is for, `kind:id`, such as the request that it pays; "" for nothing of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """Money that is to move, as people see it and as the ledger does. `id` is that of the transfer."""

    id: TransferId
    kind: PaymentKind
    payer: UserId
    payee: UserId
    money: Money
    debit: NewAccount
    credit: NewAccount
    memo: str = ""
    room_id: RoomId | None = None
    in_reply_to: EventId | None = None
    subject: str = ""
    of: TransferId | None = None
    """The earlier payment that this one gives back, all or part."""
    hold_seconds: int | None = None
    """For how long the money is only held, waiting for the payee's acceptance; None moves it at once."""
    merchant: MerchantName | None = None
    needs_room: bool = True
    """Whether a room that the payer or the wallet has left is a reason to refuse; else people are told
    directly."""
    peer: ServerName | None = None
    """The other homeserver, when its wallet has a part in this. What goes there is only held until that
    wallet has answered, however long it takes."""

    @property
    def waits_for_peer(self) -> bool:
        return self.peer is not None and server_of(self.payee) == self.peer

    @property
    def is_held(self) -> bool:
        """Whether the money is held first, and moves later or goes back."""
        return self.hold_seconds is not None or self.waits_for_peer


@dataclass(frozen=True, slots=True)
class PaymentRecord:
    """A payment that was made. `position` grows with time and pages through a history."""

    id: TransferId
    position: int
    kind: PaymentKind
    state: PaymentState
    payer: UserId
    payee: UserId
    money: Money
    memo: str
    at_ms: int
    room_id: RoomId | None
    receipt: Mapping[str, Any]
    subject: str = ""
    of: TransferId | None = None
    merchant: MerchantName | None = None
    expires_at_ms: int | None = None
    """When a pending payment goes back; kept when it has ended. None for what another wallet answers."""
    end_receipt: Mapping[str, Any] | None = None
    """The receipt of how a pending payment ended."""

    @property
    def people(self) -> tuple[UserId, ...]:
        """In whose personal history it stands: payer and payee, but for a merchant's owner."""
        side = merchant_side(self.kind, self.merchant)
        return tuple(
            user
            for user, own_side in ((self.payer, MerchantSide.PAYER), (self.payee, MerchantSide.PAYEE))
            if side is not own_side
        )

    @property
    def crosses_servers(self) -> bool:
        """Whether it goes to, or comes from, another homeserver's wallet."""
        return server_of(self.payer) != server_of(self.payee)


@dataclass(frozen=True, slots=True)
class Balance:
    """A user's money in one currency, in minor units. `pending_minor` is held and not available."""

    user: UserId
    currency: CurrencyCode
    posted_minor: int
    pending_minor: int

    @property
    def available_minor(self) -> int:
        return self.posted_minor - self.pending_minor


def clean_memo(text: str) -> str:
    """A memo on one line, without what can't be shown."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())
