"""The wallet's use cases with limits, proofs and confirmations, on a real ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from appservices.chassis.clock import Tokens, system_clock
from appservices.chassis.database import Database
from appservices.chassis.migrations import CHASSIS_MIGRATIONS
from appservices.chassis.tables import outbox
from appservices.vocabulary.ids import TransferId, UserId, derived_id
from appservices.vocabulary.money import Currencies, CurrencyCode, Money, iso_currency
from appservices.vocabulary.signing import SigningKey
from tests.migrated import migrated
from wallet_appservice.chat.announcements import DirectAnnouncer
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.limit_rules import OperatorLimits
from wallet_appservice.payments.limits import Gate
from wallet_appservice.payments.protection import Protection, protect
from wallet_appservice.payments.records import PaymentOrder
from wallet_appservice.payments.till import Till
from wallet_appservice.storage import WALLET_MIGRATIONS
from wallet_appservice.storage.ledger_store import SqlLedgerStore

WALLET, ALICE, BOB = UserId("@wallet:a"), UserId("@alice:a"), UserId("@bob:a")
EUR = CurrencyCode("EUR")
PIN = "493817"
OTHER_PIN = "271828"


@dataclass
class ProtectedWallet:
    """One process's wallet."""

    payments: Payments
    protection: Protection
    database: Database

    async def deposit(self, user: UserId, amount_minor: int) -> None:
        id = an_id("deposit", user, str(amount_minor))
        await self.payments.deposit(user=user, money=Money(amount_minor, EUR), id=id)

    async def balance(self, user: UserId) -> int:
        return (await self.payments.balances(user))[0].available_minor

    async def told(self, user: UserId) -> list[str]:
        """What is to be told to somebody privately, in order."""
        async with self.database.read() as work:
            rows = await work.execute(
                select(outbox.c.content).where(outbox.c.to_user == user).order_by(outbox.c.position)
            )
            return [row.content for row in rows]


@asynccontextmanager
async def protected_wallet(
    database: Database,
    *,
    limits: OperatorLimits | None = None,
    clock: Callable[[], int] = system_clock,
    public_url: str = "http://localhost:8009",
) -> AsyncIterator[ProtectedWallet]:
    """Migrates the database. Everybody exists."""
    await migrated(database, CHASSIS_MIGRATIONS, WALLET_MIGRATIONS)
    euro = iso_currency("EUR")
    assert euro
    currencies = Currencies([euro])

    async def user_exists(_user: UserId) -> bool:
        return True

    async with Ledger(SqlLedgerStore(database), clock=clock) as ledger:
        till = Till(
            database=database,
            ledger=ledger,
            wallet_user=WALLET,
            signing_key=SigningKey.generate(),
            currencies=currencies,
            announcer=DirectAnnouncer(wallet_user=WALLET, currencies=currencies, clock=clock),
            on_commit=lambda: None,
        )
        operator = limits or OperatorLimits(chat_max=100)
        gate = Gate(database, currencies=currencies, operator=operator, clock=clock)
        payments = Payments(
            till,
            service_users=frozenset({WALLET}),
            payment_max=operator.payment_max,
            user_exists=user_exists,
            gate=gate,
        )
        protection = protect(
            gate,
            database,
            pay=payments.pay,
            currencies=currencies,
            public_url=public_url,
            clock=clock,
            tokens=Tokens(),
            on_commit=lambda: None,
        )
        yield ProtectedWallet(payments, protection, database)


def an_id(*parts: str) -> TransferId:
    return TransferId(derived_id("test", *parts))


def an_order(name: str, amount_minor: int, **changes: Any) -> PaymentOrder:
    return PaymentOrder(
        **{"id": an_id(name), "payer": ALICE, "payee": BOB, "money": Money(amount_minor, EUR), **changes}
    )
