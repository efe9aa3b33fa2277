"""The tables of Moments in the service's own database."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text

from appservices.chassis.tables import position_type

MOMENTS_MIGRATIONS: Final = Path(__file__).parent / "migrations"

metadata = MetaData()

moments = Table(
    "moments",
    metadata,
    Column("moment_id", String(32), primary_key=True),
    Column("author", String(255), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("edited_at_ms", BigInteger),
    # What it says, as JSON; emptied when it is deleted, while the id stays, so that it never comes again.
    Column("content", Text, nullable=False),
    # For whom it is, as JSON; of a Moment from another server whom of ours that server has named.
    Column("audience", Text, nullable=False),
    # How far back visitors may look, of a Moment from another server.
    Column("window", String(16), nullable=False),
    Column("deleted_at_ms", BigInteger),
    Index("moments_by_author", "author", "created_at_ms"),
)

moment_events = Table(
    # The events of the author's Moments room of which a Moment is made: its text, each of its pictures.
    "moment_events",
    metadata,
    Column("event_id", String(255), primary_key=True),
    Column("moment_id", String(32), nullable=False),
    # The id of the picture that it brought; empty for the text.
    Column("part_id", String(32), nullable=False),
    Index("moment_events_by_moment", "moment_id"),
)

likes = Table(
    "likes",
    metadata,
    Column("moment_id", String(32), primary_key=True),
    Column("maker", String(255), primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    # The reaction by which it was made, if it was made in a room.
    Column("event_id", String(255)),
    # Of people of other servers: who may see it, as JSON; see across.py.
    Column("shown_to", Text, nullable=False, server_default=""),
    Index("likes_by_maker", "maker", "moment_id"),
    Index("likes_by_event", "event_id"),
)

comments = Table(
    "comments",
    metadata,
    Column("comment_id", String(32), primary_key=True),
    Column("moment_id", String(32), nullable=False),
    Column("maker", String(255), nullable=False),
    Column("text", Text, nullable=False),
    # The comment that it answers.
    Column("answers", String(32)),
    Column("at_ms", BigInteger, nullable=False),
    Column("event_id", String(255)),
    Column("deleted_at_ms", BigInteger),
    Column("shown_to", Text, nullable=False, server_default=""),
    Index("comments_by_moment", "moment_id", "at_ms"),
    Index("comments_by_maker", "maker", "moment_id"),
    Index("comments_by_event", "event_id"),
)

circles = Table(
    # What accounts say about others, as Synapse told last.
    "circles",
    metadata,
    Column("user_id", String(255), primary_key=True),
    Column("snapshot", Text, nullable=False),
)

circle_rooms = Table(
    # The direct rooms of those accounts, to know whose circle changes when somebody comes or goes.
    "circle_rooms",
    metadata,
    Column("room_id", String(255), primary_key=True),
    Column("user_id", String(255), primary_key=True),
    Index("circle_rooms_by_user", "user_id"),
)

marks = Table(
    # Single values: how far we have read what Synapse tells.
    "marks",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

authors = Table(
    # What people have shown of themselves, and what they have seen.
    "authors",
    metadata,
    Column("user_id", String(255), primary_key=True),
    # The cover picture, as JSON; empty when there is none.
    Column("cover", Text, nullable=False, server_default=""),
    Column("news_seen_at_ms", BigInteger, nullable=False, server_default="0"),
)

feed_rooms = Table(
    "feed_rooms",
    metadata,
    Column("user_id", String(255), primary_key=True),
    Column("room_id", String(255), nullable=False, unique=True),
    # How many Moments have come since the person was last there.
    Column("unseen", Integer, nullable=False, server_default="0"),
)

feed_entries = Table(
    # What stands in a Moments room: friends' Moments, and what others made of one's own.
    "feed_entries",
    metadata,
    Column("user_id", String(255), primary_key=True),
    Column("moment_id", String(32), primary_key=True),
    # `moment`, `likes`, or `comment:` and its id.
    Column("kind", String(48), primary_key=True),
    # The outbox id of its message.
    Column("outbox_id", String(64), nullable=False),
    # What the message shows now, to know whether it must change; empty once it was taken back.
    Column("digest", String(64), nullable=False),
    # How many messages there were for it before.
    Column("version", Integer, nullable=False),
    Index("feed_entries_by_moment", "moment_id"),
)

due = Table(
    # Moments of which somebody may have to be told. A Moment may be here several times.
    "due",
    metadata,
    Column("position", position_type, primary_key=True, autoincrement=True),
    Column("moment_id", String(32), nullable=False),
    # Not before then: pictures that are sent one after the other become one Moment.
    Column("at_ms", BigInteger, nullable=False),
    Index("due_by_moment", "moment_id"),
)

sheets = Table(
    # Several pictures as one, for rooms; the id is derived from theirs.
    "sheets",
    metadata,
    Column("sheet_id", String(32), primary_key=True),
    Column("part", Text, nullable=False),
)

copies = Table(
    # What another server has of a Moment, as far as we have told it: the Moment, likes and comments by name.
    "copies",
    metadata,
    Column("moment_id", String(32), primary_key=True),
    Column("server", String(255), primary_key=True),
    # `moment`, `like:` and its maker, `comment:` and its id.
    Column("element", String(300), primary_key=True),
    Column("digest", String(64), nullable=False),
    Index("copies_by_server", "server"),
)

uploads = Table(
    # Pictures that somebody has chosen for a Moment that is not posted yet.
    "uploads",
    metadata,
    Column("upload_id", String(32), primary_key=True),
    Column("user_id", String(255), nullable=False),
    Column("part", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Index("uploads_by_user", "user_id", "at_ms"),
)
