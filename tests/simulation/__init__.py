"""A seeded simulation of the ledger; see docs/developers/simulation.md."""
