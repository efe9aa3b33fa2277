"""Merchants on both databases: refunds at the same moment, two processes on one database, and books that add
up to the ledger to the cent."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from appservices.vocabulary.ids import TransferId
from appservices.vocabulary.money import Money
from tests.merchant_world import ALICE, BOB, EUR, OWNER, MerchantWorld, merchant_world
from wallet_appservice.books.exports import Amounts
from wallet_appservice.books.reconciliation import Day, reconciliation_lines
from wallet_appservice.payments.accounts import merchant_account
from wallet_appservice.payments.merchants.order_steps import STALE_SECONDS
from wallet_appservice.payments.merchants.records import Merchant, Order, OrderState
from wallet_appservice.payments.merchants.refunds import (
    DAYS_MAX,
    PARTS_MAX,
    Refund,
    RefundAnswer,
    RefundState,
)
from wallet_appservice.payments.merchants.refusals import MerchantRefusal, MerchantRefused
from wallet_appservice.payments.records import PaymentKind, PaymentRecord
from wallet_appservice.payments.refusals import PaymentRefused

pytest_plugins = ("tests.database_fixtures",)


@pytest.fixture
async def worlds(database_url: str, tmp_path: Path) -> AsyncIterator[list[MerchantWorld]]:
    """Two processes' views of one database."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(merchant_world(tmp_path, url=database_url))
        second = await stack.enter_async_context(
            merchant_world(tmp_path, url=database_url, clock=first.clock, signing_key=first.signing_key)
        )
        yield [first, second]


@pytest.fixture
def world(worlds: list[MerchantWorld]) -> MerchantWorld:
    return worlds[0]


@pytest.fixture
async def merchant(world: MerchantWorld) -> Merchant:
    return await world.merchant()


async def refund(
    world: MerchantWorld, merchant: Merchant, order: Order, number: str, amount_minor: int
) -> RefundAnswer:
    return await world.desk.refunds.refund(
        merchant, order_id=order.id, refund_number=number, amount_minor=amount_minor, reason="stale"
    )


def refusal_of(answer: object) -> MerchantRefusal:
    assert isinstance(answer, MerchantRefused), answer
    return answer.refusal


async def test_an_order_asked_of_two_processes_at_once_is_made_and_paid_once(
    worlds: list[MerchantWorld], merchant: Merchant
) -> None:
    for number in range(4):
        orders = await asyncio.gather(*(world.order(merchant, f"{number}", 100) for world in worlds * 3))
        assert len({order.id for order in orders}) == 1
        await worlds[0].deposit(BOB, 100)
        paid = await asyncio.gather(
            *(
                world.desk.orders.pay(orders[0].id, payer=payer)
                for world in worlds
                for payer in (ALICE, BOB, ALICE)
            )
        )
        winners = {answer.payer for answer in paid if isinstance(answer, Order)}
        assert len(winners) == 1
    assert await worlds[0].takings(merchant) == 400


async def test_refunds_at_the_same_moment_never_exceed_the_payment(
    worlds: list[MerchantWorld], merchant: Merchant
) -> None:
    order = await worlds[0].paid_order(merchant)
    # Money of other customers, which a refund must not reach for.
    await worlds[0].paid_order(merchant, "1002", 2_000)
    answers = await asyncio.gather(
        *(refund(worlds[number % 2], merchant, order, f"r{number}", 300) for number in range(10))
    )
    made = [answer for answer in answers if isinstance(answer, Refund)]
    assert len(made) == 4
    assert {refusal_of(answer) for answer in answers if not isinstance(answer, Refund)} == {
        MerchantRefusal.REFUND_TOO_MUCH
    }
    assert await worlds[0].takings(merchant) == 1_250 + 2_000 - 1_200
    rest = await refund(worlds[0], merchant, order, "rest", 50)
    assert isinstance(rest, Refund)


async def test_one_refund_number_asked_for_many_times_gives_back_once(
    worlds: list[MerchantWorld], merchant: Merchant
) -> None:
    order = await worlds[0].paid_order(merchant)
    answers = await asyncio.gather(
        *(refund(worlds[number % 2], merchant, order, "r1", 500) for number in range(6))
    )
    assert all(isinstance(answer, Refund) for answer in answers)
    assert {answer.state for answer in answers if isinstance(answer, Refund)} == {RefundState.MADE}
    assert await worlds[0].takings(merchant) == 750
    other = await refund(worlds[0], merchant, order, "r1", 501)
    assert refusal_of(other) is MerchantRefusal.REFUND_NUMBER_TAKEN
    (record, *_earlier) = await worlds[0].payments.history(ALICE, limit=1)
    assert (record.kind, record.of, record.merchant) == (
        PaymentKind.REFUND,
        order.payment_id,
        merchant.as_named,
    )
    assert await worlds[0].payments.history(OWNER, limit=10) == []


async def test_a_refund_for_which_the_merchant_has_too_little_can_be_asked_for_again(
    world: MerchantWorld, merchant: Merchant
) -> None:
    order = await world.paid_order(merchant)
    await world.desk.merchants.pay_out(merchant, money=Money(1_000, EUR), id="a" * 32)
    refused = await refund(world, merchant, order, "r1", 1_250)
    assert isinstance(refused, PaymentRefused)
    assert "€2.50" in refused.sentence
    # What was refused does not count against the payment.
    await world.paid_order(merchant, "1002", 5_000)
    made = await refund(world, merchant, order, "r1", 1_250)
    assert isinstance(made, Refund)
    assert refusal_of(await refund(world, merchant, order, "r2", 1)) is MerchantRefusal.REFUND_TOO_MUCH


async def test_refunds_have_limits_of_time_and_number(world: MerchantWorld, merchant: Merchant) -> None:
    order = await world.paid_order(merchant)
    unpaid = await world.order(merchant, "1002")
    assert refusal_of(await refund(world, merchant, unpaid, "r", 1)) is MerchantRefusal.NOT_PAID
    for number in range(PARTS_MAX):
        assert isinstance(await refund(world, merchant, order, f"r{number}", 1), Refund)
    assert refusal_of(await refund(world, merchant, order, "more", 1)) is MerchantRefusal.REFUND_PARTS
    world.clock.ahead_ms += DAYS_MAX * 24 * 3_600_000 + 1
    assert refusal_of(await refund(world, merchant, order, "late", 1)) is MerchantRefusal.REFUND_TOO_LATE
    other = await world.merchant("Florist")
    assert refusal_of(await refund(world, other, order, "r", 1)) is MerchantRefusal.ORDER_UNKNOWN


async def test_a_refund_whose_process_died_after_the_claim_is_finished(
    worlds: list[MerchantWorld], merchant: Merchant
) -> None:
    first, second = worlds
    order = await first.paid_order(merchant)
    claimed, is_ours = await first.desk.refunds._claim(merchant, order.id, "r1", 500, "stale")
    assert is_ours
    assert await second.desk.sweep() == 0
    first.clock.ahead_ms += STALE_SECONDS * 1000 + 1
    assert await second.desk.sweep() == 1
    found = await first.desk.refunds.find(merchant, "r1")
    assert isinstance(claimed, Refund)
    assert found is not None
    assert (found.state, found.transfer_id) == (RefundState.MADE, claimed.transfer_id)
    assert await first.takings(merchant) == 750


async def test_the_reconciliation_file_adds_up_to_the_ledger_to_the_cent(
    world: MerchantWorld, merchant: Merchant
) -> None:
    today = datetime.now(UTC).date()
    yesterday = today - timedelta(days=1)
    world.clock.ahead_ms = -24 * 3_600_000
    await world.paid_order(merchant, "old", 1_001)
    world.clock.ahead_ms = 0
    orders = [await world.paid_order(merchant, f"{number}", 7 * number + 1) for number in range(30)]
    await refund(world, merchant, orders[-1], "r1", 33)
    await refund(world, merchant, orders[-1], "r2", 1)
    payout = await world.desk.merchants.pay_out(merchant, money=Money(999, EUR), id="a" * 32)
    assert isinstance(payout, PaymentRecord)
    other = await world.merchant("Florist")
    await world.paid_order(other, "not ours", 777)

    before = await rows_of(world, merchant, yesterday)
    rows = await rows_of(world, merchant, today)
    assert [(row["kind"], row["balance"]) for row in before if row["balance"]] == [
        ("opening_balance", "0.00"),
        ("purchase", "10.01"),
        ("closing_balance", "10.01"),
    ]
    assert rows[0]["balance"] == before[-1]["balance"]
    movements = [row for row in rows if row["payment_id"]]
    assert len(movements) == 33
    account = merchant_account(merchant.id, OWNER, EUR)
    held = await world.payments.till.ledger.account(account.id)
    assert held is not None
    assert (
        minor(rows[-1]["balance"]) == held.posted_minor == 1_001 + sum(minor(r["amount"]) for r in movements)
    )
    for row in movements:
        stored = await world.payments.till.ledger.transfer(TransferId(row["payment_id"]))
        assert stored is not None
        assert stored.transfer.amount_minor == abs(minor(row["amount"]))
        assert (stored.transfer.credit_account_id == account.id) == (minor(row["amount"]) > 0)
    totals = {row["kind"]: minor(row["amount"]) for row in rows if row["kind"].startswith("total_")}
    assert totals == {
        "total_purchase": sum(order.amount_minor for order in orders),
        "total_refund": -34,
        "total_payout": -999,
    }
    nothing = await rows_of(world, merchant, today + timedelta(days=1))
    assert [row["kind"] for row in nothing] == ["opening_balance", "closing_balance"]
    assert nothing[0]["balance"] == nothing[1]["balance"] == rows[-1]["balance"]


async def test_orders_end_in_one_state_however_they_are_hurried(
    worlds: list[MerchantWorld], merchant: Merchant
) -> None:
    for number in range(8):
        order = await worlds[0].order(merchant, str(number), 100)
        await asyncio.gather(
            worlds[0].desk.orders.pay(order.id, payer=ALICE),
            worlds[1].desk.orders.cancel(merchant, order.id),
            worlds[1].desk.orders.pay(order.id, payer=BOB),
        )
    orders = await worlds[0].desk.orders.page(merchant, limit=100)
    paid = sum(order.state is OrderState.PAID for order in orders)
    assert {order.state for order in orders} <= {OrderState.PAID, OrderState.CANCELLED}
    assert await worlds[1].takings(merchant) == 100 * paid


async def rows_of(world: MerchantWorld, merchant: Merchant, day: date) -> list[dict[str, str]]:
    account = merchant_account(merchant.id, merchant.owner, EUR)
    text = ""
    async for line in reconciliation_lines(
        world.database,
        account.id,
        currency=EUR,
        day=Day(date=day, zone=UTC),
        amounts=Amounts(world.payments.currencies),
    ):
        text += line
    return list(csv.DictReader(io.StringIO(text)))


def minor(text: str) -> int:
    whole, _, cents = text.partition(".")
    assert len(cents) == 2
    return int(whole + cents)
