"""Work in order per key, side by side across keys: rooms don't wait for one another, events in a room do."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


class KeyedQueue(Generic[Key, Item]):
    """One short-lived task per key that has items; at most `parallel_max` items are worked on at once."""

    def __init__(self, work: Callable[[Item], Awaitable[None]], *, parallel_max: int) -> None:
        self._work = work
        self._slots = asyncio.Semaphore(parallel_max)
        self._waiting: dict[Key, deque[Item]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.size = 0

    def put(self, key: Key, item: Item) -> None:
        """Queues an item; the caller bounds how many there are by looking at `size`."""
        self.size += 1
        if key in self._waiting:
            self._waiting[key].append(item)
            return
        self._waiting[key] = deque([item])
        task = asyncio.create_task(self._run(key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stops at once; whoever filled the queue has it stored and fills it again at the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, key: Key) -> None:
        items = self._waiting[key]
        try:
            while items:
                async with self._slots:
                    try:
                        await self._work(items[0])
                    except Exception:
                        logger.exception("work for %s failed and was put aside", key)
                self.size -= 1
                items.popleft()
        finally:
            del self._waiting[key]
