"""What a person is told of a payment to, or from, a merchant.

It goes to them alone, never to the shop's owner as well: a popular shop would drown its owner in messages.
"""

from __future__ import annotations

import html

from appservices.vocabulary.languages import _, isolated
from wallet_appservice.payments.records import MerchantName, PaymentKind, PaymentRecord


def merchant_sentence(record: PaymentRecord, merchant: MerchantName, *, amount: str) -> tuple[str, str]:
    """Plain and as HTML."""
    sentence = {
        PaymentKind.REFUND: _("{merchant} gave you back {amount}"),
        PaymentKind.PAYOUT: _("{merchant} paid out {amount} to you"),
    }.get(record.kind) or _("You paid {merchant} {amount}")
    return (
        sentence.format(merchant=isolated(merchant.name), amount=amount),
        html.escape(sentence).format(
            merchant=f"<em>{html.escape(isolated(merchant.name))}</em>",
            amount=f"<strong>{html.escape(amount)}</strong>",
        ),
    )
