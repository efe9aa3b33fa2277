"""What people have chosen for themselves: one row per user and setting."""

from __future__ import annotations

from sqlalchemy import Column, String, Table, Text

from wallet_appservice.storage.metadata import metadata

wallet_settings = Table(
    "wallet_settings",
    metadata,
    Column("user_id", String(255), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
