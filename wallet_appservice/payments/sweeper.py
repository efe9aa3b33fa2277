"""Looks after what was begun and what has a time: finishes, expires, reminds, renews (docs/decisions/0007).

Each wallet process has one. It works when it is woken, every few seconds in any case, and first of all when
it starts, so nothing that was left behind by a crash needs anybody to ask for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

from appservices.chassis.homeserver import MatrixUnavailable

SWEEP_SECONDS: Final = 5.0

logger = logging.getLogger(__name__)


class Sweep(Protocol):
    """One chore: what it finds to do now. At the first time nobody else of this process is at work."""

    async def __call__(self, *, is_first: bool = False) -> None: ...


class Sweeper:
    """Runs chores side by side, each in its own time: one that is slow or fails holds up no other."""

    def __init__(self, *, look_seconds: float = SWEEP_SECONDS) -> None:
        self._look_seconds = look_seconds
        self._wakers: list[asyncio.Event] = []

    def wake(self) -> None:
        """To be called when there may be something to do now."""
        for waker in self._wakers:
            waker.set()

    async def run(self, chores: Mapping[str, Sweep]) -> None:
        """Runs until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for name, sweep in chores.items():
                waker = asyncio.Event()
                self._wakers.append(waker)
                tasks.create_task(self._run(name, sweep, waker))

    async def _run(self, name: str, sweep: Sweep, waker: asyncio.Event) -> None:
        is_first = True
        while True:
            waker.clear()
            try:
                await sweep(is_first=is_first)
                is_first = False
            except Exception:
                logger.exception("the %s could not be looked after", name)
                # What woke us may fail again at once.
                await asyncio.sleep(self._look_seconds)
            with suppress(TimeoutError):
                await asyncio.wait_for(waker.wait(), self._look_seconds)


async def each(steps: Iterable[Awaitable[Any]]) -> bool:
    """Takes every step, side by side; whether all went well. One that fails is logged and stays for the
    next sweep."""
    went_well = True
    for result in await asyncio.gather(*steps, return_exceptions=True):
        if isinstance(result, MatrixUnavailable):
            logger.warning("something is looked after later: %s", result)
            went_well = False
        elif isinstance(result, Exception):
            logger.error("something could not be looked after", exc_info=result)
            went_well = False
        elif isinstance(result, BaseException):
            raise result
    return went_well
