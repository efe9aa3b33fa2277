"""What is asked for with every request and hardly ever changes, remembered for a few seconds.

When it has to be looked up again, one caller does so for all who ask meanwhile: else a popular shop's
requests would all go to the database at the same moment. What was changed here is forgotten at once; a
look-up that began before the change is not remembered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from appservices.chassis.clock import Clock

REMEMBERED_SECONDS: Final = 5
REMEMBERED_MAX: Final = 10_000

Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """Values by key. What isn't there is not remembered."""

    def __init__(self, look_up: Callable[[str], Awaitable[Value | None]], *, clock: Clock) -> None:
        self._look_up = look_up
        self._clock = clock
        self._values: dict[str, tuple[int, Value]] = {}
        self._under_way: dict[str, asyncio.Task[Value | None]] = {}

    async def get(self, key: str) -> Value | None:
        """Raises what the look-up raises."""
        remembered = self._values.get(key)
        if remembered is not None and abs(self._clock() - remembered[0]) < REMEMBERED_SECONDS * 1000:
            return remembered[1]
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._look_up_and_remember(key))
        # Whoever is cancelled does not cancel it for the others.
        return await asyncio.shield(task)

    def forget(self, key: str) -> None:
        """To be called after a change."""
        self._values.pop(key, None)
        self._under_way.pop(key, None)

    async def _look_up_and_remember(self, key: str) -> Value | None:
        begun_ms = self._clock()
        try:
            value = await self._look_up(key)
        finally:
            is_current = self._under_way.get(key) is asyncio.current_task()
            if is_current:
                del self._under_way[key]
        if value is not None and is_current:
            if len(self._values) >= REMEMBERED_MAX:
                self._values.clear()
            self._values[key] = (begun_ms, value)
        return value
