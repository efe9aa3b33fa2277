"""Links with services of other homeservers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "chassis_0003"
down_revision = "chassis_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "links",
        sa.Column("peer", sa.String(255), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("stopped_at_ms", sa.BigInteger),
        sa.Column("room_id", sa.String(255)),
        sa.Column("room_is_ours", sa.Boolean, nullable=False),
        sa.Column("peer_keys", sa.Text, nullable=False),
        sa.Column("wish", sa.String(16), nullable=False),
        sa.Column("out_epoch", sa.BigInteger, nullable=False),
        sa.Column("out_seq", sa.BigInteger, nullable=False),
        sa.Column("out_chain", sa.String(64), nullable=False),
        sa.Column("out_acked", sa.BigInteger, nullable=False),
        sa.Column("out_acked_at_ms", sa.BigInteger, nullable=False),
        sa.Column("in_epoch", sa.BigInteger, nullable=False),
        sa.Column("in_seq", sa.BigInteger, nullable=False),
        sa.Column("in_chain", sa.String(64), nullable=False),
        sa.Column("in_floor", sa.BigInteger, nullable=False),
        sa.Column("heard_at_ms", sa.BigInteger, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "link_items",
        sa.Column(
            "position",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("peer", sa.String(255), nullable=False),
        sa.Column("item", sa.Text, nullable=False),
    )
    op.create_index("link_items_by_peer", "link_items", ["peer", "position"])
    op.create_table(
        "link_messages",
        sa.Column("peer", sa.String(255), primary_key=True),
        sa.Column("epoch", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "link_received",
        sa.Column("peer", sa.String(255), primary_key=True),
        sa.Column("epoch", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("chain", sa.String(64), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "link_counts",
        sa.Column("peer", sa.String(255), primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("last_at_ms", sa.BigInteger, nullable=False),
    )
