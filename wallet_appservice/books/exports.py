"""The journal as CSV and as a beancount file, line by line: neither is ever whole in memory."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from appservices.vocabulary.money import Currency, CurrencyCode, iso_currency
from wallet_appservice.books.chart import CHART
from wallet_appservice.books.reports import BookAccount, Books, JournalEntry

CSV_COLUMNS: Final = (
    "position", "time", "id", "mode", "code",
    "debit_account", "debit_kind", "debit_owner",
    "credit_account", "credit_kind", "credit_owner",
    "amount", "currency", "pending_id", "memo",
)  # fmt: skip
_OPENED: Final = "1970-01-01"
_NAME_ID_DIGITS: Final = 16
_NAME_LENGTH_MAX: Final = 60
_WORDS_OF_BEANCOUNT: Final = frozenset({"TRUE", "FALSE", "NULL"})
# What a spreadsheet would take for a formula.
_FORMULA = re.compile(r"[=+\-@\t\r]")
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9]+")


class Amounts:
    """Minor units as decimals, by the wallet's own currencies, ISO 4217 for those it no longer keeps, and
    whole numbers for what nobody knows."""

    def __init__(self, currencies: Mapping[CurrencyCode, Currency]) -> None:
        self._exponents = {code: currency.exponent for code, currency in currencies.items()}

    def text(self, amount_minor: int, code: str) -> str:
        """`12.50`, `-0.05`, exact."""
        return f"{Decimal(amount_minor).scaleb(-self.exponent(code)):f}"

    def exponent(self, code: str) -> int:
        if code not in self._exponents:
            known = iso_currency(code)
            self._exponents[CurrencyCode(code)] = known.exponent if known else 0
        return self._exponents[CurrencyCode(code)]


async def csv_lines(books: Books, amounts: Amounts) -> AsyncIterator[str]:
    """Every transfer, also those that only hold or release money: `mode` tells."""
    yield csv_line(CSV_COLUMNS)
    async for entry in books.journal():
        yield csv_line(
            (
                str(entry.position),
                time_text(entry.at_ms),
                entry.id,
                entry.mode,
                entry.code,
                *_sides(entry),
                amounts.text(entry.amount_minor, entry.currency),
                entry.currency,
                entry.pending_id or "",
                safe_cell(entry.memo),
            )
        )


async def beancount_lines(books: Books, amounts: Amounts, *, title: str) -> AsyncIterator[str]:
    """Every transfer that moved money, and the balance of each account after the last day, to the last unit.

    Debits are positive, as beancount has it, so what people own is negative.
    """
    yield f'option "title" {_quoted(title)}\n\n'
    async for account in books.accounts():
        yield (
            f"{_OPENED} open {beancount_account(account)} {_commodity(account.currency)}\n"
            f"  owner: {_quoted(account.owner)}\n"
        )
    last_ms = 0
    async for entry in books.journal():
        last_ms = max(last_ms, entry.at_ms)
        if entry.moves:
            yield _transaction(entry, amounts)
    day = (datetime.fromtimestamp(last_ms / 1000, UTC) + timedelta(days=1)).date()
    yield "\n"
    async for account in books.accounts():
        balance = amounts.text(account.debits_minor - account.credits_minor, account.currency)
        yield f"{day} balance {beancount_account(account)}  {balance} ~ 0 {_commodity(account.currency)}\n"


def beancount_account(account: BookAccount) -> str:
    """`Liabilities:Users:Alice-example-org-` and digits of the id, which keep like names apart."""
    entry = CHART[account.kind]
    name = _NOT_IN_NAME.sub("-", account.owner).strip("-")[:_NAME_LENGTH_MAX] or "X"
    return f"{entry.section}:{entry.name}:{name[0].upper()}{name[1:]}-{account.id[:_NAME_ID_DIGITS]}"


def csv_line(cells: tuple[str, ...]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(cells)
    return buffer.getvalue()


def safe_cell(text: str) -> str:
    """What people wrote, for a spreadsheet: an apostrophe keeps it from being calculated."""
    return f"'{text}" if _FORMULA.match(text) else text


def time_text(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _sides(entry: JournalEntry) -> tuple[str, ...]:
    return tuple(
        cell
        for account in (entry.debit, entry.credit)
        for cell in (account.id, account.kind.value, account.owner)
    )


def _transaction(entry: JournalEntry, amounts: Amounts) -> str:
    day = datetime.fromtimestamp(entry.at_ms / 1000, UTC).date()
    amount, commodity = amounts.text(entry.amount_minor, entry.currency), _commodity(entry.currency)
    return (
        f"\n{day} * {_quoted(entry.code)} {_quoted(entry.memo)}\n"
        f"  transfer: {_quoted(entry.id)}\n"
        f"  position: {entry.position}\n"
        f"  {beancount_account(entry.debit)}  {amount} {commodity}\n"
        f"  {beancount_account(entry.credit)}  -{amount} {commodity}\n"
    )


def _commodity(code: str) -> str:
    return f"{code}-C" if code in _WORDS_OF_BEANCOUNT else code


def _quoted(text: str) -> str:
    printable = "".join(character if character.isprintable() else " " for character in text)
    return '"' + printable.replace("\\", "\\\\").replace('"', '\\"') + '"'
