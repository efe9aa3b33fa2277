"""The hash chain over batches, and checkpoints. A ledger without a chain gets one, the same on every run.

Where its batches ended is not known any more. The first row of its chain holds all accounts in the order of
their ids, the following ones BATCH_TRANSFERS transfers each.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from wallet_appservice.ledger.chain import FIRST_LINK
from wallet_appservice.storage.ledger_chain import chain_row, record_of_account, record_of_row
from wallet_appservice.storage.ledger_tables import LedgerIdType

revision = "wallet_0003"
down_revision = "wallet_0002"
branch_labels = None
depends_on = None

BATCH_TRANSFERS = 5_000

_accounts = sa.table(
    "ledger_accounts",
    sa.column("id", LedgerIdType),
    sa.column("kind", sa.String),
    sa.column("currency", sa.String),
    sa.column("owner", sa.String),
    sa.column("debits_must_not_exceed_credits", sa.Boolean),
    sa.column("credits_must_not_exceed_debits", sa.Boolean),
)
_transfers = sa.table(
    "ledger_transfers",
    sa.column("position", sa.BigInteger),
    sa.column("id", LedgerIdType),
    sa.column("debit_account_id", LedgerIdType),
    sa.column("credit_account_id", LedgerIdType),
    sa.column("amount_minor", sa.BigInteger),
    sa.column("currency", sa.String),
    sa.column("code", sa.String),
    sa.column("mode", sa.String),
    sa.column("pending_id", LedgerIdType),
    sa.column("timeout_seconds", sa.Integer),
    sa.column("linked", sa.Boolean),
    sa.column("reference", sa.String),
    sa.column("at_ms", sa.BigInteger),
)


def upgrade() -> None:
    position = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    chain = op.create_table(
        "ledger_chain",
        sa.Column("number", position, primary_key=True, autoincrement=False),
        sa.Column("first_position", sa.BigInteger, nullable=False),
        sa.Column("last_position", sa.BigInteger, nullable=False),
        sa.Column("account_ids", sa.LargeBinary, nullable=False),
        sa.Column("marks", sa.LargeBinary, nullable=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        sa.Column("link", sa.LargeBinary(32), nullable=False),
        sa.CheckConstraint("number >= 0", name="ledger_chain_number_not_negative"),
        sa.CheckConstraint("last_position >= first_position - 1", name="ledger_chain_positions_in_order"),
    )
    op.create_table(
        "ledger_checkpoints",
        sa.Column("number", position, primary_key=True, autoincrement=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.CheckConstraint("number > 0", name="ledger_checkpoints_number_positive"),
    )
    _build(chain)


def _build(chain: sa.Table) -> None:
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        # What somebody adds meanwhile would be in no batch.
        connection.execute(sa.text("LOCK TABLE ledger_head, ledger_accounts, ledger_transfers IN SHARE MODE"))
    number, last_position, link = 0, 0, FIRST_LINK
    connection.execute(
        chain.insert(),
        {
            "number": 0,
            "first_position": 1,
            "last_position": 0,
            "account_ids": b"",
            "marks": b"",
            "hash": bytes(32),
            "link": link,
        },
    )
    accounts = connection.execute(sa.select(_accounts).order_by(_accounts.c.id)).all()
    ids, records = [row.id for row in accounts], [record_of_account(row) for row in accounts]
    while True:
        if records:
            number += 1
            row = chain_row(
                number, first_position=last_position + 1, account_ids=ids, records=records, previous=link
            )
            connection.execute(chain.insert(), row)
            link, last_position = row["link"], row["last_position"]
        page = connection.execute(
            sa.select(_transfers)
            .where(_transfers.c.position > last_position)
            .order_by(_transfers.c.position)
            .limit(BATCH_TRANSFERS)
        ).all()
        if not page:
            return
        ids, records = [], [record_of_row(row) for row in page]
