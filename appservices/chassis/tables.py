"""Tables that every service has in its own database: what came in, what is to go out, whom it talks to."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

# SQLite counts up only in a column that is exactly INTEGER PRIMARY KEY.
position_type = BigInteger().with_variant(Integer, "sqlite")

inbox = Table(
    "inbox",
    metadata,
    Column("position", position_type, primary_key=True, autoincrement=True),
    Column("event_id", String(255), nullable=False, unique=True),
    Column("room_id", String(255), nullable=False),
    # Emptied when the event is done; the event id stays, so that a repetition is known.
    Column("event", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("received_at_ms", BigInteger, nullable=False),
    Column("problem", Text, nullable=False, default=""),
    Index("inbox_by_state", "state", "position"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("position", position_type, primary_key=True, autoincrement=True),
    Column("outbox_id", String(64), nullable=False, unique=True),
    # Exactly one of the two: a room, or a user who is written to directly.
    Column("room_id", String(255)),
    Column("to_user", String(255)),
    Column("event_type", String(255), nullable=False),
    Column("content", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    # Where it was sent and as which event, once it is.
    Column("sent_room_id", String(255)),
    Column("event_id", String(255)),
    # What the event is about, `kind:id`, for whoever reacts or replies to it.
    Column("subject", String(64), nullable=False, server_default=""),
    # The outbox id of the message that this one is a new version of.
    Column("replaces", String(64)),
    Column("problem", Text, nullable=False, default=""),
    Index("outbox_by_state", "state", "position"),
    Index("outbox_by_event", "event_id"),
    Index("outbox_by_replaced", "replaces", "position"),
)

direct_rooms = Table(
    "direct_rooms",
    metadata,
    Column("user_id", String(255), primary_key=True),
    Column("room_id", String(255), nullable=False),
)
