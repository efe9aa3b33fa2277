"""Orders: made by a merchant, paid by whoever opens their link, cancelled, expired, asked about.

As every use case with a state of its own (docs/decisions/0007): claim, move, sweep. That an order is never
paid twice does not rest on the claim alone: the database takes one purchase for each order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import bindparam, select, tuple_, update

from appservices.chassis.clock import Clock
from appservices.chassis.database import Database, Write
from appservices.vocabulary.ids import UserId
from appservices.vocabulary.money import Money
from wallet_appservice.ledger.submissions import SubmissionFailed
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.merchants.events import order_writes
from wallet_appservice.payments.merchants.merchants import Merchants
from wallet_appservice.payments.merchants.order_steps import (
    STALE_SECONDS,
    cancelling,
    charging,
    claiming,
    creating,
    expiring,
    read_order,
    taking_up,
)
from wallet_appservice.payments.merchants.records import (
    Merchant,
    Order,
    OrderId,
    OrderState,
    OrderWay,
    order_id_of,
)
from wallet_appservice.payments.merchants.refusals import MerchantRefusal, MerchantRefused
from wallet_appservice.payments.records import Authority, PaymentOrder, PaymentRecord
from wallet_appservice.payments.refusals import PaymentRefused
from wallet_appservice.payments.till import Outcome
from wallet_appservice.storage.merchant_tables import merchant_orders
from wallet_appservice.storage.shared_steps import Decide, SharedSteps

EXPIRY_SECONDS_DEFAULT: Final = 2 * 3600
EXPIRY_SECONDS_MIN: Final = 60
EXPIRY_SECONDS_MAX: Final = 30 * 24 * 3600
LISTED_MAX: Final = 100
SWEPT_MAX: Final = 200
"""Orders that one sweep looks at, of each kind; the next sweep takes the rest."""
WAIT_PAUSES_SECONDS: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.5)
"""Between looks at an order that is being paid at this moment."""

OrderAnswer = Order | MerchantRefused | PaymentRefused
logger = logging.getLogger(__name__)


class Orders:
    """The orders of all merchants."""

    def __init__(
        self,
        payments: Payments,
        merchants: Merchants,
        steps: SharedSteps[Order],
        *,
        clock: Clock,
        on_event: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_event` wakes whoever delivers notifications."""
        self._payments = payments
        self._merchants = merchants
        self._steps = steps
        self._database: Database = payments.till.database
        self._clock = clock
        self._on_event = on_event

    async def create(
        self,
        merchant: Merchant,
        *,
        reference: str,
        money: Money,
        description: str = "",
        expires_in_seconds: int = EXPIRY_SECONDS_DEFAULT,
    ) -> Order | MerchantRefused | PaymentRefused:
        """An order to be paid by its link. The same reference and content again is the first order."""
        refused = self._not_takable(merchant, money)
        if refused is not None:
            return refused
        order = self._new(merchant, OrderWay.LINK, reference, money, description, expires_in_seconds)
        answer: Order | MerchantRefused = await self._step(order.id, creating(order))
        return answer

    async def charge(
        self, merchant: Merchant, *, payer: UserId, reference: str, money: Money, description: str = ""
    ) -> OrderAnswer:
        """Takes money at once from a payer whose code was shown. The same reference takes it once."""
        refused = self._not_takable(merchant, money)
        if refused is not None:
            return refused
        order = self._new(merchant, OrderWay.CODE, reference, money, description, EXPIRY_SECONDS_DEFAULT)
        return await self._claim_and_pay(order.id, charging(order, payer=payer, now_ms=self._clock()))

    async def pay(
        self, id: OrderId, *, payer: UserId, authority: Authority = Authority.SESSION
    ) -> OrderAnswer:
        """Pays an open order; one that they have paid already is answered as it is.

        Raises LedgerUnavailable.
        """
        return await self._claim_and_pay(id, claiming(payer=payer, authority=authority, now_ms=self._clock()))

    async def cancel(self, merchant: Merchant, id: OrderId) -> Order | MerchantRefused:
        """Ends an open order; cancelling it again changes nothing."""
        decide = cancelling(
            merchant_id=merchant.id,
            now_ms=self._clock(),
            writes_of=lambda order: order_writes(merchant, order),
        )
        answer: Order | MerchantRefused = await self._step(id, decide)
        self._tell_of(merchant)
        return answer

    async def find(self, id: OrderId) -> Order | None:
        async with self._database.read() as work:
            row = (await work.execute(_ONE, {"order_id": id})).first()
        return None if row is None else read_order(row)

    async def of_merchant(self, merchant: Merchant, id: OrderId) -> Order | None:
        order = await self.find(id)
        return order if order is not None and order.merchant_id == merchant.id else None

    async def by_reference(self, merchant: Merchant, reference: str) -> Order | None:
        return await self.find(order_id_of(merchant, reference))

    async def page(
        self, merchant: Merchant, *, limit: int, before: tuple[int, str] | None = None
    ) -> list[Order]:
        """Newest first; `before` is (created_at_ms, id) of the last order of the page before."""
        created = tuple_(merchant_orders.c.created_at_ms, merchant_orders.c.id)
        query = (
            select(merchant_orders)
            .where(merchant_orders.c.merchant_id == merchant.id)
            .order_by(merchant_orders.c.created_at_ms.desc(), merchant_orders.c.id.desc())
            .limit(max(1, min(limit, LISTED_MAX)))
        )
        if before is not None:
            types = [merchant_orders.c.created_at_ms.type, merchant_orders.c.id.type]
            query = query.where(created < tuple_(*before, types=types))
        async with self._database.read() as work:
            return [read_order(row) for row in await work.execute(query)]

    async def sweep(self) -> int:
        """Ends orders whose time is over, and finishes payments whose process died; returns how many."""
        now_ms = self._clock()
        async with self._database.read() as work:
            overdue = (await work.execute(_OVERDUE, {"now_ms": now_ms})).all()
            stale_ms = now_ms - STALE_SECONDS * 1000
            stale = (await work.execute(_STALE, {"stale_ms": stale_ms})).all()
        swept = 0
        for row in overdue:
            swept += await self._expire(read_order(row))
        for row in stale:
            swept += await self._take_up(OrderId(row.id))
        if swept:
            self._on_event()
        return swept

    async def _expire(self, order: Order) -> bool:
        merchant = await self._merchants.find(order.merchant_id)
        decide = expiring(
            now_ms=self._clock(),
            writes_of=lambda ended: () if merchant is None else order_writes(merchant, ended),
        )
        return await self._step(order.id, decide) is not None

    async def _take_up(self, id: OrderId) -> bool:
        order: Order | None = await self._step(id, taking_up(now_ms=self._clock()))
        if order is None:
            return False
        try:
            await self._carry_out(order)
        except Exception:
            logger.exception("order %s could not be finished; it is tried again", id)
            return False
        return True

    async def _claim_and_pay(self, id: OrderId, decide: Decide[Order]) -> OrderAnswer:
        answer: Order | MerchantRefused | None = None
        for pause_seconds in (*WAIT_PAUSES_SECONDS, None):
            answer = await self._step(id, decide)
            if isinstance(answer, Order):
                return answer if answer.state is OrderState.PAID else await self._carry_out(answer)
            if answer.refusal is not MerchantRefusal.ORDER_BEING_PAID or pause_seconds is None:
                break
            # Perhaps by the same person's other tap, who is then to hear that it is paid.
            await asyncio.sleep(pause_seconds)
        assert answer is not None
        return answer

    async def _carry_out(self, order: Order) -> OrderAnswer:
        """Moves the money of an order that was claimed, or gives the claim back."""
        merchant = await self._merchants.find(order.merchant_id)
        if merchant is None or merchant.closed_at_ms is not None:
            await self._payments.till.write([_given_back(order)])
            name = "" if merchant is None else merchant.name
            return MerchantRefused.because(MerchantRefusal.MERCHANT_CLOSED, merchant=name)
        paid: list[Order] = []

        def tell(outcome: Outcome) -> Sequence[Write]:
            if not isinstance(outcome, PaymentRecord):
                return [_given_back(order)]
            paid[:] = [replace(order, state=OrderState.PAID, ended_at_ms=outcome.at_ms)]
            return [_paid(paid[0]), *order_writes(merchant, paid[0])]

        payment = PaymentOrder(
            id=order.payment_id,
            payer=UserId(order.payer),
            payee=merchant.owner,
            money=order.money,
            memo=order.description or order.reference,
            authority=order.payer_authority,
            subject=f"order:{order.id}",
        )
        try:
            outcome = await self._payments.purchase(payment, merchant=merchant.as_named, tell=tell)
        except SubmissionFailed:
            # The database has the order's one purchase already.
            there = await self.find(order.id)
            if there is not None and there.state is OrderState.PAID:
                is_theirs = there.payer == order.payer
                return there if is_theirs else MerchantRefused.because(MerchantRefusal.ORDER_PAID)
            raise
        self._tell_of(merchant)
        return outcome if isinstance(outcome, PaymentRefused) else paid[0]

    def _tell_of(self, merchant: Merchant) -> None:
        if merchant.endpoint_ids:
            self._on_event()

    def _new(
        self,
        merchant: Merchant,
        way: OrderWay,
        reference: str,
        money: Money,
        description: str,
        expires_in_seconds: int,
    ) -> Order:
        now_ms = self._clock()
        return Order(
            id=order_id_of(merchant, reference),
            merchant_id=merchant.id,
            reference=reference,
            way=way,
            description=description,
            amount_minor=money.amount_minor,
            currency=money.currency,
            state=OrderState.OPEN,
            created_at_ms=now_ms,
            expires_at_ms=now_ms + expires_in_seconds * 1000,
        )

    def _not_takable(self, merchant: Merchant, money: Money) -> MerchantRefused | PaymentRefused | None:
        if merchant.closed_at_ms is not None:
            return MerchantRefused.because(MerchantRefusal.MERCHANT_CLOSED, merchant=merchant.name)
        return self._payments.judge_amount(money)

    async def _step(self, id: OrderId, decide: Decide[Order]) -> Any:
        return (await self._steps.step(id, decide)).answer


def _paid(order: Order) -> Write:
    return Write(
        _PAID,
        {
            "order_id": order.id,
            "new_payer": order.payer,
            "new_attempt": order.attempt,
            "new_ended_at_ms": order.ended_at_ms,
        },
    )


def _given_back(order: Order) -> Write:
    state = OrderState.REFUSED if order.way is OrderWay.CODE else OrderState.OPEN
    return Write(_GIVEN_BACK, {"order_id": order.id, "old_attempt": order.attempt, "new_state": state.value})


_ID_TYPE = merchant_orders.c.id.type
_ONE: Final = select(merchant_orders).where(merchant_orders.c.id == bindparam("order_id", type_=_ID_TYPE))
_OVERDUE: Final = (
    select(merchant_orders)
    .where(merchant_orders.c.state == "open", merchant_orders.c.expires_at_ms <= bindparam("now_ms"))
    .order_by(merchant_orders.c.expires_at_ms)
    .limit(SWEPT_MAX)
)
_STALE: Final = (
    select(merchant_orders.c.id)
    .where(merchant_orders.c.state == "paying", merchant_orders.c.claimed_at_ms <= bindparam("stale_ms"))
    .order_by(merchant_orders.c.claimed_at_ms)
    .limit(SWEPT_MAX)
)
# Whatever the state is: the money has moved, and the database takes one purchase for each order.
_PAID: Final = (
    update(merchant_orders)
    .where(merchant_orders.c.id == bindparam("order_id", type_=_ID_TYPE))
    .values(
        state=OrderState.PAID.value,
        payer=bindparam("new_payer"),
        attempt=bindparam("new_attempt"),
        ended_at_ms=bindparam("new_ended_at_ms"),
    )
)
_GIVEN_BACK: Final = (
    update(merchant_orders)
    .where(
        merchant_orders.c.id == bindparam("order_id", type_=_ID_TYPE),
        merchant_orders.c.state == OrderState.PAYING.value,
        merchant_orders.c.attempt == bindparam("old_attempt"),
    )
    .values(state=bindparam("new_state"), payer="")
)
