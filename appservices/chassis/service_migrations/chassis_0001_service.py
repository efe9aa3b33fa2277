"""Inbox, outbox and direct rooms of a service."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "chassis_0001"
down_revision = None
branch_labels = ("chassis",)
depends_on = None

_position = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "inbox",
        sa.Column("position", _position, primary_key=True, autoincrement=True),
        sa.Column("event_id", sa.String(255), nullable=False, unique=True),
        sa.Column("room_id", sa.String(255), nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("received_at_ms", sa.BigInteger, nullable=False),
        sa.Column("problem", sa.Text, nullable=False),
    )
    op.create_index("inbox_by_state", "inbox", ["state", "position"])
    op.create_table(
        "outbox",
        sa.Column("position", _position, primary_key=True, autoincrement=True),
        sa.Column("outbox_id", sa.String(64), nullable=False, unique=True),
        sa.Column("room_id", sa.String(255)),
        sa.Column("to_user", sa.String(255)),
        sa.Column("event_type", sa.String(255), nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("event_id", sa.String(255)),
        sa.Column("problem", sa.Text, nullable=False),
    )
    op.create_index("outbox_by_state", "outbox", ["state", "position"])
    op.create_table(
        "direct_rooms",
        sa.Column("user_id", sa.String(255), primary_key=True),
        sa.Column("room_id", sa.String(255), nullable=False),
    )
