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
    Index("payments_by_payer", "payer", "position"),
    Index("payments_by_payee", "payee", "position"),
)
