"""Homeservers with Weft whose federation can really be cut: a proxy stands before each federation listener.

The server name has the proxy's port, the homeserver listens elsewhere; while the proxy is cut, it drops every
connection and takes none.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from appservices.vocabulary.ids import derived_id
from tests.stack import Stack
from tests.synapse import WAIT_SECONDS_MAX, MatrixUser, free_port

CHUNK_BYTES: Final = 65536


class Proxy:
    """A TCP proxy on a thread of its own, so that it goes on while a test blocks."""

    def __init__(self, port: int, target_port: int) -> None:
        self._port = port
        self._target_port = target_port
        self._is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._started.wait()

    def cut(self) -> None:
        """From now on nothing comes through; what was under way is dropped."""
        self._is_cut = True
        asyncio.run_coroutine_threadsafe(self._drop(), self._loop).result()

    def mend(self) -> None:
        self._is_cut = False

    def close(self) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self._port))
        self._started.set()
        self._loop.run_forever()

    async def _drop(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
        self._writers -= {writer, back}

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                writer.write(data)
                await writer.drain()
        with suppress(OSError):
            writer.close()


class SeverableStack(Stack):
    """A stack whose incoming federation goes through `proxy`. It takes up a broken federation at once."""

    proxy: Proxy

    def __init__(self, folder: Path, *, authority_folder: Path) -> None:
        super().__init__(folder, authority_folder=authority_folder)
        self._ca_folder = authority_folder

    def start(self, config: Mapping[str, Any] | None = None) -> None:
        assert self.federation_port is not None
        done = self.weft(
            "init", "--server-name", self.server_name, "--port", str(self.port), "--ca", str(self._ca_folder)
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        path = self.data / "homeserver.yaml"
        homeserver = yaml.safe_load(path.read_text())
        listener = next(item for item in homeserver["listeners"] if item["port"] == self.federation_port)
        listener["port"] = free_port()
        homeserver["federation"] = {
            "destination_min_retry_interval": "1s",
            "destination_max_retry_interval": "2s",
            # It tries again what is under way as long as by itself, but every second and not every minute.
            "max_long_retry_delay": "1s",
            "max_long_retries": 400,
        }
        path.write_text(yaml.safe_dump(homeserver, sort_keys=False))
        # `weft up` makes sure that the port of the server name is free, and so it is until then.
        super().start(config)
        self.proxy = Proxy(self.federation_port, listener["port"])

    def stop(self) -> None:
        super().stop()
        if hasattr(self, "proxy"):
            self.proxy.close()


class Payer:
    """Somebody who pays by the wallet's API."""

    def __init__(self, stack: Stack, user: MatrixUser, token: str) -> None:
        self.stack = stack
        self.user = user
        self.headers = {"Authorization": f"Bearer {token}"}

    @property
    def user_id(self) -> str:
        return self.user.user_id

    @classmethod
    async def sign_in(cls, stack: Stack, localpart: str, amount: str) -> Payer:
        """A new user with that much money and a session."""
        user = await stack.register(localpart)
        stack.deposit(user.user_id, amount)
        shown = await user.request("POST", f"/user/{user.user_id}/openid/request_token", {})
        async with httpx.AsyncClient(timeout=WAIT_SECONDS_MAX) as client:
            answer = await client.post(f"{stack.web_url}/_weft/sessions/openid", json=shown)
        answer.raise_for_status()
        return cls(stack, user, answer.json()["token"])

    async def pay(self, payee: str, amount_minor: int, name: str, *, seconds_max: float = 60) -> str:
        """The payment's state; "unknown" when there was no answer, and a refusal's errcode."""
        body = {
            "id": derived_id("severed", self.user_id, name),
            "payee": payee,
            "amount_minor": str(amount_minor),
            "currency": "EUR",
        }
        url = f"{self.stack.web_url}/_weft/wallet/v1/payments"
        try:
            async with httpx.AsyncClient(timeout=seconds_max, headers=self.headers) as client:
                answer = await client.post(url, json=body)
        except httpx.HTTPError:
            return "unknown"
        return str(answer.json().get("state") or answer.json().get("errcode"))


def balances(stack: Stack) -> tuple[int, int]:
    """What all people of a stack have, and what of it is held."""
    rows = json.loads(stack.weft("wallet", "balances", "--json").stdout)
    posted = sum(int(row["posted_minor"]) for row in rows)
    return posted, sum(int(row["pending_minor"]) for row in rows)


def owed_minor(stack: Stack, other: Stack) -> int:
    """What the other's wallet owes this one."""
    peers = json.loads(stack.weft("wallet", "peers", "--json").stdout)
    (peer,) = [peer for peer in peers if peer["server"] == other.server_name]
    return sum(int(position["owed_minor"]) for position in peer["positions"])


def make_peers(*stacks: Stack, limit: str = "100000 EUR") -> None:
    for one in stacks:
        for other in stacks:
            if one is not other:
                done = one.weft("wallet", "peer", "add", other.server_name, "--credit-limit", limit)
                if done.returncode != 0:
                    raise RuntimeError(done.stderr)
