"""Which service answers which chat command. In a room with several services each leaves the others theirs."""

from __future__ import annotations

from typing import Final

HOME_COMMANDS: Final = ("language", "login", "logout", "sessions")
WALLET_COMMANDS: Final = (
    "balance",
    "history",
    "statement",
    "pay",
    "request",
    "split",
    "redpacket",
    "receive",
    "refund",
    "accept",
    "pending",
)
MOMENTS_COMMANDS: Final = (
    "friend",
    "tag",
    "untag",
    "tags",
    "hide",
    "unhide",
    "keepfrom",
    "showto",
    "window",
    "moments",
)
HELP: Final = "help"
COMMAND_PREFIX: Final = "!"
