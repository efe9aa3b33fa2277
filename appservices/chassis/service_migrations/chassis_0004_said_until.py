"""Up to when a link has spoken, so that its time never goes back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "chassis_0004"
down_revision = "chassis_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("links", sa.Column("said_until_ms", sa.BigInteger, nullable=False, server_default="0"))
    # What was said until now has a time of the same clock, or of one that was set back since.
    op.execute("UPDATE links SET said_until_ms = created_at_ms")
