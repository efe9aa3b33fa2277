"""Trial balance, statements and the journal, read page by page from one moment of the database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, func, select, union_all

from appservices.chassis.database import Database, UnitOfWork
from appservices.vocabulary.ids import AccountId
from wallet_appservice.ledger.values import AccountKind, TransferMode
from wallet_appservice.storage.ledger_sums import kind_totals
from wallet_appservice.storage.ledger_tables import ledger_accounts, ledger_head, ledger_transfers
from wallet_appservice.storage.merchant_tables import merchants
from wallet_appservice.storage.payment_tables import payments

PAGE_ROWS: Final = 1_000
MOVING_MODES: Final = (TransferMode.SINGLE_PHASE.value, TransferMode.POST_PENDING.value)
"""Those transfers that move money; the others hold it or release it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialBalanceLine:
    """All accounts of a kind: what was debited and credited, in minor units. Nothing that is only held."""

    currency: str
    kind: AccountKind
    accounts_count: int
    debits_minor: int
    credits_minor: int

    @property
    def debit_balance_minor(self) -> int:
        return max(self.debits_minor - self.credits_minor, 0)

    @property
    def credit_balance_minor(self) -> int:
        return max(self.credits_minor - self.debits_minor, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class BookAccount:
    id: AccountId
    kind: AccountKind
    owner: str
    currency: str
    debits_minor: int
    credits_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a payment says of its transfer."""

    kind: str
    payer: str
    payee: str
    memo: str
    merchant: str = ""
    """The name of the merchant in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One transfer with its accounts, and what the payment says of it, if it is one."""

    position: int
    at_ms: int
    id: str
    mode: str
    code: str
    debit: BookAccount
    credit: BookAccount
    amount_minor: int
    currency: str
    pending_id: str | None
    told: Told | None = None

    @property
    def memo(self) -> str:
        return self.told.memo if self.told else ""

    @property
    def moves(self) -> bool:
        return self.mode in MOVING_MODES


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """An account over a period. Balances are credits less debits: what it holds, for a person."""

    account: BookAccount
    opening_minor: int
    debits_minor: int
    credits_minor: int
    entries_count: int

    @property
    def closing_minor(self) -> int:
        return self.opening_minor + self.credits_minor - self.debits_minor


class Books:
    """One moment of the ledger's books; see `open_books`."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work

    async def trial_balance(self) -> list[TrialBalanceLine]:
        """By currency and kind. In each currency, debits and credits add up to the same."""
        return [
            TrialBalanceLine(
                currency=total.currency,
                kind=AccountKind(total.kind),
                accounts_count=total.accounts_count,
                debits_minor=total.sums["debits_posted"],
                credits_minor=total.sums["credits_posted"],
            )
            for total in await kind_totals(self._work)
        ]

    async def transfers_count(self) -> int:
        return int((await self._work.execute(select(ledger_head.c.position))).scalar_one())

    async def accounts_of(self, owner: str) -> list[BookAccount]:
        query = (
            select(ledger_accounts)
            .where(ledger_accounts.c.owner == owner)
            .order_by(ledger_accounts.c.currency, ledger_accounts.c.kind, ledger_accounts.c.id)
        )
        return [_account(row) for row in await self._work.execute(query)]

    async def account(self, id: AccountId) -> BookAccount | None:
        found = await self._accounts([id])
        return found.get(id)

    async def accounts(self) -> AsyncIterator[BookAccount]:
        """All of them, by id."""
        query = select(ledger_accounts).order_by(ledger_accounts.c.id).limit(PAGE_ROWS)
        page = (await self._work.execute(query)).all()
        while page:
            for row in page:
                yield _account(row)
            page = (await self._work.execute(query.where(ledger_accounts.c.id > page[-1].id))).all()

    async def statement(self, account: BookAccount, *, from_ms: int, until_ms: int) -> Statement:
        """The period begins at `from_ms` and ends before `until_ms`, by the times that transfers bear."""
        earlier = ledger_transfers.c.at_ms < from_ms
        debits_before, _ = await self._sum(ledger_transfers.c.debit_account_id == account.id, earlier)
        credits_before, _ = await self._sum(ledger_transfers.c.credit_account_id == account.id, earlier)
        within = _within(from_ms, until_ms)
        debits, debits_count = await self._sum(ledger_transfers.c.debit_account_id == account.id, within)
        credits, credits_count = await self._sum(ledger_transfers.c.credit_account_id == account.id, within)
        return Statement(
            account=account,
            opening_minor=credits_before - debits_before,
            debits_minor=debits,
            credits_minor=credits,
            entries_count=debits_count + credits_count,
        )

    async def moved_until(self, account: BookAccount, *, from_ms: int, until_ms: int, position: int) -> int:
        """Credits less debits of that period, up to and with that position."""
        within = _within(from_ms, until_ms) & (ledger_transfers.c.position <= position)
        debits, _ = await self._sum(ledger_transfers.c.debit_account_id == account.id, within)
        credits, _ = await self._sum(ledger_transfers.c.credit_account_id == account.id, within)
        return credits - debits

    async def statement_entries(
        self, account: BookAccount, *, from_ms: int, until_ms: int, after: int = 0
    ) -> AsyncIterator[JournalEntry]:
        """What moved the account's money in that period, in the ledger's order, after that position."""
        while True:
            # A page of either side by its own index, then the first of both: no page reads all that follows.
            sides = union_all(
                *(
                    select(
                        select(ledger_transfers.c.position)
                        .where(
                            column == account.id,
                            ledger_transfers.c.position > after,
                            ledger_transfers.c.mode.in_(MOVING_MODES),
                            _within(from_ms, until_ms),
                        )
                        .order_by(ledger_transfers.c.position)
                        .limit(PAGE_ROWS)
                        .subquery()
                        .c.position
                    )
                    for column in (ledger_transfers.c.debit_account_id, ledger_transfers.c.credit_account_id)
                )
            ).subquery()
            positions = select(sides.c.position).order_by(sides.c.position).limit(PAGE_ROWS)
            page = await self._page(ledger_transfers.c.position.in_(positions))
            if not page:
                return
            after = page[-1].position
            for entry in await self._entries(page):
                yield entry

    async def journal(self) -> AsyncIterator[JournalEntry]:
        """Every transfer, in the ledger's order."""
        after = 0
        while page := await self._page(ledger_transfers.c.position > after):
            after = page[-1].position
            for entry in await self._entries(page):
                yield entry

    async def _page(self, condition: ColumnElement[bool]) -> Sequence[Row[Any]]:
        query = (
            select(ledger_transfers).where(condition).order_by(ledger_transfers.c.position).limit(PAGE_ROWS)
        )
        return (await self._work.execute(query)).all()

    async def _entries(self, rows: Sequence[Row[Any]]) -> list[JournalEntry]:
        accounts = await self._accounts(
            {id for row in rows for id in (row.debit_account_id, row.credit_account_id)}
        )
        # Money that was held moves by a transfer of its own; the payment has the first one's id.
        ids = {row.pending_id or row.id for row in rows}
        table = payments.c
        about = (
            select(table.id, table.kind, table.payer, table.payee, table.memo, merchants.c.name)
            .select_from(payments.outerjoin(merchants, merchants.c.id == table.merchant_id))
            .where(table.id.in_(ids))
        )
        told = {
            row.id: Told(
                kind=row.kind, payer=row.payer, payee=row.payee, memo=row.memo, merchant=row.name or ""
            )
            for row in await self._work.execute(about)
        }
        return [
            JournalEntry(
                position=row.position,
                at_ms=row.at_ms,
                id=row.id,
                mode=row.mode,
                code=row.code,
                debit=accounts[row.debit_account_id],
                credit=accounts[row.credit_account_id],
                amount_minor=row.amount_minor,
                currency=row.currency,
                pending_id=row.pending_id,
                told=told.get(row.pending_id or row.id),
            )
            for row in rows
        ]

    async def _accounts(self, ids: Iterable[str]) -> Mapping[str, BookAccount]:
        query = select(ledger_accounts).where(ledger_accounts.c.id.in_(list(ids)))
        return {row.id: _account(row) for row in await self._work.execute(query)}

    async def _sum(self, side: ColumnElement[bool], time: ColumnElement[bool]) -> tuple[int, int]:
        # An account's debits and its credits each fit into 63 bits, so these sums do.
        amount = func.sum(ledger_transfers.c.amount_minor).label("amount")
        query = select(amount, func.count().label("entries")).where(
            side, time, ledger_transfers.c.mode.in_(MOVING_MODES)
        )
        row = (await self._work.execute(query)).one()
        return int(row.amount or 0), int(row.entries)


@asynccontextmanager
async def open_books(database: Database) -> AsyncIterator[Books]:
    """The books as they are now; payments that are made meanwhile are not in them."""
    async with database.read() as work:
        yield Books(work)


def _within(from_ms: int, until_ms: int) -> ColumnElement[bool]:
    return (ledger_transfers.c.at_ms >= from_ms) & (ledger_transfers.c.at_ms < until_ms)


def _account(row: Row[Any]) -> BookAccount:
    return BookAccount(
        id=AccountId(row.id),
        kind=AccountKind(row.kind),
        owner=row.owner,
        currency=row.currency,
        debits_minor=row.debits_posted,
        credits_minor=row.credits_posted,
    )
