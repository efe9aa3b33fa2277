"""What orders promise, on a real ledger in a real SQLite file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select, update

from appservices.chassis.tables import outbox
from appservices.vocabulary.money import CurrencyCode, Money
from appservices.vocabulary.schemas import check_block
from appservices.vocabulary.signing import verify_json
from tests.merchant_world import ALICE, BOB, EUR, OWNER, WALLET, MerchantWorld, merchant_world
from wallet_appservice.payments.merchants.order_steps import STALE_SECONDS
from wallet_appservice.payments.merchants.orders import EXPIRY_SECONDS_DEFAULT
from wallet_appservice.payments.merchants.records import Merchant, Order, OrderId, OrderState
from wallet_appservice.payments.merchants.refusals import MerchantRefusal, MerchantRefused
from wallet_appservice.payments.records import PaymentKind, PaymentRecord
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.storage.merchant_tables import merchant_orders


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[MerchantWorld]:
    async with merchant_world(tmp_path) as world:
        yield world


@pytest.fixture
async def merchant(world: MerchantWorld) -> Merchant:
    return await world.merchant()


async def test_an_order_is_paid_into_the_merchants_account_and_not_its_owners(
    world: MerchantWorld, merchant: Merchant
) -> None:
    paid = await world.paid_order(merchant)
    assert (paid.state, paid.payer) == (OrderState.PAID, ALICE)
    assert (await world.balance(ALICE), await world.balance(OWNER)) == (8_750, 0)
    assert await world.takings(merchant) == 1_250
    assert await world.desk.orders.of_merchant(merchant, paid.id) == paid


async def test_the_payer_alone_sees_the_purchase_with_the_merchants_name(
    world: MerchantWorld, merchant: Merchant
) -> None:
    paid = await world.paid_order(merchant)
    (record, _deposit) = await world.payments.history(ALICE, limit=10)
    assert (record.kind, record.payee, record.memo) == (PaymentKind.PURCHASE, OWNER, "bread")
    assert record.merchant == merchant.as_named
    assert record.receipt["merchant"] == {"id": merchant.id, "name": "Bakery"}
    check_block("receipt", record.receipt)
    verify_json(record.receipt, signer=WALLET, keys=world.payments.keys())
    assert await world.payments.history(OWNER, limit=10) == []
    assert await world.payments.payment(OWNER, paid.payment_id) is None
    async with world.database.read() as work:
        rows = (await work.execute(select(outbox).where(outbox.c.subject == f"payment:{record.id}"))).all()
    assert [(row.to_user, "You paid Bakery €12.50 · bread" in row.content) for row in rows] == [
        (ALICE, False)
    ]
    assert "You paid Bakery" in rows[0].content


async def test_the_same_reference_is_the_same_order_and_other_content_is_a_conflict(
    world: MerchantWorld, merchant: Merchant
) -> None:
    first = await world.order(merchant)
    assert await world.order(merchant) == first
    paid = await world.desk.orders.pay(first.id, payer=ALICE)
    assert await world.order(merchant) == paid
    other = await world.desk.orders.create(merchant, reference="1001", money=Money(1, EUR))
    assert isinstance(other, MerchantRefused)
    assert other.refusal is MerchantRefusal.REFERENCE_TAKEN
    assert "“1001”" in other.sentence


async def test_another_merchant_may_use_the_same_reference(world: MerchantWorld, merchant: Merchant) -> None:
    other = await world.merchant("Florist")
    assert (await world.order(other)).id != (await world.order(merchant)).id
    assert await world.desk.orders.of_merchant(other, (await world.order(merchant)).id) is None


async def test_an_order_made_by_many_at_once_is_one_order(world: MerchantWorld, merchant: Merchant) -> None:
    orders = await asyncio.gather(*(world.order(merchant) for _ in range(20)))
    assert len({order.id for order in orders}) == 1


async def test_an_order_tapped_many_times_at_once_is_paid_once(
    world: MerchantWorld, merchant: Merchant
) -> None:
    order = await world.order(merchant)
    answers = await asyncio.gather(*(world.desk.orders.pay(order.id, payer=ALICE) for _ in range(10)))
    assert all(isinstance(answer, Order) and answer.state is OrderState.PAID for answer in answers)
    assert await world.takings(merchant) == 1_250


async def test_of_two_payers_at_once_one_pays(world: MerchantWorld, merchant: Merchant) -> None:
    await world.deposit(BOB, 10_000)
    order = await world.order(merchant)
    answers = await asyncio.gather(
        world.desk.orders.pay(order.id, payer=ALICE), world.desk.orders.pay(order.id, payer=BOB)
    )
    assert {type(answer) for answer in answers} == {Order, MerchantRefused}
    refused = next(answer for answer in answers if isinstance(answer, MerchantRefused))
    assert refused.refusal is MerchantRefusal.ORDER_PAID
    assert await world.takings(merchant) == 1_250
    assert await world.balance(ALICE) + await world.balance(BOB) == 18_750


async def test_who_has_too_little_pays_later_or_somebody_else_does(
    world: MerchantWorld, merchant: Merchant
) -> None:
    order = await world.order(merchant)
    refused = await world.desk.orders.pay(order.id, payer=BOB)
    assert isinstance(refused, PaymentRefused)
    assert refused.refusal is PaymentRefusal.BALANCE_TOO_LOW
    assert "€0.00" in refused.sentence
    there = await world.desk.orders.find(order.id)
    assert there is not None
    assert (there.state, there.payer) == (OrderState.OPEN, "")
    await world.deposit(BOB, 1_250)
    paid = await world.desk.orders.pay(order.id, payer=BOB)
    assert isinstance(paid, Order)
    assert paid.payer == BOB


async def test_nobody_buys_from_their_own_shop(world: MerchantWorld, merchant: Merchant) -> None:
    await world.deposit(OWNER, 5_000)
    order = await world.order(merchant)
    refused = await world.desk.orders.pay(order.id, payer=OWNER)
    assert isinstance(refused, PaymentRefused)
    assert refused.refusal is PaymentRefusal.PAYEE_IS_PAYER


async def test_a_cancelled_order_is_not_paid_and_a_paid_one_not_cancelled(
    world: MerchantWorld, merchant: Merchant
) -> None:
    order = await world.order(merchant)
    cancelled = await world.desk.orders.cancel(merchant, order.id)
    assert isinstance(cancelled, Order)
    assert cancelled.state is OrderState.CANCELLED
    assert await world.desk.orders.cancel(merchant, order.id) == cancelled
    refused = await world.desk.orders.pay(order.id, payer=ALICE)
    assert isinstance(refused, MerchantRefused)
    assert refused.refusal is MerchantRefusal.ORDER_CANCELLED
    paid = await world.paid_order(merchant, "1002")
    refused = await world.desk.orders.cancel(merchant, paid.id)
    assert isinstance(refused, MerchantRefused)
    assert refused.refusal is MerchantRefusal.ORDER_PAID


async def test_paying_and_cancelling_at_the_same_moment_ends_in_one_of_both(
    world: MerchantWorld, merchant: Merchant
) -> None:
    for number in range(10):
        order = await world.order(merchant, str(number), 100)
        await asyncio.gather(
            world.desk.orders.pay(order.id, payer=ALICE), world.desk.orders.cancel(merchant, order.id)
        )
    orders = await world.desk.orders.page(merchant, limit=100)
    paid = [order for order in orders if order.state is OrderState.PAID]
    assert {order.state for order in orders} <= {OrderState.PAID, OrderState.CANCELLED}
    assert await world.takings(merchant) == 100 * len(paid)


async def test_an_order_expires_by_itself(world: MerchantWorld, merchant: Merchant) -> None:
    order = await world.order(merchant)
    assert await world.desk.sweep() == 0
    world.clock.ahead_ms += EXPIRY_SECONDS_DEFAULT * 1000 + 1
    refused = await world.desk.orders.pay(order.id, payer=ALICE)
    assert isinstance(refused, MerchantRefused)
    assert refused.refusal is MerchantRefusal.ORDER_EXPIRED
    assert await world.desk.sweep() == 1
    there = await world.desk.orders.find(order.id)
    assert there is not None
    assert there.state is OrderState.EXPIRED
    assert await world.desk.sweep() == 0


async def test_a_payment_whose_process_died_after_the_claim_is_finished(
    world: MerchantWorld, merchant: Merchant
) -> None:
    order = await world.order(merchant)
    claimed = replace(order, state=OrderState.PAYING, payer=ALICE, authority="session", attempt=1)
    async with world.database.begin() as work:
        await work.execute(
            update(merchant_orders)
            .where(merchant_orders.c.id == order.id)
            .values(state="paying", payer=ALICE, authority="session", attempt=1, claimed_at_ms=world.clock())
        )
        await work.commit()
    assert await world.desk.sweep() == 0
    world.clock.ahead_ms += STALE_SECONDS * 1000 + 1
    assert await world.desk.sweep() == 1
    there = await world.desk.orders.find(order.id)
    assert there is not None
    assert (there.state, there.payment_id) == (OrderState.PAID, claimed.payment_id)
    assert await world.takings(merchant) == 1_250


async def test_a_claim_that_was_given_back_too_early_still_pays_once(
    world: MerchantWorld, merchant: Merchant
) -> None:
    # As if another process had given the claim back while the first one's payment was under way.
    paid = await world.paid_order(merchant)
    async with world.database.begin() as work:
        await work.execute(
            update(merchant_orders).where(merchant_orders.c.id == paid.id).values(state="open", payer="")
        )
        await work.commit()
    with pytest.raises(Exception, match="nothing of this was committed"):
        await world.desk.orders.pay(paid.id, payer=ALICE)
    assert await world.takings(merchant) == 1_250


async def test_a_closed_merchant_takes_no_more_money(world: MerchantWorld, merchant: Merchant) -> None:
    order = await world.order(merchant)
    assert await world.desk.merchants.close(merchant.id)
    assert not await world.desk.merchants.close(merchant.id)
    closed = await world.desk.merchants.find(merchant.id)
    assert closed is not None
    for refused in (
        await world.desk.orders.pay(order.id, payer=ALICE),
        await world.desk.orders.create(closed, reference="new", money=Money(1, EUR)),
    ):
        assert isinstance(refused, MerchantRefused)
        assert refused.sentence == "Bakery is closed and takes no more money."
    assert await world.balance(ALICE) == 10_000


@pytest.mark.parametrize(
    ("money", "refusal"),
    [
        (Money(1, CurrencyCode("USD")), PaymentRefusal.CURRENCY_UNKNOWN),
        (Money(100_001, EUR), PaymentRefusal.AMOUNT_TOO_LARGE),
    ],
)
async def test_an_order_that_nobody_could_pay_is_not_made(
    world: MerchantWorld, merchant: Merchant, money: Money, refusal: PaymentRefusal
) -> None:
    refused = await world.desk.orders.create(merchant, reference="1", money=money)
    assert isinstance(refused, PaymentRefused)
    assert refused.refusal is refusal
    assert "{" not in refused.sentence


async def test_an_order_that_is_not_there_is_refused(world: MerchantWorld) -> None:
    refused = await world.desk.orders.pay(OrderId("0" * 32), payer=ALICE)
    assert isinstance(refused, MerchantRefused)
    assert refused.refusal is MerchantRefusal.ORDER_UNKNOWN


async def test_orders_are_listed_page_by_page_newest_first(world: MerchantWorld, merchant: Merchant) -> None:
    made = []
    for number in range(5):
        made.append((await world.order(merchant, str(number))).id)
        world.clock.ahead_ms += 1000
    pages: list[str] = []
    before = None
    while page := await world.desk.orders.page(merchant, limit=2, before=before):
        pages += [order.id for order in page]
        before = (page[-1].created_at_ms, page[-1].id)
    assert pages == list(reversed(made))


async def test_the_owner_takes_money_out_of_the_merchant_once_for_each_id(
    world: MerchantWorld, merchant: Merchant
) -> None:
    await world.paid_order(merchant)
    first = await world.desk.merchants.pay_out(merchant, money=Money(1_000, EUR), id="a" * 32)
    assert isinstance(first, PaymentRecord)
    assert await world.desk.merchants.pay_out(merchant, money=Money(1_000, EUR), id="a" * 32) == first
    assert (await world.balance(OWNER), await world.takings(merchant)) == (1_000, 250)
    (record,) = await world.payments.history(OWNER, limit=10)
    assert (record.kind, record.merchant) == (PaymentKind.PAYOUT, merchant.as_named)
    refused = await world.desk.merchants.pay_out(merchant, money=Money(251, EUR), id="b" * 32)
    assert isinstance(refused, PaymentRefused)
    assert refused.refusal is PaymentRefusal.BALANCE_TOO_LOW
