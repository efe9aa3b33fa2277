"""Merchants and their orders, to those who make, pay or show them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NewType

from appservices.vocabulary.ids import TransferId, UserId, derived_id
from appservices.vocabulary.money import CurrencyCode, Money
from wallet_appservice.payments.records import Authority, MerchantName

MerchantId = NewType("MerchantId", str)
"""32 lower-case hex digits."""
OrderId = NewType("OrderId", str)
"""32 lower-case hex digits, derived from the merchant's secret and reference."""
EndpointId = NewType("EndpointId", str)

NAME_LENGTH_MAX: Final = 60
REFERENCE_LENGTH_MAX: Final = 64
DESCRIPTION_LENGTH_MAX: Final = 200


class Scope(StrEnum):
    """What a key may do."""

    ORDERS = "orders"
    """Make, cancel and look at orders; look at and replay notifications."""
    CHARGES = "charges"
    """Charge payment codes, and look at those charges."""
    REFUNDS = "refunds"
    REPORTS = "reports"
    """Read balance and reconciliation files."""


@dataclass(frozen=True, slots=True)
class Merchant:
    """A merchant, whose money is apart from its owner's own."""

    id: MerchantId
    name: str
    owner: UserId
    order_secret: str
    created_at_ms: int
    closed_at_ms: int | None = None
    endpoint_ids: tuple[EndpointId, ...] = ()
    """Whom its events are told to."""

    @property
    def as_named(self) -> MerchantName:
        return MerchantName(self.id, self.name)


class OrderWay(StrEnum):
    """How an order is paid."""

    LINK = "link"
    """By its link or QR code, by whoever opens it."""
    CODE = "code"
    """Charged at once to who has shown a payment code."""


class OrderState(StrEnum):
    """Where an order stands. All but `open` and `paying` are final, and so is not `refused`: another code
    may be tried for it."""

    OPEN = "open"
    PAYING = "paying"
    PAID = "paid"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REFUSED = "refused"
    """A charge that did not go through."""


@dataclass(frozen=True, slots=True)
class Order:
    """An order as it stands; its fields are the columns of merchant_orders."""

    id: OrderId
    merchant_id: MerchantId
    reference: str
    way: OrderWay
    description: str
    amount_minor: int
    currency: CurrencyCode
    state: OrderState
    created_at_ms: int
    expires_at_ms: int
    payer: str = ""
    authority: str = ""
    attempt: int = 0
    claimed_at_ms: int = 0
    ended_at_ms: int | None = None

    @property
    def money(self) -> Money:
        return Money(self.amount_minor, self.currency)

    @property
    def payment_id(self) -> TransferId:
        """Of the current attempt to pay it, or of the payment once it is paid."""
        return TransferId(derived_id("order", self.id, str(self.attempt)))

    @property
    def content(self) -> tuple[OrderWay, str, int, CurrencyCode]:
        """What the merchant asked for: the same reference stands for the same content."""
        return self.way, self.description, self.amount_minor, self.currency

    @property
    def payer_authority(self) -> Authority:
        return Authority(self.authority)


def order_id_of(merchant: Merchant, reference: str) -> OrderId:
    return OrderId(derived_id("merchant order", merchant.order_secret, reference))
