"""What local accounts say about others, as Synapse has it now: direct rooms, ignored users, tags, switches.

A direct room is one that the account's `m.direct` lists under the other's id and that both have joined. Of
what people wrote into their account data only what has the right form is taken; the rest counts as empty.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from synapse.module_api import LoggingTransaction, ModuleApi

from appservices.vocabulary.events import CONTACT_TAGS, MOMENTS_SWITCHES
from appservices.vocabulary.ids import is_user_id

DIRECT: Final = "m.direct"
IGNORED: Final = "m.ignored_user_list"
ACCOUNT_DATA_TYPES: Final = (DIRECT, IGNORED, CONTACT_TAGS, MOMENTS_SWITCHES)
USERS_MAX: Final = 100
"""Of one question."""
DIRECT_ROOMS_MAX: Final = 5_000
"""Of one account; what it lists beyond that is not read."""
_PART: Final = 200

_DATA: Final = """
    SELECT user_id, account_data_type, content FROM account_data
    WHERE user_id IN ({users}) AND account_data_type IN ({types})
"""
_JOINED: Final = """
    SELECT room_id, state_key FROM current_state_events
    WHERE type = 'm.room.member' AND membership = 'join' AND room_id IN ({rooms}) AND state_key IN ({users})
"""


class Snapshots:
    """Reads accounts."""

    def __init__(self, api: ModuleApi) -> None:
        self._api = api

    async def of(self, users: Sequence[str]) -> dict[str, Any]:
        """For each of at most USERS_MAX local users: `direct` (other → joined by both), `rooms` (all that are
        listed as direct ones), `ignored`, `tags`, `switches`."""
        mine = [user for user in users if self._api.is_mine(user)]
        if not mine:
            return {}
        data: dict[str, dict[str, Any]] = await self._api.run_db_interaction(
            "weft_contact_data", _read_data, mine
        )
        snapshots = {}
        for user in mine:
            account = data.get(user, {})
            listed = dict(_direct_rooms(account.get(DIRECT)))
            joined: set[tuple[str, str]] = await self._api.run_db_interaction(
                "weft_contact_rooms", _read_joined, user, listed
            )
            shared = {
                other
                for room, other in listed.items()
                if (room, user) in joined and (room, other) in joined and other != user
            }
            snapshots[user] = {
                "direct": sorted(shared),
                "rooms": sorted(listed),
                "ignored": sorted(_ignored(account.get(IGNORED))),
                "tags": _object(account.get(CONTACT_TAGS)),
                "switches": _object(account.get(MOMENTS_SWITCHES)),
            }
        return snapshots


def _direct_rooms(content: object) -> Iterator[tuple[str, str]]:
    """(room, other) of every listed direct room."""
    left = DIRECT_ROOMS_MAX
    for other, rooms in _object(content).items():
        if not is_user_id(other) or not isinstance(rooms, list):
            continue
        for room in rooms:
            if isinstance(room, str) and 0 < len(room) <= 255 and left > 0:
                left -= 1
                yield room, other


def _ignored(content: object) -> set[str]:
    return {user for user in _object(_object(content).get("ignored_users")) if is_user_id(user)}


def _object(content: object) -> dict[str, Any]:
    return dict(content) if isinstance(content, Mapping) else {}


def _read_data(transaction: LoggingTransaction, users: Sequence[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    statement = _DATA.format(users=_places(users), types=_places(ACCOUNT_DATA_TYPES))
    transaction.execute(statement, (*users, *ACCOUNT_DATA_TYPES))
    for user, kind, content in transaction.fetchall():
        found.setdefault(user, {})[kind] = json.loads(content) if isinstance(content, str) else content
    return found


def _read_joined(
    transaction: LoggingTransaction, user: str, listed: Mapping[str, str]
) -> set[tuple[str, str]]:
    """(room, member) for the user and for those with whom a room is listed."""
    joined: set[tuple[str, str]] = set()
    rooms = list(listed)
    for start in range(0, len(rooms), _PART):
        part = rooms[start : start + _PART]
        members = {user, *(listed[room] for room in part)}
        statement = _JOINED.format(rooms=_places(part), users=_places(members))
        transaction.execute(statement, (*part, *members))
        joined.update((room, member) for room, member in transaction.fetchall())
    return joined


def _places(values: Sequence[str] | set[str]) -> str:
    return ", ".join("?" for _ in values)
