"""Which database errors pass by themselves, on SQLite and PostgreSQL, so that trying again is worth it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from sqlalchemy import exc

# PostgreSQL, appendix A, classes: connection, transaction rollback, resources, object in use, operator
# intervention; Debian's and others' servers send 25006 while they are read-only after a fail-over.
_PASSING_CLASSES = ("08", "40", "53", "55", "57", "25006")
_PASSING_SQLITE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    }
)


def is_passing(error: BaseException) -> bool:
    """Whether the same transaction may succeed later. False when what was asked for is wrong."""
    if is_disconnect(error):
        return True
    for cause in _causes(error):
        state = _sqlstate(cause)
        if state is not None and state.startswith(_PASSING_CLASSES):
            return True
        code = getattr(cause, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in _PASSING_SQLITE:
            return True
    return False


def is_disconnect(error: BaseException) -> bool:
    """Whether there is no connection (any more), so that nobody said how the statement ended."""
    for cause in _causes(error):
        if isinstance(cause, OSError | TimeoutError | exc.TimeoutError):
            return True
        if isinstance(cause, exc.DBAPIError) and cause.connection_invalidated:
            return True
        state = _sqlstate(cause)
        if state is not None and (state.startswith("08") or state in ("57P01", "57P02", "57P03")):
            return True
    return False


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what the driver had raised beneath it."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        cause = waiting.pop()
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting.extend((getattr(cause, "orig", None), cause.__cause__))


def _sqlstate(error: BaseException) -> str | None:
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else None
