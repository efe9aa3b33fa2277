"""The ledger: accounts, transfers, refused ids, open pending transfers, and the head that batches lock."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "wallet_0001"
down_revision = None
branch_labels = ("wallet",)
depends_on = None

_ledger_id = sa.LargeBinary(16).with_variant(postgresql.UUID(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "ledger_accounts",
        sa.Column("id", _ledger_id, primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("currency", sa.String(8), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("debits_pending", sa.BigInteger, nullable=False),
        sa.Column("debits_posted", sa.BigInteger, nullable=False),
        sa.Column("credits_pending", sa.BigInteger, nullable=False),
        sa.Column("credits_posted", sa.BigInteger, nullable=False),
        sa.Column("debits_must_not_exceed_credits", sa.Boolean, nullable=False),
        sa.Column("credits_must_not_exceed_debits", sa.Boolean, nullable=False),
        sa.CheckConstraint(
            "debits_pending >= 0 AND debits_posted >= 0 AND credits_pending >= 0 AND credits_posted >= 0",
            name="ledger_accounts_sums_not_negative",
        ),
        sa.CheckConstraint(
            "NOT debits_must_not_exceed_credits OR debits_pending + debits_posted <= credits_posted",
            name="ledger_accounts_debits_within_credits",
        ),
        sa.CheckConstraint(
            "NOT credits_must_not_exceed_debits OR credits_pending + credits_posted <= debits_posted",
            name="ledger_accounts_credits_within_debits",
        ),
    )
    op.create_index("ledger_accounts_by_owner", "ledger_accounts", ["owner"])
    op.create_table(
        "ledger_transfers",
        sa.Column(
            "position",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("id", _ledger_id, nullable=False),
        sa.Column("debit_account_id", _ledger_id, nullable=False),
        sa.Column("credit_account_id", _ledger_id, nullable=False),
        sa.Column("amount_minor", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String(8), nullable=False),
        sa.Column("code", sa.String(24), nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("pending_id", _ledger_id),
        sa.Column("timeout_seconds", sa.Integer),
        sa.Column("linked", sa.Boolean, nullable=False),
        sa.Column("reference", sa.String(128), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("id", name="ledger_transfers_id"),
        sa.CheckConstraint("position > 0", name="ledger_transfers_position_positive"),
        sa.CheckConstraint("amount_minor > 0", name="ledger_transfers_amount_positive"),
        sa.CheckConstraint("debit_account_id <> credit_account_id", name="ledger_transfers_two_accounts"),
        sa.CheckConstraint(
            "(mode IN ('post_pending', 'void_pending', 'expire_pending')) = (pending_id IS NOT NULL)",
            name="ledger_transfers_mode_fits_pending_id",
        ),
        sa.CheckConstraint(
            "timeout_seconds IS NULL OR (mode = 'pending' AND timeout_seconds > 0)",
            name="ledger_transfers_timeout_of_pending",
        ),
    )
    op.create_index("ledger_transfers_by_debit_account", "ledger_transfers", ["debit_account_id", "position"])
    op.create_index(
        "ledger_transfers_by_credit_account", "ledger_transfers", ["credit_account_id", "position"]
    )
    op.create_index(
        "ledger_transfers_by_pending_id",
        "ledger_transfers",
        ["pending_id"],
        unique=True,
        postgresql_where=sa.text("pending_id IS NOT NULL"),
        sqlite_where=sa.text("pending_id IS NOT NULL"),
    )
    op.create_table(
        "ledger_refusals",
        sa.Column("id", _ledger_id, primary_key=True),
        sa.Column("content", _ledger_id, nullable=False),
        sa.Column("refusal", sa.String(40), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "ledger_open_pending",
        sa.Column("id", _ledger_id, primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger),
    )
    op.create_index("ledger_open_pending_by_expiry", "ledger_open_pending", ["expires_at_ms"])
    head = op.create_table(
        "ledger_head",
        sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.CheckConstraint("id = 1", name="ledger_head_is_one_row"),
    )
    op.bulk_insert(head, [{"id": 1, "position": 0}])
