"""Money between people: requests, red packets, refunds, payments that wait for acceptance, and settings."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "wallet_0005"
down_revision = "wallet_0004"
branch_labels = None
depends_on = None

_UNSHOWN = sa.text("shown_version < version")


def upgrade() -> None:
    op.add_column("payments", sa.Column("expires_at_ms", sa.BigInteger))
    op.add_column("payments", sa.Column("end_receipt", sa.Text))
    op.create_index("payments_by_expiry", "payments", ["state", "expires_at_ms"])
    op.create_table(
        "requests",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("requester", sa.String(255), nullable=False),
        sa.Column("room_id", sa.String(255)),
        sa.Column("total_minor", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String(8), nullable=False),
        sa.Column("memo", sa.Text, nullable=False),
        sa.Column("is_split", sa.Integer, nullable=False),
        sa.Column("language", sa.String(16), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("remind_at_ms", sa.BigInteger),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
        sa.Column("is_open", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("shown_version", sa.Integer, nullable=False),
    )
    op.create_index("requests_by_requester", "requests", ["requester", "is_open", "expires_at_ms"])
    op.create_index("requests_by_expiry", "requests", ["is_open", "expires_at_ms"])
    op.create_index("requests_by_reminder", "requests", ["is_open", "remind_at_ms"])
    op.create_index("requests_unshown", "requests", ["id"], sqlite_where=_UNSHOWN, postgresql_where=_UNSHOWN)
    op.create_table(
        "request_shares",
        sa.Column("request_id", sa.String(32), primary_key=True),
        sa.Column("asked", sa.String(255), primary_key=True),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("amount_minor", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("has_copy", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("authority", sa.String(16), nullable=False),
        sa.Column("changed_at_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("request_shares_by_asked", "request_shares", ["asked", "state", "expires_at_ms"])
    op.create_index("request_shares_by_state", "request_shares", ["state", "changed_at_ms"])
    op.create_table(
        "red_packets",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("sender", sa.String(255), nullable=False),
        sa.Column("room_id", sa.String(255), nullable=False),
        sa.Column("total_minor", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String(8), nullable=False),
        sa.Column("shares_count", sa.Integer, nullable=False),
        sa.Column("is_equal", sa.Integer, nullable=False),
        sa.Column("words", sa.Text, nullable=False),
        sa.Column("language", sa.String(16), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("remaining_minor", sa.BigInteger, nullable=False),
        sa.Column("remaining_count", sa.Integer, nullable=False),
        sa.Column("changed_at_ms", sa.BigInteger, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("shown_version", sa.Integer, nullable=False),
    )
    op.create_index("red_packets_by_sender", "red_packets", ["sender", "state", "expires_at_ms"])
    op.create_index("red_packets_by_state", "red_packets", ["state", "expires_at_ms"])
    op.create_index(
        "red_packets_unshown", "red_packets", ["id"], sqlite_where=_UNSHOWN, postgresql_where=_UNSHOWN
    )
    op.create_table(
        "red_packet_shares",
        sa.Column("packet_id", sa.String(32), primary_key=True),
        sa.Column("opener", sa.String(255), primary_key=True),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("amount_minor", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("drawn_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("red_packet_shares_by_state", "red_packet_shares", ["state", "drawn_at_ms"])
    op.create_table(
        "refunds",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("payment_id", sa.String(32), nullable=False),
        sa.Column("amount_minor", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("memo", sa.Text, nullable=False),
        sa.Column("room_id", sa.String(255)),
        sa.Column("account_id", sa.String(32), nullable=False),
        sa.Column("account_kind", sa.String(16), nullable=False),
        sa.Column("account_owner", sa.String(255), nullable=False),
        sa.Column("changed_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("refunds_by_payment", "refunds", ["payment_id"])
    op.create_index("refunds_by_state", "refunds", ["state", "changed_at_ms"])
    op.create_table(
        "wallet_settings",
        sa.Column("user_id", sa.String(255), primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
