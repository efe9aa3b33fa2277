"""Refunds of a merchant's payments, part by part, never above the payment.

What is given back is counted up in a row of its own before the money moves, by an UPDATE that names the
limit, so refunds at the same moment can't exceed the payment together. The merchant's refund number makes a
refund safe to ask for again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Row, bindparam, exists, insert, select, update
from sqlalchemy.exc import IntegrityError

from appservices.chassis.clock import Clock
from appservices.chassis.database import Database, UnitOfWork, Write
from appservices.vocabulary.ids import TransferId, UserId, derived_id
from appservices.vocabulary.money import CurrencyCode, Money, format_minor
from wallet_appservice.payments.accounts import merchant_account, user_account
from wallet_appservice.payments.merchants.events import EventType, event_writes
from wallet_appservice.payments.merchants.merchants import Merchants
from wallet_appservice.payments.merchants.order_steps import STALE_SECONDS, read_order
from wallet_appservice.payments.merchants.orders import SWEPT_MAX, WAIT_PAUSES_SECONDS
from wallet_appservice.payments.merchants.records import Merchant, MerchantId, Order, OrderId, OrderState
from wallet_appservice.payments.merchants.refusals import MerchantRefusal, MerchantRefused
from wallet_appservice.payments.records import Movement, PaymentKind, PaymentRecord
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.payments.till import Outcome, Till
from wallet_appservice.storage.merchant_tables import (
    merchant_orders,
    merchant_refunds,
    payment_refunds_total,
)
from wallet_appservice.storage.payment_tables import payments

DAYS_MAX: Final = 365
PARTS_MAX: Final = 50
LISTED_MAX: Final = 100
_DAY_MS: Final = 24 * 3_600_000

logger = logging.getLogger(__name__)


class RefundState(StrEnum):
    """Where a refund stands. A refused one may be asked for again by its number."""

    PAYING = "paying"
    MADE = "made"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Refund:
    """One part of a payment that is given back."""

    id: str
    merchant_id: MerchantId
    refund_number: str
    order_id: OrderId
    payment_id: TransferId
    money: Money
    reason: str
    state: RefundState
    attempt: int
    created_at_ms: int

    @property
    def transfer_id(self) -> TransferId:
        return TransferId(derived_id("merchant refund", self.id, str(self.attempt)))


RefundAnswer = Refund | MerchantRefused | PaymentRefused


class MerchantRefunds:
    """The refunds of all merchants."""

    def __init__(
        self,
        till: Till,
        merchants: Merchants,
        *,
        clock: Clock,
        on_event: Callable[[], None] = lambda: None,
    ) -> None:
        self._till = till
        self._database: Database = till.database
        self._merchants = merchants
        self._clock = clock
        self._on_event = on_event

    async def refund(
        self,
        merchant: Merchant,
        *,
        order_id: OrderId,
        refund_number: str,
        amount_minor: int,
        reason: str = "",
    ) -> RefundAnswer:
        """Gives a part of what an order was paid with back to its payer. Raises LedgerUnavailable.

        The same number with the same content again is the same refund.
        """
        answer: Refund | MerchantRefused = MerchantRefused.because(MerchantRefusal.ORDER_UNKNOWN)
        for pause_seconds in (0.0, *WAIT_PAUSES_SECONDS, None):
            try:
                answer, is_ours = await self._claim(merchant, order_id, refund_number, amount_minor, reason)
            except IntegrityError:
                # Somebody made one of its rows at the same moment; now it is there.
                answer, is_ours = await self._claim(merchant, order_id, refund_number, amount_minor, reason)
            if isinstance(answer, MerchantRefused):
                return answer
            if is_ours:
                return await self._carry_out(merchant, answer)
            if answer.state is not RefundState.PAYING or pause_seconds is None:
                break
            await asyncio.sleep(pause_seconds)
        return answer

    async def find(self, merchant: Merchant, refund_number: str) -> Refund | None:
        async with self._database.read() as work:
            return await _stored(work, _refund_id(merchant, refund_number))

    async def of_order(self, order: Order) -> list[Refund]:
        """Oldest first; there are PARTS_MAX that were made at most, and at most LISTED_MAX are told."""
        query = (
            _REFUNDS.where(merchant_refunds.c.order_id == order.id)
            .order_by(merchant_refunds.c.created_at_ms, merchant_refunds.c.id)
            .limit(LISTED_MAX)
        )
        async with self._database.read() as work:
            return [_refund(row) for row in await work.execute(query)]

    async def order_of_payment(self, merchant: Merchant, payment_id: TransferId) -> OrderId | None:
        """Which order of this merchant's a payment has paid."""
        query = select(payments.c.subject).where(
            payments.c.id == payment_id,
            payments.c.merchant_id == merchant.id,
            payments.c.kind == PaymentKind.PURCHASE.value,
        )
        async with self._database.read() as work:
            row = (await work.execute(query)).first()
        return None if row is None else OrderId(str(row.subject).removeprefix("order:"))

    async def sweep(self) -> int:
        """Finishes refunds whose process died; returns how many."""
        stale_ms = self._clock() - STALE_SECONDS * 1000
        query = (
            _REFUNDS.where(
                merchant_refunds.c.state == RefundState.PAYING.value,
                merchant_refunds.c.claimed_at_ms <= stale_ms,
            )
            .order_by(merchant_refunds.c.claimed_at_ms)
            .limit(SWEPT_MAX)
        )
        async with self._database.read() as work:
            stale = [_refund(row) for row in await work.execute(query)]
        swept = 0
        for refund in stale:
            merchant = await self._merchants.find(refund.merchant_id)
            if merchant is None:
                continue
            try:
                await self._carry_out(merchant, refund)
            except Exception:
                logger.exception("refund %s could not be finished; it is tried again", refund.id)
                continue
            swept += 1
        return swept

    async def _claim(
        self, merchant: Merchant, order_id: OrderId, number: str, amount_minor: int, reason: str
    ) -> tuple[Refund | MerchantRefused, bool]:
        """The refund as it stands, and whether it is ours to carry out."""
        id = _refund_id(merchant, number)
        now_ms = self._clock()
        async with self._database.begin() as work:
            earlier = await _stored(work, id, lock=True)
            order = await _order(work, order_id)
            if order is None or order.merchant_id != merchant.id:
                return MerchantRefused.because(MerchantRefusal.ORDER_UNKNOWN), False
            if earlier is not None:
                content = (order_id, amount_minor, reason)
                if (earlier.order_id, earlier.money.amount_minor, earlier.reason) != content:
                    taken = MerchantRefusal.REFUND_NUMBER_TAKEN
                    return MerchantRefused.because(taken, refund_number=number), False
                if earlier.state is not RefundState.REFUSED:
                    return earlier, False
            if order.state is not OrderState.PAID or order.ended_at_ms is None:
                return MerchantRefused.because(MerchantRefusal.NOT_PAID), False
            if now_ms - order.ended_at_ms > DAYS_MAX * _DAY_MS:
                late = MerchantRefusal.REFUND_TOO_LATE
                return MerchantRefused.because(late, days_max=str(DAYS_MAX)), False
            refused = await self._count_up(work, order, amount_minor)
            if refused is not None:
                return refused, False
            refund = Refund(
                id=id,
                merchant_id=merchant.id,
                refund_number=number,
                order_id=order.id,
                payment_id=order.payment_id,
                money=Money(amount_minor, order.currency),
                reason=reason,
                state=RefundState.PAYING,
                attempt=1 if earlier is None else earlier.attempt + 1,
                created_at_ms=now_ms if earlier is None else earlier.created_at_ms,
            )
            values = {**_values(refund), "claimed_at_ms": now_ms}
            if earlier is None:
                await work.execute(insert(merchant_refunds).values(values))
            else:
                await work.execute(update(merchant_refunds).where(merchant_refunds.c.id == id).values(values))
            await work.commit()
        return refund, True

    async def _count_up(self, work: UnitOfWork, order: Order, amount_minor: int) -> MerchantRefused | None:
        total = payment_refunds_total.c
        here = total.payment_id == order.payment_id
        found = await work.execute(select(payment_refunds_total).where(here).with_for_update())
        row = found.first()
        if row is None:
            nothing = {"payment_id": order.payment_id, "refunded_minor": 0, "parts": 0}
            await work.execute(insert(payment_refunds_total).values(nothing))
        counted = await work.execute(
            update(payment_refunds_total)
            .where(
                here,
                total.refunded_minor + amount_minor <= order.amount_minor,
                total.parts < PARTS_MAX,
            )
            .values(refunded_minor=total.refunded_minor + amount_minor, parts=total.parts + 1)
        )
        if counted.rowcount == 1:
            return None
        if row is not None and row.parts >= PARTS_MAX:
            return MerchantRefused.because(MerchantRefusal.REFUND_PARTS, parts_max=str(PARTS_MAX))
        left_minor = order.amount_minor - (row.refunded_minor if row is not None else 0)
        currency = self._till.currencies.get(order.currency)
        left = f"{left_minor} {order.currency}"
        if currency is not None:
            left = format_minor(left_minor, currency)
        return MerchantRefused.because(MerchantRefusal.REFUND_TOO_MUCH, left=left)

    async def _carry_out(self, merchant: Merchant, refund: Refund) -> RefundAnswer:
        async with self._database.read() as work:
            order = await _order(work, refund.order_id)
        assert order is not None, "a refund is made for an order that is there"
        payer = UserId(order.payer)
        code = refund.money.currency
        made = replace(refund, state=RefundState.MADE)

        def tell(outcome: Outcome) -> Sequence[Write]:
            if isinstance(outcome, PaymentRecord):
                data = refund_data(made)
                event = EventType.REFUND_MADE
                return [
                    Write(_STATE, {**_attempt(refund), "new_state": RefundState.MADE.value}),
                    *event_writes(merchant, event, of=refund.id, data=data, at_ms=outcome.at_ms),
                ]
            return [
                Write(
                    _COUNT_DOWN,
                    {
                        **_attempt(refund),
                        "total_of": refund.payment_id,
                        "amount_minor": refund.money.amount_minor,
                    },
                ),
                Write(_STATE, {**_attempt(refund), "new_state": RefundState.REFUSED.value}),
            ]

        account = merchant_account(merchant.id, merchant.owner, code)
        movement = Movement(
            id=refund.transfer_id,
            kind=PaymentKind.REFUND,
            payer=merchant.owner,
            payee=payer,
            money=refund.money,
            debit=account,
            credit=user_account(payer, code),
            memo=refund.reason,
            subject=f"refund:{refund.id}",
            of=refund.payment_id,
            merchant=merchant.as_named,
        )
        outcome = await self._till.move(movement, tell=tell, brief=True)
        if merchant.endpoint_ids:
            self._on_event()
        if isinstance(outcome, PaymentRecord):
            return made
        if outcome.refusal is PaymentRefusal.BALANCE_TOO_LOW:
            available = await self._till.available_text(account.id, code)
            return PaymentRefused.because(outcome.refusal, available=available)
        return outcome


def refund_data(refund: Refund) -> dict[str, Any]:
    """A refund as merchants see it, in notifications and in the API alike."""
    is_made = refund.state is RefundState.MADE
    return {
        "refund_number": refund.refund_number,
        "order_id": refund.order_id,
        "payment_id": refund.payment_id,
        "amount_minor": str(refund.money.amount_minor),
        "currency": refund.money.currency,
        "reason": refund.reason,
        "state": refund.state.value,
        "created_at_ms": refund.created_at_ms,
        "refund_payment_id": refund.transfer_id if is_made else None,
    }


def _refund_id(merchant: Merchant, number: str) -> str:
    return derived_id("merchant refund number", merchant.id, number)


def _attempt(refund: Refund) -> dict[str, Any]:
    return {"refund_id": refund.id, "old_attempt": refund.attempt}


async def _stored(work: UnitOfWork, id: str, *, lock: bool = False) -> Refund | None:
    query = _REFUNDS.where(merchant_refunds.c.id == id)
    if lock:
        query = query.with_for_update(of=merchant_refunds)
    row = (await work.execute(query)).first()
    return None if row is None else _refund(row)


async def _order(work: UnitOfWork, id: OrderId) -> Order | None:
    row = (await work.execute(select(merchant_orders).where(merchant_orders.c.id == id))).first()
    return None if row is None else read_order(row)


def _values(refund: Refund) -> dict[str, Any]:
    return {
        "id": refund.id,
        "merchant_id": refund.merchant_id,
        "refund_number": refund.refund_number,
        "order_id": refund.order_id,
        "payment_id": refund.payment_id,
        "amount_minor": refund.money.amount_minor,
        "reason": refund.reason,
        "state": refund.state.value,
        "attempt": refund.attempt,
        "created_at_ms": refund.created_at_ms,
    }


def _refund(row: Row[Any]) -> Refund:
    return Refund(
        id=row.id,
        merchant_id=MerchantId(row.merchant_id),
        refund_number=row.refund_number,
        order_id=OrderId(row.order_id),
        payment_id=TransferId(row.payment_id),
        money=Money(row.amount_minor, CurrencyCode(row.currency)),
        reason=row.reason,
        state=RefundState(row.state),
        attempt=row.attempt,
        created_at_ms=row.created_at_ms,
    )


_REFUNDS: Final = select(merchant_refunds, merchant_orders.c.currency).join(
    merchant_orders, merchant_orders.c.id == merchant_refunds.c.order_id
)
_ID_TYPE = merchant_refunds.c.id.type
_OF_ATTEMPT = (
    merchant_refunds.c.id == bindparam("refund_id", type_=_ID_TYPE),
    merchant_refunds.c.state == RefundState.PAYING.value,
    merchant_refunds.c.attempt == bindparam("old_attempt"),
)
_STATE: Final = update(merchant_refunds).where(*_OF_ATTEMPT).values(state=bindparam("new_state"))
# Before the state is changed, by which it is known that this attempt was counted and not yet taken back.
_COUNT_DOWN: Final = (
    update(payment_refunds_total)
    .where(
        payment_refunds_total.c.payment_id == bindparam("total_of", type_=_ID_TYPE),
        exists().where(*_OF_ATTEMPT),
    )
    .values(
        refunded_minor=payment_refunds_total.c.refunded_minor - bindparam("amount_minor"),
        parts=payment_refunds_total.c.parts - 1,
    )
)
