"""Payments as people see them: who, to whom, what for, and the receipt. The ledger says what moved."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text

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
    # Until when a pending payment waits for its payee; the receipt of how it ended, once it has.
    Column("expires_at_ms", BigInteger),
    Column("end_receipt", Text),
    Index("payments_by_payer", "payer", "position"),
    Index("payments_by_payee", "payee", "position"),
    Index("payments_by_subject", "subject", "position"),
    Index("payments_by_of_id", "of_id"),
    Index("payments_by_expiry", "state", "expires_at_ms"),
)
