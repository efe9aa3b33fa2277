"""Keeps programs running: starts them, waits until they are ready, restarts what dies, stops all together.

A program dies with its supervisor even when that one is killed, so the next start finds its ports free.
It doesn't see Ctrl-C itself: the supervisor does, and stops all in order.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from scripts.weft_cli.rotated_log import RotatedLog

READY_SECONDS_MAX = 180.0
READY_POLL_SECONDS = 0.1
WAITING_SECONDS = 5.0
"""So often people are told what is being waited for."""
READY_ANSWER_SECONDS_MAX = 5.0
ANSWER_LENGTH_MAX = 200
"""The longest answer that is shown to people who wait."""
STOP_SECONDS_MAX = 20.0
RESTART_PAUSE_SECONDS = 0.5
"""Before a program that was ready is started again, however often it dies."""
RETRY_PAUSE_SECONDS = (1, 2, 4, 8, 16)
"""The pauses before further starts of one that ended before it was ready; after the last one the supervisor
gives up."""
FIRST_RETRIES_MAX = 1
"""A program that has never been ready is hardly helped by more."""
LAST_OUTPUT_SECONDS_MAX = 1.0
OUTPUT_CHUNK_BYTES = 64 * 1024
_PR_SET_PDEATHSIG = 1


class ProgramFailed(Exception):
    """A program can't be kept running; the message is one sentence with its log's last line."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, and how to know that it is ready."""

    name: str
    """For people: `Synapse`."""
    command: Sequence[str]
    folder: Path
    log: Path
    ready_url: str
    is_ready: Callable[[httpx.Response], bool]
    environment: Mapping[str, str] = field(default_factory=dict)


class _Kept:
    """One program and its present process."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.log = RotatedLog(program.log)
        self.process: Process | None = None
        self.answer = ""
        """How it answered when last asked whether it is ready; empty without a short answer."""
        self.is_ready = False
        """Whether the present process has become ready."""
        self.was_ready = False
        """Whether any of its processes has."""
        self.restarts = 0


class Supervisor:
    """Runs programs until it is told to stop or one of them can't be kept running."""

    def __init__(self, programs: Sequence[Program], *, say: Callable[[str], None]) -> None:
        self._kept = [_Kept(program) for program in programs]
        self._say = say
        self._stop = asyncio.Event()
        self._stop_at_once = asyncio.Event()

    def pids(self) -> dict[str, int | None]:
        """Each program's present process; None while it is being restarted."""
        return {kept.program.name: kept.process.pid if kept.process else None for kept in self._kept}

    def restarts(self) -> dict[str, int]:
        """How often each program was restarted."""
        return {kept.program.name: kept.restarts for kept in self._kept}

    def stop(self) -> None:
        """Asks for the end; asked twice, nobody is waited for."""
        if self._stop.is_set():
            self._stop_at_once.set()
        self._stop.set()

    async def run(self, *, changed: Callable[[], None], ready: Callable[[], None]) -> None:
        """Runs everything until `stop`. Calls `changed` when a process began or ended, and `ready` once.

        Raises ProgramFailed when a program can't be kept running or doesn't become ready in time; all
        others are stopped by then.
        """
        keepers = [asyncio.create_task(self._keep_running(kept, changed)) for kept in self._kept]
        watching = asyncio.create_task(self._watch_readiness(ready))
        stopped = asyncio.create_task(self._stop.wait())
        waited_for: set[asyncio.Task[object]] = {*keepers, watching, stopped}
        try:
            while not stopped.done():
                done, waited_for = await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    await task
        finally:
            self._stop.set()
            for task in (*keepers, watching, stopped):
                task.cancel()
            await asyncio.gather(*keepers, watching, stopped, return_exceptions=True)
            # Last started, first stopped: services still reach Synapse while they finish.
            for kept in reversed(self._kept):
                await self._end(kept)
            changed()

    async def _keep_running(self, kept: _Kept, changed: Callable[[], None]) -> None:
        failures = 0
        while not self._stop.is_set():
            kept.is_ready = False
            process = await _start(kept.program)
            kept.process = process
            changed()
            status = await _until_it_ends(process, kept.log)
            kept.process = None
            changed()
            failures = 0 if kept.is_ready else failures + 1
            if failures > (len(RETRY_PAUSE_SECONDS) if kept.was_ready else FIRST_RETRIES_MAX):
                raise ProgramFailed(
                    f"{kept.program.name} keeps stopping ({_ending(status)}): {_last_line(kept)}"
                )
            pause = RETRY_PAUSE_SECONDS[failures - 1] if failures else RESTART_PAUSE_SECONDS
            self._say(f"{kept.program.name} stopped ({_ending(status)}): {_last_line(kept)}")
            self._say(f"Restarting {kept.program.name} in {pause} s.")
            await asyncio.sleep(pause)
            kept.restarts += 1

    async def _watch_readiness(self, ready: Callable[[], None]) -> None:
        """Asks each process until it is ready; says so once all programs have been."""
        began = time.monotonic()
        deadline = began + READY_SECONDS_MAX
        next_word = began + WAITING_SECONDS
        all_were_ready = False
        async with httpx.AsyncClient(timeout=READY_ANSWER_SECONDS_MAX, trust_env=False) as client:
            while True:
                for kept in self._kept:
                    process = kept.process
                    if not kept.is_ready and process is not None and await _answers(client, kept):
                        kept.is_ready = process is kept.process
                        kept.was_ready |= kept.is_ready
                        self._say(f"{kept.program.name} is ready.")
                missing = [kept for kept in self._kept if not kept.was_ready]
                if not missing and not all_were_ready:
                    all_were_ready = True
                    ready()
                if missing and time.monotonic() > next_word:
                    next_word += WAITING_SECONDS
                    seconds = time.monotonic() - began
                    self._say(
                        f"Waiting for {missing[0].program.name} ({seconds:.0f} s): {_waits(missing[0])}"
                    )
                if missing and time.monotonic() > deadline:
                    raise ProgramFailed(
                        f"{missing[0].program.name} did not become ready within {READY_SECONDS_MAX:.0f} "
                        f"seconds: {_last_line(missing[0])}"
                    )
                await asyncio.sleep(READY_POLL_SECONDS)

    async def _end(self, kept: _Kept) -> None:
        """SIGTERM, a bounded wait, then SIGKILL."""
        process = kept.process
        if process is None or process.returncode is not None:
            kept.process = None
            return
        _signal(process, signal.SIGTERM)
        ending = asyncio.create_task(_until_it_ends(process, kept.log))
        at_once = asyncio.create_task(self._stop_at_once.wait())
        await asyncio.wait({ending, at_once}, timeout=STOP_SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            _signal(process, signal.SIGKILL)
            await asyncio.wait({ending}, timeout=STOP_SECONDS_MAX)
        for task in (ending, at_once):
            task.cancel()
        await asyncio.gather(ending, at_once, return_exceptions=True)
        kept.process = None


async def _start(program: Program) -> Process:
    supervisor = os.getpid()

    def die_with_the_supervisor() -> None:
        _set_death_signal(signal.SIGKILL)
        # It may have died before that took effect.
        if os.getppid() != supervisor:
            os._exit(1)

    return await asyncio.create_subprocess_exec(
        *program.command,
        cwd=program.folder,
        env={**os.environ, **program.environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        start_new_session=True,
        preexec_fn=die_with_the_supervisor,
    )


def _find_death_signal() -> Callable[[int], None]:
    """Linux's prctl; elsewhere a killed supervisor leaves its programs running."""
    if sys.platform != "linux":
        return lambda _: None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return lambda number: prctl(_PR_SET_PDEATHSIG, number)


# Found before the first fork: between fork and exec nothing may be loaded.
_set_death_signal = _find_death_signal()


async def _until_it_ends(process: Process, log: RotatedLog) -> int:
    """Copies the output until the process ends; returns its exit status."""
    copying = asyncio.create_task(_copy_output(process, log))
    try:
        status = await process.wait()
        # Its last words may still be in the pipe; one that it passed on to another may stay open for ever.
        await asyncio.wait({copying}, timeout=LAST_OUTPUT_SECONDS_MAX)
        return status
    finally:
        copying.cancel()
        await asyncio.gather(copying, return_exceptions=True)


async def _copy_output(process: Process, log: RotatedLog) -> None:
    assert process.stdout is not None
    while output := await process.stdout.read(OUTPUT_CHUNK_BYTES):
        log.write(output)


async def _answers(client: httpx.AsyncClient, kept: _Kept) -> bool:
    kept.answer = ""
    try:
        response = await client.get(kept.program.ready_url)
        if len(response.text) <= ANSWER_LENGTH_MAX and response.text.isprintable():
            kept.answer = response.text
        return kept.program.is_ready(response)
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _signal(process: Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except ProcessLookupError:
        return


def _ending(status: int) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


def _waits(kept: _Kept) -> str:
    """What a program that isn't ready says: its answer about itself, its last warning or its last line."""
    said = kept.log.last_complaint or kept.log.last_line
    words = [kept.answer] if kept.answer else []
    words += [f"“{said}” (in {kept.log.path})"] if said else []
    return "; ".join(words) or "no word from it yet."


def _last_line(kept: _Kept) -> str:
    line = kept.log.last_line
    return f"“{line}” (in {kept.log.path})" if line else f"{kept.log.path} says nothing."
