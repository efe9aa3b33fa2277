"""The ledger's hash chain in the database: one row a batch, written in the batch's own transaction.

The row before it is read under the ledger's lock, so batches of several processes form one chain. A changed,
removed or added row of transfers or accounts breaks it; `chain_check` tells where.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Integer,
    LargeBinary,
    Row,
    Table,
    insert,
    select,
)

from appservices.chassis.database import UnitOfWork
from wallet_appservice.ledger.chain import (
    account_record,
    batch_hash,
    marks_of,
    next_link,
    transfer_record,
)
from wallet_appservice.ledger.values import Account, StoredTransfer
from wallet_appservice.ledger.view import Changes
from wallet_appservice.storage.metadata import metadata

ID_BYTES: Final = 16

ledger_chain = Table(
    "ledger_chain",
    metadata,
    # 0 is the beginning, before the first batch: its link is 32 zero bytes.
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    # A batch that only opened accounts ends one before it begins.
    Column("first_position", BigInteger, nullable=False),
    Column("last_position", BigInteger, nullable=False),
    # The ids of the accounts that it opened, 16 bytes each.
    Column("account_ids", LargeBinary, nullable=False),
    # Four bytes for each account and then each transfer, which tell the one that differs.
    Column("marks", LargeBinary, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("link", LargeBinary(32), nullable=False),
    CheckConstraint("number >= 0", name="ledger_chain_number_not_negative"),
    CheckConstraint("last_position >= first_position - 1", name="ledger_chain_positions_in_order"),
)

_INSERT = insert(ledger_chain)
_LAST = (
    select(ledger_chain.c.number, ledger_chain.c.last_position, ledger_chain.c.link)
    .order_by(ledger_chain.c.number.desc())
    .limit(1)
)


class ChainBroken(Exception):
    """The chain does not end where the ledger does, and nothing is added; the message is one sentence."""


async def extend_chain(work: UnitOfWork, changes: Changes) -> None:
    """Adds a batch's row to the chain, inside the transaction that holds the ledger's lock."""
    if not changes.transfers and not changes.opened:
        return
    last = (await work.execute(_LAST)).one_or_none()
    before = changes.position - len(changes.transfers)
    if last is None or last.last_position != before:
        end = "is missing" if last is None else f"ends at transfer {last.last_position}"
        raise ChainBroken(
            f"the ledger ends at transfer {before}, but its chain {end}: run weft wallet verify"
        )
    records = [record_of_account(account) for account in changes.opened]
    records += [record_of_transfer(stored) for stored in changes.transfers]
    await work.execute(
        _INSERT,
        chain_row(
            last.number + 1,
            first_position=before + 1,
            account_ids=[account.id for account in changes.opened],
            records=records,
            previous=last.link,
        ),
    )


async def last_batch(work: UnitOfWork) -> Row[Any] | None:
    """The chain's end: `number`, `last_position` and `link`."""
    return (await work.execute(_LAST)).one_or_none()


def chain_row(
    number: int, *, first_position: int, account_ids: list[str], records: list[bytes], previous: bytes
) -> dict[str, Any]:
    """The row of a batch; `records` are those of its accounts, then of its transfers."""
    hash = batch_hash(records)
    return {
        "number": number,
        "first_position": first_position,
        "last_position": first_position + len(records) - len(account_ids) - 1,
        "account_ids": bytes.fromhex("".join(account_ids)),
        "marks": marks_of(records),
        "hash": hash,
        "link": next_link(previous, hash),
    }


def record_of_account(account: Account | Row[Any]) -> bytes:
    """Of an account, or of its row."""
    return account_record(
        id=account.id,
        kind=account.kind,
        currency=account.currency,
        owner=account.owner,
        debits_must_not_exceed_credits=account.debits_must_not_exceed_credits,
        credits_must_not_exceed_debits=account.credits_must_not_exceed_debits,
    )


def record_of_transfer(stored: StoredTransfer) -> bytes:
    transfer = stored.transfer
    return transfer_record(
        position=stored.position,
        id=transfer.id,
        debit_account_id=transfer.debit_account_id,
        credit_account_id=transfer.credit_account_id,
        amount_minor=transfer.amount_minor,
        currency=transfer.currency,
        code=transfer.code,
        mode=transfer.mode,
        pending_id=transfer.pending_id,
        timeout_seconds=transfer.timeout_seconds,
        linked=transfer.linked,
        reference=transfer.reference,
        at_ms=stored.at_ms,
    )


def record_of_row(row: Row[Any]) -> bytes:
    """Of a row of ledger_transfers."""
    return transfer_record(
        position=row.position,
        id=row.id,
        debit_account_id=row.debit_account_id,
        credit_account_id=row.credit_account_id,
        amount_minor=row.amount_minor,
        currency=row.currency,
        code=row.code,
        mode=row.mode,
        pending_id=row.pending_id,
        timeout_seconds=row.timeout_seconds,
        linked=row.linked,
        reference=row.reference,
        at_ms=row.at_ms,
    )
