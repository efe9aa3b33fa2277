"""What a payment is for, and which one it gives back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "wallet_0004"
down_revision = "wallet_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("payments", sa.Column("subject", sa.String(64), nullable=False, server_default=""))
    op.add_column("payments", sa.Column("of_id", sa.String(32)))
    op.create_index("payments_by_subject", "payments", ["subject", "position"])
    op.create_index("payments_by_of_id", "payments", ["of_id"])
