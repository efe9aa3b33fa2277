"""Time and randomness, passed in so that tests and simulations can choose them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], int]
"""Returns Unix time in milliseconds."""


def system_clock() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Tokens:
    """Unguessable texts. Tests may pass their own `random_bytes`."""

    random_bytes: Callable[[int], bytes] = secrets.token_bytes

    def hex(self, bytes_count: int = 16) -> str:
        return self.random_bytes(bytes_count).hex()
