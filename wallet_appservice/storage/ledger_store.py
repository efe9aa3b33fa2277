"""The ledger's store on SQLite and PostgreSQL, one code path.

A batch is one transaction that first locks the ledger's head row, so batches of several processes follow one
another and each sees all before it. On PostgreSQL the accounts are locked too, in id order, against whoever
else writes to them; on SQLite the transaction is the only writer from its beginning.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    bindparam,
    select,
    text,
    union_all,
)

from appservices.chassis.database import Database, UnitOfWork, Write
from appservices.chassis.shared_reads import SharedReads
from appservices.vocabulary.ids import AccountId, TransferId
from appservices.vocabulary.money import CurrencyCode
from wallet_appservice.ledger.store import CommitUnknown, StoreBusy, StoreRefused
from wallet_appservice.ledger.values import (
    Account,
    AccountKind,
    StoredTransfer,
    Transfer,
    TransferCode,
    TransferMode,
    TransferRefusal,
)
from wallet_appservice.ledger.view import Changes, Loaded, StoredRefusal, Wanted
from wallet_appservice.storage.database_errors import is_disconnect, is_passing
from wallet_appservice.storage.ledger_bulk import Bulk, Values, bulk_of
from wallet_appservice.storage.ledger_chain import ChainEnd, next_row
from wallet_appservice.storage.ledger_tables import (
    ledger_accounts,
    ledger_open_pending,
    ledger_refusals,
    ledger_transfers,
)

STEP_SECONDS_MAX: Final = 30
"""How long each step of a batch (connect, load, write, commit) waits for PostgreSQL to answer."""
OUTCOME_SECONDS_MAX: Final = 20
"""How long PostgreSQL is asked whether a commit took place whose answer was lost."""
OUTCOME_PAUSE_SECONDS: Final = 0.2

PENDING: Final = TransferMode.PENDING

logger = logging.getLogger(__name__)


class SumsDiffer(Exception):
    """An account does not hold what the batch was judged by."""


class SqlLedgerStore:
    """A LedgerStore in a migrated database; its effects are the chassis's Writes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._accounts: SharedReads[AccountId, Account] = SharedReads(self._read_accounts)

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[_SqlBatch]:
        batch: _SqlBatch | None = None
        try:
            async with AsyncExitStack() as stack:
                async with _patience(self._database):
                    work = await stack.enter_async_context(self._database.begin())
                batch = _SqlBatch(self._database, work)
                yield batch
        except (StoreBusy, StoreRefused, CommitUnknown):
            raise
        except Exception as error:
            if batch is not None and batch.is_durable:
                # Only handing back the connection failed.
                logger.warning("a connection broke after its commit: %s", error)
            elif is_passing(error):
                raise StoreBusy(_words(error)) from error
            else:
                raise

    async def account(self, account_id: AccountId) -> Account | None:
        return await self._accounts.get(account_id)

    async def accounts_of(self, owner: str) -> tuple[Account, ...]:
        return tuple(_account(row) for row in await self._read(_ACCOUNTS_OF, owner=owner))

    async def transfer(self, transfer_id: TransferId) -> StoredTransfer | None:
        rows = await self._read(_TRANSFER, id=transfer_id)
        return stored_transfer(rows[0], ended_by=rows[0].ended_by) if rows else None

    async def transfers_of(
        self, account_id: AccountId, *, limit: int, before: int | None
    ) -> tuple[StoredTransfer, ...]:
        rows = await self._read(
            _TRANSFERS_OF, account_id=account_id, limit=limit, before=2**63 - 1 if before is None else before
        )
        return tuple(stored_transfer(row, ended_by=row.ended_by) for row in rows)

    async def due(self, *, now_ms: int, limit: int, after: int) -> tuple[StoredTransfer, ...]:
        rows = await self._read(_DUE, now_ms=now_ms, limit=limit, after=after)
        return tuple(stored_transfer(row) for row in rows)

    async def _read_accounts(self, ids: Sequence[AccountId]) -> dict[AccountId, Account]:
        return {AccountId(row.id): _account(row) for row in await self._read(_ACCOUNTS, ids=ids)}

    async def _read(self, statement: Select[Any], **parameters: object) -> Sequence[Row[Any]]:
        try:
            async with self._database.read() as work:
                return (await work.execute(statement, parameters)).all()
        except Exception as error:
            if is_passing(error):
                raise StoreBusy(_words(error)) from error
            raise


class _SqlBatch:
    """One open transaction."""

    def __init__(self, database: Database, work: UnitOfWork) -> None:
        self.is_durable = False
        self._database = database
        self._work = work
        self._transaction_id: str | None = None
        self._head: int | None = None
        """The ledger's last position, once it is locked."""
        self._chain_end: ChainEnd | None = None
        self._bulk: Bulk | None = None

    async def lock(self) -> None:
        async with self._reading():
            await self._lock()

    async def load(self, wanted: Wanted) -> Loaded:
        async with self._reading():
            return await self._load(wanted)

    async def commit(self, changes: Changes, effects: Sequence[Write]) -> None:
        try:
            async with _patience(self._database):
                await self._write(changes)
                await self._work.apply(effects)
        except SumsDiffer as error:
            # The same batch, judged by what is there now, may be right.
            raise StoreBusy(_words(error)) from error
        except Exception as error:
            await self._give_up(error)
            raise _failure(error) from error
        try:
            async with _patience(self._database):
                await self._work.commit()
        except Exception as error:
            await self._give_up(error)
            if self._transaction_id is None or not is_disconnect(error):
                # The database has answered, and its answer was a rollback.
                raise _failure(error) from error
            await self._check_outcome(self._transaction_id)
        self.is_durable = True

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[None]:
        try:
            async with _patience(self._database):
                yield
        except Exception as error:
            await self._give_up(error)
            # Nobody in the batch is to blame for what can't be read.
            raise StoreBusy(_words(error)) from error

    async def _load(self, wanted: Wanted) -> Loaded:
        position = await self._lock()
        bulk = self._bulk
        assert bulk is not None, "the lock comes first"
        accounts = await bulk.find(ledger_accounts, "id", wanted.account_ids, lock=True)
        self._chain_end, are_known = await bulk.look_up(wanted.transfer_ids)
        transfers: list[Any] = []
        endings: list[Any] = []
        refusals: list[Any] = []
        if are_known or wanted.pending_ids:
            transfers = await bulk.find(ledger_transfers, "id", wanted.transfer_ids | wanted.pending_ids)
            endings = await bulk.find(ledger_transfers, "pending_id", wanted.pending_ids)
            refusals = await bulk.find(ledger_refusals, "id", wanted.transfer_ids)
        ended_by = {row.pending_id: row.mode for row in endings}
        return Loaded(
            accounts=[_account(row) for row in accounts],
            transfers=[stored_transfer(row, ended_by=ended_by.get(row.id)) for row in transfers],
            refusals=[
                StoredRefusal(
                    id=TransferId(row.id),
                    content=row.content,
                    refusal=TransferRefusal(row.refusal),
                    at_ms=row.at_ms,
                )
                for row in refusals
            ],
            position=position,
        )

    async def _lock(self) -> int:
        """The ledger's last position, which nobody else can change from here on."""
        if self._head is None:
            self._bulk = await bulk_of(self._work.connection)
            self._head, self._transaction_id = await self._bulk.lock_head()
        return self._head

    async def _write(self, changes: Changes) -> None:
        bulk = self._bulk
        assert bulk is not None, "a batch is loaded before it is written"
        transfers = changes.transfers
        ended = {item.transfer.pending_id for item in transfers if item.transfer.pending_id is not None}
        opened = [
            (stored.transfer.id, stored.position, stored.expires_at_ms)
            for stored in transfers
            if stored.transfer.mode is PENDING and stored.transfer.id not in ended
        ]
        if changes.opened:
            await bulk.insert(ledger_accounts, [_account_values(account) for account in changes.opened])
        if transfers or changes.opened:
            # One statement that keeps the database busy while the rest is made ready. It comes before the
            # transfers: they take several ways to the server, and would wait for those judged meanwhile.
            changed_count = await bulk.end_batch(
                changes.changed, position=changes.position, chain_row=next_row(self._chain_end, changes)
            )
            if changed_count != len(changes.changed):
                raise SumsDiffer("somebody else has changed an account, or removed it")
        if transfers:
            await bulk.insert(ledger_transfers, [_transfer_values(stored) for stored in transfers])
        if changes.refusals:
            await bulk.insert(ledger_refusals, [_refusal_values(refusal) for refusal in changes.refusals])
        if opened:
            await bulk.insert(ledger_open_pending, opened)
        if ended:
            await bulk.delete(ledger_open_pending, "id", ended)

    async def _give_up(self, error: Exception) -> None:
        """Drops a connection that does not answer, rather than ask it to roll back."""
        if isinstance(error, TimeoutError):
            await self._work.connection.invalidate()

    async def _check_outcome(self, transaction_id: str) -> None:
        """Returns when the transaction was committed after all; raises StoreBusy when it was not."""
        try:
            async with asyncio.timeout(OUTCOME_SECONDS_MAX):
                while True:
                    status = await self._status(transaction_id)
                    if status == "committed":
                        return
                    if status == "aborted":
                        raise StoreBusy("the connection was lost and the transaction rolled back")
                    await asyncio.sleep(OUTCOME_PAUSE_SECONDS)
        except TimeoutError as error:
            raise CommitUnknown("the connection was lost during the commit") from error

    async def _status(self, transaction_id: str) -> str | None:
        try:
            async with self._database.read() as work:
                status: str | None = (
                    await work.execute(_STATUS, {"transaction_id": transaction_id})
                ).scalar_one()
                return status
        except Exception as error:
            if not is_passing(error):
                raise CommitUnknown(_words(error)) from error
            return None


def _patience(database: Database) -> asyncio.Timeout:
    """Raises TimeoutError when a server is silent. SQLite is this process: it answers, or the disk hangs."""
    return asyncio.timeout(None if database.is_sqlite else STEP_SECONDS_MAX)


def stored_transfer(row: Row[Any], *, ended_by: str | None = None) -> StoredTransfer:
    """A row of ledger_transfers as a value."""
    timeout = row.timeout_seconds
    return StoredTransfer(
        transfer=Transfer(
            id=TransferId(row.id),
            debit_account_id=AccountId(row.debit_account_id),
            credit_account_id=AccountId(row.credit_account_id),
            amount_minor=row.amount_minor,
            currency=CurrencyCode(row.currency),
            code=TransferCode(row.code),
            mode=TransferMode(row.mode),
            pending_id=None if row.pending_id is None else TransferId(row.pending_id),
            timeout_seconds=timeout,
            linked=row.linked,
            reference=row.reference,
        ),
        position=row.position,
        at_ms=row.at_ms,
        expires_at_ms=None if timeout is None else row.at_ms + timeout * 1000,
        ended_by=None if ended_by is None else TransferMode(ended_by),
    )


def _account(row: Row[Any]) -> Account:
    return Account(
        id=AccountId(row.id),
        kind=AccountKind(row.kind),
        currency=CurrencyCode(row.currency),
        owner=row.owner,
        debits_pending=row.debits_pending,
        debits_posted=row.debits_posted,
        credits_pending=row.credits_pending,
        credits_posted=row.credits_posted,
        debits_must_not_exceed_credits=row.debits_must_not_exceed_credits,
        credits_must_not_exceed_debits=row.credits_must_not_exceed_debits,
    )


def _account_values(account: Account) -> Values:
    return tuple(getattr(account, column.name) for column in ledger_accounts.columns)


def _transfer_values(stored: StoredTransfer) -> Values:
    """In the order of the table's columns."""
    transfer = stored.transfer
    return (
        stored.position,
        transfer.id,
        transfer.debit_account_id,
        transfer.credit_account_id,
        transfer.amount_minor,
        transfer.currency,
        str(transfer.code),
        str(transfer.mode),
        transfer.pending_id,
        transfer.timeout_seconds,
        transfer.linked,
        transfer.reference,
        stored.at_ms,
    )


def _refusal_values(refusal: StoredRefusal) -> Values:
    return (refusal.id, refusal.content, str(refusal.refusal), refusal.at_ms)


def _failure(error: Exception) -> StoreBusy | StoreRefused:
    return StoreBusy(_words(error)) if is_passing(error) else StoreRefused(_words(error))


def _words(error: Exception) -> str:
    """What the database says, on one line, without the statement and its parameters."""
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0] or type(error).__name__


def _with_ending(positions: Select[Any]) -> Select[Any]:
    ending = ledger_transfers.alias("ending")
    return (
        select(ledger_transfers, ending.c.mode.label("ended_by"))
        .outerjoin(ending, ending.c.pending_id == ledger_transfers.c.id)
        .where(ledger_transfers.c.position.in_(positions))
        .order_by(ledger_transfers.c.position.desc())
    )


def _positions_of(column: ColumnElement[Any]) -> Any:
    page = (
        select(ledger_transfers.c.position)
        .where(column == bindparam("account_id"), ledger_transfers.c.position < bindparam("before"))
        .order_by(ledger_transfers.c.position.desc())
        .limit(bindparam("limit"))
        .subquery()
    )
    return select(page.c.position)


# A page of either side by its own index, then the latest of both: never more than two pages are read.
_BOTH_SIDES = union_all(
    _positions_of(ledger_transfers.c.debit_account_id), _positions_of(ledger_transfers.c.credit_account_id)
).subquery()
_TRANSFERS_OF = _with_ending(
    select(_BOTH_SIDES.c.position).order_by(_BOTH_SIDES.c.position.desc()).limit(bindparam("limit"))
)
_TRANSFER = _with_ending(
    select(ledger_transfers.c.position).where(ledger_transfers.c.id == bindparam("id")).correlate(None)
)
_ACCOUNTS = select(ledger_accounts).where(ledger_accounts.c.id.in_(bindparam("ids", expanding=True)))
_ACCOUNTS_OF = (
    select(ledger_accounts)
    .where(ledger_accounts.c.owner == bindparam("owner"))
    .order_by(ledger_accounts.c.currency, ledger_accounts.c.kind, ledger_accounts.c.id)
)
_DUE = (
    select(ledger_transfers)
    .join(ledger_open_pending, ledger_open_pending.c.id == ledger_transfers.c.id)
    .where(
        ledger_open_pending.c.expires_at_ms <= bindparam("now_ms"),
        ledger_open_pending.c.position > bindparam("after"),
    )
    .order_by(ledger_open_pending.c.position)
    .limit(bindparam("limit"))
)

_STATUS = text("SELECT pg_xact_status(CAST(CAST(:transaction_id AS text) AS xid8))")
