"""The Home room in a real Synapse: made once, for people, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appservices.vocabulary.events import (
    EXTENSION,
    FUNCTIONAL_MEMBERS,
    HOME_ROOM_TYPE,
    KEYS,
    WIDGET,
    WIDGET_LAYOUT,
)
from tests.extensions import AS_TOKENS, module_config, register_services
from tests.synapse import MatrixUser, Synapse, eventually, free_port

URL = "http://127.0.0.1:8009/wallet?widget=1&user_id=$matrix_user_id&widget_id=$matrix_widget_id"
PAGES = [
    {"id": "weft_wallet", "name": "Wallet", "url": URL},
    {"id": "weft_discover", "name": "Discover", "url": "https://weft.example.org/discover"},
]


@pytest.fixture
def synapse(tmp_path: Path) -> Iterator[Synapse]:
    """One that is not started yet."""
    with Synapse(tmp_path) as synapse:
        yield synapse


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Synapse]:
    """One that runs with two pages and its service users."""
    with Synapse(tmp_path_factory.mktemp("homes")) as synapse:
        synapse.start(module_config(synapse, widgets=PAGES) | {"allow_guest_access": True})
        asyncio.run(register_services(synapse))
        yield synapse


async def home_of(user: MatrixUser) -> str:
    """Waits until the user's account data names a furnished Home room."""

    async def look() -> str | None:
        recorded = await user.account_data(HOME_ROOM_TYPE)
        return None if recorded is None else recorded["room_id"]

    return await eventually(look)


async def home_rooms(user: MatrixUser) -> list[str]:
    """All rooms of the type that the user has joined."""
    rooms = []
    for room_id in await user.joined_rooms():
        create = await user.state(room_id, "m.room.create")
        if create is not None and create.get("type") == HOME_ROOM_TYPE:
            rooms.append(room_id)
    return rooms


async def test_a_new_user_finds_a_private_home_room_with_pages_and_services(usual: Synapse) -> None:
    alice = await usual.register("alice")
    room_id = await home_of(alice)
    weft, wallet = f"@weft:{usual.server_name}", f"@wallet:{usual.server_name}"

    assert (await alice.state(room_id, "m.room.name")) == {"name": "Home"}
    assert (await alice.state(room_id, "m.room.join_rules")) == {"join_rule": "invite"}
    assert (await alice.state(room_id, "m.room.guest_access")) == {"guest_access": "forbidden"}
    create = await alice.state(room_id, "m.room.create")
    assert create is not None and create["type"] == HOME_ROOM_TYPE
    levels = await alice.state(room_id, "m.room.power_levels")
    assert levels is not None and levels["users"] == {weft: 100}
    assert levels["events"][KEYS] == 0
    for service in (weft, wallet):
        assert await alice.membership(room_id, service) == "join"
    assert await alice.state(room_id, FUNCTIONAL_MEMBERS) == {"service_members": [weft, wallet]}
    assert await alice.state(room_id, WIDGET, state_key="weft_wallet") == {
        "type": "m.custom",
        "id": "weft_wallet",
        "name": "Wallet",
        "url": URL,
        "creatorUserId": alice.user_id,
        "roomId": room_id,
        "data": {},
    }
    assert await alice.state(room_id, WIDGET_LAYOUT) == {
        "widgets": {
            "weft_wallet": {"container": "top", "index": 0, "width": 50, "height": 40},
            "weft_discover": {"container": "top", "index": 1, "width": 50, "height": 40},
        }
    }
    assert await home_rooms(alice) == [room_id]


async def test_in_an_older_room_version_the_creator_keeps_their_power(synapse: Synapse) -> None:
    synapse.start(module_config(synapse) | {"default_room_version": "10"})
    await register_services(synapse)
    alice = await synapse.register("alice")
    levels = await alice.state(await home_of(alice), "m.room.power_levels")
    assert levels is not None
    assert levels["users"] == {alice.user_id: 100, f"@weft:{synapse.server_name}": 100}


async def test_a_home_room_is_encrypted_where_the_server_encrypts_by_default(synapse: Synapse) -> None:
    synapse.start(module_config(synapse) | {"encryption_enabled_by_default_for_room_type": "invite"})
    await register_services(synapse)
    alice = await synapse.register("alice")
    assert await alice.state(await home_of(alice), "m.room.encryption") is not None


async def test_who_registered_before_the_module_gets_one_home_at_the_next_logins(synapse: Synapse) -> None:
    synapse.start({})
    await synapse.register("alice")
    synapse.stop()
    synapse.start(module_config(synapse))
    await register_services(synapse)
    alice, *_ = await asyncio.gather(*(synapse.login("alice") for _ in range(5)))
    room_id = await home_of(alice)
    await asyncio.gather(*(synapse.login("alice") for _ in range(3)))
    await somebody_later_has_a_home(synapse)
    assert await home_rooms(alice) == [room_id]


async def test_the_home_room_waits_for_the_service_users(synapse: Synapse) -> None:
    synapse.start(module_config(synapse))
    alice = await synapse.register("alice")
    assert await home_rooms(alice) == []
    await register_services(synapse)
    assert await home_rooms(alice) in ([], [await home_of(alice)])


async def test_guests_and_service_users_have_no_home_room(usual: Synapse) -> None:
    answer = await usual.request("POST", "/_matrix/client/v3/register", {}, parameters={"kind": "guest"})
    guest = MatrixUser(usual, answer["user_id"], answer["access_token"], answer["device_id"])
    wallet = await usual.request(
        "POST",
        "/_matrix/client/v3/login",
        {"type": "m.login.application_service", "identifier": {"type": "m.id.user", "user": "wallet"}},
        access_token=AS_TOKENS["wallet"],
    )
    await somebody_later_has_a_home(usual)
    assert await guest.joined_rooms() == []
    service = MatrixUser(usual, wallet["user_id"], wallet["access_token"], wallet["device_id"])
    for room_id in await service.joined_rooms():
        event = await service.request(
            "GET", f"/rooms/{room_id}/state/m.room.create", parameters={"format": "event"}
        )
        assert event["sender"] != service.user_id


async def test_who_left_their_home_gets_a_new_one_at_the_next_login(usual: Synapse) -> None:
    bob = await usual.register("bob")
    old = await home_of(bob)
    await bob.leave(old)
    await usual.login("bob")

    async def moved() -> bool:
        return await home_of(bob) != old

    await eventually(moved)
    assert await home_rooms(bob) == [await home_of(bob)]


async def test_a_home_follows_the_config_at_the_next_login(synapse: Synapse) -> None:
    old_pages = [
        {"id": "weft_wallet", "name": "Wallet", "url": "http://127.0.0.1:8009/wallet"},
        {"id": "weft_gone", "name": "Gone", "url": "http://127.0.0.1:8009/gone"},
    ]
    synapse.start(module_config(synapse, widgets=old_pages, home_members=[]))
    wallet = await register_services(synapse)
    alice = await synapse.register("alice")
    room_id = await home_of(alice)
    await alice.put_state(room_id, "m.room.name", {"name": "My own place"})
    synapse.stop()
    new_pages = [{"id": "weft_wallet", "name": "Wallet", "url": "https://weft.example.org/wallet"}]
    synapse.start(module_config(synapse, widgets=new_pages))
    await synapse.login("alice")

    async def rearranged() -> bool:
        content = await alice.state(room_id, WIDGET_LAYOUT)
        return content is not None and "weft_gone" not in content["widgets"]

    await eventually(rearranged)
    widget = await alice.state(room_id, WIDGET, state_key="weft_wallet")
    assert widget is not None and widget["url"] == "https://weft.example.org/wallet"
    assert await alice.state(room_id, WIDGET, state_key="weft_gone") == {}
    assert await alice.membership(room_id, wallet.user_id) == "join"
    assert await alice.state(room_id, "m.room.name") == {"name": "My own place"}
    assert await home_rooms(alice) == [room_id]


async def test_a_service_user_joins_more_rooms_than_synapse_lets_a_person_join(synapse: Synapse) -> None:
    strict = {
        "rc_joins": {"local": {"per_second": 0.01, "burst_count": 2}},
        "rc_room_creation": {"per_second": 0.01, "burst_count": 1},
        "rc_invites": {
            "per_room": {"per_second": 0.01, "burst_count": 2},
            "per_user": {"per_second": 0.01, "burst_count": 1},
            "per_issuer": {"per_second": 0.01, "burst_count": 2},
        },
    }
    synapse.start(module_config(synapse) | strict)
    await register_services(synapse)
    users = [await synapse.register(f"user{number}") for number in range(5)]
    homes = await asyncio.gather(*(home_of(user) for user in users))
    assert len(set(homes)) == len(users)


async def test_a_kill_after_the_event_loses_nothing(synapse: Synapse) -> None:
    synapse.start(module_config(synapse))
    alice = await synapse.register("alice")
    room_id = await alice.create_room(name="Tea")
    await alice.put_state(room_id, EXTENSION, {"enabled": True}, state_key="payments")
    # No service user is registered yet, so both the extension and the Home room are still promises.
    synapse.kill()
    synapse.start()
    wallet = await register_services(synapse)

    async def brought_in() -> bool:
        return await alice.membership(room_id, wallet.user_id) == "join"

    await eventually(brought_in)
    assert await home_rooms(alice) == [await home_of(alice)]


async def test_kills_while_homes_are_made_leave_each_user_with_one(synapse: Synapse) -> None:
    synapse.start(module_config(synapse))
    await register_services(synapse)
    users: list[MatrixUser] = []
    for pause_seconds in (0.0, 0.1, 0.3):
        for _ in range(2):
            users.append(await synapse.register(f"user{len(users)}"))
        await asyncio.sleep(pause_seconds)
        synapse.kill()
        synapse.start()
    for user in users:
        room_id = await home_of(user)
        assert await home_rooms(user) == [room_id]
        assert await user.state(room_id, WIDGET, state_key="weft_wallet") is not None


async def test_a_room_that_was_made_but_not_recorded_is_found_again(synapse: Synapse) -> None:
    synapse.start(module_config(synapse))
    await register_services(synapse)
    alice, bob = await synapse.register("alice"), await synapse.register("bob")
    whole, half = await home_of(alice), await home_of(bob)
    synapse.kill()
    with sqlite3.connect(synapse.folder / "homeserver.db") as database:
        database.execute("UPDATE weft_home_rooms SET room_id = NULL, furnished = NULL")
        # Synapse stores the first two events of a room one by one, and all others together.
        database.execute(
            "DELETE FROM current_state_events WHERE room_id = ? AND type = 'm.room.power_levels'", (half,)
        )
    database.close()
    synapse.start()
    await synapse.login("alice")
    await synapse.login("bob")

    async def moved() -> bool:
        return await home_of(bob) != half

    await eventually(moved)
    assert await home_rooms(bob) == [await home_of(bob)]
    assert await home_rooms(alice) == [whole]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"services": {"payments": 5}}, "services.payments must be a full user id"),
        ({"home_user": "@weft:elsewhere.example"}, "@weft:elsewhere.example is not a user of localhost"),
    ],
)
def test_a_mistake_in_the_config_is_one_sentence_at_start(
    synapse: Synapse, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(RuntimeError) as failed:
        synapse.start(module_config(synapse, **settings))
    assert words in str(failed.value)


async def somebody_later_has_a_home(synapse: Synapse) -> None:
    """Errands are begun in the order in which they were recorded, so all earlier ones have had their turn."""
    await home_of(await synapse.register(f"later{free_port()}"))
