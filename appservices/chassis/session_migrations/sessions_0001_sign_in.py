"""Sessions, sign-in codes and one-time links."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "sessions_0001"
down_revision = None
branch_labels = ("sessions",)
depends_on = None


def upgrade() -> None:
    op.create_table(
        "web_sessions",
        sa.Column("session_id", sa.String(32), primary_key=True),
        sa.Column("token_hash", sa.String(64), nullable=False, unique=True),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("signed_in_by", sa.String(16), nullable=False),
        sa.Column("user_agent", sa.String(200), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("web_sessions_by_user", "web_sessions", ["user_id", "created_at_ms"])
    op.create_index("web_sessions_by_expiry", "web_sessions", ["expires_at_ms"])
    op.create_table(
        "sign_in_codes",
        sa.Column("code_hash", sa.String(64), primary_key=True),
        sa.Column("browser_hash", sa.String(64), nullable=False, unique=True),
        sa.Column("address_hash", sa.String(64), nullable=False),
        sa.Column("user_agent", sa.String(200), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
        sa.Column("user_id", sa.String(255)),
        sa.Column("taken_at_ms", sa.BigInteger),
    )
    op.create_index("sign_in_codes_by_address", "sign_in_codes", ["address_hash"])
    op.create_index("sign_in_codes_by_expiry", "sign_in_codes", ["expires_at_ms"])
    op.create_table(
        "sign_in_links",
        sa.Column("token_hash", sa.String(64), primary_key=True),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("sign_in_links_by_user", "sign_in_links", ["user_id", "expires_at_ms"])
    op.create_index("sign_in_links_by_expiry", "sign_in_links", ["expires_at_ms"])
