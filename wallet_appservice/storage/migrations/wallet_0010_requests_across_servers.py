"""Requests across homeservers: which share of which request two wallets speak of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "wallet_0010"
down_revision = "wallet_0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "clearing_requests",
        sa.Column("server", sa.String(255), primary_key=True),
        sa.Column("direction", sa.String(8), primary_key=True),
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("request_id", sa.String(32), nullable=False),
        sa.Column("asked", sa.String(255), nullable=False),
        sa.Column("content", sa.String(64), nullable=False),
    )
    op.create_index("clearing_requests_by_request", "clearing_requests", ["request_id", "asked"])
