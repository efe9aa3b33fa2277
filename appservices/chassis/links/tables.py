"""A service's links as they are kept: one row a link, its messages until they are acknowledged, its keys."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, String, Table, Text

from appservices.chassis.tables import metadata, position_type

links = Table(
    "links",
    metadata,
    # The peer's service user.
    Column("peer", String(255), primary_key=True),
    # open, stopped.
    Column("state", String(16), nullable=False),
    Column("reason", String(32), nullable=False),
    Column("detail", Text, nullable=False),
    Column("stopped_at_ms", BigInteger),
    Column("room_id", String(255)),
    # Whether the room is one of ours or of the peer's making, for when both made one.
    Column("room_is_ours", Boolean, nullable=False),
    Column("peer_keys", Text, nullable=False),
    # What the operator wants to be done by the running service: "", mend, trust, stop.
    Column("wish", String(16), nullable=False),
    Column("out_epoch", BigInteger, nullable=False),
    Column("out_seq", BigInteger, nullable=False),
    Column("out_chain", String(64), nullable=False),
    Column("out_acked", BigInteger, nullable=False),
    Column("out_acked_at_ms", BigInteger, nullable=False),
    Column("in_epoch", BigInteger, nullable=False),
    Column("in_seq", BigInteger, nullable=False),
    Column("in_chain", String(64), nullable=False),
    Column("in_floor", BigInteger, nullable=False),
    Column("heard_at_ms", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    # No message of ours says a later time.
    Column("said_until_ms", BigInteger, nullable=False),
)

link_items = Table(
    "link_items",
    metadata,
    Column("position", position_type, primary_key=True, autoincrement=True),
    Column("peer", String(255), nullable=False),
    Column("item", Text, nullable=False),
    Index("link_items_by_peer", "peer", "position"),
)

link_messages = Table(
    "link_messages",
    metadata,
    # The key keeps two processes from giving one number to two messages.
    Column("peer", String(255), primary_key=True),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("content", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
)

link_received = Table(
    "link_received",
    metadata,
    # The key keeps a message from being applied twice, whoever tries.
    Column("peer", String(255), primary_key=True),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("chain", String(64), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

link_counts = Table(
    "link_counts",
    metadata,
    # What was refused or met, and how often, for operators.
    Column("peer", String(255), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("last_at_ms", BigInteger, nullable=False),
)
