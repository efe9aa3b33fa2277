"""Moments, likes and comments; circles of contacts; Moments rooms and what stands in them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "moments_0001"
down_revision = None
branch_labels = ("moments",)
depends_on = None


def upgrade() -> None:
    position = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "moments",
        sa.Column("moment_id", sa.String(32), primary_key=True),
        sa.Column("author", sa.String(255), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("edited_at_ms", sa.BigInteger),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("audience", sa.Text, nullable=False),
        sa.Column("window", sa.String(16), nullable=False),
        sa.Column("deleted_at_ms", sa.BigInteger),
    )
    op.create_index("moments_by_author", "moments", ["author", "created_at_ms"])
    op.create_table(
        "moment_events",
        sa.Column("event_id", sa.String(255), primary_key=True),
        sa.Column("moment_id", sa.String(32), nullable=False),
        sa.Column("part_id", sa.String(32), nullable=False),
    )
    op.create_index("moment_events_by_moment", "moment_events", ["moment_id"])
    op.create_table(
        "likes",
        sa.Column("moment_id", sa.String(32), primary_key=True),
        sa.Column("maker", sa.String(255), primary_key=True),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("event_id", sa.String(255)),
        sa.Column("shown_to", sa.Text, nullable=False, server_default=""),
    )
    op.create_index("likes_by_maker", "likes", ["maker", "moment_id"])
    op.create_index("likes_by_event", "likes", ["event_id"])
    op.create_table(
        "comments",
        sa.Column("comment_id", sa.String(32), primary_key=True),
        sa.Column("moment_id", sa.String(32), nullable=False),
        sa.Column("maker", sa.String(255), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("answers", sa.String(32)),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("event_id", sa.String(255)),
        sa.Column("deleted_at_ms", sa.BigInteger),
        sa.Column("shown_to", sa.Text, nullable=False, server_default=""),
    )
    op.create_index("comments_by_moment", "comments", ["moment_id", "at_ms"])
    op.create_index("comments_by_maker", "comments", ["maker", "moment_id"])
    op.create_index("comments_by_event", "comments", ["event_id"])
    op.create_table(
        "circles",
        sa.Column("user_id", sa.String(255), primary_key=True),
        sa.Column("snapshot", sa.Text, nullable=False),
    )
    op.create_table(
        "circle_rooms",
        sa.Column("room_id", sa.String(255), primary_key=True),
        sa.Column("user_id", sa.String(255), primary_key=True),
    )
    op.create_index("circle_rooms_by_user", "circle_rooms", ["user_id"])
    op.create_table(
        "marks",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table(
        "authors",
        sa.Column("user_id", sa.String(255), primary_key=True),
        sa.Column("cover", sa.Text, nullable=False, server_default=""),
        sa.Column("news_seen_at_ms", sa.BigInteger, nullable=False, server_default="0"),
    )
    op.create_table(
        "feed_rooms",
        sa.Column("user_id", sa.String(255), primary_key=True),
        sa.Column("room_id", sa.String(255), nullable=False, unique=True),
        sa.Column("unseen", sa.Integer, nullable=False, server_default="0"),
    )
    op.create_table(
        "feed_entries",
        sa.Column("user_id", sa.String(255), primary_key=True),
        sa.Column("moment_id", sa.String(32), primary_key=True),
        sa.Column("kind", sa.String(48), primary_key=True),
        sa.Column("outbox_id", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
    )
    op.create_index("feed_entries_by_moment", "feed_entries", ["moment_id"])
    op.create_table(
        "due",
        sa.Column("position", position, primary_key=True, autoincrement=True),
        sa.Column("moment_id", sa.String(32), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("due_by_moment", "due", ["moment_id"])
    op.create_table(
        "sheets",
        sa.Column("sheet_id", sa.String(32), primary_key=True),
        sa.Column("part", sa.Text, nullable=False),
    )
    op.create_table(
        "uploads",
        sa.Column("upload_id", sa.String(32), primary_key=True),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("part", sa.Text, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("uploads_by_user", "uploads", ["user_id", "at_ms"])
