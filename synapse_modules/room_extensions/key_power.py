"""Lets services publish their keys as room state: each under its own name, which needs no power then.

A state key that is a user id may be set by that user alone (Matrix spec, authorization rules), so the level
of `dev.weft.keys` can be 0 without anybody speaking for another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from appservices.vocabulary.events import KEYS

POWER_LEVELS: Final = "m.room.power_levels"


def with_key_power(levels: Mapping[str, Any]) -> dict[str, Any] | None:
    """The power levels with that of the keys lowered; None when nothing is to change."""
    events = levels.get("events")
    events = dict(events) if isinstance(events, Mapping) else {}
    if KEYS in events:
        return None
    return {**levels, "events": {**events, KEYS: 0}}
