"""Links that open a payment, a request or a red packet, and what to type instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from appservices.vocabulary.ids import TransferId, UserId
from appservices.vocabulary.money import Currencies, Money, decimal_text
from wallet_appservice.payments.red_packet_records import PacketOrder

RECEIVE_MEMO_LENGTH_MAX: Final = 100
"""A QR code holds some two thousand characters, and one of a memo takes up to twelve of them."""


@dataclass(frozen=True, slots=True)
class WayToPay:
    """How to pay somebody: by a link, which is also in the QR code, or by a command."""

    payee: UserId
    money: Money | None
    memo: str
    link: str
    command: str


def way_to_pay(
    payee: UserId, *, money: Money | None, memo: str, public_url: str, currencies: Currencies
) -> WayToPay:
    """`public_url` is where people's browsers find Weft's pages."""
    words = ["!pay", str(payee)]
    amount = currency = ""
    if money is not None:
        amount, currency = decimal_text(money, currencies[money.currency]), str(money.currency)
        words += [amount, currency, memo] if memo else [amount, currency]
    link = payment_link(public_url, payee=payee, amount=amount, currency=currency, memo=memo)
    return WayToPay(payee, money, memo, link, " ".join(words))


def payment_link(
    public_url: str, *, payee: UserId, amount: str = "", currency: str = "", memo: str = ""
) -> str:
    """Opens the form that pays, filled in. Nothing is paid before whoever opens it has looked and agreed."""
    asked = {"payee": payee, "amount": amount, "currency": currency if amount else "", "memo": memo}
    query = urlencode({name: value for name, value in asked.items() if value})
    return f"{public_url.rstrip('/')}/wallet/send?{query}"


def request_link(public_url: str, id: TransferId) -> str:
    """Shows whoever is asked what they are asked for, and pays or declines it."""
    return f"{public_url.rstrip('/')}/wallet/requests/{id}"


def red_packet_link(public_url: str, order: PacketOrder, currencies: Currencies) -> str:
    """Opens the form that makes a red packet, filled in."""
    asked = {
        "room": order.room_id,
        "amount": decimal_text(order.money, currencies[order.money.currency]),
        "currency": order.money.currency,
        "count": str(order.count),
        "words": order.words,
        "equal": "1" if order.is_equal else "",
    }
    query = urlencode({name: value for name, value in asked.items() if value})
    return f"{public_url.rstrip('/')}/wallet/red-packet?{query}"
