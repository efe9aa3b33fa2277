"""The outbox sends everything once, in order per destination. On a real SQLite file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from appservices.chassis import stored_queue
from appservices.chassis.clock import system_clock
from appservices.chassis.database import Database, open_database
from appservices.chassis.homeserver import MatrixRefused, MatrixUnavailable
from appservices.chassis.migrations import CHASSIS_MIGRATIONS
from appservices.chassis.outbox import REDACTION, Outbox, Outgoing, SendEvent, Sent
from appservices.vocabulary.ids import EventId, OutboxId, RoomId
from tests.migrated import migrated


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = open_database("sqlite:///service.db", folder=tmp_path)
    await migrated(database, CHASSIS_MIGRATIONS)
    yield database
    await database.close()


@asynccontextmanager
async def running(database: Database, send: SendEvent) -> AsyncIterator[Outbox]:
    outbox = Outbox(database, clock=system_clock, send=send)
    task = asyncio.create_task(outbox.run())
    try:
        yield outbox
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def put(database: Database, *names: str, room_id: str = "!r") -> None:
    async with database.begin() as work:
        await work.apply(
            [
                Outgoing(OutboxId(name), {"body": name}, room_id=RoomId(room_id)).write(now_ms=system_clock())
                for name in names
            ]
        )
        await work.commit()


def sent_as(outgoing: Outgoing) -> Sent:
    return Sent(outgoing.room_id or RoomId("!direct"), EventId(f"${outgoing.outbox_id}"))


async def put_versions(database: Database, *bodies: str, start: int = 0) -> None:
    """A message about a red packet, and new versions of it."""
    async with database.begin() as work:
        for number, body in enumerate(bodies, start):
            outgoing = Outgoing(
                OutboxId(f"version {number}"),
                {"body": body, "msgtype": "m.notice"},
                room_id=RoomId("!r"),
                subject="" if number else "red_packet:7",
                replaces=OutboxId("version 0") if number else None,
            )
            await work.apply([outgoing.write(now_ms=system_clock())])
        await work.commit()


async def until_empty(outbox: Outbox) -> None:
    async with asyncio.timeout(60):
        while (await outbox.counts()).get("waiting"):
            await asyncio.sleep(0.01)


async def test_what_another_process_wrote_is_sent_in_order(database: Database) -> None:
    sent: list[str] = []

    async def send(outgoing: Outgoing) -> Sent:
        sent.append(outgoing.outbox_id)
        return sent_as(outgoing)

    async with running(database, send) as outbox:
        await put(database, "1", "2", "3")
        await until_empty(outbox)
    assert sent == ["1", "2", "3"]


async def test_what_was_sent_but_not_recorded_is_sent_again_under_the_same_id(database: Database) -> None:
    sent: list[str] = []

    begun = asyncio.Event()

    async def send_and_hang(outgoing: Outgoing) -> Sent:
        sent.append(outgoing.outbox_id)
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(outgoing: Outgoing) -> Sent:
        sent.append(outgoing.outbox_id)
        return sent_as(outgoing)

    await put(database, "1")
    async with running(database, send_and_hang):
        await begun.wait()
    async with running(database, send) as outbox:
        await until_empty(outbox)
    assert sent == ["1", "1"]


async def test_an_absent_homeserver_delays_and_a_refusal_ends(database: Database) -> None:
    tries: list[str] = []

    async def send(outgoing: Outgoing) -> Sent:
        tries.append(outgoing.outbox_id)
        if outgoing.outbox_id == "kicked":
            raise MatrixRefused(status=403, errcode="M_FORBIDDEN", sentence="not in the room")
        if tries == ["kicked", "later"]:
            raise MatrixUnavailable("away")
        return sent_as(outgoing)

    await put(database, "kicked", "later", "after")
    async with running(database, send) as outbox:
        await until_empty(outbox)
        assert await outbox.counts() == {"failed": 1}
    assert tries == ["kicked", "later", "later", "after"]


async def test_more_than_fits_in_at_once_is_sent_once_each(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_queue, "LOADED_MAX", 20)
    sent: list[str] = []

    async def send(outgoing: Outgoing) -> Sent:
        sent.append(outgoing.outbox_id)
        return sent_as(outgoing)

    names = [str(number) for number in range(200)]
    async with running(database, send) as outbox:
        for room in range(4):
            await put(database, *names[room::4], room_id=f"!{room}")
            outbox.wake()
        while (await outbox.counts()).get("waiting"):
            # Looks that fall between a row's being read and its being done.
            outbox.wake()
            await asyncio.sleep(0)
    assert sorted(sent) == sorted(names)


async def test_of_several_new_versions_that_wait_only_the_last_is_sent(database: Database) -> None:
    sent: list[Outgoing] = []

    async def send(outgoing: Outgoing) -> Sent:
        sent.append(outgoing)
        return sent_as(outgoing)

    await put_versions(database, "nobody opened it", "one opened it", "two opened it")
    async with running(database, send) as outbox:
        await until_empty(outbox)
    first, edit = sent
    assert first.content["body"] == "nobody opened it"
    assert edit.content == {
        "msgtype": "m.notice",
        "body": "* two opened it",
        "m.mentions": {},
        "m.new_content": {"msgtype": "m.notice", "body": "two opened it"},
        "m.relates_to": {"rel_type": "m.replace", "event_id": "$version 0"},
    }


async def test_a_new_version_of_what_was_refused_is_not_sent(database: Database) -> None:
    async def send(outgoing: Outgoing) -> Sent:
        if outgoing.outbox_id == "version 0":
            raise MatrixRefused(status=403, errcode="M_FORBIDDEN", sentence="not in the room")
        raise AssertionError(outgoing)

    await put_versions(database, "first", "second")
    async with running(database, send) as outbox:
        await until_empty(outbox)
        assert await outbox.counts() == {"failed": 1}


async def test_what_an_event_is_about_is_known_even_if_it_is_asked_before_its_sending_is_recorded(
    database: Database,
) -> None:
    asked: list[asyncio.Task[str | None]] = []

    async def send(outgoing: Outgoing) -> Sent:
        # Whoever sees the event is quicker than our own note of it.
        asked.append(asyncio.create_task(outbox.subject_of(EventId("$version 0"))))
        await asyncio.sleep(0.1)
        return sent_as(outgoing)

    await put_versions(database, "a red packet")
    async with running(database, send) as outbox:
        await until_empty(outbox)
        assert await asked[0] == "red_packet:7"
        assert await outbox.subject_of(EventId("$of somebody else")) is None


def test_an_outgoing_event_has_one_destination() -> None:
    with pytest.raises(ValueError, match="destination"):
        Outgoing(OutboxId("1"), {}).write(now_ms=0)


async def test_what_is_taken_back_is_redacted_in_all_its_versions(database: Database) -> None:
    sent: list[Outgoing] = []

    async def send(outgoing: Outgoing) -> Sent:
        sent.append(outgoing)
        return sent_as(outgoing)

    async with running(database, send) as outbox:
        for number, body in enumerate(("first", "second")):
            await put_versions(database, body, start=number)
            await until_empty(outbox)
        async with database.begin() as work:
            back = Outgoing(
                OutboxId("back"),
                {},
                room_id=RoomId("!r"),
                event_type=REDACTION,
                replaces=OutboxId("version 0"),
            )
            await work.apply([back.write(now_ms=system_clock())])
            await work.commit()
        await until_empty(outbox)
    assert [outgoing.event_type for outgoing in sent] == ["m.room.message", "m.room.message", REDACTION]
    assert sent[-1].content == {"redacts": ["$version 1", "$version 0"]}
