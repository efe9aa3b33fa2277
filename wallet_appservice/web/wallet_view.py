"""What the wallet page shows: balances, payments and people, as text that is ready to be read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from appservices.vocabulary.ids import UserId
from appservices.vocabulary.languages import _
from appservices.vocabulary.money import Currencies, Currency, CurrencyCode, format_change, format_minor
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.records import Balance, PaymentKind, PaymentRecord, PaymentState

PAGE_SIZE: Final = 10
RECENT_PAYEES_MAX: Final = 5
_ICONS: Final = {
    PaymentKind.RED_PACKET: "gift",
    PaymentKind.SHARE: "gift",
    PaymentKind.REFUND: "back",
    PaymentKind.RETURN: "back",
}


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
    went_back: bool
    icon: str


@dataclass(frozen=True, slots=True)
class ShownPayments:
    """A page of payments; `next_before` asks for the one after it."""

    items: tuple[ShownPayment, ...]
    next_before: int | None
    more_path: str = "/wallet?"
    """Where the next page is, but for its `before`; `rows_path` has the rows alone, for a script."""
    rows_path: str = "/wallet/payments?"


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
        payments=payments_page(records, user, payments.currencies),
        recent_payees=_recent_payees(records, user),
    )


async def payments_view(payments: Payments, user: UserId, *, before: int | None) -> ShownPayments:
    records = await payments.history(user, limit=PAGE_SIZE + 1, before=before)
    return payments_page(records, user, payments.currencies)


def amount_text(amount_minor: int, code: CurrencyCode, currencies: Currencies) -> str:
    """An amount, also of a currency that the wallet has stopped keeping."""
    return format_minor(amount_minor, _currency(code, currencies))


def change_text(amount_minor: int, code: CurrencyCode, currencies: Currencies) -> str:
    """The same for what came in or went out, with its sign."""
    return format_change(amount_minor, _currency(code, currencies))


def _currency(code: CurrencyCode, currencies: Currencies) -> Currency:
    return currencies.get(code) or Currency(code, 0, code)


def payments_page(
    records: Sequence[PaymentRecord],
    user: UserId,
    currencies: Currencies,
    *,
    size: int = PAGE_SIZE,
    more_path: str = "/wallet?",
    rows_path: str = "/wallet/payments?",
) -> ShownPayments:
    """The records as a page of that size; one record more says that there is another page."""
    shown = records[:size]
    return ShownPayments(
        items=tuple(shown_payment(record, user, currencies) for record in shown),
        next_before=shown[-1].position if len(records) > size else None,
        more_path=more_path if more_path.endswith("?") else f"{more_path}&",
        rows_path=rows_path if rows_path.endswith("?") else f"{rows_path}&",
    )


def _balance(balance: Balance, currencies: Currencies) -> ShownBalance:
    return ShownBalance(
        available=amount_text(balance.available_minor, balance.currency, currencies),
        pending=amount_text(balance.pending_minor, balance.currency, currencies)
        if balance.pending_minor
        else "",
    )


def shown_payment(record: PaymentRecord, user: UserId, currencies: Currencies) -> ShownPayment:
    """One record as that one of its two people sees it."""
    incoming = record.payee == user
    counterparty = record.payer if incoming else record.payee
    moved_minor = record.money.amount_minor if incoming else -record.money.amount_minor
    return ShownPayment(
        id=record.id,
        incoming=incoming,
        title=record.merchant.name if record.merchant else _title(record.kind),
        counterparty=counterparty,
        spoken=_spoken(record.kind, incoming=incoming),
        moved=format_change(moved_minor, _currency(record.money.currency, currencies)),
        memo=record.memo,
        at_ms=record.at_ms,
        waits=record.state is PaymentState.PENDING,
        went_back=record.state is PaymentState.RETURNED,
        icon="shop" if record.merchant else _ICONS.get(record.kind, "receive" if incoming else "send"),
    )


def _title(kind: PaymentKind) -> str:
    """What stands in the place of a name where the other one is the wallet itself."""
    return {
        PaymentKind.DEPOSIT: _("Deposit"),
        PaymentKind.WITHDRAWAL: _("Withdrawal"),
        PaymentKind.RED_PACKET: _("Red packet"),
        PaymentKind.SHARE: _("Found in a red packet"),
        PaymentKind.RETURN: _("Given back"),
    }.get(kind, "")


def _spoken(kind: PaymentKind, *, incoming: bool) -> str:
    """What a screen reader says before the name."""
    if kind is PaymentKind.REFUND:
        return _("Refund from") if incoming else _("Refund to")
    return _("Received from") if incoming else _("Paid to")


def _recent_payees(records: Sequence[PaymentRecord], user: UserId) -> tuple[UserId, ...]:
    """Whom the user dealt with lately, those paid and those who paid, the latest first."""
    people = dict.fromkeys(
        record.payer if record.payee == user else record.payee
        for record in records
        if record.kind is PaymentKind.PAYMENT and record.payer != record.payee
    )
    return tuple(people)[:RECENT_PAYEES_MAX]
