"""Many callers' look-ups by key at the same moment, read together.

While one query runs, whoever comes waits for the next one, which then looks for all of them: a transaction
for each would cost more than the reading. Nothing is remembered, so every answer is as fresh as its caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Generic, TypeVar

KEYS_MAX: Final = 64
"""Of one query."""

Value = TypeVar("Value")


class SharedReads(Generic[Value]):
    """The look-ups of one kind in this process."""

    def __init__(self, read: Callable[[Sequence[str]], Awaitable[Mapping[str, Value]]]) -> None:
        """`read` finds what there is of at most KEYS_MAX keys."""
        self._read = read
        self._waiting: list[tuple[str, asyncio.Future[Value | None]]] = []
        self._reader: asyncio.Task[None] | None = None

    async def get(self, key: str) -> Value | None:
        """None when there is none. Raises what `read` raises."""
        answer: asyncio.Future[Value | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, answer))
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read_waiting())
        return await answer

    async def _read_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:KEYS_MAX], self._waiting[KEYS_MAX:]
            try:
                found = await self._read(list(dict.fromkeys(key for key, _answer in batch)))
            except BaseException as error:
                for _key, answer in batch:
                    if not answer.done():
                        answer.set_exception(
                            error if isinstance(error, Exception) else ConnectionError("stopping")
                        )
                if not isinstance(error, Exception):
                    raise
                continue
            for key, answer in batch:
                if not answer.done():
                    answer.set_result(found.get(key))
