"""Typed client of the wallet's HTTP API: the only road to money."""
