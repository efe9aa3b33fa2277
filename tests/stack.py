"""A whole Weft as people start it: `weft up --detach` in a folder of its own, Synapse and every service.

A `Stack` is a `Synapse` for those who talk to it, so users register, log in, send and read as there. On top
of that it runs the product's own commands on its data, and ends single processes by their pids.

    stack.weft("wallet", "deposit", "alice", "100 EUR")
    stack.kill("services")
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import httpx

from tests.synapse import PASSWORD, WAIT_SECONDS_MAX, JsonObject, MatrixUser, Synapse, free_port

WEFT: Final = Path(sys.executable).parent / "weft"
COMMAND_SECONDS_MAX: Final = 60.0
UP_SECONDS_MAX: Final = 120.0
READY_SECONDS_MAX: Final = 60.0
POLL_SECONDS: Final = 0.05

Part = Literal["supervisor", "synapse", "services"]


class Stack(Synapse):
    """One homeserver with Weft. Federates with every stack that was given the same authority folder."""

    def __init__(self, folder: Path, *, authority_folder: Path | None = None) -> None:
        super().__init__(folder)
        self.port = free_port_pair()
        self.url = f"http://127.0.0.1:{self.port}"
        self.web_url = f"http://127.0.0.1:{self.port + 1}"
        """Portal, pages, APIs: what `weft up` calls the portal URL."""
        self.data = folder / "data"
        self._authority_folder = authority_folder
        if authority_folder is not None:
            self.federation_port = free_port()
            self.server_name = f"localhost:{self.federation_port}"

    @property
    def home_user(self) -> str:
        return f"@weft:{self.server_name}"

    @property
    def wallet_user(self) -> str:
        return f"@wallet:{self.server_name}"

    @property
    def pid(self) -> int:
        return self.pids()["synapse"]

    @property
    def log(self) -> str:
        """What Weft's services have logged so far."""
        path = self.data / "logs" / "weft.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self, config: Mapping[str, Any] | None = None) -> None:
        """`weft up --detach`; returns when all is ready, raises RuntimeError with its output when not."""
        if config is not None:
            raise ValueError("a stack's config is in its data folder")
        arguments = ["up", "--detach", "--open-registration", "--port", str(self.port)]
        if self._authority_folder is not None:
            arguments += ["--server-name", self.server_name, "--ca", str(self._authority_folder)]
        done = self.weft(*arguments, seconds_max=UP_SECONDS_MAX)
        if done.returncode != 0:
            raise RuntimeError(f"weft up failed:\n{done.stdout}{done.stderr}\n{self.log[-3000:]}")

    def stop(self) -> None:
        """`weft down`. Stopping a stopped one does nothing."""
        self.weft("down", seconds_max=UP_SECONDS_MAX)

    def restart(self) -> None:
        self.stop()
        self.start()

    def weft(
        self, *arguments: str, seconds_max: float = COMMAND_SECONDS_MAX
    ) -> subprocess.CompletedProcess[str]:
        """One command of the product on this stack's data."""
        return run_weft(*arguments, data=self.data, seconds_max=seconds_max)

    def deposit(self, user: str, amount: str) -> None:
        """Gives a user money; raises RuntimeError when that is refused."""
        done = self.weft("wallet", "deposit", user, amount)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)

    async def register_admin(self, localpart: str, *, password: str = PASSWORD) -> MatrixUser:
        done = self.weft("user", "add", localpart, "--password", password, "--admin")
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return await self.login(localpart, password=password)

    def pids(self) -> dict[str, int]:
        """The processes that run now, by part."""
        state = json.loads(self.weft("status", "--json").stdout)
        return {part: pid for part, pid in state["pids"].items() if pid is not None}

    def kill(self, part: Part = "synapse") -> None:
        """Ends one part as a power cut would (SIGKILL), and returns when it has ended.

        Synapse and services are started again by the supervisor; a killed supervisor takes all with it.
        """
        pid = self.pids()[part]
        process = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: _has_ended(process))
        finally:
            os.close(process)

    def wait_until_ready(self) -> None:
        """Until Synapse and every service answer again."""
        wait_until(self._answers, seconds_max=READY_SECONDS_MAX)

    def health(self) -> JsonObject:
        answer: JsonObject = httpx.get(f"{self.web_url}/_weft/health", timeout=20).json()
        return answer

    def _answers(self) -> bool:
        try:
            versions = httpx.get(f"{self.url}/_matrix/client/versions", timeout=5)
            return versions.status_code == 200 and bool(self.health()["ok"])
        except (httpx.HTTPError, ValueError, KeyError):
            return False


def run_weft(
    *arguments: str,
    data: Path | None = None,
    seconds_max: float = COMMAND_SECONDS_MAX,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs `weft` to its end, never as the terminal's own process; output is text."""
    environment = {name: value for name, value in os.environ.items() if name != "WEFT_DATA"}
    if data is not None:
        environment["WEFT_DATA"] = str(data)
    return subprocess.run(
        [str(WEFT), *arguments],
        env=environment,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds_max,
        check=False,
    )


def wait_until(look: Callable[[], bool], *, seconds_max: float = WAIT_SECONDS_MAX) -> None:
    """Looks until it is so; raises AssertionError at the deadline."""
    deadline = time.monotonic() + seconds_max
    while not look():
        assert time.monotonic() < deadline, f"not so within {seconds_max} seconds"
        time.sleep(POLL_SECONDS)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and isn't buried yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def free_port_pair() -> int:
    """A port of which neither it nor the next one is taken at this moment."""
    while True:
        port = free_port()
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def _has_ended(process: int) -> bool:
    waiting = select.poll()
    waiting.register(process, select.POLLIN)
    return bool(waiting.poll(0))
