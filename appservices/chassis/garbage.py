"""How often Python looks for garbage in cycles, for a process with thousands of requests in flight."""

from __future__ import annotations

import gc
from typing import Final

ALLOCATIONS: Final = 50_000
"""New objects in containers between two collections; Python's own number is 700."""


def collect_rarely() -> None:
    """Call it once, when a process starts.

    While thousands wait for one commit, what they hold is no garbage yet, and collections that go through it
    again and again take a third of the processor's time. Nearly all objects are freed without them.
    """
    gc.freeze()
    gc.set_threshold(ALLOCATIONS, 20, 100)
