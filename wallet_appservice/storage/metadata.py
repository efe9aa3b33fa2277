"""The one MetaData that all tables of the wallet's database share."""

from __future__ import annotations

from sqlalchemy import MetaData

metadata = MetaData()
