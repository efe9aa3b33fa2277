"""Orders created and paid per second, over HTTP, by 32 clients, on PostgreSQL.

Each client makes an order as a merchant's program does and pays it as a payer's browser does, over
connections that stay open, and begins the next when that is answered. Server, PostgreSQL and clients share
the machine.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.room_extensions import cpu_seconds_of
from tests.postgres import running_postgresql

CLIENTS: Final = 32
SECONDS: Final = 30.0
SECONDS_QUICK: Final = 8.0
WARM_UP_SECONDS: Final = 3.0
BAR_PER_SECOND: Final = 300
ORDERS: Final = "/_weft/wallet/v1/merchant/orders"
PAY: Final = "/_weft/wallet/v1/orders/{id}/pay"


@dataclass(frozen=True, slots=True)
class OrdersMeasured:
    """Orders that were made and paid, and how long one took from its making to its being paid."""

    per_second: float
    p50_ms: float
    p99_ms: float
    orders: int
    cpu_ms: float
    """The server's processor time for each: it hardly depends on what else the machine does."""


class Connection:
    """One HTTP/1.1 connection that asks for JSON and gets JSON; nothing that a client need not do."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
        self._reader = reader
        self._writer = writer
        self._headers = f"Host: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"

    async def post(self, path: str, body: Any = None) -> Any:
        content = b"" if body is None else json.dumps(body).encode()
        kind = "" if body is None else "Content-Type: application/json\r\n"
        head = f"POST {path} HTTP/1.1\r\n{self._headers}{kind}Content-Length: {len(content)}\r\n\r\n"
        self._writer.write(head.encode() + content)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        text = await self._reader.readexactly(length)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{path}: {answer.splitlines()[0]!r} {text!r}")
        return json.loads(text)

    def close(self) -> None:
        self._writer.close()


def measure_orders(*, quick: bool) -> OrdersMeasured:
    """Raises RuntimeError when something was refused or a process ended."""
    seconds = SECONDS_QUICK if quick else SECONDS
    with running_postgresql() as postgresql, tempfile.TemporaryDirectory() as folder:
        urls = postgresql.create_database(), postgresql.create_database()
        return asyncio.run(measure_on(Path(folder), *urls, seconds=seconds))


async def measure_on(folder: Path, home_url: str, wallet_url: str, *, seconds: float) -> OrdersMeasured:
    async with server(folder, home_url, wallet_url) as about:
        references = itertools.count(1)
        await run_clients(about, references, seconds=WARM_UP_SECONDS)
        cpu_seconds = cpu_seconds_of(about["pid"])
        took, lasted = await run_clients(about, references, seconds=seconds)
        return summed_up(took, lasted, cpu_seconds=cpu_seconds_of(about["pid"]) - cpu_seconds)


async def run_clients(
    about: dict[str, Any], references: Iterator[int], *, seconds: float
) -> tuple[list[float], float]:
    """How long each order took, in seconds, and how long all of it did."""
    begin = time.perf_counter()
    took = await asyncio.gather(
        *(client(about, number, references, until=begin + seconds) for number in range(CLIENTS))
    )
    return [one for of_client in took for one in of_client], time.perf_counter() - begin


async def client(
    about: dict[str, Any], number: int, references: Iterator[int], *, until: float
) -> list[float]:
    shop = await connect(about["port"], about["key"])
    payer = await connect(about["port"], about["tokens"][number])
    took = []
    while (begin := time.perf_counter()) < until:
        body = {"reference": f"order {next(references)}", "amount_minor": "100", "currency": "EUR"}
        order = await shop.post(ORDERS, body)
        paid = await payer.post(PAY.format(id=order["id"]))
        if paid["state"] != "paid":
            raise RuntimeError(f"an order is {paid['state']}")
        took.append(time.perf_counter() - begin)
    shop.close()
    payer.close()
    return took


async def connect(port: int, token: str) -> Connection:
    return Connection(*await asyncio.open_connection("127.0.0.1", port), token)


@asynccontextmanager
async def server(folder: Path, home_url: str, wallet_url: str) -> AsyncIterator[dict[str, Any]]:
    """The wallet in a process of its own; gives what a client needs to know of it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.benchmarks.payments_server", str(folder), home_url, wallet_url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1024 * 1024,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        line = await process.stdout.readline()
        if not line:
            raise RuntimeError("the server did not start")
        yield {**json.loads(line), "pid": process.pid}
    finally:
        process.stdin.close()
        await process.wait()


def summed_up(took: list[float], seconds: float, *, cpu_seconds: float) -> OrdersMeasured:
    hundredths = statistics.quantiles(took, n=100)
    return OrdersMeasured(
        per_second=len(took) / seconds,
        p50_ms=1000 * hundredths[49],
        p99_ms=1000 * hundredths[98],
        orders=len(took),
        cpu_ms=1000 * cpu_seconds / len(took),
    )
