"""Payments that go to, or come from, another homeserver's wallet, and the wallets that we do this with."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, String, Table, Text

from wallet_appservice.storage.metadata import metadata

position_type = BigInteger().with_variant(Integer, "sqlite")

peers = Table(
    "peers",
    metadata,
    Column("server", String(255), primary_key=True),
    # The other wallet's service user.
    Column("user_id", String(255), nullable=False),
    # False once the operator has removed it: nothing new, but what is under way is ended.
    Column("allowed", Boolean, nullable=False),
    # Who named it: config, command.
    Column("source", String(16), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
)

peer_limits = Table(
    "peer_limits",
    metadata,
    Column("server", String(255), primary_key=True),
    Column("currency", String(8), primary_key=True),
    Column("limit_minor", BigInteger, nullable=False),
    # Counts how often it was set: part of the ids by which the ledger is told.
    Column("revision", BigInteger, nullable=False),
    Column("warned_at_ms", BigInteger),
)

clearing_out = Table(
    "clearing_out",
    metadata,
    # The payment's id, which is the id of the held transfer too.
    Column("id", String(32), primary_key=True),
    Column("server", String(255), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("payer", String(255), nullable=False),
    Column("payee", String(255), nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", String(8), nullable=False),
    Column("memo", Text, nullable=False),
    Column("room_id", String(255)),
    Column("in_reply_to", String(255)),
    Column("subject", String(64), nullable=False),
    Column("of_id", String(32)),
    # prepared, fulfilled, rejected.
    Column("state", String(16), nullable=False),
    Column("reason", String(32), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Column("ended_at_ms", BigInteger),
    Column("inquire_at_ms", BigInteger, nullable=False),
    Column("inquiries", Integer, nullable=False),
    Index("clearing_out_by_state", "state", "inquire_at_ms"),
    Index("clearing_out_by_server", "server", "currency", "expires_at_ms"),
)

clearing_in = Table(
    "clearing_in",
    metadata,
    Column("server", String(255), primary_key=True),
    Column("id", String(32), primary_key=True),
    # A hash of what was prepared; empty when it was only inquired about.
    Column("content", String(64), nullable=False),
    # fulfilled, rejected: for ever.
    Column("answer", String(16), nullable=False),
    Column("reason", String(32), nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", String(8), nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    # Our payment's id, when its payee is still to be told of it.
    Column("untold_payment_id", String(32)),
    Index("clearing_in_untold", "untold_payment_id"),
    Index("clearing_in_by_server", "server", "currency", "expires_at_ms"),
)

clearing_requests = Table(
    "clearing_requests",
    metadata,
    Column("server", String(255), primary_key=True),
    # out: somebody of ours asks; in: somebody of ours is asked.
    Column("direction", String(8), primary_key=True),
    # What both wallets call it: one asked person's share of a request.
    Column("id", String(32), primary_key=True),
    # The request here that it belongs to; who is asked tells the share.
    Column("request_id", String(32), nullable=False),
    Column("asked", String(255), nullable=False),
    # A hash of what was asked; empty for what we have asked ourselves.
    Column("content", String(64), nullable=False),
    Index("clearing_requests_by_request", "request_id", "asked"),
)

settlements = Table(
    "settlements",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("server", String(255), nullable=False),
    # out: we paid the peer outside; in: the peer paid us.
    Column("direction", String(8), nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", String(8), nullable=False),
    Column("reference", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

peer_statements = Table(
    "peer_statements",
    metadata,
    Column("position", position_type, primary_key=True, autoincrement=True),
    Column("server", String(255), nullable=False),
    Column("currency", String(8), nullable=False),
    Column("from_ms", BigInteger, nullable=False),
    Column("to_ms", BigInteger, nullable=False),
    # ours, theirs.
    Column("side", String(8), nullable=False),
    # sent, waiting, agreed, differs.
    Column("state", String(16), nullable=False),
    Column("content", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Index("peer_statements_by_server", "server", "position"),
    Index("peer_statements_by_state", "state"),
)

peer_positions = Table(
    "peer_positions",
    metadata,
    Column("server", String(255), primary_key=True),
    Column("currency", String(8), primary_key=True),
    # The beginning of the hour of which this is the last position known.
    Column("hour_ms", BigInteger, primary_key=True, autoincrement=False),
    # Positive: the peer owes us.
    Column("owed_minor", BigInteger, nullable=False),
)
