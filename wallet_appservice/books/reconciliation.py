"""A merchant's day as a CSV file that adds up to the ledger to the last minor unit.

Every movement of the merchant's account in that day, with the balance after it, between the opening and the
closing balance, both computed from the ledger's transfers alone. It can be made at any time, for any day; for
a day that has not ended it ends with what is there now.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, tzinfo
from typing import Any, Final

from sqlalchemy import Row, select

from appservices.chassis.database import Database, UnitOfWork
from appservices.vocabulary.ids import AccountId
from wallet_appservice.books.exports import Amounts, csv_line, safe_cell, time_text
from wallet_appservice.books.reports import Books, JournalEntry
from wallet_appservice.storage.merchant_tables import merchant_orders, merchant_refunds
from wallet_appservice.storage.payment_tables import payments

RECONCILIATION_COLUMNS: Final = (
    "time", "position", "kind", "payment_id", "order_id", "reference", "refund_number",
    "counterparty", "amount", "currency", "balance", "memo",
)  # fmt: skip
PAGE_ENTRIES: Final = 500
OPENING, CLOSING, TOTAL = "opening_balance", "closing_balance", "total_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """A calendar day of some time zone."""

    date: date
    zone: tzinfo

    @property
    def from_ms(self) -> int:
        return _midnight_ms(self.date, self.zone)

    @property
    def until_ms(self) -> int:
        return _midnight_ms(self.date + timedelta(days=1), self.zone)


async def reconciliation_lines(
    database: Database, account_id: AccountId, *, currency: str, day: Day, amounts: Amounts
) -> AsyncIterator[str]:
    """The file's lines. Totals stand before the closing balance, one for each kind that there was."""
    async with database.read() as work:
        yield csv_line(RECONCILIATION_COLUMNS)
        books = Books(work)
        account = await books.account(account_id)
        if account is None:
            # It has never had any of this currency.
            for kind, at_ms in ((OPENING, day.from_ms), (CLOSING, day.until_ms)):
                yield _sum_line(kind, at_ms=at_ms, currency=currency, balance=amounts.text(0, currency))
            return
        statement = await books.statement(account, from_ms=day.from_ms, until_ms=day.until_ms)
        running = _Running(statement.opening_minor)
        opening = amounts.text(statement.opening_minor, currency)
        yield _sum_line(OPENING, at_ms=day.from_ms, currency=currency, balance=opening)
        page: list[JournalEntry] = []
        entries = books.statement_entries(account, from_ms=day.from_ms, until_ms=day.until_ms)
        async for entry in entries:
            page.append(entry)
            if len(page) == PAGE_ENTRIES:
                for line in await _page(work, page, account_id, running, amounts):
                    yield line
                page = []
        for line in await _page(work, page, account_id, running, amounts):
            yield line
        for kind, total_minor in running.totals.items():
            amount = amounts.text(total_minor, currency)
            yield _sum_line(TOTAL + kind, at_ms=day.until_ms, currency=currency, amount=amount)
        if running.balance_minor != statement.closing_minor:
            raise RuntimeError(f"the movements of account {account_id} do not add up to its balance")
        closing = amounts.text(statement.closing_minor, currency)
        yield _sum_line(CLOSING, at_ms=day.until_ms, currency=currency, balance=closing)


@dataclass(slots=True)
class _Running:
    """The balance after the movements so far, and what they come to by kind."""

    balance_minor: int
    totals: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, signed_minor: int) -> None:
        self.balance_minor += signed_minor
        self.totals[kind] = self.totals.get(kind, 0) + signed_minor


async def _page(
    work: UnitOfWork,
    entries: Sequence[JournalEntry],
    account_id: AccountId,
    running: _Running,
    amounts: Amounts,
) -> list[str]:
    """Each movement's line."""
    if not entries:
        return []
    paid = await _by_id(work, payments, [entry.id for entry in entries])
    subjects = [str(row.subject).partition(":") for row in paid.values()]
    refunds = await _by_id(work, merchant_refunds, [id for kind, _, id in subjects if kind == "refund"])
    order_ids = [id for kind, _, id in subjects if kind == "order"]
    orders = await _by_id(work, merchant_orders, [*order_ids, *(row.order_id for row in refunds.values())])
    lines = []
    for entry in entries:
        is_income = entry.credit.id == account_id
        signed_minor = entry.amount_minor if is_income else -entry.amount_minor
        row = paid.get(entry.id)
        kind = entry.code if row is None else str(row.kind)
        running.add(kind, signed_minor)
        about, _, about_id = ("", "", "") if row is None else str(row.subject).partition(":")
        refund = refunds.get(about_id) if about == "refund" else None
        order_id = refund.order_id if refund is not None else about_id if about == "order" else ""
        order = orders.get(order_id)
        cells = (
            time_text(entry.at_ms),
            str(entry.position),
            kind,
            entry.id,
            order_id,
            "" if order is None else safe_cell(order.reference),
            "" if refund is None else safe_cell(refund.refund_number),
            safe_cell((entry.debit if is_income else entry.credit).owner),
            amounts.text(signed_minor, entry.currency),
            entry.currency,
            amounts.text(running.balance_minor, entry.currency),
            safe_cell(entry.memo),
        )
        lines.append(csv_line(cells))
    return lines


async def _by_id(work: UnitOfWork, table: Any, ids: Sequence[str]) -> Mapping[str, Row[Any]]:
    if not ids:
        return {}
    found = await work.execute(select(table).where(table.c.id.in_(list(dict.fromkeys(ids)))))
    return {row.id: row for row in found}


def _sum_line(kind: str, *, at_ms: int, currency: str, amount: str = "", balance: str = "") -> str:
    cells = (time_text(at_ms), "", kind, "", "", "", "", "", amount, currency, balance, "")
    return csv_line(cells)


def _midnight_ms(day: date, zone: tzinfo) -> int:
    return int(datetime.combine(day, time(), zone).timestamp() * 1000)
