"""Payments across homeservers: peers, limits, what was prepared and answered, statements, settlements."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "wallet_0009"
down_revision = "wallet_0008"
branch_labels = None
depends_on = None

position_type = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "peers",
        sa.Column("server", sa.String(255), primary_key=True),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("allowed", sa.Boolean, nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "peer_limits",
        sa.Column("server", sa.String(255), primary_key=True),
        sa.Column("currency", sa.String(8), primary_key=True),
        sa.Column("limit_minor", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("warned_at_ms", sa.BigInteger),
    )
    op.create_table(
        "clearing_out",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("server", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("payer", sa.String(255), nullable=False),
        sa.Column("payee", sa.String(255), nullable=False),
        sa.Column("amount_minor", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String(8), nullable=False),
        sa.Column("memo", sa.Text, nullable=False),
        sa.Column("room_id", sa.String(255)),
        sa.Column("in_reply_to", sa.String(255)),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("of_id", sa.String(32)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger),
        sa.Column("inquire_at_ms", sa.BigInteger, nullable=False),
        sa.Column("inquiries", sa.Integer, nullable=False),
    )
    op.create_index("clearing_out_by_state", "clearing_out", ["state", "inquire_at_ms"])
    op.create_index("clearing_out_by_server", "clearing_out", ["server", "currency", "expires_at_ms"])
    op.create_table(
        "clearing_in",
        sa.Column("server", sa.String(255), primary_key=True),
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("content", sa.String(64), nullable=False),
        sa.Column("answer", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("amount_minor", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String(8), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("untold_payment_id", sa.String(32)),
    )
    op.create_index("clearing_in_untold", "clearing_in", ["untold_payment_id"])
    op.create_index("clearing_in_by_server", "clearing_in", ["server", "currency", "expires_at_ms"])
    op.create_table(
        "settlements",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("server", sa.String(255), nullable=False),
        sa.Column("direction", sa.String(8), nullable=False),
        sa.Column("amount_minor", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String(8), nullable=False),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "peer_statements",
        sa.Column("position", position_type, primary_key=True, autoincrement=True),
        sa.Column("server", sa.String(255), nullable=False),
        sa.Column("currency", sa.String(8), nullable=False),
        sa.Column("from_ms", sa.BigInteger, nullable=False),
        sa.Column("to_ms", sa.BigInteger, nullable=False),
        sa.Column("side", sa.String(8), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("peer_statements_by_server", "peer_statements", ["server", "position"])
    op.create_index("peer_statements_by_state", "peer_statements", ["state"])
    op.create_table(
        "peer_positions",
        sa.Column("server", sa.String(255), primary_key=True),
        sa.Column("currency", sa.String(8), primary_key=True),
        sa.Column("hour_ms", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("owed_minor", sa.BigInteger, nullable=False),
    )
