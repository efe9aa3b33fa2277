"""Where checkpoints are kept: what they say is `wallet_appservice.books.checkpoints`."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, Integer, Table, Text

from wallet_appservice.storage.metadata import metadata

ledger_checkpoints = Table(
    "ledger_checkpoints",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    # The signed JSON, byte for byte as it was given out.
    Column("content", Text, nullable=False),
    CheckConstraint("number > 0", name="ledger_checkpoints_number_positive"),
)
