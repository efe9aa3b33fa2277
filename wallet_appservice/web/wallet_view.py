"""What the wallet page shows: balances, payments and people, as text that is ready to be read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from appservices.vocabulary.ids import UserId
from appservices.vocabulary.money import Currencies, Currency, CurrencyCode, format_minor
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.records import Balance, PaymentKind, PaymentRecord

PAGE_SIZE: Final = 10
RECENT_PAYEES_MAX: Final = 5
_MINUS: Final = "\u2212"


@dataclass(frozen=True, slots=True)
class ShownBalance:
    """Money in one currency: what can be spent, and what is held (empty when nothing is)."""

    available: str
    pending: str


@dataclass(frozen=True, slots=True)
class ShownPayment:
    """One payment as one of its two people sees it."""

    id: str
    incoming: bool
    title: str
    counterparty: str
    spoken: str
    moved: str
    memo: str
    at_ms: int
    waits: bool


@dataclass(frozen=True, slots=True)
class ShownPayments:
    """A page of payments; `next_before` asks for the one after it."""

    items: tuple[ShownPayment, ...]
    next_before: int | None


@dataclass(frozen=True, slots=True)
class WalletView:
    """All that the page shows of a wallet."""

    balances: tuple[ShownBalance, ...]
    payments: ShownPayments
    recent_payees: tuple[UserId, ...]

    @property
    def fingerprint(self) -> str:
        """Changes when what is shown changes, so that an open page asks for news without being sent all."""
        return hashlib.sha256(repr((self.balances, self.payments)).encode("utf-8", "replace")).hexdigest()[
            :16
        ]


async def wallet_view(payments: Payments, user: UserId, *, before: int | None = None) -> WalletView:
    records = await payments.history(user, limit=PAGE_SIZE + 1, before=before)
    return WalletView(
        balances=tuple(_balance(item, payments.currencies) for item in await payments.balances(user)),
        payments=_page(records, user, payments.currencies),
        recent_payees=_recent_payees(records, user),
    )


async def payments_view(payments: Payments, user: UserId, *, before: int | None) -> ShownPayments:
    records = await payments.history(user, limit=PAGE_SIZE + 1, before=before)
    return _page(records, user, payments.currencies)


def amount_text(amount_minor: int, code: CurrencyCode, currencies: Currencies) -> str:
    """An amount, also of a currency that the wallet has stopped keeping."""
    currency = currencies.get(code) or Currency(code, 0, code)
    return format_minor(amount_minor, currency)


def _page(records: Sequence[PaymentRecord], user: UserId, currencies: Currencies) -> ShownPayments:
    shown = records[:PAGE_SIZE]
    return ShownPayments(
        items=tuple(_payment(record, user, currencies) for record in shown),
        next_before=shown[-1].position if len(records) > PAGE_SIZE else None,
    )


def _balance(balance: Balance, currencies: Currencies) -> ShownBalance:
    return ShownBalance(
        available=amount_text(balance.available_minor, balance.currency, currencies),
        pending=amount_text(balance.pending_minor, balance.currency, currencies)
        if balance.pending_minor
        else "",
    )


def _payment(record: PaymentRecord, user: UserId, currencies: Currencies) -> ShownPayment:
    incoming = record.payee == user
    counterparty = record.payer if incoming else record.payee
    amount = amount_text(record.money.amount_minor, record.money.currency, currencies)
    title, spoken = {
        PaymentKind.DEPOSIT: ("Deposit", "Deposit"),
        PaymentKind.WITHDRAWAL: ("Withdrawal", "Withdrawal"),
        PaymentKind.PAYMENT: ("", "Received from" if incoming else "Paid to"),
        PaymentKind.REFUND: ("Refund", "Refund from" if incoming else "Refund to"),
        PaymentKind.RED_PACKET: ("Red packet", "Red packet"),
        PaymentKind.SHARE: ("Red packet", "Red packet"),
        PaymentKind.RETURN: ("Returned", "Returned"),
    }[record.kind]
    return ShownPayment(
        id=record.id,
        incoming=incoming,
        title=title,
        counterparty=counterparty,
        spoken=spoken,
        moved=f"+{amount}" if incoming else f"{_MINUS}{amount}",
        memo=record.memo,
        at_ms=record.at_ms,
        waits=record.state == "pending",
    )


def _recent_payees(records: Sequence[PaymentRecord], user: UserId) -> tuple[UserId, ...]:
    """Whom the user dealt with lately, those paid and those who paid, the latest first."""
    people = dict.fromkeys(
        record.payer if record.payee == user else record.payee
        for record in records
        if record.kind is PaymentKind.PAYMENT
    )
    return tuple(people)[:RECENT_PAYEES_MAX]
