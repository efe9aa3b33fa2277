"""How Weft's modules make their own tables in Synapse's database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from synapse.module_api import ModuleApi

TRIES_MAX: Final = 5
PAUSE_SECONDS: Final = 0.1
"""After the first try; one more of it after each further one."""


async def make_tables(api: ModuleApi, description: str, make: Callable[..., None], *arguments: Any) -> None:
    """Has `make` called with a transaction and the arguments. Workers that start together may collide in
    PostgreSQL even with IF NOT EXISTS; the second try then finds the tables made."""
    for number in range(1, TRIES_MAX + 1):
        try:
            await api.run_db_interaction(description, make, *arguments)
            return
        except Exception:
            if number == TRIES_MAX:
                raise
            await api.sleep(PAUSE_SECONDS * number)
