"""What payment codes and charges promise, on a real ledger in a real SQLite file."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from appservices.vocabulary.money import Money
from tests.merchant_world import ALICE, BOB, EUR, MerchantWorld, merchant_world
from wallet_appservice.payments.merchants.charges import WRONG_CODES_MAX, WRONG_CODES_SECONDS
from wallet_appservice.payments.merchants.orders import OrderAnswer
from wallet_appservice.payments.merchants.payment_codes import (
    CODE_SECONDS,
    CODES_PER_USER_MAX,
    GRACE_SECONDS,
    KEPT_SECONDS,
)
from wallet_appservice.payments.merchants.records import Merchant, Order, OrderState
from wallet_appservice.payments.merchants.refusals import MerchantRefusal, MerchantRefused
from wallet_appservice.payments.refusals import PaymentRefused
from wallet_appservice.storage.merchant_tables import payment_codes


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[MerchantWorld]:
    async with merchant_world(tmp_path) as world:
        yield world


@pytest.fixture
async def merchant(world: MerchantWorld) -> Merchant:
    return await world.merchant()


async def charge(
    world: MerchantWorld, merchant: Merchant, code: str, reference: str = "till-1", amount_minor: int = 450
) -> OrderAnswer:
    money = Money(amount_minor, EUR)
    return await world.desk.charges.charge(merchant, code=code, money=money, reference=reference)


def refusal_of(answer: OrderAnswer) -> MerchantRefusal:
    assert isinstance(answer, MerchantRefused), answer
    return answer.refusal


async def test_a_code_has_18_digits_and_a_prefix_that_tills_know(world: MerchantWorld) -> None:
    codes = {(await world.desk.codes.issue(ALICE)).code for _ in range(20)}
    assert len(codes) == 20
    assert all(re.fullmatch("1[0-5][0-9]{16}", code) for code in codes)


async def test_the_database_shows_no_code(world: MerchantWorld) -> None:
    issued = await world.desk.codes.issue(ALICE)
    async with world.database.read() as work:
        (row,) = (await work.execute(select(payment_codes))).all()
    assert issued.code not in repr(row)


async def test_a_till_charges_a_code_once_and_asks_again_without_harm(
    world: MerchantWorld, merchant: Merchant
) -> None:
    code = (await world.desk.codes.issue(ALICE)).code
    charged = await charge(world, merchant, code)
    assert isinstance(charged, Order)
    assert (charged.state, charged.payer) == (OrderState.PAID, ALICE)
    assert await charge(world, merchant, code) == charged
    # Also much later, when the code has long been forgotten.
    world.clock.ahead_ms += KEPT_SECONDS * 1000 * 2
    await world.desk.codes.purge()
    assert await charge(world, merchant, code) == charged
    assert await world.takings(merchant) == 450


async def test_a_code_at_many_tills_at_once_is_charged_by_one(
    world: MerchantWorld, merchant: Merchant
) -> None:
    code = (await world.desk.codes.issue(ALICE)).code
    answers = await asyncio.gather(
        *(charge(world, merchant, code, reference=f"till-{number}") for number in range(8))
    )
    assert sum(isinstance(answer, Order) for answer in answers) == 1
    assert await world.takings(merchant) == 450


async def test_a_code_lives_for_a_minute_and_a_moment_for_its_way(
    world: MerchantWorld, merchant: Merchant
) -> None:
    codes = [(await world.desk.codes.issue(ALICE)).code for _ in range(2)]
    world.clock.ahead_ms += (CODE_SECONDS + GRACE_SECONDS) * 1000 - 500
    assert isinstance(await charge(world, merchant, codes[0]), Order)
    world.clock.ahead_ms += 1000
    assert refusal_of(await charge(world, merchant, codes[1], "till-2")) is MerchantRefusal.CODE_UNKNOWN


async def test_the_oldest_code_ends_when_there_are_too_many(world: MerchantWorld, merchant: Merchant) -> None:
    codes = []
    for _ in range(CODES_PER_USER_MAX + 1):
        codes.append((await world.desk.codes.issue(ALICE)).code)
        world.clock.ahead_ms += 100
    assert refusal_of(await charge(world, merchant, codes[0])) is MerchantRefusal.CODE_UNKNOWN
    assert isinstance(await charge(world, merchant, codes[1]), Order)


async def test_a_charge_above_the_limit_is_refused_and_the_code_still_works(
    world: MerchantWorld, merchant: Merchant
) -> None:
    code = (await world.desk.codes.issue(ALICE)).code
    above = await charge(world, merchant, code, amount_minor=5_001)
    assert refusal_of(above) is MerchantRefusal.ABOVE_CODE_LIMIT
    assert isinstance(await charge(world, merchant, code, amount_minor=5_000), Order)


async def test_a_customer_with_too_little_shows_another_code_for_the_same_sale(
    world: MerchantWorld, merchant: Merchant
) -> None:
    refused = await charge(world, merchant, (await world.desk.codes.issue(BOB)).code)
    assert isinstance(refused, PaymentRefused)
    there = await world.desk.orders.by_reference(merchant, "till-1")
    assert there is not None
    assert there.state is OrderState.REFUSED
    paid = await charge(world, merchant, (await world.desk.codes.issue(ALICE)).code)
    assert isinstance(paid, Order)
    assert (paid.id, paid.payer) == (there.id, ALICE)


async def test_a_reference_stands_for_one_charge_or_order(world: MerchantWorld, merchant: Merchant) -> None:
    await world.order(merchant, "1001", 450)
    code = (await world.desk.codes.issue(ALICE)).code
    answer = await charge(world, merchant, code, "1001")
    assert refusal_of(answer) is MerchantRefusal.REFERENCE_TAKEN
    charged = await charge(world, merchant, code, "till-1")
    assert isinstance(charged, Order)
    answer = await world.desk.orders.pay(charged.id, payer=BOB)
    assert refusal_of(answer) is MerchantRefusal.ORDER_BY_CODE


@pytest.mark.parametrize("code", ["", "123456789012345678", "1" * 18, "16" + "0" * 16, "x" * 18, "1" * 19])
async def test_every_wrong_code_has_the_same_answer(
    world: MerchantWorld, merchant: Merchant, code: str
) -> None:
    assert refusal_of(await charge(world, merchant, code)) is MerchantRefusal.CODE_UNKNOWN


async def test_who_guesses_codes_is_stopped_for_a_while(world: MerchantWorld, merchant: Merchant) -> None:
    for number in range(WRONG_CODES_MAX):
        answer = await charge(world, merchant, "1" * 18, f"till-{number}")
        assert refusal_of(answer) is MerchantRefusal.CODE_UNKNOWN
    code = (await world.desk.codes.issue(ALICE)).code
    assert refusal_of(await charge(world, merchant, code)) is MerchantRefusal.CODE_TRIES
    other = await world.merchant("Florist")
    assert isinstance(await charge(world, other, code), Order)
    world.clock.ahead_ms += WRONG_CODES_SECONDS * 1000 + 1
    code = (await world.desk.codes.issue(ALICE)).code
    assert isinstance(await charge(world, merchant, code), Order)
