"""Merchants: accounts with keys, orders, payment codes, refunds and notifications."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "wallet_0006"
down_revision = "wallet_0005"
branch_labels = None
depends_on = None

_ledger_id = sa.LargeBinary(16).with_variant(postgresql.UUID(), "postgresql")


def upgrade() -> None:
    op.add_column("payments", sa.Column("merchant_id", _ledger_id))
    op.add_column("payments", sa.Column("merchant_side", sa.String(8), nullable=False, server_default=""))
    op.drop_index("payments_by_payer", "payments")
    op.create_index(
        "payments_by_payer", "payments", ["payer", "position"], **_where("merchant_side <> 'payer'")
    )
    op.drop_index("payments_by_payee", "payments")
    op.create_index(
        "payments_by_payee", "payments", ["payee", "position"], **_where("merchant_side <> 'payee'")
    )
    op.create_index(
        "payments_by_merchant", "payments", ["merchant_id", "position"], **_where("merchant_id IS NOT NULL")
    )
    op.create_index(
        "payments_purchase_once", "payments", ["subject"], unique=True, **_where("kind = 'purchase'")
    )
    op.create_table(
        "merchants",
        sa.Column("id", _ledger_id, primary_key=True),
        sa.Column("name", sa.String(60), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("order_secret", sa.String(64), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("closed_at_ms", sa.BigInteger),
    )
    op.create_index("merchants_by_owner", "merchants", ["owner", "id"])
    op.create_table(
        "merchant_keys",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("merchant_id", _ledger_id, nullable=False),
        sa.Column("name", sa.String(60), nullable=False),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("scopes", sa.String(100), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("revoked_at_ms", sa.BigInteger),
        sa.Column("last_used_at_ms", sa.BigInteger),
    )
    op.create_index("merchant_keys_by_merchant", "merchant_keys", ["merchant_id", "created_at_ms"])
    op.create_table(
        "merchant_orders",
        sa.Column("id", _ledger_id, primary_key=True),
        sa.Column("merchant_id", _ledger_id, nullable=False),
        sa.Column("reference", sa.String(64), nullable=False),
        sa.Column("way", sa.String(8), nullable=False),
        sa.Column("description", sa.String(200), nullable=False),
        sa.Column("amount_minor", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String(8), nullable=False),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
        sa.Column("payer", sa.String(255), nullable=False),
        sa.Column("authority", sa.String(12), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("claimed_at_ms", sa.BigInteger, nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger),
    )
    op.create_index("merchant_orders_by_merchant", "merchant_orders", ["merchant_id", "created_at_ms", "id"])
    op.create_index(
        "merchant_orders_unfinished",
        "merchant_orders",
        ["state", "expires_at_ms"],
        **_where("state IN ('open', 'paying')"),
    )
    op.create_table(
        "payment_codes",
        sa.Column("code_hash", sa.String(64), primary_key=True),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
        sa.Column("order_id", _ledger_id),
    )
    op.create_index("payment_codes_by_user", "payment_codes", ["user_id", "expires_at_ms"])
    op.create_index("payment_codes_by_expiry", "payment_codes", ["expires_at_ms"])
    op.create_table(
        "merchant_refunds",
        sa.Column("id", _ledger_id, primary_key=True),
        sa.Column("merchant_id", _ledger_id, nullable=False),
        sa.Column("refund_number", sa.String(64), nullable=False),
        sa.Column("order_id", _ledger_id, nullable=False),
        sa.Column("payment_id", _ledger_id, nullable=False),
        sa.Column("amount_minor", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.String(200), nullable=False),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("claimed_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("merchant_refunds_by_order", "merchant_refunds", ["order_id", "created_at_ms"])
    op.create_index(
        "merchant_refunds_unfinished", "merchant_refunds", ["claimed_at_ms"], **_where("state = 'paying'")
    )
    op.create_table(
        "payment_refunds_total",
        sa.Column("payment_id", _ledger_id, primary_key=True),
        sa.Column("refunded_minor", sa.BigInteger, nullable=False),
        sa.Column("parts", sa.Integer, nullable=False),
    )
    op.create_table(
        "merchant_endpoints",
        sa.Column("id", _ledger_id, primary_key=True),
        sa.Column("merchant_id", _ledger_id, nullable=False),
        sa.Column("url", sa.String(500), nullable=False),
        sa.Column("secret", sa.String(64), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("disabled_at_ms", sa.BigInteger),
    )
    op.create_index("merchant_endpoints_by_merchant", "merchant_endpoints", ["merchant_id", "created_at_ms"])
    op.create_table(
        "merchant_deliveries",
        sa.Column(
            "position",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("id", _ledger_id, nullable=False),
        sa.Column("merchant_id", _ledger_id, nullable=False),
        sa.Column("endpoint_id", _ledger_id, nullable=False),
        sa.Column("event_id", _ledger_id, nullable=False),
        sa.Column("event", sa.String(32), nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("next_at_ms", sa.BigInteger, nullable=False),
        sa.Column("problem", sa.String(200), nullable=False),
        sa.UniqueConstraint("id", name="merchant_deliveries_id"),
    )
    op.create_index("merchant_deliveries_by_merchant", "merchant_deliveries", ["merchant_id", "position"])
    op.create_index("merchant_deliveries_by_age", "merchant_deliveries", ["created_at_ms"])
    op.create_index(
        "merchant_deliveries_waiting", "merchant_deliveries", ["next_at_ms"], **_where("state = 'waiting'")
    )


def _where(condition: str) -> dict[str, Any]:
    """A partial index, on both databases."""
    return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}
