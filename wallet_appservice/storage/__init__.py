"""SQLAlchemy tables of the wallet and the ledger's store."""
