"""The ledger's hash chain in the database: one row a batch, written in the batch's own transaction.

The row before it is read under the ledger's lock, so batches of several processes form one chain. A changed,
removed or added row of transfers or accounts breaks it; `chain_check` tells where.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Integer,
    LargeBinary,
    Row,
    Table,
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
from wallet_appservice.ledger.values import Account
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

_LAST = (
    select(ledger_chain.c.number, ledger_chain.c.last_position, ledger_chain.c.link)
    .order_by(ledger_chain.c.number.desc())
    .limit(1)
)


class ChainBroken(Exception):
    """The chain does not end where the ledger does, and nothing is added; the message is one sentence."""


class ChainEnd(NamedTuple):
    """The last batch."""

    number: int
    last_position: int
    link: bytes


def next_row(end: ChainEnd | None, changes: Changes) -> dict[str, Any]:
    """The row of a batch that follows the last one, read under the ledger's lock. Raises ChainBroken."""
    before = changes.position - len(changes.transfers)
    if end is None or end.last_position != before:
        words = "is missing" if end is None else f"ends at transfer {end.last_position}"
        raise ChainBroken(
            f"the ledger ends at transfer {before}, but its chain {words}: run weft wallet verify"
        )
    return chain_row(
        end.number + 1,
        first_position=before + 1,
        account_ids=[account.id for account in changes.opened],
        records=[*map(record_of_account, changes.opened), *changes.records],
        previous=end.link,
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


def record_of_row(row: Row[Any]) -> bytes:
    """Of a row of ledger_transfers."""
    return transfer_record(row, row.position, row.at_ms)
