"""What people say their payments were for, for themselves alone."""

from __future__ import annotations

from sqlalchemy import Column, String, Table

from wallet_appservice.storage.metadata import metadata

payment_categories = Table(
    "payment_categories",
    metadata,
    Column("user_id", String(255), primary_key=True),
    Column("payment_id", String(32), primary_key=True),
    Column("category", String(16), nullable=False),
)
