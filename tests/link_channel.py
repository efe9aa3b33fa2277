"""Two or more links of the real kind, each on a database of its own, with a network in between that loses,
repeats and reorders what it is given. Time is the machine's; the pauses of the links are made short."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import bindparam, delete, insert, select, text

from appservices.chassis.clock import system_clock
from appservices.chassis.database import Database, Write, open_database
from appservices.chassis.links import link as link_module
from appservices.chassis.links.feature import ItemsRefused
from appservices.chassis.links.link import Link
from appservices.chassis.links.protocol import Item, StopReason
from appservices.chassis.links.storage import LinkStorage, StoredLink, item_write, link_write, new_link
from appservices.chassis.migrations import CHASSIS_MIGRATIONS
from appservices.chassis.tables import direct_rooms
from appservices.vocabulary.ids import UserId
from appservices.vocabulary.signing import SigningKey
from tests.migrated import migrated

A, B = UserId("@wallet:a"), UserId("@wallet:b")
NOTHING = Write(
    delete(direct_rooms).where(direct_rooms.c.user_id == bindparam("of_nobody")), {"of_nobody": ""}
)
"""A write that changes nothing, as often as it is made."""


@dataclass
class Weather:
    """How bad the network is, and whether it is there at all."""

    seed: int = 0
    lost: float = 0.0
    repeated: float = 0.0
    delay_seconds_max: float = 0.0
    is_cut: bool = False
    chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)


class Side:
    """One end: a service that writes down what it is told, in order."""

    def __init__(self, own_user: UserId, database: Database, weather: Weather) -> None:
        self.own_user = own_user
        self.database = database
        self.storage = LinkStorage(database)
        self.key = SigningKey.generate()
        self.weather = weather
        self.applied: list[Item] = []
        self.told: list[StopReason] = []
        self.link: Link
        self.other: Side
        self.sent: list[dict[str, Any]] = []
        self._task: asyncio.Task[None] | None = None
        self._on_the_way: set[asyncio.Task[None]] = set()
        self._at_work: set[asyncio.Task[bool]] = set()

    async def start(self, peer: UserId) -> None:
        stored = await self.storage.one(peer)
        if stored is None:
            stored = new_link(self.own_user, peer, now_ms=system_clock())
            await self.storage.write([link_write(stored)])
        self.link = Link(
            stored,
            own_user=self.own_user,
            key=self.key,
            storage=self.storage,
            road=self,
            feature=self,
            clock=system_clock,
        )
        self._task = asyncio.create_task(self.link.run())

    async def stop(self) -> None:
        """As a kill would: what was not committed is gone."""
        ending = [*self._at_work, *([self._task] if self._task is not None else [])]
        self._task = None
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        # A commit that was under way may still be made, by the database's own thread: it is waited for.
        async with self.database.begin() as work:
            rows = await work.execute(select(direct_rooms.c.user_id).order_by(text("rowid")))
            self.applied = [{"kind": "said", "n": int(row.user_id.split()[1])} for row in rows]

    async def say(self, *items: Item) -> None:
        await self.storage.write([item_write(self.link.peer, item) for item in items])
        self.link.wake()

    # The feature.

    async def allows(self, peer: UserId) -> bool:
        return True

    async def apply(self, peer: UserId, items: Sequence[Item], received: Sequence[Write]) -> None:
        if any(item["kind"] == "poison" for item in items):
            raise ItemsRefused(StopReason.UNREADABLE, "an item of kind poison")
        effects = [
            Write(insert(direct_rooms), {"user_id": f"{peer} {item['n']}", "room_id": "!r"}) for item in items
        ]
        await self.storage.write([*effects, *received])
        self.applied.extend(items)

    async def stopped(self, peer: UserId, reason: StopReason, detail: str) -> Sequence[Write]:
        self.told.append(reason)
        return []

    async def mended(self, peer: UserId) -> Sequence[Write]:
        return []

    # The road.

    async def is_open(self, link: StoredLink) -> bool:
        return True

    async def peer_keys(self, link: StoredLink) -> Mapping[str, str] | None:
        return {self.other.key.key_id: self.other.key.public_base64}

    async def send(self, link: StoredLink, content: Mapping[str, Any], *, transaction_id: str) -> None:
        copy = json.loads(json.dumps(content))
        self.sent.append(copy)
        weather = self.weather
        for _ in range(2 if weather.chance.random() < weather.repeated else 1):
            if weather.is_cut or weather.chance.random() < weather.lost:
                continue
            delay = weather.chance.random() * weather.delay_seconds_max
            delivery = asyncio.create_task(self._deliver(copy, delay))
            self._on_the_way.add(delivery)
            delivery.add_done_callback(self._on_the_way.discard)

    async def _deliver(self, content: dict[str, Any], delay: float) -> None:
        await asyncio.sleep(delay)
        self.other.hear(content)

    def hear(self, content: Mapping[str, Any]) -> None:
        """Works on what came. Nobody hears it while this side is killed, and a kill ends the work on it."""
        if self._task is None:
            return
        work = asyncio.create_task(self.link.receive(content, done=NOTHING))
        self._at_work.add(work)
        work.add_done_callback(self._at_work.discard)


@asynccontextmanager
async def two_sides(folder: Path, weather: Weather) -> AsyncIterator[tuple[Side, Side]]:
    sides = []
    for name, user in (("a", A), ("b", B)):
        database = open_database(f"sqlite:///{name}.db", folder=folder)
        await migrated(database, CHASSIS_MIGRATIONS)
        sides.append(Side(user, database, weather))
    a, b = sides
    a.other, b.other = b, a
    await a.start(B)
    await b.start(A)
    try:
        yield a, b
    finally:
        await a.stop()
        await b.stop()
        for side in sides:
            await side.database.close()


def shorten_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets links do in a test's time what takes them seconds and minutes."""
    for name, seconds in {
        "ACK_SECONDS": 0.005,
        "ACK_AGAIN_SECONDS": 0.02,
        "ASK_SECONDS": 0.02,
        "RESEND_SECONDS": 0.02,
        "PAUSE_SECONDS_MAX": 0.1,
        "PING_SECONDS": 0.05,
        "PING_SECONDS_MAX": 0.1,
        "STOPPED_NOTE_SECONDS": 0.05,
        "IDLE_SECONDS": 0.05,
    }.items():
        monkeypatch.setattr(link_module, name, seconds)
