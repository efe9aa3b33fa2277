"""Proves the ledger from its transfers alone: what `weft wallet verify` runs.

It shares no code with the rules that made the transfers: it reads them one after another, adds up what every
account must hold, follows the hash chain, and compares, with checkpoints too. It changes nothing, needs no
lock, and sees one moment of the database while payments go on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Row, Select, Table, bindparam, func, select

from appservices.chassis.database import Database, UnitOfWork
from wallet_appservice.storage.chain_check import ChainCheck
from wallet_appservice.storage.checkpoint_check import CheckpointCheck, CheckpointSigner
from wallet_appservice.storage.ledger_chain import ledger_chain, record_of_account
from wallet_appservice.storage.ledger_checkpoints import Checkpoint, stored_contents
from wallet_appservice.storage.ledger_difference import Difference, Differs
from wallet_appservice.storage.ledger_sums import SUM_NAMES
from wallet_appservice.storage.ledger_tables import (
    HEAD_ID,
    ledger_accounts,
    ledger_head,
    ledger_open_pending,
    ledger_refusals,
    ledger_transfers,
)
from wallet_appservice.storage.payment_check import check_payments

PAGE_ROWS: Final = 5_000
CHAIN_PAGE_ROWS: Final = 200
"""A row of the chain may hold 20 KB of marks."""


@dataclass(frozen=True, slots=True)
class LedgerCheck:
    """The outcome: right when `difference` is None. Counts are of what was checked until then."""

    accounts_count: int
    transfers_count: int
    position: int
    batches_count: int
    link: str
    """Of the chain, after the last batch that was found right."""
    checkpoints_count: int
    difference: Difference | None
    in_circulation_minor: Mapping[str, int]
    """By currency: what accounts hold in credit, which equals what others owe."""

    @property
    def is_right(self) -> bool:
        return self.difference is None


async def verify(
    database: Database,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    *,
    signer: CheckpointSigner | None = None,
    checkpoints: Sequence[Checkpoint] = (),
) -> LedgerCheck:
    """Recomputes the ledger. `on_progress` gets the rows done and the rows in all, transfers and accounts.

    Stored checkpoints are checked as well if it is known who signs them, and so are the given ones.
    """
    async with database.read() as work:
        return await _Check(work, on_progress).run(signer, checkpoints)


@dataclass(slots=True)
class _Account:
    kind: str
    currency: str
    debits_may_not_exceed: bool
    credits_may_not_exceed: bool
    sums: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SUM_NAMES, 0))

    def broken_limit(self) -> str | None:
        debits = self.sums["debits_pending"] + self.sums["debits_posted"]
        credits = self.sums["credits_pending"] + self.sums["credits_posted"]
        if min(self.sums.values()) < 0:
            return "it makes a sum negative"
        if self.debits_may_not_exceed and debits > self.sums["credits_posted"]:
            return "it overdraws the account"
        if self.credits_may_not_exceed and credits > self.sums["debits_posted"]:
            return "it overfills the account"
        return None


class _Check:
    def __init__(self, work: UnitOfWork, on_progress: Callable[[int, int], None]) -> None:
        self._work = work
        self._on_progress = on_progress
        self._total = 0
        self._accounts: dict[str, _Account] = {}
        self._checkpoints = CheckpointCheck(self._accounts)
        self._records: dict[str, bytes] = {}
        self._chain = ChainCheck(
            self._rows(ledger_chain, "number", CHAIN_PAGE_ROWS), self._records, self._checkpoints.pass_batch
        )
        self._pending: dict[str, Row[Any]] = {}
        self._position = 0
        self._compared = 0

    async def run(self, signer: CheckpointSigner | None, checkpoints: Sequence[Checkpoint]) -> LedgerCheck:
        difference: Difference | None = None
        if signer is not None:
            self._checkpoints.expect(await stored_contents(self._work), checkpoints, signer)
        try:
            await self._check()
        except Differs as found:
            # An earlier row of the same batch, of which nothing else has told yet, is the first one.
            difference = (self._chain.suspect or found).difference
        return LedgerCheck(
            accounts_count=self._compared,
            transfers_count=self._position,
            position=self._position,
            batches_count=self._chain.batches_count,
            link=self._chain.link.hex(),
            checkpoints_count=self._checkpoints.count,
            difference=difference,
            in_circulation_minor=self._in_circulation(),
        )

    async def _check(self) -> None:
        self._total = sum([await self._count(table) for table in (ledger_transfers, ledger_accounts)])
        self._on_progress(0, self._total)
        async for row in self._rows(ledger_accounts, "id"):
            self._records[row.id] = record_of_account(row)
            self._accounts[row.id] = _Account(
                row.kind,
                row.currency,
                row.debits_must_not_exceed_credits,
                row.credits_must_not_exceed_debits,
            )
        await self._chain.begin()
        async for row in self._rows(ledger_transfers, "position"):
            if row.position != self._position + 1:
                missing = self._position + 1
                raise Differs(ledger_transfers, missing, f"transfer {missing} is missing")
            if self._chain.needs_batch:
                await self._chain.next_batch(row.position)
            self._apply(row)
            self._chain.add(row)
            if self._position % PAGE_ROWS == 0:
                self._on_progress(self._position, self._total)
        await self._chain.finish()
        await self._check_head()
        async for row in self._rows(ledger_accounts, "id"):
            self._compare(row)
        await self._check_open_pending()
        await self._check_refusals()
        await check_payments(self._work)
        self._check_zero_sums()
        self._checkpoints.finish(self._position)
        self._on_progress(self._total, self._total)

    def _apply(self, row: Row[Any]) -> None:
        """Replays one transfer."""

        def found(sentence: str) -> Differs:
            return Differs(ledger_transfers, row.position, f"transfer {row.position} ({row.id}): {sentence}")

        if row.amount_minor <= 0:
            raise found("its amount is not more than zero")
        if row.debit_account_id == row.credit_account_id:
            raise found("it debits and credits the same account")
        sides = []
        for side, id in (("debited", row.debit_account_id), ("credited", row.credit_account_id)):
            account = self._accounts.get(id)
            if account is None:
                raise found(f"the {side} account {id} does not exist")
            if account.currency != row.currency:
                raise found(
                    f"the {side} account {id} is in {account.currency}, the transfer in {row.currency}"
                )
            sides.append(account)
            self._checkpoints.touch(id)
        problem = self._move(row, sides[0].sums, sides[1].sums)
        if problem is not None:
            raise found(problem)
        for account in sides:
            problem = account.broken_limit()
            if problem is not None:
                raise found(problem)
        self._position = row.position

    def _move(self, row: Row[Any], debit: dict[str, int], credit: dict[str, int]) -> str | None:
        """Moves the money; returns what is wrong with the transfer, if anything."""
        if row.mode in ("post_pending", "void_pending", "expire_pending"):
            pending = self._pending.pop(row.pending_id, None)
            if pending is None:
                return f"it ends {row.pending_id}, which is not pending at that point"
            if (pending.debit_account_id, pending.credit_account_id, pending.code) != (
                row.debit_account_id,
                row.credit_account_id,
                row.code,
            ):
                return f"it differs from the pending transfer {row.pending_id} that it ends"
            if row.amount_minor > pending.amount_minor:
                return f"it ends {row.pending_id} with more than was held"
            if row.mode != "post_pending" and row.amount_minor != pending.amount_minor:
                return f"it releases another amount than {row.pending_id} holds"
            problem = _time_problem(row, pending)
            if problem is not None:
                return problem
            debit["debits_pending"] -= pending.amount_minor
            credit["credits_pending"] -= pending.amount_minor
        elif row.pending_id is not None:
            return "it names a pending transfer, though it ends none"
        if row.mode == "pending":
            self._pending[row.id] = row
            debit["debits_pending"] += row.amount_minor
            credit["credits_pending"] += row.amount_minor
        elif row.mode in ("single_phase", "post_pending"):
            debit["debits_posted"] += row.amount_minor
            credit["credits_posted"] += row.amount_minor
        elif row.mode not in ("void_pending", "expire_pending"):
            return f"its mode {row.mode} is unknown"
        return None

    async def _check_head(self) -> None:
        head = (await self._work.execute(select(ledger_head))).one_or_none()
        if head is None:
            raise Differs(ledger_head, HEAD_ID, "the ledger's head is missing")
        if head.position > self._position:
            missing = self._position + 1
            raise Differs(ledger_transfers, missing, f"transfer {missing} is missing, the last of them")
        if head.position < self._position:
            sentence = f"the ledger ends at {head.position}, but there is a transfer {self._position}"
            raise Differs(ledger_head, HEAD_ID, sentence)

    def _compare(self, row: Row[Any]) -> None:
        computed = self._accounts[row.id].sums
        for name in SUM_NAMES:
            stored = getattr(row, name)
            if stored != computed[name]:
                sentence = (
                    f"account {row.id} of {row.owner}: {name} is {stored}, "
                    f"but its transfers add up to {computed[name]}"
                )
                raise Differs(ledger_accounts, row.id, sentence)
        self._compared += 1

    async def _check_open_pending(self) -> None:
        seen = 0
        async for row in self._rows(ledger_open_pending, "id"):
            pending = self._pending.get(row.id)
            if pending is None:
                raise Differs(
                    ledger_open_pending, row.id, f"{row.id} is listed as open, but it is not pending"
                )
            if (row.position, row.expires_at_ms) != (pending.position, _expires_at_ms(pending)):
                raise Differs(
                    ledger_open_pending, row.id, f"{row.id} is listed with another position or time-out"
                )
            seen += 1
        if seen != len(self._pending):
            listed = {row.id async for row in self._rows(ledger_open_pending, "id")}
            missing = next(id for id in self._pending if id not in listed)
            raise Differs(ledger_open_pending, missing, f"{missing} is pending, but it is not listed as open")

    async def _check_refusals(self) -> None:
        both = (
            select(ledger_refusals.c.id)
            .join(ledger_transfers, ledger_transfers.c.id == ledger_refusals.c.id)
            .order_by(ledger_refusals.c.id)
            .limit(1)
        )
        id = (await self._work.execute(both)).scalar_one_or_none()
        if id is not None:
            raise Differs(ledger_refusals, id, f"{id} was refused, but there is a transfer of that id")

    def _check_zero_sums(self) -> None:
        """Every transfer adds the same to both sides, so this can fail only by a fault of this check."""
        for currency in sorted({account.currency for account in self._accounts.values()}):
            sums = [account.sums for account in self._accounts.values() if account.currency == currency]
            for debits, credits in (
                ("debits_posted", "credits_posted"),
                ("debits_pending", "credits_pending"),
            ):
                if sum(item[debits] for item in sums) != sum(item[credits] for item in sums):
                    raise Differs(ledger_accounts, currency, f"debits and credits in {currency} differ")

    def _in_circulation(self) -> dict[str, int]:
        circulation: dict[str, int] = {}
        for account in self._accounts.values():
            balance = account.sums["credits_posted"] - account.sums["debits_posted"]
            circulation[account.currency] = circulation.get(account.currency, 0) + max(balance, 0)
        return circulation

    async def _count(self, table: Table) -> int:
        return int((await self._work.execute(select(func.count()).select_from(table))).scalar_one())

    async def _rows(self, table: Table, key: str, page_rows: int = PAGE_ROWS) -> AsyncIterator[Row[Any]]:
        """All rows in the order of the key, page by page."""
        column = table.c[key]
        first: Select[Any] = select(table).order_by(column).limit(page_rows)
        following = first.where(column > bindparam("after"))
        page = (await self._work.execute(first)).all()
        while page:
            for row in page:
                yield row
            if len(page) < page_rows:
                return
            after = getattr(page[-1], key)
            page = (await self._work.execute(following, {"after": after})).all()


def _expires_at_ms(pending: Row[Any]) -> int | None:
    return None if pending.timeout_seconds is None else int(pending.at_ms + pending.timeout_seconds * 1000)


def _time_problem(ending: Row[Any], pending: Row[Any]) -> str | None:
    expires_at_ms = _expires_at_ms(pending)
    is_over = expires_at_ms is not None and ending.at_ms >= expires_at_ms
    if ending.mode == "expire_pending" and not is_over:
        return f"it expires {pending.id} before its time"
    if ending.mode != "expire_pending" and is_over:
        return f"it ends {pending.id} after its time"
    return None
