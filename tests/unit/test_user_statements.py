"""Statements, spending and search: what a person is told of their own past, on a real ledger in SQLite."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appservices.chassis.commands import CommandRouter
from appservices.chassis.database import Database, open_database
from appservices.chassis.inbox import StoredEvent
from appservices.chassis.messages import IncomingMessage
from appservices.chassis.migrations import CHASSIS_MIGRATIONS
from appservices.chassis.page_assets import VENDOR_FOLDER
from appservices.chassis.rooms import Members, Room
from appservices.vocabulary.ids import EventId, RoomId, TransferId, UserId, derived_id
from appservices.vocabulary.languages import LANGUAGES, speaking
from appservices.vocabulary.money import Currencies, CurrencyCode, Money, format_minor, iso_currency
from appservices.vocabulary.signing import SigningKey
from tests.migrated import migrated
from wallet_appservice.books.exports import Amounts
from wallet_appservice.books.periods import latest_months, read_period
from wallet_appservice.books.spending import Category, Spending
from wallet_appservice.books.statement_pdf import statement_pdf
from wallet_appservice.books.user_statements import open_statement
from wallet_appservice.chat.announcements import DirectAnnouncer
from wallet_appservice.chat.statement_command import StatementCommand
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.payments.accounts import user_account
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.records import Movement, PaymentKind, PaymentOrder, PaymentRecord
from wallet_appservice.payments.search import PaymentSearch, Sort, Sought
from wallet_appservice.payments.till import Till
from wallet_appservice.storage import WALLET_MIGRATIONS
from wallet_appservice.storage.ledger_store import SqlLedgerStore

WALLET, ALICE, BOB = UserId("@wallet:a"), UserId("@alice:a"), UserId("@bob:a")
EUR, JPY = CurrencyCode("EUR"), CurrencyCode("JPY")


@dataclass
class SetClock:
    now_ms: int = 0

    def __call__(self) -> int:
        return self.now_ms

    def set(self, *day: int) -> None:
        self.now_ms = int(datetime(*day, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc,arg-type]


@dataclass
class Past:
    payments: Payments
    database: Database
    clock: SetClock
    count: int = 0

    async def pay(
        self, payer: UserId, payee: UserId, amount_minor: int, memo: str = "", currency: CurrencyCode = EUR
    ) -> PaymentRecord:
        self.count += 1
        id = TransferId(derived_id("test", str(self.count)))
        outcome = await self.payments.pay(PaymentOrder(id, payer, payee, Money(amount_minor, currency), memo))
        assert isinstance(outcome, PaymentRecord), outcome
        return outcome

    async def refund(self, paid: PaymentRecord, amount_minor: int) -> None:
        money = Money(amount_minor, paid.money.currency)
        movement = Movement(
            id=TransferId(derived_id("refund", paid.id)),
            kind=PaymentKind.REFUND,
            payer=paid.payee,
            payee=paid.payer,
            money=money,
            debit=user_account(paid.payee, money.currency),
            credit=user_account(paid.payer, money.currency),
            of=paid.id,
        )
        assert isinstance(await self.payments.till.move(movement), PaymentRecord)


@pytest.fixture
async def past(tmp_path: Path) -> AsyncIterator[Past]:
    database = open_database("sqlite:///wallet.db", folder=tmp_path)
    await migrated(database, CHASSIS_MIGRATIONS, WALLET_MIGRATIONS)
    euro, yen = iso_currency("EUR"), iso_currency("JPY")
    assert euro and yen
    currencies = Currencies([euro, yen])
    clock = SetClock()
    clock.set(2026, 9, 1)

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
        payments = Payments(
            till, service_users=frozenset({WALLET}), payment_max=1_000, user_exists=user_exists
        )
        deposit = TransferId(derived_id("test", "deposit"))
        await payments.deposit(user=ALICE, money=Money(50_000, EUR), id=deposit)
        yield Past(payments, database, clock)
    await database.close()


async def test_a_statement_carries_its_balance_from_line_to_line_and_page_to_page(past: Past) -> None:
    await past.pay(ALICE, BOB, 1_000, "in September")
    past.clock.set(2026, 10, 1)
    for number in range(5):
        await past.pay(ALICE, BOB, 100 + number, f"memo {number}")
    await past.pay(BOB, ALICE, 50)
    past.clock.set(2026, 11, 1)
    await past.pay(ALICE, BOB, 7)
    october = read_period("2026-10")
    assert october is not None
    async with open_statement(past.database, ALICE, EUR, october) as opened:
        statement = opened.statement
        lines = [line async for line in opened.lines()]
        first = [line async for line in opened.lines(limit=2)]
        rest = [line async for line in opened.lines(after=first[-1].position)]
        table = [line async for line in opened.csv(Amounts(past.payments.currencies))]
    assert (statement.opening_minor, statement.in_minor, statement.out_minor) == (49_000, 50, 510)
    assert lines == first + rest
    assert [line.balance_minor for line in lines] == [48_900, 48_799, 48_697, 48_594, 48_490, 48_540]
    assert lines[-1].balance_minor == statement.closing_minor
    assert [line.title for line in lines][-2:] == ["To @bob:a", "From @bob:a"]
    assert len(table) == 7 and table[-1].strip().endswith(",'@bob:a,,0.50,485.40,EUR")


async def test_what_people_wrote_is_no_formula_in_a_statement(past: Past) -> None:
    await past.pay(ALICE, BOB, 100, "=1+1")
    september = read_period("2026-09")
    assert september is not None
    async with open_statement(past.database, ALICE, EUR, september) as opened:
        table = [line async for line in opened.csv(Amounts(past.payments.currencies))]
    assert "'=1+1" in table[-1] and "'@bob:a" in table[-1]


async def test_who_has_no_account_has_an_empty_statement(past: Past) -> None:
    period = read_period("2026")
    assert period is not None
    async with open_statement(past.database, ALICE, JPY, period) as opened:
        assert [line async for line in opened.lines()] == []
        assert opened.statement.closing_minor == 0


@pytest.mark.parametrize("tag", LANGUAGES)
async def test_a_statement_is_set_as_a_pdf_in_every_language(past: Past, tag: str) -> None:
    for memo in ("lunch 🍜", "غداء مع سارة", "x" * 200, "", "漢字"):
        await past.pay(ALICE, BOB, 100, memo)
    period = read_period("2026-09-01..2026-09-02")
    euro = iso_currency("EUR")
    assert period is not None and euro is not None
    async with open_statement(past.database, ALICE, EUR, period) as opened:
        lines = [line async for line in opened.lines()]
    with speaking(tag):
        pdf = statement_pdf(
            opened.statement,
            lines,
            amount=lambda amount_minor: format_minor(amount_minor, euro),
            fonts=VENDOR_FOLDER / "fonts",
            now_ms=past.clock(),
        )
    assert pdf.startswith(b"%PDF-") and pdf.rstrip().endswith(b"%%EOF")


async def test_spending_is_by_the_months_and_categories_of_what_was_paid(past: Past) -> None:
    spending = Spending(past.database)
    lunch = await past.pay(ALICE, BOB, 1_000, "lunch")
    past.clock.set(2026, 10, 15)
    await past.refund(lunch, 300)
    await past.pay(ALICE, BOB, 200)
    await past.pay(BOB, ALICE, 50)
    assert await spending.choose(ALICE, lunch.id, Category.FOOD)
    months = list(reversed(latest_months(past.clock(), 3)))
    shown = await spending.by_month(ALICE, EUR, months)
    assert [month.by_category for month in shown] == [{}, {Category.FOOD: 700}, {Category.PEOPLE: 200}]
    assert [month.total_minor for month in await spending.by_month(BOB, EUR, months)] == [0, 0, 50]


async def test_a_category_is_its_payers_alone(past: Past) -> None:
    spending = Spending(past.database)
    paid = await past.pay(ALICE, BOB, 1_000)
    assert not await spending.choose(BOB, paid.id, Category.FUN)
    assert await spending.choose(ALICE, paid.id, Category.FOOD)
    assert await spending.choose(ALICE, paid.id, Category.HOME)
    assert await spending.category(ALICE, paid.id) is Category.HOME
    assert await spending.category(BOB, paid.id) is None
    assert await spending.choose(ALICE, paid.id, None)
    assert await spending.category(ALICE, paid.id) is None


async def test_a_search_finds_by_person_memo_amount_kind_and_time(past: Past) -> None:
    search = PaymentSearch(past.database, past.payments.currencies)
    carol = UserId("@carol:a")
    await past.pay(ALICE, BOB, 1_250, "Lunch at 50% off")
    past.clock.set(2026, 10, 2)
    await past.pay(ALICE, carol, 300, "bus_ticket")
    await past.pay(BOB, ALICE, 40, "coffee")

    async def found(words: str = "", **sought: object) -> list[int]:
        records = await search.find(ALICE, Sought(words, **sought), limit=10)  # type: ignore[arg-type]
        return [record.money.amount_minor for record in records]

    assert await found() == [40, 300, 1_250, 50_000]
    assert await found("lunch") == [1_250]
    assert await found("carol") == [300]
    assert await found("alice") == [], "one's own name is in all of them, and tells nothing"
    assert await found("12.50") == await found("€12,50") == [1_250]
    assert await found("bob coffee") == [40]
    assert await found("50%") == [1_250] and await found("s_t") == [300] and await found("%") == [1_250]
    assert await found(sort=Sort.SENT) == [300, 1_250]
    assert await found(sort=Sort.RECEIVED) == [40]
    assert await found(sort=Sort.OUTSIDE) == [50_000]
    september = read_period("2026-09")
    assert september is not None
    assert await found(from_ms=september.from_ms, until_ms=september.until_ms) == [1_250, 50_000]
    assert await found("\x00 ' ; --") == []


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("2026-02", ("2026-02-01", "2026-02-28")),
        ("2024", ("2024-01-01", "2024-12-31")),
        ("2026-11-03..2026-11-09", ("2026-11-03", "2026-11-09")),
    ],
)
def test_a_period_is_read_as_it_is_written(text: str, days: tuple[str, str]) -> None:
    period = read_period(text)
    assert period is not None and period.key == text
    assert (str(period.first), str(period.last)) == days


@pytest.mark.parametrize(
    "text", ["", "2026-13", "0000-01", "9999", "2026-02-30..2026-03-01", "2026-03-02..2026-03-01", "٢٠٢٦"]
)
def test_what_is_no_period_is_none(text: str) -> None:
    assert read_period(text) is None


async def test_a_statement_by_chat_is_told_in_private_with_the_way_to_the_whole(past: Past) -> None:
    await past.pay(ALICE, BOB, 1_000, "lunch")
    past.clock.set(2026, 10, 2)
    command = StatementCommand(past.payments, public_url="https://weft.a/")
    members = Members({ALICE: None, BOB: None, WALLET: None}, frozenset(), is_closed=True)
    group = Room(RoomId("!r"), members, frozenset({WALLET}))

    async def said(text: str) -> list[tuple[str, str]]:
        router = CommandRouter(
            service_user=WALLET, service_users=[WALLET], commands=command.commands(), clock=past.clock
        )
        message = IncomingMessage(EventId("$e"), group.room_id, ALICE, text, None)
        writes = await router.route(message, group, StoredEvent(1, group.room_id, EventId("$e"), {}, 0))
        rows = [write.parameters for write in writes or ()]
        return [(row["room_id"] or row["to_user"], json.loads(row["content"])["body"]) for row in rows]

    private, public = await said("!statement 2026-09")
    assert private == (
        ALICE,
        "Statement of September 2026\n€0.00 before, +€500.00 in, −€10.00 out, €490.00 after\n"
        "Every line of it, as PDF and CSV: https://weft.a/wallet/statement?period=2026-09",
    )
    assert public == (group.room_id, "I have answered you in our direct room.")
    assert "October 2026\n€490.00 before" in (await said("!statement"))[0][1]
    (wrong,) = await said("!statement soon")
    assert wrong[1].startswith("!statement takes a month or a year")
