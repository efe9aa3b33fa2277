"""What people have spent today, payments that wait to be confirmed, and budget warnings that were given."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, SmallInteger, String, Table, Text

from wallet_appservice.storage.metadata import metadata

# One row per user, currency and day, counted up in the transaction that moves the money.
day_spending = Table(
    "day_spending",
    metadata,
    Column("user_id", String(255), primary_key=True),
    Column("currency", String(8), primary_key=True),
    # Days since 1970-01-01, by UTC.
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("spent_minor", BigInteger, nullable=False),
    Index("day_spending_by_day", "day"),
)

# Payments asked for by chat above the chat limit. The id is that of the payment.
confirmations = Table(
    "confirmations",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("payer", String(255), nullable=False),
    Column("payee", String(255), nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", String(8), nullable=False),
    Column("memo", Text, nullable=False),
    Column("room_id", String(255)),
    Column("in_reply_to", String(255)),
    Column("subject", String(64), nullable=False),
    # open → paying → paid or refused; open → cancelled or expired.
    Column("state", String(16), nullable=False),
    # How the payer had shown that it is theirs, when it was claimed; "" before.
    Column("authority", String(16), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Column("changed_at_ms", BigInteger, nullable=False),
    Index("confirmations_by_state", "state", "expires_at_ms"),
    Index("confirmations_by_change", "changed_at_ms"),
)

budget_warnings = Table(
    "budget_warnings",
    metadata,
    Column("user_id", String(255), primary_key=True),
    Column("currency", String(8), primary_key=True),
    # Year and month, 202611.
    Column("month", Integer, primary_key=True, autoincrement=False),
    Column("percent", SmallInteger, primary_key=True, autoincrement=False),
)
