"""How long a payment by chat takes: from the payer's `!pay` to the receipt in the payee's /sync.

Beside it, on the same Synapse and in the same room, a minimal bot's echo: from a message to the echo in the
same person's /sync. Both take turns, so that whatever else the machine does falls on both alike. An echo is
stored nowhere and may get lost; a payment is on the disk three times before it is told.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from appservices.vocabulary.events import RECEIPT
from tests.stack import Stack
from tests.synapse import MatrixUser, eventually

WARM_UP_ROUNDS: Final = 3
SEEN_SECONDS_MAX: Final = 30.0


@dataclass(frozen=True, slots=True)
class ChatTimes:
    """Round by round, in seconds."""

    payments: list[float]
    echoes: list[float]

    @property
    def ratio(self) -> float:
        """How much longer a payment takes: the median of the rounds' ratios."""
        return statistics.median(
            payment / echo for payment, echo in zip(self.payments, self.echoes, strict=True)
        )


async def measure_chat(folder: Path, *, rounds: int) -> ChatTimes:
    stack = Stack(folder)
    stack.start()
    try:
        alice, bob, bot = [await stack.register(name) for name in ("alice", "bob", "bot")]
        stack.deposit("alice", "100 EUR")
        room_id = await alice.create_room(
            name="Lunch", invite=[bob.user_id, bot.user_id, stack.wallet_user], preset="private_chat"
        )
        for user in (bob, bot):
            await user.join(room_id)
        await eventually(lambda: _has_joined(alice, room_id, stack.wallet_user))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.echo_bot", stack.url, bot.user_id, bot.access_token),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        await process.stdout.readline()
        reader = Reader(bob)
        reading = asyncio.create_task(reader.run())
        try:
            return await _rounds(alice, bob, room_id, reader, rounds)
        finally:
            reading.cancel()
            process.terminate()
            await process.wait()
    finally:
        stack.stop()


async def _has_joined(user: MatrixUser, room_id: str, other: str) -> bool:
    return await user.membership(room_id, other) == "join"


async def _rounds(alice: MatrixUser, bob: MatrixUser, room_id: str, reader: Reader, rounds: int) -> ChatTimes:
    payments: list[float] = []
    echoes: list[float] = []

    async def pay(number: int) -> float:
        memo = f"round {number}"
        return await _timed(
            alice,
            room_id,
            f"!pay {bob.user_id} 0.01 EUR {memo}",
            lambda content: content.get(RECEIPT, {}).get("memo") == memo,
            reader,
        )

    async def echo(number: int) -> float:
        text = f"echo {number}"
        return await _timed(
            alice,
            room_id,
            text,
            lambda content: content.get("body") == text and content.get("msgtype") == "m.notice",
            reader,
        )

    for number in range(WARM_UP_ROUNDS + rounds):
        turns: list[tuple[list[float], Callable[[int], Awaitable[float]]]] = [
            (payments, pay),
            (echoes, echo),
        ]
        for times, turn in turns if number % 2 == 0 else reversed(turns):
            seconds = await turn(number)
            if number >= WARM_UP_ROUNDS:
                times.append(seconds)
    return ChatTimes(payments, echoes)


async def _timed(
    sender: MatrixUser, room_id: str, text: str, is_answer: Callable[[dict[str, Any]], bool], reader: Reader
) -> float:
    seen = reader.wait_for(is_answer)
    begin = time.perf_counter()
    await sender.send(room_id, {"msgtype": "m.text", "body": text})
    return await asyncio.wait_for(seen, SEEN_SECONDS_MAX) - begin


class Reader:
    """Somebody's client: a loop of /sync that notes when a message came."""

    def __init__(self, user: MatrixUser) -> None:
        self._user = user
        self._wanted: list[tuple[Callable[[dict[str, Any]], bool], asyncio.Future[float]]] = []

    def wait_for(self, matches: Callable[[dict[str, Any]], bool]) -> asyncio.Future[float]:
        """When the first message that matches came, by time.perf_counter."""
        seen: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._wanted.append((matches, seen))
        return seen

    async def run(self) -> None:
        since = (await self._user.request("GET", "/sync", parameters={"timeout": "0"}))["next_batch"]
        while True:
            answer = await self._user.request("GET", "/sync", parameters={"timeout": "30000", "since": since})
            came_at = time.perf_counter()
            since = answer["next_batch"]
            for room in answer.get("rooms", {}).get("join", {}).values():
                for event in room.get("timeline", {}).get("events", ()):
                    self._take(event.get("content", {}), came_at)

    def _take(self, content: dict[str, Any], came_at: float) -> None:
        for matches, seen in self._wanted:
            if not seen.done() and matches(content):
                seen.set_result(came_at)
        self._wanted = [wanted for wanted in self._wanted if not wanted[1].done()]
