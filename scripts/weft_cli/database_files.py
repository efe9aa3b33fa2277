"""Looking at a database without making one: SQLite makes an empty file for whoever only looks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Loading it takes a quarter of a second, which `weft status` and others shall not wait for.
    from appservices.chassis.database import Database


def is_missing(database: Database) -> bool:
    """Whether this is an SQLite database whose file isn't there."""
    return database.is_sqlite and not os.path.exists(database.engine.url.database or "")  # noqa: PTH110
