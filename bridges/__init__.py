"""Bridges to other networks: one framework, independent siblings upon it."""
