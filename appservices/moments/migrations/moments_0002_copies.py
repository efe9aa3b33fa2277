"""What other servers have of Moments."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "moments_0002"
down_revision = "moments_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "copies",
        sa.Column("moment_id", sa.String(32), primary_key=True),
        sa.Column("server", sa.String(255), primary_key=True),
        sa.Column("element", sa.String(300), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
    )
    op.create_index("copies_by_server", "copies", ["server"])
