"""What people have chosen for their own wallet, a value a name; what is not there is as the operator says."""

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
