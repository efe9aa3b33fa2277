"""Who did what, and the hash chain over it: rows are only ever added, the database refuses all else.

The chain is a table of its own, so that a row can be written in any transaction, the ledger's among them,
without reading the one before it; the link is added a moment later.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text

from wallet_appservice.storage.metadata import metadata

_POSITION = BigInteger().with_variant(Integer, "sqlite")

audit_log = Table(
    "audit_log",
    metadata,
    # SQLite counts up only in a column that is exactly INTEGER PRIMARY KEY.
    Column("position", _POSITION, primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", String(255), nullable=False),
    Column("action", String(32), nullable=False),
    Column("subject", String(255), nullable=False),
    # A JSON object.
    Column("details", Text, nullable=False),
)

audit_chain = Table(
    "audit_chain",
    metadata,
    # 1, 2, 3 …, so that a missing link shows.
    Column("number", _POSITION, primary_key=True, autoincrement=False),
    Column("position", BigInteger, nullable=False),
    # SHA-256 in hex: of the link before, and of this row with it.
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("audit_chain_by_position", "position", unique=True),
)
