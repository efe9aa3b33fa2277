"""What outgoing events are about and replace, for reactions, replies and new versions of a message."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "chassis_0002"
down_revision = "chassis_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("outbox", sa.Column("sent_room_id", sa.String(255)))
    op.add_column("outbox", sa.Column("subject", sa.String(64), nullable=False, server_default=""))
    op.add_column("outbox", sa.Column("replaces", sa.String(64)))
    op.create_index("outbox_by_event", "outbox", ["event_id"])
    op.create_index("outbox_by_replaced", "outbox", ["replaces", "position"])
