"""Pictures for the documentation, taken of what really runs."""
