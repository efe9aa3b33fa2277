"""What a command says when it can't do what it was asked."""

from __future__ import annotations


class CommandFailed(Exception):
    """The message is one sentence for the person at the terminal; `main` prints it and exits with 1."""
