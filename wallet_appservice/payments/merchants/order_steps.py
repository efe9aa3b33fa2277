"""The steps of an order's life as pure decisions: from the order as it is to the order as it will be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from appservices.chassis.database import Write
from appservices.vocabulary.ids import UserId
from appservices.vocabulary.money import CurrencyCode
from wallet_appservice.payments.merchants.records import (
    MerchantId,
    Order,
    OrderId,
    OrderState,
    OrderWay,
)
from wallet_appservice.payments.merchants.refusals import MerchantRefusal, MerchantRefused
from wallet_appservice.payments.records import Authority
from wallet_appservice.storage.shared_steps import Decide, Decided

STALE_SECONDS: Final = 30
"""After which a step that was begun is taken up by the sweeper: whoever began it has died, most likely."""

WritesOf = Callable[[Order], Sequence[Write]]


def creating(order: Order) -> Decide[Order]:
    """The same reference with the same content is the same order, in whatever state it is now."""

    def decide(found: Order | None) -> Decided[Order]:
        if found is None:
            return Decided(order, changed=True, answer=order)
        if found.content != order.content:
            return _refused(found, MerchantRefusal.REFERENCE_TAKEN, reference=order.reference)
        return Decided(found, answer=found)

    return decide


def claiming(*, payer: UserId, authority: Authority, now_ms: int) -> Decide[Order]:
    """From open to being paid by this payer. An order that they have paid already is answered as it is."""

    def decide(found: Order | None) -> Decided[Order]:
        if found is None:
            return _refused(found, MerchantRefusal.ORDER_UNKNOWN)
        if found.way is OrderWay.CODE:
            return _refused(found, MerchantRefusal.ORDER_BY_CODE)
        if found.state is OrderState.PAID and found.payer == payer:
            return Decided(found, answer=found)
        refusal = _NOT_PAYABLE.get(found.state)
        if refusal is None and found.expires_at_ms <= now_ms:
            refusal = MerchantRefusal.ORDER_EXPIRED
        if refusal is not None:
            return _refused(found, refusal)
        return _claimed(found, payer=payer, authority=authority, now_ms=now_ms)

    return decide


def charging(order: Order, *, payer: UserId, now_ms: int) -> Decide[Order]:
    """A charge is claimed as soon as it is made; one that was refused may be tried again by the same
    reference."""

    def decide(found: Order | None) -> Decided[Order]:
        if found is not None and found.content != order.content:
            return _refused(found, MerchantRefusal.REFERENCE_TAKEN, reference=order.reference)
        if found is not None and found.state is OrderState.PAYING:
            return _refused(found, MerchantRefusal.ORDER_BEING_PAID)
        if found is not None and found.state is OrderState.PAID:
            return Decided(found, answer=found)
        return _claimed(found or order, payer=payer, authority=Authority.CODE, now_ms=now_ms)

    return decide


def cancelling(*, merchant_id: MerchantId, now_ms: int, writes_of: WritesOf) -> Decide[Order]:
    def decide(found: Order | None) -> Decided[Order]:
        if found is None or found.merchant_id != merchant_id:
            return _refused(found, MerchantRefusal.ORDER_UNKNOWN)
        if found.state is OrderState.OPEN:
            return _ended(found, OrderState.CANCELLED, now_ms=now_ms, writes_of=writes_of)
        if found.state is OrderState.CANCELLED:
            return Decided(found, answer=found)
        refusal = _NOT_PAYABLE.get(found.state, MerchantRefusal.ORDER_BY_CODE)
        return _refused(found, refusal)

    return decide


def expiring(*, now_ms: int, writes_of: WritesOf) -> Decide[Order]:
    """Ends an order whose time is over; answers None when there is nothing to end."""

    def decide(found: Order | None) -> Decided[Order]:
        if found is None or found.state is not OrderState.OPEN or found.expires_at_ms > now_ms:
            return Decided(found)
        return _ended(found, OrderState.EXPIRED, now_ms=now_ms, writes_of=writes_of)

    return decide


def taking_up(*, now_ms: int) -> Decide[Order]:
    """Claims anew what was begun long ago; answers None when there is nothing to take up."""

    def decide(found: Order | None) -> Decided[Order]:
        if found is None or found.state is not OrderState.PAYING:
            return Decided(found)
        if now_ms - found.claimed_at_ms < STALE_SECONDS * 1000:
            return Decided(found)
        taken = replace(found, claimed_at_ms=now_ms)
        return Decided(taken, changed=True, answer=taken)

    return decide


def read_order(row: Any) -> Order:
    """A row of merchant_orders as a value."""
    return Order(
        id=OrderId(row.id),
        merchant_id=MerchantId(row.merchant_id),
        reference=row.reference,
        way=OrderWay(row.way),
        description=row.description,
        amount_minor=row.amount_minor,
        currency=CurrencyCode(row.currency),
        state=OrderState(row.state),
        created_at_ms=row.created_at_ms,
        expires_at_ms=row.expires_at_ms,
        payer=row.payer,
        authority=row.authority,
        attempt=row.attempt,
        claimed_at_ms=row.claimed_at_ms,
        ended_at_ms=row.ended_at_ms,
    )


def order_values(order: Order) -> tuple[Any, ...]:
    """In the order of the table's columns."""
    return (
        order.id,
        order.merchant_id,
        order.reference,
        order.way.value,
        order.description,
        order.amount_minor,
        order.currency,
        order.state.value,
        order.created_at_ms,
        order.expires_at_ms,
        order.payer,
        order.authority,
        order.attempt,
        order.claimed_at_ms,
        order.ended_at_ms,
    )


_NOT_PAYABLE: Final = {
    OrderState.PAYING: MerchantRefusal.ORDER_BEING_PAID,
    OrderState.PAID: MerchantRefusal.ORDER_PAID,
    OrderState.CANCELLED: MerchantRefusal.ORDER_CANCELLED,
    OrderState.EXPIRED: MerchantRefusal.ORDER_EXPIRED,
}


def _claimed(order: Order, *, payer: UserId, authority: Authority, now_ms: int) -> Decided[Order]:
    claimed = replace(
        order,
        state=OrderState.PAYING,
        payer=payer,
        authority=authority.value,
        attempt=order.attempt + 1,
        claimed_at_ms=now_ms,
    )
    return Decided(claimed, changed=True, answer=claimed)


def _ended(order: Order, state: OrderState, *, now_ms: int, writes_of: WritesOf) -> Decided[Order]:
    ended = replace(order, state=state, ended_at_ms=now_ms)
    return Decided(ended, changed=True, writes=writes_of(ended), answer=ended)


def _refused(found: Order | None, refusal: MerchantRefusal, **words: str) -> Decided[Order]:
    return Decided(found, answer=MerchantRefused.because(refusal, **words))
