"""Weft's commands, one a file."""
