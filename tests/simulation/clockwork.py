"""An event loop in which nothing happens by chance: time passes only when everybody waits, and databases
answer in the order in which they were asked. One seed, one course of events, however fast the machine is."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from unittest.mock import patch

Result = TypeVar("Result")


class Stuck(Exception):
    """Everybody waits and nothing is going to happen."""


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Its time is in seconds since it was made."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Waiting(self._pass_time))

    def time(self) -> float:
        return self._now

    def _pass_time(self, seconds: float) -> None:
        self._now += seconds


def run_simulated(course: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Runs the coroutine to its end on a simulated loop, with SQLite on the loop's own thread."""
    with _sqlite_in_order(), asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(course())


class _Waiting(selectors.SelectSelector):
    """Waits by letting the time pass."""

    def __init__(self, pass_time: Callable[[float], None]) -> None:
        super().__init__()
        self._pass_time = pass_time

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck("everybody waits and nothing is going to happen")
        self._pass_time(timeout)
        return super().select(0)


@contextmanager
def _sqlite_in_order() -> Iterator[None]:
    """aiosqlite gives each connection a thread, and which of them is done first is the machine's whim."""
    with patch("aiosqlite.core.Thread", _NoThread), patch("aiosqlite.core.SimpleQueue", _DoneAtOnce):
        yield


class _NoThread:
    daemon = False

    def __init__(self, **_options: Any) -> None:
        pass

    def start(self) -> None:
        pass


class _DoneAtOnce:
    """A queue of jobs for a connection, each done when it is put; the answer comes in the loop's next round,
    so that others have their turn between any two statements."""

    def put_nowait(self, job: tuple[asyncio.Future[Any] | None, Callable[[], Any]]) -> None:
        future, function = job
        try:
            result = function()
        except BaseException as error:
            if future is not None:
                future.get_loop().call_soon(_fail, future, error)
        else:
            if future is not None:
                future.get_loop().call_soon(_answer, future, result)


def _answer(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
