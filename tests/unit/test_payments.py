"""What the wallet's use cases promise, on a real ledger in a real SQLite file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, func, insert, select

from appservices.chassis.clock import system_clock
from appservices.chassis.database import Database, Write, open_database
from appservices.chassis.migrations import CHASSIS_MIGRATIONS
from appservices.chassis.tables import direct_rooms, outbox
from appservices.vocabulary.ids import RoomId, TransferId, UserId, derived_id
from appservices.vocabulary.money import Currencies, CurrencyCode, Money, iso_currency
from appservices.vocabulary.schemas import check_block
from appservices.vocabulary.signing import SigningKey, verify_json
from tests.migrated import migrated
from wallet_appservice.chat.announcements import DirectAnnouncer
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.records import PaymentOrder, PaymentRecord
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.payments.till import Outcome, Till
from wallet_appservice.storage import WALLET_MIGRATIONS
from wallet_appservice.storage.ledger_store import SqlLedgerStore

WALLET, ALICE, BOB = UserId("@wallet:a"), UserId("@alice:a"), UserId("@bob:a")
EUR = CurrencyCode("EUR")


@dataclass
class Wallet:
    payments: Payments
    database: Database

    async def balance(self, user: UserId) -> int:
        return (await self.payments.balances(user))[0].available_minor

    async def count(self, table: Table) -> int:
        async with self.database.read() as work:
            counted = await work.execute(select(func.count()).select_from(table))
            return int(counted.scalar_one())


@pytest.fixture
async def wallet(tmp_path: Path) -> AsyncIterator[Wallet]:
    database = open_database("sqlite:///wallet.db", folder=tmp_path)
    await migrated(database, CHASSIS_MIGRATIONS, WALLET_MIGRATIONS)
    euro, yen = iso_currency("EUR"), iso_currency("JPY")
    assert euro and yen
    currencies = Currencies([euro, yen])

    async def user_exists(user: UserId) -> bool:
        return user in (ALICE, BOB)

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
        payments = Payments(
            till,
            service_users=frozenset({WALLET}),
            payment_max=1_000,
            user_exists=user_exists,
        )
        await payments.deposit(user=ALICE, money=Money(10_000, EUR), id=new_id("deposit"))
        yield Wallet(payments, database)
    await database.close()


def new_id(name: str) -> TransferId:
    return TransferId(derived_id("test", name))


def order(name: str = "1", amount_minor: int = 1250, **changes: Any) -> PaymentOrder:
    made = PaymentOrder(id=new_id(name), payer=ALICE, payee=BOB, money=Money(amount_minor, EUR), memo="lunch")
    return replace(made, **changes)


async def test_a_payment_moves_money_and_gives_a_receipt_that_verifies(wallet: Wallet) -> None:
    record = await wallet.payments.pay(order())
    assert isinstance(record, PaymentRecord)
    assert (await wallet.balance(ALICE), await wallet.balance(BOB)) == (8_750, 1_250)
    verify_json(record.receipt, signer=WALLET, keys=wallet.payments.keys())
    check_block("receipt", record.receipt)
    assert [entry.id for entry in await wallet.payments.history(BOB, limit=10)] == [record.id]


async def test_the_same_order_again_gives_the_first_answer_and_moves_nothing(wallet: Wallet) -> None:
    first = await wallet.payments.pay(order())
    sent = await wallet.count(outbox)
    assert await wallet.payments.pay(order()) == first
    assert await wallet.balance(BOB) == 1_250
    assert await wallet.count(outbox) == sent


async def test_one_order_from_many_at_once_is_one_payment(wallet: Wallet) -> None:
    outcomes = await asyncio.gather(*(wallet.payments.pay(order()) for _ in range(50)))
    assert all(outcome == outcomes[0] for outcome in outcomes)
    assert await wallet.balance(BOB) == 1_250


@pytest.mark.parametrize(
    "changes",
    [
        {"money": Money(1251, EUR)},
        {"memo": "dinner"},
        {"payee": ALICE, "payer": BOB},
        {"room_id": RoomId("!r")},
    ],
)
async def test_an_id_used_for_another_payment_is_refused(wallet: Wallet, changes: dict[str, Any]) -> None:
    await wallet.payments.pay(order())
    refused = await wallet.payments.pay(order(**changes))
    assert isinstance(refused, PaymentRefused)
    assert refused.refusal is PaymentRefusal.ID_TAKEN
    assert await wallet.balance(BOB) == 1_250


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"money": Money(10_001, EUR)}, PaymentRefusal.BALANCE_TOO_LOW),
        ({"money": Money(1, CurrencyCode("JPY"))}, PaymentRefusal.BALANCE_TOO_LOW),
        ({"money": Money(100_001, EUR)}, PaymentRefusal.AMOUNT_TOO_LARGE),
        ({"money": Money(1, CurrencyCode("USD"))}, PaymentRefusal.CURRENCY_UNKNOWN),
        ({"payee": UserId("@nobody:a")}, PaymentRefusal.PAYEE_UNKNOWN),
        ({"payee": WALLET}, PaymentRefusal.PAYEE_UNKNOWN),
        ({"payee": UserId("@bob:b")}, PaymentRefusal.PAYEE_ELSEWHERE),
        ({"payee": UserId("bob")}, PaymentRefusal.PAYEE_INVALID),
        ({"payee": ALICE}, PaymentRefusal.PAYEE_IS_PAYER),
        ({"payer": UserId("@alice:b")}, PaymentRefusal.PAYER_ELSEWHERE),
        ({"memo": "x" * 201}, PaymentRefusal.MEMO_TOO_LONG),
        ({"id": TransferId("1")}, PaymentRefusal.ID_INVALID),
    ],
)
async def test_a_refused_payment_says_why_and_changes_nothing(
    wallet: Wallet, changes: dict[str, Any], refusal: PaymentRefusal
) -> None:
    refused = await wallet.payments.pay(order(**changes))
    assert isinstance(refused, PaymentRefused)
    assert refused.refusal is refusal
    assert refused.sentence.endswith(".") and "{" not in refused.sentence
    assert (await wallet.balance(ALICE), await wallet.balance(BOB)) == (10_000, 0)


async def test_two_payments_at_once_can_not_spend_the_same_money(wallet: Wallet) -> None:
    outcomes = await asyncio.gather(*(wallet.payments.pay(order(str(n), 6_000)) for n in range(2)))
    assert {type(outcome) for outcome in outcomes} == {PaymentRecord, PaymentRefused}
    assert await wallet.balance(BOB) == 6_000


@pytest.mark.parametrize("amount_minor", [1250, 10_001])
async def test_what_a_way_in_tells_is_committed_with_either_outcome(
    wallet: Wallet, amount_minor: int
) -> None:
    def tell(outcome: Outcome) -> Sequence[Write]:
        return [Write(insert(direct_rooms), {"user_id": type(outcome).__name__, "room_id": "!r"})]

    await wallet.payments.pay(order(amount_minor=amount_minor), tell=tell)
    assert await wallet.count(direct_rooms) == 1


async def test_a_payment_whose_effects_fail_moves_nothing(wallet: Wallet) -> None:
    def tell(outcome: Outcome) -> Sequence[Write]:
        raise RuntimeError("broken")

    with pytest.raises(Exception, match="broken"):
        await wallet.payments.pay(order(), tell=tell)
    assert await wallet.balance(BOB) == 0
    assert isinstance(await wallet.payments.pay(order()), PaymentRecord)


async def test_money_leaves_only_by_who_has_it(wallet: Wallet) -> None:
    too_much = await wallet.payments.withdraw(user=ALICE, money=Money(10_001, EUR), id=new_id("w1"))
    assert isinstance(too_much, PaymentRefused)
    assert isinstance(
        await wallet.payments.withdraw(user=ALICE, money=Money(10_000, EUR), id=new_id("w2")), PaymentRecord
    )
    assert await wallet.balance(ALICE) == 0
    assert [balance.posted_minor for balance in await wallet.payments.all_balances()] == [0]


async def test_nobody_reads_the_payment_of_others(wallet: Wallet) -> None:
    record = await wallet.payments.pay(order())
    assert isinstance(record, PaymentRecord)
    assert await wallet.payments.payment(BOB, record.id) == record
    assert await wallet.payments.payment(UserId("@eve:a"), record.id) is None
