"""The day's limit holds for payments at once, whatever the database and however many processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appservices.chassis.database import open_database
from tests.postgres import Postgresql
from tests.protected_wallet import (
    ALICE,
    BOB,
    EUR,
    ProtectedWallet,
    an_order,
    protected_wallet,
)
from wallet_appservice.payments.limit_rules import OperatorLimits
from wallet_appservice.payments.records import PaymentRecord
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.payments.till import Outcome

pytest_plugins = ("tests.database_fixtures",)

DAY_MAX = 100
AMOUNT_MINOR = 700
FITTING = DAY_MAX * 100 // AMOUNT_MINOR
LIMITS = OperatorLimits(day_max=DAY_MAX)


@pytest.fixture
async def wallet(database_url: str, tmp_path: Path) -> AsyncIterator[ProtectedWallet]:
    database = open_database(database_url, folder=tmp_path)
    async with protected_wallet(database, limits=LIMITS) as wallet:
        await wallet.deposit(ALICE, 1_000_000)
        yield wallet
    await database.close()


def made(outcomes: list[Outcome]) -> int:
    refused = [outcome for outcome in outcomes if isinstance(outcome, PaymentRefused)]
    assert all(outcome.refusal is PaymentRefusal.DAY_LIMIT for outcome in refused)
    return len(outcomes) - len(refused)


async def test_of_many_payments_at_once_as_many_pass_as_the_day_has_room_for(wallet: ProtectedWallet) -> None:
    pay = wallet.payments.pay
    outcomes = await asyncio.gather(*(pay(an_order(str(n), AMOUNT_MINOR)) for n in range(50)))
    assert made(outcomes) == FITTING
    assert await wallet.balance(BOB) == FITTING * AMOUNT_MINOR
    limits, spent_minor = await wallet.payments.gate.limits_of(ALICE, EUR)
    assert (limits.day_minor, spent_minor) == (DAY_MAX * 100, FITTING * AMOUNT_MINOR)
    rest = await pay(an_order("rest", DAY_MAX * 100 - FITTING * AMOUNT_MINOR))
    assert isinstance(rest, PaymentRecord)


async def test_a_payment_asked_for_again_is_counted_once(wallet: ProtectedWallet) -> None:
    pay = wallet.payments.pay
    for _ in range(2):
        outcomes = await asyncio.gather(*(pay(an_order("one", 6_000)) for _ in range(20)))
        assert made(outcomes) == 20
    assert (await wallet.payments.gate.limits_of(ALICE, EUR))[1] == 6_000
    assert isinstance(await pay(an_order("two", 4_000)), PaymentRecord)


async def test_what_the_ledger_refuses_does_not_count(wallet: ProtectedWallet) -> None:
    refused = await wallet.payments.pay(an_order("poor", 500, payer=BOB, payee=ALICE))
    assert isinstance(refused, PaymentRefused) and refused.refusal is PaymentRefusal.BALANCE_TOO_LOW
    assert (await wallet.payments.gate.limits_of(BOB, EUR))[1] == 0


async def test_one_after_the_other_as_many_pass(wallet: ProtectedWallet) -> None:
    outcomes = [await wallet.payments.pay(an_order(str(n), AMOUNT_MINOR)) for n in range(FITTING + 3)]
    assert made(outcomes) == FITTING


@pytest.fixture
def postgresql_url(postgresql: Postgresql) -> str:
    return postgresql.create_database()


async def test_two_processes_on_one_database_keep_one_limit(postgresql_url: str, tmp_path: Path) -> None:
    databases = [open_database(postgresql_url, folder=tmp_path) for _ in range(2)]
    async with (
        protected_wallet(databases[0], limits=LIMITS) as first,
        protected_wallet(databases[1], limits=LIMITS) as second,
    ):
        await first.deposit(ALICE, 1_000_000)
        outcomes = await asyncio.gather(
            *(
                wallet.payments.pay(an_order(str(n), AMOUNT_MINOR))
                for n, wallet in enumerate([first, second] * 25)
            )
        )
        assert made(outcomes) == FITTING
        assert await first.balance(BOB) == FITTING * AMOUNT_MINOR
        outcomes = await asyncio.gather(
            *(second.payments.pay(an_order(f"late {n}", AMOUNT_MINOR)) for n in range(5))
        )
        assert made(outcomes) == 0
    for database in databases:
        await database.close()
