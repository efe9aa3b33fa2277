"""Many callers' look-ups by key at the same moment, read together.

While one query runs, whoever comes waits for the next one, which then looks for all of them: a transaction
for each would cost more than the reading. Nothing is remembered, so every answer is as fresh as its caller.

A query is asked for one of a few numbers of keys, so that the database knows it prepared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Final, Generic, TypeVar

SIZES: Final = (1, 8, 64)
"""How many keys a query is asked for: the last one is repeated until there are so many."""

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class SharedReads(Generic[Key, Value]):
    """The look-ups of one kind in this process."""

    def __init__(self, read: Callable[[Sequence[Key]], Awaitable[Mapping[Key, Value]]]) -> None:
        """`read` finds what there is of the keys, of which some may be equal."""
        self._read = read
        self._waiting: list[tuple[Key, asyncio.Future[Value | None]]] = []
        self._reader: asyncio.Task[None] | None = None

    async def get(self, key: Key) -> Value | None:
        """None when there is none. Raises what `read` raises."""
        answer: asyncio.Future[Value | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, answer))
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read_waiting())
        return await answer

    async def _read_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[: SIZES[-1]], self._waiting[SIZES[-1] :]
            keys = list(dict.fromkeys(key for key, _answer in batch))
            size = next(size for size in SIZES if size >= len(keys))
            try:
                found = await self._read(keys + keys[-1:] * (size - len(keys)))
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
