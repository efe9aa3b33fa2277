"""Refunds that were begun: together they never exceed the payment that they give back."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, String, Table, Text

from wallet_appservice.storage.metadata import metadata

refunds = Table(
    "refunds",
    metadata,
    # Also the id of its payment.
    Column("id", String(32), primary_key=True),
    Column("payment_id", String(32), nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    # moving, done, refused; what was refused counts no more.
    Column("state", String(16), nullable=False),
    Column("memo", Text, nullable=False),
    Column("room_id", String(255)),
    # The account that pays, with what is needed to name it to the ledger again.
    Column("account_id", String(32), nullable=False),
    Column("account_kind", String(16), nullable=False),
    Column("account_owner", String(255), nullable=False),
    Column("changed_at_ms", BigInteger, nullable=False),
    Index("refunds_by_payment", "payment_id"),
    Index("refunds_by_state", "state", "changed_at_ms"),
)
