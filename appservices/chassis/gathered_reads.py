"""Look-ups by key, gathered: those that come while one query runs are answered together by the next one.

Under load a query for hundreds of keys costs little more than one for a single key, and takes one connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Generic, TypeVar

KEYS_AT_ONCE_MAX: Final = 500

Key = TypeVar("Key")
Value = TypeVar("Value")


class GatheredReads(Generic[Key, Value]):
    """One kind of look-up. Whatever `fetch` raises reaches all who asked with it."""

    def __init__(self, fetch: Callable[[Sequence[Key]], Awaitable[Mapping[Key, Value]]]) -> None:
        self._fetch = fetch
        self._waiting: dict[Key, asyncio.Future[Value | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def get(self, key: Key) -> Value | None:
        """What is found under the key at some moment after the call; None when nothing is."""
        future = self._waiting.get(key)
        if future is None:
            future = self._waiting[key] = asyncio.get_running_loop().create_future()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return await asyncio.shield(future)

    async def _run(self) -> None:
        while self._waiting:
            keys = list(self._waiting)[:KEYS_AT_ONCE_MAX]
            # Whoever asks from here on gets an answer of the next query: this one may have begun.
            futures = {key: self._waiting.pop(key) for key in keys}
            try:
                found = await self._fetch(keys)
            except BaseException as error:
                for future in futures.values():
                    if not future.done():
                        future.set_exception(error)
                        # Nobody may be waiting any more.
                        future.exception()
                if not isinstance(error, Exception):
                    raise
                continue
            for key, future in futures.items():
                if not future.done():
                    future.set_result(found.get(key))
