"""The wallet: a double-entry ledger, payments upon it, and their rooms, API and pages."""
