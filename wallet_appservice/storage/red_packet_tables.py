"""Red packets, and who has found what in them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text, text

from wallet_appservice.storage.metadata import metadata

_UNSHOWN = text("shown_version < version")

red_packets = Table(
    "red_packets",
    metadata,
    # The id of the payment that filled it.
    Column("id", String(32), primary_key=True),
    Column("sender", String(255), nullable=False),
    Column("room_id", String(255), nullable=False),
    Column("total_minor", BigInteger, nullable=False),
    Column("currency", String(8), nullable=False),
    Column("shares_count", Integer, nullable=False),
    Column("is_equal", Integer, nullable=False),
    Column("words", Text, nullable=False),
    Column("language", String(16), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    # open, emptied, returning, returned.
    Column("state", String(16), nullable=False),
    # What nobody has drawn yet.
    Column("remaining_minor", BigInteger, nullable=False),
    Column("remaining_count", Integer, nullable=False),
    Column("changed_at_ms", BigInteger, nullable=False),
    Column("version", Integer, nullable=False),
    Column("shown_version", Integer, nullable=False),
    Index("red_packets_by_sender", "sender", "state", "expires_at_ms"),
    Index("red_packets_by_state", "state", "expires_at_ms"),
    Index("red_packets_unshown", "id", sqlite_where=_UNSHOWN, postgresql_where=_UNSHOWN),
)

red_packet_shares = Table(
    "red_packet_shares",
    metadata,
    # One row a member: nobody opens a packet twice.
    Column("packet_id", String(32), primary_key=True),
    Column("opener", String(255), primary_key=True),
    Column("place", Integer, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    # drawn, paid; of openers elsewhere sent, lapsed, returned as well.
    Column("state", String(16), nullable=False),
    Column("drawn_at_ms", BigInteger, nullable=False),
    Index("red_packet_shares_by_state", "state", "drawn_at_ms"),
)
