"""The language that each user has chosen."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "sessions_0002"
down_revision = "sessions_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "chosen_languages",
        sa.Column("user_id", sa.String(255), primary_key=True),
        sa.Column("language", sa.String(35), nullable=False),
    )
