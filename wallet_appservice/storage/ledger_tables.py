"""Tables of the ledger. Transfers are the truth and are never changed; the rest can be computed from them.

There are no foreign keys from transfers to accounts: every row would take a shared lock on its account, which
is what makes a popular account slow. The rules read both accounts under the ledger's lock before a row is
written, and `ledger_check` proves it afterwards.
"""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Table,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import UUID
from sqlalchemy.types import TypeDecorator

from wallet_appservice.storage.metadata import metadata

HEAD_ID = 1


class LedgerIdType(TypeDecorator[str]):
    """A 128-bit id: 32 hex digits in the program, 16 bytes in the database.

    Half the size of its text, in a table whose indices must fit into memory; PostgreSQL's `uuid` and SQLite's
    BLOB both sort as the text does, so accounts are locked in the same order everywhere.
    """

    impl = LargeBinary(16)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        native = UUID() if dialect.name == "postgresql" else LargeBinary(16)
        return dialect.type_descriptor(native)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        return uuid.UUID(hex=value) if dialect.name == "postgresql" else bytes.fromhex(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        if value is None:
            return None
        text: str = value.hex if dialect.name == "postgresql" else value.hex()
        return text


ledger_accounts = Table(
    "ledger_accounts",
    metadata,
    Column("id", LedgerIdType, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("currency", String(8), nullable=False),
    Column("owner", String(255), nullable=False),
    Column("debits_pending", BigInteger, nullable=False),
    Column("debits_posted", BigInteger, nullable=False),
    Column("credits_pending", BigInteger, nullable=False),
    Column("credits_posted", BigInteger, nullable=False),
    Column("debits_must_not_exceed_credits", Boolean, nullable=False),
    Column("credits_must_not_exceed_debits", Boolean, nullable=False),
    CheckConstraint(
        "debits_pending >= 0 AND debits_posted >= 0 AND credits_pending >= 0 AND credits_posted >= 0",
        name="ledger_accounts_sums_not_negative",
    ),
    CheckConstraint(
        "NOT debits_must_not_exceed_credits OR debits_pending + debits_posted <= credits_posted",
        name="ledger_accounts_debits_within_credits",
    ),
    CheckConstraint(
        "NOT credits_must_not_exceed_debits OR credits_pending + credits_posted <= debits_posted",
        name="ledger_accounts_credits_within_debits",
    ),
    Index("ledger_accounts_by_owner", "owner"),
)

ledger_transfers = Table(
    "ledger_transfers",
    metadata,
    # Given by the ledger under its lock: 1, 2, 3 …, so that a missing row shows. On SQLite it is the row id.
    Column("position", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("id", LedgerIdType, nullable=False),
    Column("debit_account_id", LedgerIdType, nullable=False),
    Column("credit_account_id", LedgerIdType, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", String(8), nullable=False),
    Column("code", String(24), nullable=False),
    Column("mode", String(16), nullable=False),
    Column("pending_id", LedgerIdType),
    Column("timeout_seconds", Integer),
    Column("linked", Boolean, nullable=False),
    Column("reference", String(128), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    UniqueConstraint("id", name="ledger_transfers_id"),
    CheckConstraint("position > 0", name="ledger_transfers_position_positive"),
    CheckConstraint("amount_minor > 0", name="ledger_transfers_amount_positive"),
    CheckConstraint("debit_account_id <> credit_account_id", name="ledger_transfers_two_accounts"),
    CheckConstraint(
        "(mode IN ('post_pending', 'void_pending', 'expire_pending')) = (pending_id IS NOT NULL)",
        name="ledger_transfers_mode_fits_pending_id",
    ),
    CheckConstraint(
        "timeout_seconds IS NULL OR (mode = 'pending' AND timeout_seconds > 0)",
        name="ledger_transfers_timeout_of_pending",
    ),
    Index("ledger_transfers_by_debit_account", "debit_account_id", "position"),
    Index("ledger_transfers_by_credit_account", "credit_account_id", "position"),
    # A pending transfer ends once, whatever the program believes. Most transfers end none and are left out.
    Index(
        "ledger_transfers_by_pending_id",
        "pending_id",
        unique=True,
        postgresql_where=text("pending_id IS NOT NULL"),
        sqlite_where=text("pending_id IS NOT NULL"),
    ),
)

# Ids that were answered by a refusal, which stays the answer. `content` is a hash of the refused transfer.
ledger_refusals = Table(
    "ledger_refusals",
    metadata,
    Column("id", LedgerIdType, primary_key=True),
    Column("content", LedgerIdType, nullable=False),
    Column("refusal", String(40), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

# Pending transfers that have not ended. Few, so that looking for those past their time costs the same however
# many transfers there are.
ledger_open_pending = Table(
    "ledger_open_pending",
    metadata,
    Column("id", LedgerIdType, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger),
    Index("ledger_open_pending_by_expiry", "expires_at_ms"),
)

# One row, locked by every batch: batches of all processes are applied one after another.
ledger_head = Table(
    "ledger_head",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("position", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="ledger_head_is_one_row"),
)
