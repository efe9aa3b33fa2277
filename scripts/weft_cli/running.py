"""Whether this Weft runs, known by a lock that ends with its holder: a stale pid is never believed."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from scripts.weft_cli.data_folder import DataFolder
from scripts.weft_cli.failure import CommandFailed
from scripts.weft_cli.written_files import make_folder, replace_file

LOCK_SECONDS_MAX = 2.0
"""`weft status` holds the lock for the moment in which it looks; `up` waits that long for it."""
LOCK_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Running:
    """What a running `weft up` says of itself."""

    pid: int
    state: str
    """`starting`, `running` or `stopping`."""
    homeserver_url: str
    portal_url: str
    synapse: int | None = None
    """The pid of Synapse; None while it is being restarted, or when it isn't ours."""
    services: int | None = None
    """The pid of `weft serve`; None while it is being restarted."""
    restarts: dict[str, int] = field(default_factory=dict)


@contextmanager
def running_lock(folder: DataFolder) -> Iterator[None]:
    """Held for as long as `weft up` runs. Raises CommandFailed when another one holds it."""
    make_folder(folder.run)
    with _lock_path(folder).open("a+") as lock:
        if not _lock_within(lock.fileno(), LOCK_SECONDS_MAX):
            pid = _written_pid(folder)
            raise CommandFailed(
                f"Weft runs already in {folder.path}{f' (process {pid})' if pid else ''}: `weft status` says "
                "more, `weft down` stops it."
            )
        lock.truncate(0)
        lock.write(f"{_identity(os.getpid())}\n")
        lock.flush()
        try:
            yield
        finally:
            _state_path(folder).unlink(missing_ok=True)
            lock.truncate(0)


def write_running(folder: DataFolder, running: Running) -> None:
    """Tells `weft status`; only the holder of the lock may."""
    replace_file(_state_path(folder), json.dumps(asdict(running)) + "\n")


def read_running(folder: DataFolder) -> Running | None:
    """What runs in this data folder; None when nothing does."""
    pid = running_pid(folder)
    if pid is None:
        return None
    try:
        content = json.loads(_state_path(folder).read_text())
        if content["pid"] == pid:
            return Running(**content)
    except (OSError, ValueError, TypeError, KeyError):
        pass
    # The lock is held, but its holder has not said more yet.
    return Running(pid=pid, state="starting", homeserver_url="", portal_url="")


def running_pid(folder: DataFolder) -> int | None:
    """The process that holds the lock; None when nobody does."""
    try:
        with _lock_path(folder).open("r") as lock:
            if _lock_within(lock.fileno(), 0, operation=fcntl.LOCK_SH):
                return None
    except OSError:
        return None
    return _written_pid(folder)


def stop_running(folder: DataFolder, *, seconds_max: float) -> bool | None:
    """Asks the running `weft up` to stop and waits until it has.

    True when it has, False when it had to be killed, None when nothing ran.
    """
    pid = running_pid(folder)
    if pid is None:
        return None
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        # Between reading the pid and opening it the process may have ended and its number been given away.
        if running_pid(folder) != pid:
            return None
        signal.pidfd_send_signal(process, signal.SIGTERM)
        if _ends_within(process, seconds_max):
            return True
        signal.pidfd_send_signal(process, signal.SIGKILL)
        _ends_within(process, seconds_max)
        return False
    except ProcessLookupError:
        return True
    finally:
        os.close(process)


def _ends_within(process: int, seconds: float) -> bool:
    waiting = select.poll()
    waiting.register(process, select.POLLIN)
    return bool(waiting.poll(seconds * 1000))


def _lock_within(descriptor: int, seconds: float, *, operation: int = fcntl.LOCK_EX) -> bool:
    """Takes the lock if it can be had within that time."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            threading.Event().wait(LOCK_POLL_SECONDS)
        else:
            return True


def _identity(pid: int) -> str:
    """The process and when it began, so that a number given to another process later is not it."""
    try:
        # The name in parentheses may hold spaces; the 22nd field of the line is the start.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return f"{pid} {fields[19]}"
    except (OSError, IndexError):
        return f"{pid} -"


def _written_pid(folder: DataFolder) -> int | None:
    """Who holds the lock; None when what is written is of an earlier holder."""
    try:
        written = _lock_path(folder).read_text().strip()
        pid = int(written.split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return pid if written == _identity(pid) else None


def _lock_path(folder: DataFolder) -> Path:
    return folder.run / "up.lock"


def _state_path(folder: DataFolder) -> Path:
    return folder.run / "up.json"
