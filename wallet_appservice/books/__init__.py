"""The ledger as accountants read it: chart, trial balance, statements, exports. Reads only."""
