"""The day's limit holds for payments at once, whatever the database and however many processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from appservices.chassis.clock import system_clock
from appservices.chassis.database import Database, open_database
from appservices.chassis.migrations import CHASSIS_MIGRATIONS, migrate
from appservices.vocabulary.ids import TransferId, UserId, derived_id
from appservices.vocabulary.money import Currencies, CurrencyCode, Money, iso_currency
from appservices.vocabulary.signing import SigningKey
from tests.postgres import Postgresql
from wallet_appservice.chat.announcements import DirectAnnouncer
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.limit_rules import OperatorLimits
from wallet_appservice.payments.limits import Gate
from wallet_appservice.payments.records import PaymentOrder, PaymentRecord
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.payments.till import Outcome, Till
from wallet_appservice.storage import WALLET_MIGRATIONS
from wallet_appservice.storage.ledger_store import SqlLedgerStore

pytest_plugins = ("tests.database_fixtures",)

WALLET, ALICE, BOB = UserId("@wallet:a"), UserId("@alice:a"), UserId("@bob:a")
EUR = CurrencyCode("EUR")
DAY_MAX = 100
AMOUNT_MINOR = 700
FITTING = DAY_MAX * 100 // AMOUNT_MINOR


@asynccontextmanager
async def a_wallet(database: Database) -> AsyncIterator[Payments]:
    """One process's wallet on a database."""
    await migrate(database, CHASSIS_MIGRATIONS, WALLET_MIGRATIONS)
    euro = iso_currency("EUR")
    assert euro
    currencies = Currencies([euro])

    async def user_exists(_user: UserId) -> bool:
        return True

    async with Ledger(SqlLedgerStore(database), clock=system_clock) as ledger:
        till = Till(
            database=database,
            ledger=ledger,
            wallet_user=WALLET,
            signing_key=SigningKey.generate(),
            currencies=currencies,
            announcer=DirectAnnouncer(wallet_user=WALLET, currencies=currencies, clock=system_clock),
            on_commit=lambda: None,
        )
        limits = OperatorLimits(day_max=DAY_MAX)
        gate = Gate(database, currencies=currencies, operator=limits, clock=system_clock)
        yield Payments(
            till, service_users=frozenset({WALLET}), payment_max=10_000, user_exists=user_exists, gate=gate
        )


@pytest.fixture
async def rich_alice(database_url: str, tmp_path: Path) -> AsyncIterator[Payments]:
    database = open_database(database_url, folder=tmp_path)
    async with a_wallet(database) as payments:
        await payments.deposit(user=ALICE, money=Money(1_000_000, EUR), id=an_id("deposit"))
        yield payments
    await database.close()


def an_id(*parts: str) -> TransferId:
    return TransferId(derived_id("test", *parts))


def order(name: str, amount_minor: int = AMOUNT_MINOR) -> PaymentOrder:
    return PaymentOrder(id=an_id(name), payer=ALICE, payee=BOB, money=Money(amount_minor, EUR))


async def bobs_money(payments: Payments) -> int:
    return (await payments.balances(BOB))[0].available_minor


def made(outcomes: list[Outcome]) -> int:
    refused = [outcome for outcome in outcomes if isinstance(outcome, PaymentRefused)]
    assert all(outcome.refusal is PaymentRefusal.DAY_LIMIT for outcome in refused)
    return len(outcomes) - len(refused)


async def test_of_many_payments_at_once_as_many_pass_as_the_day_has_room_for(rich_alice: Payments) -> None:
    outcomes = await asyncio.gather(*(rich_alice.pay(order(str(n))) for n in range(50)))
    assert made(outcomes) == FITTING
    assert await bobs_money(rich_alice) == FITTING * AMOUNT_MINOR
    limits, spent_minor = await rich_alice.gate.limits_of(ALICE, EUR)
    assert (limits.day_minor, spent_minor) == (DAY_MAX * 100, FITTING * AMOUNT_MINOR)
    rest = await rich_alice.pay(order("rest", DAY_MAX * 100 - FITTING * AMOUNT_MINOR))
    assert isinstance(rest, PaymentRecord)


async def test_a_payment_asked_for_again_is_counted_once(rich_alice: Payments) -> None:
    for _ in range(2):
        outcomes = await asyncio.gather(*(rich_alice.pay(order("one", 6_000)) for _ in range(20)))
        assert made(outcomes) == 20
    assert (await rich_alice.gate.limits_of(ALICE, EUR))[1] == 6_000
    assert isinstance(await rich_alice.pay(order("two", 4_000)), PaymentRecord)


async def test_what_the_ledger_refuses_does_not_count(rich_alice: Payments) -> None:
    poor = PaymentOrder(id=an_id("poor"), payer=BOB, payee=ALICE, money=Money(500, EUR))
    refused = await rich_alice.pay(poor)
    assert isinstance(refused, PaymentRefused) and refused.refusal is PaymentRefusal.BALANCE_TOO_LOW
    assert (await rich_alice.gate.limits_of(BOB, EUR))[1] == 0


async def test_one_after_the_other_as_many_pass(rich_alice: Payments) -> None:
    outcomes = [await rich_alice.pay(order(str(n))) for n in range(FITTING + 3)]
    assert made(outcomes) == FITTING


@pytest.fixture
def postgresql_url(postgresql: Postgresql) -> str:
    return postgresql.create_database()


async def test_two_processes_on_one_database_keep_one_limit(postgresql_url: str, tmp_path: Path) -> None:
    databases = [open_database(postgresql_url, folder=tmp_path) for _ in range(2)]
    async with a_wallet(databases[0]) as first, a_wallet(databases[1]) as second:
        await first.deposit(user=ALICE, money=Money(1_000_000, EUR), id=an_id("deposit"))
        outcomes = await asyncio.gather(
            *(wallet.pay(order(f"{n}")) for n, wallet in enumerate([first, second] * 25))
        )
        assert made(outcomes) == FITTING
        assert await bobs_money(first) == FITTING * AMOUNT_MINOR
        # What came too late in one process and was refused there is no matter to the other.
        outcomes = await asyncio.gather(*(second.pay(order(f"late {n}")) for n in range(5)))
        assert made(outcomes) == 0
    for database in databases:
        await database.close()
