"""SQLAlchemy tables of the wallet and the ledger's store."""

from pathlib import Path

WALLET_MIGRATIONS = Path(__file__).parent / "migrations"
