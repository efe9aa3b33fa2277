"""Payments as people see them: who, to whom, what for, and the receipt. The ledger says what moved."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text, text

from wallet_appservice.storage.ledger_tables import LedgerIdType
from wallet_appservice.storage.metadata import metadata

payments = Table(
    "payments",
    metadata,
    # SQLite counts up only in a column that is exactly INTEGER PRIMARY KEY.
    Column("position", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("payer", String(255), nullable=False),
    Column("payee", String(255), nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", String(8), nullable=False),
    Column("memo", Text, nullable=False),
    Column("room_id", String(255)),
    Column("at_ms", BigInteger, nullable=False),
    Column("receipt", Text, nullable=False),
    # What the payment is for, `kind:id`: a request, a red packet, an order.
    Column("subject", String(64), nullable=False, server_default=""),
    # The id of the payment that this one gives back.
    Column("of_id", String(32)),
    # The merchant whose money it was or became, and on which side the merchant stands: `payer` or `payee`.
    Column("merchant_id", LedgerIdType),
    Column("merchant_side", String(8), nullable=False, server_default=""),
    # Until when a pending payment waits for its payee; the receipt of how it ended, once it has.
    Column("expires_at_ms", BigInteger),
    Column("end_receipt", Text),
    # A merchant's money is not its owner's, so what a shop takes does not slow its owner's history down.
    Index(
        "payments_by_payer",
        "payer",
        "position",
        postgresql_where=text("merchant_side <> 'payer'"),
        sqlite_where=text("merchant_side <> 'payer'"),
    ),
    Index(
        "payments_by_payee",
        "payee",
        "position",
        postgresql_where=text("merchant_side <> 'payee'"),
        sqlite_where=text("merchant_side <> 'payee'"),
    ),
    Index(
        "payments_by_merchant",
        "merchant_id",
        "position",
        postgresql_where=text("merchant_id IS NOT NULL"),
        sqlite_where=text("merchant_id IS NOT NULL"),
    ),
    Index("payments_by_subject", "subject", "position"),
    Index("payments_by_of_id", "of_id"),
    # An order is paid once, whatever the program believes.
    Index(
        "payments_purchase_once",
        "subject",
        unique=True,
        postgresql_where=text("kind = 'purchase'"),
        sqlite_where=text("kind = 'purchase'"),
    ),
    Index("payments_by_expiry", "state", "expires_at_ms"),
)
