"""A user's own language, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from appservices.chassis import chosen_languages
from appservices.chassis.chosen_languages import REMEMBERED_SECONDS, ChosenLanguages
from appservices.chassis.database import Database, open_database
from appservices.chassis.migrations import SESSION_MIGRATIONS
from appservices.vocabulary.ids import UserId
from tests.migrated import migrated

pytest_plugins = ["tests.database_fixtures"]

ALICE = UserId("@alice:weft.example")
BOB = UserId("@bob:weft.example")


class Time:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
async def database(database_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    database = open_database(database_url, folder=tmp_path)
    await migrated(database, SESSION_MIGRATIONS)
    yield database
    await database.close()


async def test_who_has_chosen_nothing_is_spoken_to_as_the_operator_says(database: Database) -> None:
    languages = ChosenLanguages(database, default="de")
    assert await languages.chosen_by(ALICE) is None
    assert await languages.spoken_with(ALICE) == "de"


async def test_a_choice_is_ones_own_and_may_be_changed(database: Database) -> None:
    languages = ChosenLanguages(database, default="en")
    await languages.choose(ALICE, "ar")
    await languages.choose(ALICE, "de")
    assert await languages.spoken_with(ALICE) == "de"
    assert await languages.spoken_with(BOB) == "en"
    with pytest.raises(ValueError):
        await languages.choose(ALICE, "xx")
    assert await languages.chosen_by(ALICE) == "de"


async def test_another_process_s_change_is_known_within_seconds(database: Database) -> None:
    time = Time()
    here = ChosenLanguages(database, default="en", monotonic_seconds=time)
    there = ChosenLanguages(database, default="en")
    assert await here.spoken_with(ALICE) == "en"
    await there.choose(ALICE, "de")
    time.seconds += REMEMBERED_SECONDS
    assert await here.spoken_with(ALICE) == "de"


async def test_choices_at_the_same_time_do_not_collide(database: Database) -> None:
    languages = ChosenLanguages(database, default="en")
    await asyncio.gather(*(languages.choose(ALICE, tag) for tag in ("de", "ar", "en") * 5))
    assert await languages.chosen_by(ALICE) == await ChosenLanguages(database, default="en").chosen_by(ALICE)


async def test_a_language_that_is_spoken_no_more_counts_as_none(database: Database) -> None:
    async with database.begin() as work:
        await work.execute(
            text("INSERT INTO chosen_languages (user_id, language) VALUES (:user, 'tlh')"), {"user": ALICE}
        )
        await work.commit()
    assert await ChosenLanguages(database, default="de").spoken_with(ALICE) == "de"


async def test_no_more_is_remembered_than_there_is_room_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chosen_languages, "REMEMBERED_MAX", 3)
    languages = ChosenLanguages(database, default="en")
    for number in range(10):
        await languages.spoken_with(UserId(f"@stranger{number}:elsewhere.example"))
    assert len(languages._remembered) == 3


async def test_who_can_not_be_looked_up_is_answered_all_the_same(database: Database) -> None:
    async with database.begin() as work:
        await work.execute(text("DROP TABLE chosen_languages"))
        await work.commit()
    assert await ChosenLanguages(database, default="ar").spoken_with(ALICE) == "ar"
