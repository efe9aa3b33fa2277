"""A person's own statement: what was there, each thing that moved it, what is there. See also `reports`.

It is read from the ledger; the payments only say who and what for. Held money counts as there until it has
moved.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from appservices.chassis.database import Database
from appservices.vocabulary.ids import UserId
from appservices.vocabulary.languages import _
from appservices.vocabulary.money import CurrencyCode
from wallet_appservice.books.exports import Amounts, csv_line, safe_cell, time_text
from wallet_appservice.books.periods import Period
from wallet_appservice.books.reports import BookAccount, Books, JournalEntry, Told, open_books
from wallet_appservice.ledger.values import AccountKind

CSV_COLUMNS: Final = ("time", "id", "kind", "with", "memo", "amount", "balance", "currency")


@dataclass(frozen=True, slots=True, kw_only=True)
class UserStatement:
    """One currency over a period. `account` is None for who has none: nothing was ever there."""

    user: UserId
    currency: CurrencyCode
    period: Period
    account: BookAccount | None
    opening_minor: int
    in_minor: int
    out_minor: int
    lines_count: int

    @property
    def closing_minor(self) -> int:
        return self.opening_minor + self.in_minor - self.out_minor


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementLine:
    """What moved the money once. `amount_minor` is negative where it left; `position` pages."""

    position: int
    at_ms: int
    payment_id: str
    kind: str
    counterparty: str
    memo: str
    amount_minor: int
    balance_minor: int

    @property
    def title(self) -> str:
        """What it was, for people, with the other one's whole id."""
        return self.titled(self.counterparty)

    @property
    def is_with_somebody(self) -> bool:
        """Whether the other one is a person and not the wallet itself."""
        return self.kind in ("payment", "refund")

    def titled(self, name: str) -> str:
        """The same with another way of writing the other one's name."""
        incoming = self.amount_minor > 0
        sentence = {
            "deposit": _("Deposit"),
            "withdrawal": _("Withdrawal"),
            "red_packet": _("Red packet"),
            "share": _("Found in a red packet"),
            "refund": _("Refund from {name}") if incoming else _("Refund to {name}"),
            "return": _("Given back"),
            "payout": _("Taken out of {name}"),
        }.get(self.kind, _("From {name}") if incoming else _("To {name}"))
        return sentence.format(name=name)


class UserStatements:
    """One moment of one person's account; see `open_statement`."""

    def __init__(self, books: Books, statement: UserStatement) -> None:
        self._books = books
        self.statement = statement

    async def lines(self, *, after: int = 0, limit: int | None = None) -> AsyncIterator[StatementLine]:
        """In the ledger's order, from the one after that position."""
        account, period = self.statement.account, self.statement.period
        if account is None:
            return
        balance = self.statement.opening_minor
        if after:
            balance += await self._books.moved_until(
                account, from_ms=period.from_ms, until_ms=period.until_ms, position=after
            )
        count = 0
        async for entry in self._books.statement_entries(
            account, from_ms=period.from_ms, until_ms=period.until_ms, after=after
        ):
            if limit is not None and count >= limit:
                return
            count += 1
            line = _line(entry, account, balance)
            balance = line.balance_minor
            yield line

    async def csv(self, amounts: Amounts) -> AsyncIterator[str]:
        """A line at a time; the first and last ones of the account bear the balances."""
        code = self.statement.currency
        yield csv_line(CSV_COLUMNS)
        async for line in self.lines():
            yield csv_line(
                (
                    time_text(line.at_ms),
                    line.payment_id,
                    line.kind,
                    safe_cell(line.counterparty),
                    safe_cell(line.memo),
                    amounts.text(line.amount_minor, code),
                    amounts.text(line.balance_minor, code),
                    code,
                )
            )


@asynccontextmanager
async def open_statement(
    database: Database, user: UserId, currency: CurrencyCode, period: Period
) -> AsyncIterator[UserStatements]:
    """The user's account as it is now; payments that are made meanwhile are not in it."""
    async with open_books(database) as books:
        account = _own(await books.accounts_of(user), currency)
        sums = (
            await books.statement(account, from_ms=period.from_ms, until_ms=period.until_ms)
            if account is not None
            else None
        )
        yield UserStatements(
            books,
            UserStatement(
                user=user,
                currency=currency,
                period=period,
                account=account,
                opening_minor=sums.opening_minor if sums else 0,
                in_minor=sums.credits_minor if sums else 0,
                out_minor=sums.debits_minor if sums else 0,
                lines_count=sums.entries_count if sums else 0,
            ),
        )


def _own(accounts: Sequence[BookAccount], currency: CurrencyCode) -> BookAccount | None:
    return next(
        (
            account
            for account in accounts
            if account.kind is AccountKind.USER and account.currency == currency
        ),
        None,
    )


def _line(entry: JournalEntry, account: BookAccount, balance_minor: int) -> StatementLine:
    incoming = entry.credit.id == account.id
    other = entry.debit if incoming else entry.credit
    told = entry.told or Told(kind=entry.code, payer=other.owner, payee=other.owner, memo="")
    amount_minor = entry.amount_minor if incoming else -entry.amount_minor
    return StatementLine(
        position=entry.position,
        at_ms=entry.at_ms,
        payment_id=entry.pending_id or entry.id,
        kind=told.kind,
        counterparty=told.merchant or (told.payer if incoming else told.payee),
        memo=told.memo,
        amount_minor=amount_minor,
        balance_minor=balance_minor + amount_minor,
    )
