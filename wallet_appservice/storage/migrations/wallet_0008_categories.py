"""The category that a person gives to a payment."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "wallet_0008"
down_revision = "wallet_0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "payment_categories",
        sa.Column("user_id", sa.String(255), primary_key=True),
        sa.Column("payment_id", sa.String(32), primary_key=True),
        sa.Column("category", sa.String(16), nullable=False),
    )
