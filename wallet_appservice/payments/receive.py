"""Being paid: the link and the QR code that open a payment to somebody, and what to type instead."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

import segno

from appservices.vocabulary.ids import UserId
from appservices.vocabulary.money import Currencies, Money, decimal_text

RECEIVE_MEMO_LENGTH_MAX: Final = 100
"""A QR code holds some two thousand characters, and one of a memo takes up to twelve of them."""
QR_PIXELS_PER_MODULE: Final = 8
QR_BORDER_MODULES: Final = 4


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
    fields = {"payee": str(payee)}
    words = ["!pay", str(payee)]
    if money is not None:
        amount = decimal_text(money, currencies[money.currency])
        fields |= {"amount": amount, "currency": str(money.currency)}
        words += [amount, str(money.currency)]
    if memo:
        fields["memo"] = memo
    if money is not None and memo:
        words.append(memo)
    link = f"{public_url.rstrip('/')}/wallet?{urlencode(fields)}"
    return WayToPay(payee, money, memo, link, " ".join(words))


def qr_png(way: WayToPay) -> tuple[bytes, int]:
    """The link as a picture, and how many pixels its sides have."""
    code = segno.make(way.link, error="m", micro=False)
    written = io.BytesIO()
    code.save(written, kind="png", scale=QR_PIXELS_PER_MODULE, border=QR_BORDER_MODULES)
    width, _ = code.symbol_size(scale=QR_PIXELS_PER_MODULE, border=QR_BORDER_MODULES)
    return written.getvalue(), int(width)


def qr_svg(way: WayToPay) -> str:
    """The link as a drawing to be put into a page."""
    code = segno.make(way.link, error="m", micro=False)
    return str(code.svg_inline(scale=4, border=QR_BORDER_MODULES))
