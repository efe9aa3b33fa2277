"""Charges: a till takes money at once from whoever has shown it a payment code.

Small amounts only: above `wallet.no_pin_max` the till makes an order, which the payer confirms on their own
device. Who guesses codes is stopped after a few, and learns nothing from the answers.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from appservices.chassis.clock import Clock
from appservices.vocabulary.money import Currencies, Money, format_minor
from wallet_appservice.payments.merchants.orders import OrderAnswer, Orders
from wallet_appservice.payments.merchants.payment_codes import PaymentCodes
from wallet_appservice.payments.merchants.records import (
    Merchant,
    MerchantId,
    OrderState,
    OrderWay,
    order_id_of,
)
from wallet_appservice.payments.merchants.refusals import MerchantRefusal, MerchantRefused

WRONG_CODES_MAX: Final = 20
"""Of one merchant within WRONG_CODES_SECONDS, in one process."""
WRONG_CODES_SECONDS: Final = 60
MERCHANTS_COUNTED_MAX: Final = 10_000


class Charges:
    """Charges by payment code."""

    def __init__(
        self,
        orders: Orders,
        codes: PaymentCodes,
        *,
        currencies: Currencies,
        no_pin_max: int,
        clock: Clock,
    ) -> None:
        """`no_pin_max` is in whole units of each currency."""
        self._orders = orders
        self._codes = codes
        self._currencies = currencies
        self._no_pin_max = no_pin_max
        self._clock = clock
        self._wrong_at_ms: dict[MerchantId, deque[int]] = {}

    async def charge(
        self, merchant: Merchant, *, code: str, money: Money, reference: str, description: str = ""
    ) -> OrderAnswer:
        """Charges the code's owner once for this reference. Raises LedgerUnavailable."""
        currency = self._currencies.get(money.currency)
        if currency is not None and money.amount_minor > self._no_pin_max * 10**currency.exponent:
            code_max = format_minor(self._no_pin_max * 10**currency.exponent, currency)
            return MerchantRefused.because(MerchantRefusal.ABOVE_CODE_LIMIT, code_max=code_max)
        earlier = await self._orders.by_reference(merchant, reference)
        if earlier is not None:
            content = (OrderWay.CODE, description, money.amount_minor, money.currency)
            if earlier.content != content:
                return MerchantRefused.because(MerchantRefusal.REFERENCE_TAKEN, reference=reference)
            if earlier.state is OrderState.PAID:
                return earlier
        if self._tries_are_over(merchant.id):
            return MerchantRefused.because(MerchantRefusal.CODE_TRIES)
        payer = await self._codes.take(code, order_id=order_id_of(merchant, reference))
        if payer is None:
            self._note_wrong(merchant.id)
            return MerchantRefused.because(MerchantRefusal.CODE_UNKNOWN)
        return await self._orders.charge(
            merchant, payer=payer, reference=reference, money=money, description=description
        )

    def _tries_are_over(self, id: MerchantId) -> bool:
        wrong = self._wrong_at_ms.get(id)
        if wrong is None:
            return False
        since_ms = self._clock() - WRONG_CODES_SECONDS * 1000
        while wrong and wrong[0] < since_ms:
            wrong.popleft()
        if not wrong:
            del self._wrong_at_ms[id]
        return len(wrong) >= WRONG_CODES_MAX

    def _note_wrong(self, id: MerchantId) -> None:
        if len(self._wrong_at_ms) >= MERCHANTS_COUNTED_MAX and id not in self._wrong_at_ms:
            self._wrong_at_ms.pop(next(iter(self._wrong_at_ms)))
        self._wrong_at_ms.setdefault(id, deque(maxlen=WRONG_CODES_MAX)).append(self._clock())
