"""Whose circle may have changed since a service last asked, from Synapse's own record of what changed.

Account data has no order over all users in Synapse, so each change is noted with its time; memberships have
one. A token names a place in both. Services ask again for what they knew before when a token is not
understood, and now and then in any case: clocks of several workers may differ.
"""

from __future__ import annotations

from typing import Any, Final

from synapse.module_api import LoggingTransaction, ModuleApi

from synapse_modules.making_tables import make_tables

OVERLAP_MS: Final = 2_000
"""Changes noted so long before a token are told again: another worker's clock may be behind."""
ROWS_MAX: Final = 5_000
"""With more changes than this, all is to be asked for anew."""

_MAKE: Final = """
    CREATE TABLE IF NOT EXISTS weft_contact_changes (
        user_id TEXT NOT NULL PRIMARY KEY,
        changed_ms BIGINT NOT NULL
    )
"""
_MAKE_INDEX: Final = """
    CREATE INDEX IF NOT EXISTS weft_contact_changes_by_time ON weft_contact_changes (changed_ms)
"""
_NOTE: Final = """
    INSERT INTO weft_contact_changes (user_id, changed_ms) VALUES (?, ?)
    ON CONFLICT (user_id) DO UPDATE SET changed_ms = excluded.changed_ms
"""
_LAST: Final = "SELECT COALESCE(MAX(stream_id), 0) FROM current_state_delta_stream"
_USERS: Final = "SELECT user_id FROM weft_contact_changes WHERE changed_ms >= ? LIMIT ?"
_ROOMS: Final = """
    SELECT DISTINCT room_id FROM current_state_delta_stream
    WHERE stream_id > ? AND stream_id <= ? AND type = 'm.room.member' LIMIT ?
"""


class Changes:
    """Notes and tells what changed."""

    def __init__(self, api: ModuleApi) -> None:
        self._api = api
        self._made = False

    async def note(self, user_id: str) -> None:
        """An account's own data about others has changed."""
        await self._make()
        now_ms = self._api.get_current_time_msec()
        await self._api.run_db_interaction("weft_note_contact_change", _execute, _NOTE, (user_id, now_ms))

    async def since(self, token: str | None) -> dict[str, Any]:
        """`users` whose account data changed, `rooms` whose members did, the `next` token; `all` instead,
        when that can't be told."""
        await self._make()
        now_ms = self._api.get_current_time_msec()
        place = _place(token)
        answer: dict[str, Any] = await self._api.run_db_interaction(
            "weft_contact_changes", _read, place, now_ms
        )
        return answer

    async def _make(self) -> None:
        if not self._made:
            await make_tables(self._api, "weft_make_contact_changes", _make_table)
            self._made = True


def _place(token: str | None) -> tuple[int, int] | None:
    parts = (token or "").split(".")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) <= 18 for part in parts):
        return None
    return int(parts[0]), int(parts[1])


def _read(transaction: LoggingTransaction, place: tuple[int, int] | None, now_ms: int) -> dict[str, Any]:
    transaction.execute(_LAST)
    row = transaction.fetchone()
    last = 0 if row is None else int(row[0])
    told: dict[str, Any] = {"next": f"{last}.{now_ms}", "all": True, "users": [], "rooms": []}
    # A place beyond what there is was given before Synapse's database went back to an older copy.
    if place is None or place[0] > last:
        return told
    transaction.execute(_USERS, (place[1] - OVERLAP_MS, ROWS_MAX))
    users = [user for (user,) in transaction]
    transaction.execute(_ROOMS, (place[0], last, ROWS_MAX))
    rooms = [room for (room,) in transaction]
    if ROWS_MAX in (len(users), len(rooms)):
        return told
    return {**told, "all": False, "users": users, "rooms": rooms}


def _make_table(transaction: LoggingTransaction) -> None:
    transaction.execute(_MAKE)
    transaction.execute(_MAKE_INDEX)


def _execute(transaction: LoggingTransaction, statement: str, parameters: tuple[Any, ...]) -> None:
    transaction.execute(statement, parameters)
