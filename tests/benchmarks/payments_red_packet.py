"""A red packet that all members of a room open at the same moment: how long until each has an answer.

Everybody reacts at once; an answer is what `@wallet` tells the person alone, in their Home room. Beside it
stand as many plain messages, sent at once by the same people to the same room: Synapse takes a reaction as
it takes a message, so what is above that is ours.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from appservices.vocabulary.events import HOME_ROOM_TYPE, RECEIPT, RED_PACKET
from tests.stack import Stack
from tests.synapse import MatrixUser, eventually

SET_UP_SECONDS_MAX: Final = 300.0
ANSWER_SECONDS_MAX: Final = 120.0
SET_UP_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class Openings:
    """What happened when everybody opened one packet at once."""

    members: int
    total_minor: int
    shares_minor: Sequence[int]
    answer_seconds: Sequence[float]
    """From the moment when all began to react, in order."""
    plain_seconds: float
    """For as many plain messages, sent at once, until the last was taken."""


async def measure_openings(folder: Path, *, members: int) -> Openings:
    stack = Stack(folder)
    stack.start()
    try:
        alice = await stack.register("alice")
        stack.deposit("alice", "100 EUR")
        room_id = await alice.create_room(name="Party", preset="public_chat", invite=[stack.wallet_user])
        people = await _guests(stack, room_id, members)
        packet = await _packet(stack, alice, room_id, members)
        begin = time.perf_counter()
        await asyncio.gather(
            *(person.send(room_id, {"msgtype": "m.text", "body": "hello"}) for person, _ in people)
        )
        plain_seconds = time.perf_counter() - begin
        return await _open_all(people, room_id, packet, plain_seconds)
    finally:
        stack.stop()


async def _guests(stack: Stack, room_id: str, count: int) -> list[tuple[MatrixUser, str]]:
    """People in the room, each with their Home room."""
    places = asyncio.Semaphore(SET_UP_AT_ONCE)

    async def guest(number: int) -> tuple[MatrixUser, str]:
        async with places:
            person = await stack.register(f"guest{number}")
            await person.join(room_id)
            home = await eventually(
                lambda: person.account_data(HOME_ROOM_TYPE), seconds_max=SET_UP_SECONDS_MAX
            )
            home_id = str(home["room_id"])
            await eventually(
                lambda: _has_joined(person, home_id, stack.wallet_user), seconds_max=SET_UP_SECONDS_MAX
            )
            return person, home_id

    return await asyncio.gather(*(guest(number) for number in range(count)))


async def _has_joined(user: MatrixUser, room_id: str, other: str) -> bool:
    return await user.membership(room_id, other) == "join"


async def _packet(stack: Stack, alice: MatrixUser, room_id: str, count: int) -> dict[str, Any]:
    await eventually(lambda: _has_joined(alice, room_id, stack.wallet_user))
    await alice.send(room_id, {"msgtype": "m.text", "body": f"!redpacket 20 EUR {count} for all of you"})

    async def find() -> dict[str, Any] | None:
        for event in await alice.messages(room_id):
            if event["sender"] == stack.wallet_user and RED_PACKET in event["content"]:
                return event
        return None

    return await eventually(find)


async def _open_all(
    people: Sequence[tuple[MatrixUser, str]],
    room_id: str,
    packet: Mapping[str, Any],
    plain_seconds: float,
) -> Openings:
    relation = {"rel_type": "m.annotation", "event_id": packet["event_id"], "key": "🧧"}
    begin = time.perf_counter()

    async def open_one(person: MatrixUser, home_id: str) -> tuple[float, int]:
        await person.send(room_id, {"m.relates_to": relation}, event_type="m.reaction")

        async def answer() -> int | None:
            for event in await person.messages(home_id, limit=20):
                receipt = event["content"].get(RECEIPT)
                if receipt is not None and receipt["kind"] == "share":
                    return int(receipt["amount_minor"])
            return None

        share = await eventually(answer, seconds_max=ANSWER_SECONDS_MAX)
        return time.perf_counter() - begin, share

    opened = await asyncio.gather(*(open_one(person, home_id) for person, home_id in people))
    return Openings(
        members=len(people),
        total_minor=2_000,
        shares_minor=[share for _, share in opened],
        answer_seconds=sorted(seconds for seconds, _ in opened),
        plain_seconds=plain_seconds,
    )
