"""Requests for money: what somebody asks of one person or of several, a share a head."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text, text

from wallet_appservice.storage.metadata import metadata

_UNSHOWN = text("shown_version < version")

requests = Table(
    "requests",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("requester", String(255), nullable=False),
    # Where it was asked; none when it was asked on a page.
    Column("room_id", String(255)),
    Column("total_minor", BigInteger, nullable=False),
    Column("currency", String(8), nullable=False),
    Column("memo", Text, nullable=False),
    Column("is_split", Integer, nullable=False),
    # The language that its message is written in, also when it changes later.
    Column("language", String(16), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("remind_at_ms", BigInteger),
    Column("expires_at_ms", BigInteger, nullable=False),
    # Whether any share of it may still change: what the sweeper looks at.
    Column("is_open", Integer, nullable=False),
    # Counts changes; a message that shows an earlier one is renewed.
    Column("version", Integer, nullable=False),
    Column("shown_version", Integer, nullable=False),
    Index("requests_by_requester", "requester", "is_open", "expires_at_ms"),
    Index("requests_by_expiry", "is_open", "expires_at_ms"),
    Index("requests_by_reminder", "is_open", "remind_at_ms"),
    Index("requests_unshown", "id", sqlite_where=_UNSHOWN, postgresql_where=_UNSHOWN),
)

request_shares = Table(
    "request_shares",
    metadata,
    Column("request_id", String(32), primary_key=True),
    Column("asked", String(255), primary_key=True),
    # In which order they were named; the first ones bear the remainder.
    Column("place", Integer, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    # open, paying, paid, declined, cancelled, expired; `own` is the requester's own part.
    Column("state", String(16), nullable=False),
    # Whether they have a copy of the message of their own, because they were not in the room.
    Column("has_copy", Integer, nullable=False),
    # How often they have begun to pay: each attempt is a payment of its own to the ledger.
    Column("attempt", Integer, nullable=False),
    # How they showed that they wanted to, for whoever finishes it.
    Column("authority", String(16), nullable=False),
    Column("changed_at_ms", BigInteger, nullable=False),
    # Of the request, so that one index lists what waits for somebody.
    Column("expires_at_ms", BigInteger, nullable=False),
    Index("request_shares_by_asked", "asked", "state", "expires_at_ms"),
    Index("request_shares_by_state", "state", "changed_at_ms"),
)
