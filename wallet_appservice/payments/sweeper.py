"""Looks after what was begun and what has a time: finishes, expires, reminds, renews (docs/decisions/0007).

Each wallet process has one. It works when it is woken, every few seconds in any case, and first of all when
it starts, so nothing that was left behind by a crash needs anybody to ask for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

from appservices.chassis.homeserver import MatrixUnavailable

SWEEP_SECONDS: Final = 5.0
RARELY_SECONDS: Final = 3_600.0
"""For a sweeper of what only takes place away, such as forgetting what is old."""
REST_SECONDS: Final = 0.2
"""Between two sweeps of a chore, so that what comes in a burst is done together."""

logger = logging.getLogger(__name__)


class Sweep(Protocol):
    """One chore: what it finds to do now. At the first time nobody else of this process is at work."""

    async def __call__(self, *, is_first: bool = False) -> object: ...


def whenever(step: Callable[[], Awaitable[object]]) -> Sweep:
    """The chore of one for whom the first time is as any other."""

    async def sweep(*, is_first: bool = False) -> None:
        await step()

    return sweep


class Sweeper:
    """Runs chores side by side, each in its own time: one that is slow or fails holds up no other."""

    def __init__(self, *, look_seconds: float = SWEEP_SECONDS) -> None:
        self._look_seconds = look_seconds
        self._wakers: dict[str, asyncio.Event] = {}

    def wake(self, name: str) -> None:
        """To be called when that chore may have something to do now."""
        if name in self._wakers:
            self._wakers[name].set()

    async def run(self, chores: Mapping[str, Sweep]) -> None:
        """Runs until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for name, sweep in chores.items():
                self._wakers[name] = asyncio.Event()
                tasks.create_task(self._run(name, sweep, self._wakers[name]))

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
            await asyncio.sleep(REST_SECONDS)
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
