"""Work that a callback promises and a background process keeps, whatever crashes in between.

Synapse asks modules before it stores an event, so what should follow from the event can't be done yet. The
callback writes an errand into a table; the process that runs background tasks does it as soon as Synapse's
own data shows that it applies, again after a crash, and drops it when its time is over. Callbacks may run on
any worker. Errands of one lane (a room, a user) are done one after the other, so performers need no locks;
they are done at least once, so performers look before they act.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from synapse.module_api import ModuleApi
from synapse.module_api.errors import SynapseError

from synapse_modules.room_extensions.tables import Tables

logger = logging.getLogger(__name__)

LANES_MAX: Final = 4
"""Errands under way at the same time."""
PAGE_ROWS_MAX: Final = 50
POLL_SECONDS: Final = 2.0
"""How soon an errand that another worker recorded is noticed."""
PAUSE_SECONDS_MIN: Final = 0.05
PAUSE_SECONDS_MAX: Final = 600.0
PAUSE_OF_AGE: Final = 0.25
"""The pause before the next try, as a part of the errand's age: soon at first, seldom later."""
AGE_SECONDS_MAX: Final = 7 * 24 * 3600.0

_RECORD: Final = """
    INSERT INTO weft_errands (kind, lane, subject, payload, mark, made_ms, due_ms)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (kind, lane, subject) DO UPDATE SET
        payload = excluded.payload, mark = excluded.mark, made_ms = excluded.made_ms, due_ms = excluded.due_ms
"""
_DUE: Final = """
    SELECT kind, lane, subject, payload, mark, made_ms FROM weft_errands
    WHERE due_ms <= ? ORDER BY due_ms LIMIT ?
"""
_POSTPONE: Final = """
    UPDATE weft_errands SET due_ms = ? WHERE kind = ? AND lane = ? AND subject = ? AND mark = ?
"""
_FORGET: Final = "DELETE FROM weft_errands WHERE kind = ? AND lane = ? AND subject = ? AND mark = ?"


class TryLater(Exception):
    """The errand can't be done yet. `seconds_max`: the age at which it is dropped instead."""

    def __init__(self, reason: str, *, seconds_max: float = AGE_SECONDS_MAX) -> None:
        super().__init__(reason)
        self.seconds_max = seconds_max


@dataclass(frozen=True, slots=True)
class Errand:
    """One promise. `mark` tells apart two recordings of the same kind, lane and subject; the last counts."""

    kind: str
    lane: str
    subject: str
    payload: Mapping[str, Any]
    mark: str
    made_ms: int

    @property
    def key(self) -> tuple[str, str, str, str]:
        return (self.kind, self.lane, self.subject, self.mark)


Performer = Callable[[Errand], Awaitable[None]]
"""Does an errand or raises: TryLater; SynapseError (a refusal ends the errand, a rate limit or a fault of the
server postpones it); anything else is a bug, which is logged and tried again later."""


class Errands:
    """Records errands and, in the process that runs background tasks, does them."""

    def __init__(self, api: ModuleApi, tables: Tables, performers: Mapping[str, Performer]) -> None:
        self._api = api
        self._tables = tables
        self._performers = performers
        self._works_here = bool(api.should_run_background_tasks())
        self._busy_lanes: set[str] = set()
        self._looking = False
        self._look_again = False
        if self._works_here:
            api.looping_background_call(self._look, POLL_SECONDS * 1000, desc="weft_errands")

    async def record(self, *, kind: str, lane: str, subject: str, payload: Mapping[str, Any]) -> None:
        """Stores an errand before it returns; an older one of the same kind, lane and subject is replaced."""
        now_ms = self._api.get_current_time_msec()
        await self._tables.execute(
            _RECORD, (kind, lane, subject, json.dumps(payload), secrets.token_hex(8), now_ms, now_ms)
        )
        if self._works_here:
            self._api.run_as_background_process("weft_errands", self._look)

    async def _look(self) -> None:
        if self._looking:
            self._look_again = True
            return
        self._looking = True
        try:
            self._look_again = True
            while self._look_again:
                self._look_again = False
                for errand in await self._due():
                    if len(self._busy_lanes) < LANES_MAX and errand.lane not in self._busy_lanes:
                        self._busy_lanes.add(errand.lane)
                        self._api.run_as_background_process("weft_errand", self._do, errand)
        finally:
            self._looking = False

    async def _due(self) -> list[Errand]:
        rows = await self._tables.rows(_DUE, (self._api.get_current_time_msec(), PAGE_ROWS_MAX))
        return [
            Errand(kind, lane, subject, json.loads(payload), mark, made_ms)
            for kind, lane, subject, payload, mark, made_ms in rows
        ]

    async def _do(self, errand: Errand) -> None:
        try:
            await self._try(errand)
        finally:
            self._busy_lanes.discard(errand.lane)
        await self._look()

    async def _try(self, errand: Errand) -> None:
        try:
            await self._performers[errand.kind](errand)
        except TryLater as later:
            await self._postpone(errand, str(later), seconds_max=later.seconds_max)
        except SynapseError as error:
            if error.code < HTTPStatus.INTERNAL_SERVER_ERROR and error.code != HTTPStatus.TOO_MANY_REQUESTS:
                logger.warning("Refused: %s in %s: %s", errand.kind, errand.lane, error)
                await self._tables.execute(_FORGET, errand.key)
            else:
                await self._postpone(errand, str(error), seconds_max=AGE_SECONDS_MAX)
        except Exception as error:
            logger.exception("A fault in %s of %s", errand.kind, errand.lane)
            await self._postpone(errand, repr(error), seconds_max=AGE_SECONDS_MAX)
        else:
            await self._tables.execute(_FORGET, errand.key)

    async def _postpone(self, errand: Errand, reason: str, *, seconds_max: float) -> None:
        now_ms = self._api.get_current_time_msec()
        age_seconds = (now_ms - errand.made_ms) / 1000
        if age_seconds > seconds_max:
            logger.warning("Dropped: %s %s in %s: %s", errand.kind, errand.subject, errand.lane, reason)
            await self._tables.execute(_FORGET, errand.key)
            return
        pause_seconds = pause_after(age_seconds)
        await self._tables.execute(_POSTPONE, (now_ms + int(pause_seconds * 1000), *errand.key))
        if pause_seconds < POLL_SECONDS:
            self._api.delayed_background_call(pause_seconds * 1000, self._look, desc="weft_errands")


def pause_after(age_seconds: float) -> float:
    """Seconds until the next try of an errand that is so old."""
    return min(PAUSE_SECONDS_MAX, max(PAUSE_SECONDS_MIN, age_seconds * PAUSE_OF_AGE))
