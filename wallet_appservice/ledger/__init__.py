"""Accounts and transfers: values, pure rules, and the engine that applies them."""
