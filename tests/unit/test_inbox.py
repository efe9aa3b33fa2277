"""The inbox applies each event once and in order, whatever fails in between. On a real SQLite file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from appservices.chassis import inbox as inbox_module
from appservices.chassis.clock import system_clock
from appservices.chassis.database import Database, Write, open_database
from appservices.chassis.inbox import EventHandler, Inbox, KeyNotYetHere, StoredEvent
from appservices.chassis.migrations import CHASSIS_MIGRATIONS
from appservices.chassis.tables import direct_rooms
from tests.migrated import migrated


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = open_database("sqlite:///service.db", folder=tmp_path)
    await migrated(database, CHASSIS_MIGRATIONS)
    yield database
    await database.close()


async def given_up(stored: StoredEvent) -> Sequence[Write]:
    return [effect(f"given up {stored.event_id}")]


@asynccontextmanager
async def running(database: Database, handle: EventHandler) -> AsyncIterator[Inbox]:
    inbox = Inbox(
        database,
        clock=system_clock,
        handle=handle,
        on_effects=lambda: None,
        on_given_up=given_up,
    )
    task = asyncio.create_task(inbox.run())
    try:
        yield inbox
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def event(number: int, *, room_id: str = "!r") -> dict[str, Any]:
    return {
        "event_id": f"${number}",
        "room_id": room_id,
        "type": "m.room.message",
        "sender": "@a:a",
        "content": {},
    }


def effect(name: str) -> Write:
    return Write(insert(direct_rooms), {"user_id": name, "room_id": "!r"})


async def effects(database: Database) -> list[str]:
    async with database.read() as work:
        return list((await work.execute(select(direct_rooms.c.user_id))).scalars())


async def until_nothing_waits(inbox: Inbox) -> None:
    async with asyncio.timeout(60):
        while (await inbox.counts()).get("waiting"):
            await asyncio.sleep(0.01)


async def test_a_transaction_sent_again_is_applied_once(database: Database) -> None:
    async def handle(stored: StoredEvent) -> Sequence[Write]:
        return [effect(stored.event_id)]

    async with running(database, handle) as inbox:
        await inbox.accept([event(1), event(2)])
        await inbox.accept([event(1), event(2)])
        await inbox.accept([event(2), event(3)])
        await until_nothing_waits(inbox)
    assert sorted(await effects(database)) == ["$1", "$2", "$3"]


async def test_events_of_a_room_are_applied_in_order_and_rooms_side_by_side(database: Database) -> None:
    applied: list[str] = []
    release = asyncio.Event()

    async def handle(stored: StoredEvent) -> Sequence[Write]:
        if stored.room_id == "!slow":
            await release.wait()
        applied.append(stored.event_id)
        return []

    async with running(database, handle) as inbox:
        await inbox.accept([event(1, room_id="!slow"), event(2, room_id="!slow")])
        await inbox.accept([event(number) for number in range(3, 30)])
        async with asyncio.timeout(60):
            while len(applied) < 27:
                await asyncio.sleep(0.01)
        assert applied == [f"${number}" for number in range(3, 30)]
        release.set()
        await until_nothing_waits(inbox)
    assert applied[-2:] == ["$1", "$2"]


async def test_a_crash_before_the_commit_leaves_the_event_for_the_next_start(database: Database) -> None:
    begun = asyncio.Event()

    async def hang(stored: StoredEvent) -> Sequence[Write]:
        begun.set()
        await asyncio.Event().wait()
        return []

    async def handle(stored: StoredEvent) -> Sequence[Write]:
        return [effect(stored.event_id)]

    async with running(database, hang) as inbox:
        await inbox.accept([event(1)])
        await begun.wait()
    assert await effects(database) == []
    async with running(database, handle) as inbox:
        await until_nothing_waits(inbox)
    assert await effects(database) == ["$1"]


async def test_a_failing_event_is_retried_put_aside_and_told_of_and_the_room_goes_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "RETRY_PAUSES_SECONDS", (0.01, 0.01))
    tries: list[str] = []

    async def handle(stored: StoredEvent) -> Sequence[Write]:
        tries.append(stored.event_id)
        if stored.event_id == "$1":
            raise RuntimeError("broken")
        return [effect(stored.event_id)]

    async with running(database, handle) as inbox:
        await inbox.accept([event(1), event(2)])
        await until_nothing_waits(inbox)
        assert await inbox.counts() == {"failed": 1}
    assert tries == ["$1", "$1", "$1", "$2"]
    assert sorted(await effects(database)) == ["$2", "given up $1"]


async def test_an_event_whose_key_comes_later_is_applied_then(database: Database) -> None:
    has_key = False

    async def handle(stored: StoredEvent) -> Sequence[Write]:
        if stored.event_id == "$1" and not has_key:
            raise KeyNotYetHere
        return [effect(stored.event_id)]

    async with running(database, handle) as inbox:
        await inbox.accept([event(1), event(2)])
        await until_nothing_waits(inbox)
        assert await effects(database) == ["$2"]
        assert await inbox.counts() == {"parked": 1}
        has_key = True
        await inbox.retry_parked()
        await until_nothing_waits(inbox)
    assert sorted(await effects(database)) == ["$1", "$2"]


async def test_taps_keep_the_order_of_each_person_and_wait_for_nobody_else(database: Database) -> None:
    begun: list[str] = []
    slow = asyncio.Event()

    async def handle(stored: StoredEvent) -> Sequence[Write]:
        begun.append(stored.event_id)
        if stored.event["sender"] == "@slow:a":
            await slow.wait()
        return []

    taps = [
        {**event(number), "type": "m.reaction", "sender": sender}
        for number, sender in enumerate(("@slow:a", "@slow:a", "@b:a", "@b:a", "@c:a"))
    ]
    async with running(database, handle) as inbox:
        await inbox.accept(taps)
        while len(begun) < 4:
            await asyncio.sleep(0.01)
        assert sorted(begun) == ["$0", "$2", "$3", "$4"]
        assert begun.index("$2") < begun.index("$3")
        slow.set()
        await until_nothing_waits(inbox)
    assert begun[-1] == "$1"
