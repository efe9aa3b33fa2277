"""Sign-in by code and by link, and sessions, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appservices.chassis.clock import Tokens
from appservices.chassis.database import open_database
from appservices.chassis.migrations import SESSION_MIGRATIONS
from appservices.chassis.web_sessions import (
    CODE_MINUTES,
    CODES_PER_ADDRESS_MAX,
    LINK_MINUTES,
    LINKS_PER_USER_MAX,
    SESSIONS_PER_USER_MAX,
    SessionStore,
    SignInWay,
    TooManyCodes,
    code_of,
    looks_like_code,
)
from appservices.vocabulary.ids import UserId
from tests.migrated import migrated

pytest_plugins = ["tests.database_fixtures"]

ALICE = UserId("@alice:weft.example")
BOB = UserId("@bob:weft.example")
MINUTE_MS = 60_000


class SettableClock:
    def __init__(self) -> None:
        self.now_ms = 1_795_305_600_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
async def store(database_url: str, tmp_path: Path, clock: SettableClock) -> AsyncIterator[SessionStore]:
    database = open_database(database_url, folder=tmp_path)
    await migrated(database, SESSION_MIGRATIONS)
    yield SessionStore(database, clock, Tokens(), session_hours=2)
    await database.close()


async def test_only_the_browser_that_showed_a_code_gets_the_session(store: SessionStore) -> None:
    code, secret = await store.begin_code("Firefox")
    _, other_secret = await store.begin_code("Chrome")
    assert await store.take_code_session(secret) is None
    assert await store.confirm_code(code, ALICE)
    assert await store.take_code_session(other_secret) is None
    began = await store.take_code_session(secret)
    assert began is not None
    assert (began.session.user_id, began.session.user_agent) == (ALICE, "Firefox")
    assert await store.find(began.token) == began.session


async def test_a_confirmed_code_gives_one_session_however_often_it_is_polled(store: SessionStore) -> None:
    code, secret = await store.begin_code("Firefox")
    await store.confirm_code(code, ALICE)
    taken = await asyncio.gather(*(store.take_code_session(secret) for _ in range(5)))
    assert len([began for began in taken if began is not None]) == 1
    assert len(await store.of_user(ALICE)) == 1


async def test_the_same_message_delivered_twice_confirms_twice_and_gives_one_session(
    store: SessionStore,
) -> None:
    code, secret = await store.begin_code("Firefox")
    assert await store.confirm_code(code, ALICE)
    assert await store.take_code_session(secret) is not None
    assert await store.confirm_code(code, ALICE)
    assert await store.take_code_session(secret) is None


async def test_a_code_that_one_user_sent_is_no_other_users(store: SessionStore) -> None:
    code, secret = await store.begin_code("Firefox")
    assert await store.confirm_code(code, ALICE)
    assert not await store.confirm_code(code, BOB)
    began = await store.take_code_session(secret)
    assert began is not None and began.session.user_id == ALICE


@pytest.mark.parametrize("written", [str.lower, lambda code: code.replace("-", ""), lambda code: f" {code} "])
async def test_a_code_is_read_however_it_is_cased_and_spaced(store: SessionStore, written: object) -> None:
    assert callable(written)
    code, _ = await store.begin_code("Firefox")
    assert looks_like_code(written(code))
    assert await store.confirm_code(written(code), ALICE)


async def test_a_code_expires(store: SessionStore, clock: SettableClock) -> None:
    code, secret = await store.begin_code("Firefox")
    assert await store.browser_of_code(code) == "Firefox"
    clock.now_ms += CODE_MINUTES * MINUTE_MS
    assert not await store.confirm_code(code, ALICE)
    assert not await store.code_waits(secret)
    assert await store.browser_of_code(code) is None


async def test_a_code_confirmed_in_time_is_not_taken_after_its_time(
    store: SessionStore, clock: SettableClock
) -> None:
    code, secret = await store.begin_code("Firefox")
    await store.confirm_code(code, ALICE)
    clock.now_ms += CODE_MINUTES * MINUTE_MS
    assert await store.take_code_session(secret) is None


async def test_one_address_may_have_a_limited_number_of_codes_waiting(
    store: SessionStore, clock: SettableClock
) -> None:
    for _ in range(CODES_PER_ADDRESS_MAX):
        await store.begin_code("Firefox", address="192.0.2.1")
    with pytest.raises(TooManyCodes):
        await store.begin_code("Firefox", address="192.0.2.1")
    await store.begin_code("Firefox", address="192.0.2.2")
    clock.now_ms += CODE_MINUTES * MINUTE_MS
    await store.begin_code("Firefox", address="192.0.2.1")


async def test_the_same_browser_secret_always_shows_the_same_code(store: SessionStore) -> None:
    code, secret = await store.begin_code("Firefox")
    assert code_of(secret) == code
    assert looks_like_code(code)


@pytest.mark.parametrize("text", ["", "K7QF", "K7QF-2MX0", "K7QF-2MXDD", "!balance", "ÄÖÜF-2MXD"])
def test_what_is_no_code_does_not_look_like_one(text: str) -> None:
    assert not looks_like_code(text)


async def test_a_link_is_not_used_up_by_looking_and_is_by_signing_in(store: SessionStore) -> None:
    token = await store.make_link(ALICE)
    assert await store.user_of_link(token) == ALICE
    assert await store.user_of_link(token) == ALICE
    taken = await asyncio.gather(*(store.take_link_session(token, "Firefox") for _ in range(3)))
    assert len([began for began in taken if began is not None]) == 1
    assert await store.user_of_link(token) is None


async def test_a_link_expires_and_only_the_newest_ones_of_a_user_work(
    store: SessionStore, clock: SettableClock
) -> None:
    tokens = []
    for _ in range(LINKS_PER_USER_MAX + 1):
        clock.now_ms += 1
        tokens.append(await store.make_link(ALICE))
    assert await store.user_of_link(tokens[0]) is None
    assert await store.user_of_link(tokens[1]) == ALICE
    clock.now_ms += LINK_MINUTES * MINUTE_MS
    assert await store.take_link_session(tokens[-1], "Firefox") is None


async def test_a_session_expires(store: SessionStore, clock: SettableClock) -> None:
    began = await store.begin(ALICE, SignInWay.OPENID, "")
    clock.now_ms += 2 * 60 * MINUTE_MS - 1
    assert await store.find(began.token) is not None
    clock.now_ms += 1
    assert await store.find(began.token) is None
    assert await store.of_user(ALICE) == []


async def test_signing_out_ends_one_session_and_everywhere_ends_all_of_the_user(store: SessionStore) -> None:
    here = await store.begin(ALICE, SignInWay.CODE, "")
    there = await store.begin(ALICE, SignInWay.LINK, "")
    bobs = await store.begin(BOB, SignInWay.CODE, "")
    link = await store.make_link(ALICE)
    await store.sign_out(here.session)
    assert await store.find(here.token) is None
    assert await store.find(there.token) is not None
    assert await store.sign_out_everywhere(ALICE) == 1
    assert await store.find(there.token) is None
    assert await store.user_of_link(link) is None
    assert await store.find(bobs.token) is not None


async def test_nobody_ends_another_users_session_by_its_id(store: SessionStore) -> None:
    alices = await store.begin(ALICE, SignInWay.CODE, "")
    assert not await store.sign_out_one(BOB, alices.session.session_id)
    assert await store.find(alices.token) is not None
    assert await store.sign_out_one(ALICE, alices.session.session_id)


async def test_a_user_has_a_limited_number_of_sessions_and_the_oldest_go_first(
    store: SessionStore, clock: SettableClock
) -> None:
    first = await store.begin(ALICE, SignInWay.CODE, "")
    for _ in range(SESSIONS_PER_USER_MAX):
        clock.now_ms += 1
        latest = await store.begin(ALICE, SignInWay.CODE, "")
    assert await store.find(first.token) is None
    assert await store.find(latest.token) is not None
    assert len(await store.of_user(ALICE)) == SESSIONS_PER_USER_MAX


@pytest.mark.parametrize("token", ["", "x", "0" * 64, "\x00" * 64, "é" * 64, "\ud800" * 64, "0" * 100_000])
async def test_a_token_that_opens_nothing_is_nobodys(store: SessionStore, token: str) -> None:
    assert await store.find(token) is None


async def test_what_a_browser_calls_itself_is_kept_short_and_printable(store: SessionStore) -> None:
    began = await store.begin(ALICE, SignInWay.CODE, "a\x00\n\ud800" + "b" * 1000)
    sessions = await store.of_user(ALICE)
    assert sessions == [began.session]
    assert len(sessions[0].user_agent) <= 200 and "\x00" not in sessions[0].user_agent


async def test_the_database_holds_no_secret(tmp_path: Path, clock: SettableClock) -> None:
    database = open_database("sqlite:///weft.db", folder=tmp_path)
    await migrated(database, SESSION_MIGRATIONS)
    store = SessionStore(database, clock, Tokens(), session_hours=2)
    code, secret = await store.begin_code("Firefox", address="192.0.2.1")
    link = await store.make_link(ALICE)
    began = await store.begin(ALICE, SignInWay.CODE, "")
    await database.close()
    with sqlite3.connect(tmp_path / "weft.db") as connection:
        written = "\n".join(connection.iterdump())
    for kept_back in (code, code.replace("-", ""), secret, link, began.token, "192.0.2.1"):
        assert kept_back not in written
