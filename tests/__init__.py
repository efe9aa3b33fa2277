"""Weft's tests."""
