"""Use cases on the ledger: what a person or a program may ask of the wallet."""
