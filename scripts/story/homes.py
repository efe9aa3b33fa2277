"""A homeserver with Weft in a folder of its own, started and stopped by the product's own command."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

PORTS = range(10_000, 32_766)
"""Linux gives the ones above to outgoing connections."""
PORT_DRAWS_MAX = 200
WEFT = (sys.executable, "-m", "scripts.weft_cli.main")


class HomeFailed(Exception):
    """A command of Weft failed; the message is what it said."""


@dataclass(frozen=True, slots=True)
class Home:
    """One organisation's homeserver with Weft beside it."""

    title: str
    folder: Path
    authority: Path
    port: int
    federation_port: int

    @property
    def server_name(self) -> str:
        return f"localhost:{self.federation_port}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def portal_url(self) -> str:
        return f"http://127.0.0.1:{self.port + 1}"

    def user(self, localpart: str) -> str:
        return f"@{localpart}:{self.server_name}"

    async def start(self) -> None:
        await self.weft(
            "up", "--port", str(self.port), "--server-name", self.server_name, "--ca", str(self.authority),
            "--open-registration", "--detach",
        )  # fmt: skip

    async def stop(self) -> None:
        await self.weft("down")

    async def weft(self, *arguments: str) -> str:
        """Runs a weft command on this home's data folder; what it printed. Raises HomeFailed."""
        process = await asyncio.create_subprocess_exec(
            *WEFT,
            *arguments,
            env={**os.environ, "WEFT_DATA": str(self.folder)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        text = output.decode(errors="replace").strip()
        if process.returncode != 0:
            raise HomeFailed(f"weft {arguments[0]} in {self.folder}: {text}")
        return text


def homes_in(folder: Path, *titles: str) -> list[Home]:
    """Homes on free ports of this machine, with one certificate authority between them."""
    homes = []
    # All ports are held until all are chosen, so that none is chosen twice.
    with ExitStack() as held:
        for title in titles:
            port = _free_pair(held)
            homes.append(Home(title, folder / title.lower(), folder / "authority", port, _free_port(held)))
    return homes


def _free_port(held: ExitStack) -> int:
    """One that no outgoing connection takes meanwhile: those are above."""
    for _ in range(PORT_DRAWS_MAX):
        port = random.choice(PORTS)
        if _hold(held, port):
            return port
    raise HomeFailed("this machine has no free port")


def _free_pair(held: ExitStack) -> int:
    """Two free ports in a row: Synapse's and Weft's."""
    for _ in range(PORT_DRAWS_MAX):
        port = _free_port(held)
        if _hold(held, port + 1):
            return port
    raise HomeFailed("this machine has no two free ports in a row")


def _hold(held: ExitStack, port: int) -> bool:
    listener = held.enter_context(socket.socket())
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True
