"""Limits, confirmations, PINs, passkeys, budgets, and the audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "wallet_0007"
down_revision = "wallet_0006"
branch_labels = None
depends_on = None

_SEALED = ("audit_log", "audit_chain")


def upgrade() -> None:
    _limits()
    _proofs()
    _audit()


def _limits() -> None:
    op.create_table(
        "day_spending",
        sa.Column("user_id", sa.String(255), primary_key=True),
        sa.Column("currency", sa.String(8), primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("spent_minor", sa.BigInteger, nullable=False),
    )
    op.create_index("day_spending_by_day", "day_spending", ["day"])
    op.create_table(
        "confirmations",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("payer", sa.String(255), nullable=False),
        sa.Column("payee", sa.String(255), nullable=False),
        sa.Column("amount_minor", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String(8), nullable=False),
        sa.Column("memo", sa.Text, nullable=False),
        sa.Column("room_id", sa.String(255)),
        sa.Column("in_reply_to", sa.String(255)),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("authority", sa.String(16), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
        sa.Column("changed_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("confirmations_by_state", "confirmations", ["state", "expires_at_ms"])
    op.create_index("confirmations_by_change", "confirmations", ["changed_at_ms"])
    op.create_table(
        "budget_warnings",
        sa.Column("user_id", sa.String(255), primary_key=True),
        sa.Column("currency", sa.String(8), primary_key=True),
        sa.Column("month", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("percent", sa.SmallInteger, primary_key=True, autoincrement=False),
    )


def _proofs() -> None:
    op.create_table(
        "pins",
        sa.Column("user_id", sa.String(255), primary_key=True),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("set_at_ms", sa.BigInteger, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("locked_until_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "passkeys",
        sa.Column("credential_id", sa.String(1400), primary_key=True),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("sign_count", sa.BigInteger, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("used_at_ms", sa.BigInteger),
    )
    op.create_index("passkeys_by_user", "passkeys", ["user_id", "created_at_ms"])
    op.create_table(
        "passkey_challenges",
        sa.Column("challenge", sa.String(64), primary_key=True),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("purpose", sa.String(64), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("passkey_challenges_by_user", "passkey_challenges", ["user_id", "expires_at_ms"])
    op.create_index("passkey_challenges_by_expiry", "passkey_challenges", ["expires_at_ms"])


def _audit() -> None:
    position = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "audit_log",
        sa.Column("position", position, primary_key=True, autoincrement=True),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("details", sa.Text, nullable=False),
    )
    op.create_table(
        "audit_chain",
        sa.Column("number", position, primary_key=True, autoincrement=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.create_index("audit_chain_by_position", "audit_chain", ["position"], unique=True)
    if op.get_bind().dialect.name == "postgresql":
        _seal_on_postgresql()
    else:
        _seal_on_sqlite()


def _seal_on_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION weft_only_added() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'rows of % are only ever added', TG_TABLE_NAME; END $$"
    )
    for table in _SEALED:
        for change, each in (("UPDATE OR DELETE", "ROW"), ("TRUNCATE", "STATEMENT")):
            op.execute(
                f"CREATE TRIGGER {table}_only_added_{each.lower()} BEFORE {change} ON {table} "
                f"FOR EACH {each} EXECUTE FUNCTION weft_only_added()"
            )


def _seal_on_sqlite() -> None:
    for table in _SEALED:
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, 'rows of {table} are only ever added'); END"
            )
