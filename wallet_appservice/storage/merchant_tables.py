"""Merchants, their keys, orders, payment codes, refunds and notifications. The ledger says what moved."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text, UniqueConstraint, text

from wallet_appservice.storage.ledger_tables import LedgerIdType
from wallet_appservice.storage.metadata import metadata

merchants = Table(
    "merchants",
    metadata,
    Column("id", LedgerIdType, primary_key=True),
    Column("name", String(60), nullable=False),
    Column("owner", String(255), nullable=False),
    # Goes into the ids of its orders, so that nobody guesses them from their references.
    Column("order_secret", String(64), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("closed_at_ms", BigInteger),
    Index("merchants_by_owner", "owner", "id"),
)

merchant_keys = Table(
    "merchant_keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("merchant_id", LedgerIdType, nullable=False),
    Column("name", String(60), nullable=False),
    Column("secret_hash", String(64), nullable=False),
    # Names of scopes with a blank between them.
    Column("scopes", String(100), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("revoked_at_ms", BigInteger),
    Column("last_used_at_ms", BigInteger),
    Index("merchant_keys_by_merchant", "merchant_id", "created_at_ms"),
)

# An order's columns are in the order of payments/merchants/orders.py's Order, which is written in bulk.
merchant_orders = Table(
    "merchant_orders",
    metadata,
    Column("id", LedgerIdType, primary_key=True),
    Column("merchant_id", LedgerIdType, nullable=False),
    Column("reference", String(64), nullable=False),
    # How it is paid: `link`, or at once by a payment `code`.
    Column("way", String(8), nullable=False),
    Column("description", String(200), nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", String(8), nullable=False),
    Column("state", String(12), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    # Who pays or has paid it, and how they showed that it is they; empty while nobody does.
    Column("payer", String(255), nullable=False),
    Column("authority", String(12), nullable=False),
    # Each attempt to pay has a payment id of its own.
    Column("attempt", Integer, nullable=False),
    Column("claimed_at_ms", BigInteger, nullable=False),
    Column("ended_at_ms", BigInteger),
    Index("merchant_orders_by_merchant", "merchant_id", "created_at_ms", "id"),
    Index(
        "merchant_orders_unfinished",
        "state",
        "expires_at_ms",
        postgresql_where=text("state IN ('open', 'paying')"),
        sqlite_where=text("state IN ('open', 'paying')"),
    ),
)

payment_codes = Table(
    "payment_codes",
    metadata,
    Column("code_hash", String(64), primary_key=True),
    Column("user_id", String(255), nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    # The charge that used it up.
    Column("order_id", LedgerIdType),
    Index("payment_codes_by_user", "user_id", "expires_at_ms"),
    Index("payment_codes_by_expiry", "expires_at_ms"),
)

merchant_refunds = Table(
    "merchant_refunds",
    metadata,
    Column("id", LedgerIdType, primary_key=True),
    Column("merchant_id", LedgerIdType, nullable=False),
    Column("refund_number", String(64), nullable=False),
    Column("order_id", LedgerIdType, nullable=False),
    Column("payment_id", LedgerIdType, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("reason", String(200), nullable=False),
    Column("state", String(12), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("claimed_at_ms", BigInteger, nullable=False),
    Index("merchant_refunds_by_order", "order_id", "created_at_ms"),
    Index(
        "merchant_refunds_unfinished",
        "claimed_at_ms",
        postgresql_where=text("state = 'paying'"),
        sqlite_where=text("state = 'paying'"),
    ),
)

# What of a payment was given back or is being given back: counted up before the money moves.
payment_refunds_total = Table(
    "payment_refunds_total",
    metadata,
    Column("payment_id", LedgerIdType, primary_key=True),
    Column("refunded_minor", BigInteger, nullable=False),
    Column("parts", Integer, nullable=False),
)

merchant_endpoints = Table(
    "merchant_endpoints",
    metadata,
    Column("id", LedgerIdType, primary_key=True),
    Column("merchant_id", LedgerIdType, nullable=False),
    Column("url", String(500), nullable=False),
    Column("secret", String(64), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    # When it was taken away, or has answered 410 Gone.
    Column("disabled_at_ms", BigInteger),
    Index("merchant_endpoints_by_merchant", "merchant_id", "created_at_ms"),
)

merchant_deliveries = Table(
    "merchant_deliveries",
    metadata,
    # SQLite counts up only in a column that is exactly INTEGER PRIMARY KEY.
    Column("position", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", LedgerIdType, nullable=False),
    Column("merchant_id", LedgerIdType, nullable=False),
    Column("endpoint_id", LedgerIdType, nullable=False),
    # The webhook-id, the same for every endpoint.
    Column("event_id", LedgerIdType, nullable=False),
    Column("event", String(32), nullable=False),
    Column("payload", Text, nullable=False),
    Column("state", String(12), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    # When it is tried next; while it is tried, when somebody else may take it up.
    Column("next_at_ms", BigInteger, nullable=False),
    Column("problem", String(200), nullable=False),
    UniqueConstraint("id", name="merchant_deliveries_id"),
    Index("merchant_deliveries_by_merchant", "merchant_id", "position"),
    Index("merchant_deliveries_by_age", "created_at_ms"),
    Index(
        "merchant_deliveries_waiting",
        "next_at_ms",
        postgresql_where=text("state = 'waiting'"),
        sqlite_where=text("state = 'waiting'"),
    ),
)
