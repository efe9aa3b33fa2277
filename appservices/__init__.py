"""Weft's application services, each beside the homeserver, and what they share."""
