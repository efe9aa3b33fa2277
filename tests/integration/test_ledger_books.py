"""The books on both databases, and that beancount itself accepts what is exported for it."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import insert

from appservices.chassis.database import Database, Write
from appservices.vocabulary.money import Currencies, Currency, CurrencyCode, iso_currency
from tests.ledger_samples import ALICE, BOB, ISSUANCE, deposit, payment, transfer_id
from wallet_appservice.books.chart import CHART
from wallet_appservice.books.exports import (
    CSV_COLUMNS,
    Amounts,
    beancount_account,
    beancount_lines,
    csv_lines,
    safe_cell,
)
from wallet_appservice.books.reports import Books, open_books
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.ledger.submissions import Submission
from wallet_appservice.ledger.values import (
    AccountKind,
    NewAccount,
    Transfer,
    TransferCode,
    TransferMode,
    account_for,
    posting_of,
    voiding_of,
)
from wallet_appservice.storage.ledger_store import SqlLedgerStore
from wallet_appservice.storage.payment_tables import payments

pytest_plugins = ["tests.database_fixtures"]

EURO = iso_currency("EUR")
assert EURO is not None
TRUTH = Currency(CurrencyCode("TRUE"), 0, "TRUE")
AMOUNTS = Amounts(Currencies([EURO, TRUTH]))
CHECK = Path(sys.executable).with_name("bean-check")
SHOP = account_for(AccountKind.MERCHANT, owner="@tea-shop:a.example", currency=ALICE.currency)
TRUTHS = account_for(AccountKind.ISSUANCE, owner="issuance", currency=TRUTH.code)
ALICES_TRUTHS = account_for(AccountKind.USER, owner=ALICE.owner, currency=TRUTH.code)
MEMO = '=HYPERLINK("x") ä \\ \n "tea"'
HELD = payment("held", ALICE, SHOP, 2_000, mode=TransferMode.PENDING, timeout_seconds=60)
KEPT = payment("kept", ALICE, SHOP, 500, mode=TransferMode.PENDING, timeout_seconds=60)


def ms(day: int, hour: int = 0) -> int:
    return int(datetime(2026, 3, day, hour, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
async def used(ledger_database: Database) -> Database:
    """Payments on the 1st, 2nd and 3rd of March 2026, the second day's by a clock that stepped back."""
    now = ms(1)

    async def submit(at_ms: int, *transfers: Transfer, accounts: tuple[NewAccount, ...] = ()) -> None:
        nonlocal now
        now = at_ms
        results = await ledger.submit(Submission(transfers=transfers, accounts=accounts))
        assert [result.refusal for result in results] == [None] * len(transfers)

    store = SqlLedgerStore(ledger_database)
    async with Ledger[Write](store, clock=lambda: now) as ledger:
        everyone = (ISSUANCE, ALICE, BOB, SHOP, TRUTHS, ALICES_TRUTHS)
        await submit(ms(1), deposit("salary", ALICE, 10_000), accounts=everyone)
        await submit(ms(3), payment("tea", ALICE, BOB, 125))
        await submit(ms(2), payment("back", BOB, ALICE, 25), HELD, KEPT)
        await submit(ms(2), posting_of(HELD, id=transfer_id("post"), amount_minor=1_500))
        await submit(ms(2), voiding_of(KEPT, id=transfer_id("void")))
        await submit(ms(3), payment("truth", TRUTHS, ALICES_TRUTHS, 7, code=TransferCode.DEPOSIT))
    async with ledger_database.begin() as work:
        await work.execute(
            insert(payments),
            {
                "id": transfer_id("tea"), "kind": "payment", "state": "posted", "payer": ALICE.owner,
                "payee": BOB.owner, "amount_minor": 125, "currency": "EUR", "memo": MEMO, "room_id": None,
                "at_ms": ms(3), "receipt": "{}",
            },
        )  # fmt: skip
        await work.commit()
    return ledger_database


@pytest.fixture
async def books(used: Database) -> AsyncIterator[Books]:
    async with open_books(used) as opened:
        yield opened


async def written(lines: AsyncIterator[str]) -> str:
    return "".join([line async for line in lines])


def bean_check(content: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = folder / "weft.beancount"
    path.write_text(content, encoding="utf-8")
    return subprocess.run([CHECK, path], capture_output=True, text=True, check=False)


def test_every_kind_of_account_has_its_place_in_the_chart() -> None:
    assert set(CHART) == set(AccountKind)


async def test_debits_and_credits_of_a_trial_balance_are_equal(books: Books) -> None:
    lines = await books.trial_balance()
    for currency in ("EUR", "TRUE"):
        own = [line for line in lines if line.currency == currency]
        assert sum(line.debits_minor for line in own) == sum(line.credits_minor for line in own) > 0
        assert sum(line.debit_balance_minor for line in own) == sum(line.credit_balance_minor for line in own)
    [users] = [line for line in lines if line.kind is AccountKind.USER and line.currency == "EUR"]
    assert (users.accounts_count, users.credit_balance_minor, users.debit_balance_minor) == (2, 8_500, 0)


async def test_a_statement_has_what_moved_between_opening_and_closing_balance(books: Books) -> None:
    account = await books.account(ALICE.id)
    assert account is not None
    whole = await books.statement(account, from_ms=0, until_ms=ms(9))
    assert (whole.opening_minor, whole.closing_minor, whole.entries_count) == (0, 8_400, 4)
    second = await books.statement(account, from_ms=ms(2), until_ms=ms(3))
    assert (second.opening_minor, second.debits_minor, second.credits_minor) == (10_000, 1_500, 25)
    entries = [entry async for entry in books.statement_entries(account, from_ms=ms(2), until_ms=ms(3))]
    assert [entry.id for entry in entries] == [transfer_id("back"), transfer_id("post")]
    third = await books.statement(account, from_ms=ms(3), until_ms=ms(4))
    assert (third.opening_minor, third.closing_minor) == (second.closing_minor, 8_400)
    [tea] = [entry async for entry in books.statement_entries(account, from_ms=ms(3), until_ms=ms(4))]
    assert (tea.memo, tea.credit.owner) == (MEMO, BOB.owner)


async def test_a_long_statement_comes_page_by_page_in_order(
    ledger: Ledger[Write], ledger_database: Database
) -> None:
    transfers = [deposit("all", ALICE, 5_000)]
    for number in range(2_100):
        debit, credit = (ALICE, BOB) if number % 3 else (BOB, ALICE)
        transfers.append(payment(str(number), debit, credit, 1))
    transfers.insert(1, deposit("bob", BOB, 5_000))
    await ledger.submit(Submission(transfers=tuple(transfers)))
    async with open_books(ledger_database) as books:
        account = await books.account(ALICE.id)
        assert account is not None
        entries = [entry async for entry in books.statement_entries(account, from_ms=0, until_ms=2**60)]
        assert [entry.position for entry in entries] == [1, *range(3, 2_103)]
        assert len([entry async for entry in books.journal()]) == 2_102


async def test_csv_has_every_transfer_and_no_formulas(books: Books) -> None:
    rows = list(csv.DictReader(io.StringIO(await written(csv_lines(books, AMOUNTS)), newline="")))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [row["position"] for row in rows] == [str(number) for number in range(1, 9)]
    assert (rows[0]["amount"], rows[1]["amount"], rows[7]["amount"]) == ("100.00", "1.25", "7")
    assert rows[1]["memo"] == f"'{MEMO}"
    assert (rows[5]["mode"], rows[5]["pending_id"]) == ("post_pending", HELD.id)
    assert rows[1]["time"] == "2026-03-03T00:00:00.000+00:00"


async def test_beancount_accepts_the_export_and_finds_a_cent_that_is_missing(
    books: Books, tmp_path: Path
) -> None:
    content = await written(beancount_lines(books, AMOUNTS, title='A "wallet"'))
    done = bean_check(content, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    changed = content.replace("  15.00 EUR", "  14.99 EUR").replace("  -15.00 EUR", "  -14.99 EUR")
    assert changed != content
    done = bean_check(changed, tmp_path)
    assert done.returncode != 0
    assert "Balance failed" in done.stderr


async def test_beancount_accepts_an_empty_ledger(ledger_database: Database, tmp_path: Path) -> None:
    async with open_books(ledger_database) as books:
        done = bean_check(await written(beancount_lines(books, AMOUNTS, title="Empty")), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


async def test_accounts_of_like_names_stay_apart_in_beancount(
    ledger: Ledger[Write], ledger_database: Database
) -> None:
    owners = ("@a.b:a.example", "@a-b:a.example", "@ä:a.example", "@ö:a.example", "@_:a.example", "-")
    await ledger.open_accounts(
        *(account_for(AccountKind.USER, owner=owner, currency=ALICE.currency) for owner in owners)
    )
    async with open_books(ledger_database) as books:
        names = [beancount_account(account) async for account in books.accounts()]
    assert len(set(names)) == len(names) == 3 + len(owners)


def test_a_currency_that_is_no_longer_kept_is_still_written_exactly() -> None:
    assert AMOUNTS.text(1_234, "JPY") == "1234"
    assert AMOUNTS.text(-5, "USD") == "-0.05"
    assert AMOUNTS.text(5, "HOURS") == "5"
    assert AMOUNTS.text(2**63 - 1, "EUR") == "92233720368547758.07"


@pytest.mark.parametrize("memo", ["=1+1", "+1", "-1", "@x", "\t=1"])
def test_what_a_spreadsheet_would_calculate_is_kept_as_text(memo: str) -> None:
    assert safe_cell(memo) == f"'{memo}"
