"""Moments on SQLite and on PostgreSQL: one story as everybody sees it, and what rooms and servers hear."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sqlalchemy import select

from appservices.chassis.links.tables import link_items
from appservices.chassis.outbox import REDACTION
from appservices.chassis.tables import outbox
from appservices.moments.rules import AudienceKind
from appservices.vocabulary.ids import RoomId, UserId
from tests.moments_service import moments_service
from tests.unit.test_moments_service import Play

pytest_plugins = ["tests.database_fixtures"]

FAR = UserId("@far:there")


async def test_a_story_is_the_same_on_either_database(tmp_path: Path, database_url: str) -> None:
    async with moments_service(tmp_path, database_url=database_url) as service:
        play = Play(service, 0)
        steps: tuple[tuple[Any, ...], ...] = (
            ("friends", "a", "b"),
            ("friends", "a", "c"),
            ("friends", "b", "c"),
            ("tag", "a", {"b"}),
            ("post", "a", AudienceKind.CONTACTS, False, set()),
            ("post", "a", AudienceKind.ONLY, True, set()),
            ("post", "b", AudienceKind.PUBLIC, False, set()),
            ("like", "b", 0),
            ("comment", "b", 0),
            ("comment", "c", 0),
            ("like", "c", 1),
            ("tag", "a", {"c"}),
            ("hidden", "c", {"b"}),
            ("delete", "a", 0),
        )
        for step in steps:
            await play.step(step)
            await play.check()
        found = await service.viewing.of(play.users["a"], play.users["a"], words="HELLO")
        assert len(found.moments) == 1


async def test_rooms_and_servers_are_told_once_and_told_when_it_is_over(
    tmp_path: Path, database_url: str
) -> None:
    async with moments_service(tmp_path, database_url=database_url) as service:
        play = Play(service, 0)
        alice, bob = play.users["a"], play.users["b"]
        await play.step(("friends", "a", "b"))
        service.accounts.set(alice, direct=[bob, FAR])
        await service.distribution.open_room(bob, RoomId("!bob"))
        await service.distribution.step()
        await play.step(("post", "a", AudienceKind.CONTACTS, False, set()))
        for _again in range(3):
            await service.distribution.step()
        await play.step(("delete", "a", 0))
        for _again in range(3):
            await service.distribution.step()
        async with service.actions.database.read() as work:
            sent = [row.event_type for row in await work.execute(select(outbox).order_by(outbox.c.position))]
            items = [json.loads(row.item) for row in await work.execute(select(link_items))]
        assert sent == ["m.room.message", REDACTION]
        assert [item["kind"] for item in items] == ["moment", "moment_delete"]
        assert items[0]["viewers"] == [FAR]
