"""The contacts module in a real Synapse: what it tells, how soon, and to whom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from appservices.vocabulary.events import CONTACT_TAGS, CONTACTS_PATH, MOMENTS_SWITCHES
from tests.certificates import LocalAuthority
from tests.contacts import become_contacts, contacts_config, ignore, put_account_data, service_user
from tests.synapse import MatrixRefused, MatrixUser, Synapse, eventually


@pytest.fixture(scope="module")
def homeservers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Synapse, Synapse]]:
    """One with the module and one without."""
    authority = LocalAuthority.make(tmp_path_factory.mktemp("authority"))
    with (
        Synapse(tmp_path_factory.mktemp("here"), authority=authority) as here,
        Synapse(tmp_path_factory.mktemp("away"), authority=authority) as away,
    ):
        here.start(contacts_config(here))
        away.start()
        yield here, away


@pytest.fixture(scope="module")
def synapse(homeservers: tuple[Synapse, Synapse]) -> Synapse:
    return homeservers[0]


async def circle(service: MatrixUser, user: MatrixUser) -> dict[str, Any]:
    answer = await service.request("POST", CONTACTS_PATH, {"users": [user.user_id]})
    found: dict[str, Any] = answer["circles"][user.user_id]
    return found


async def changes(service: MatrixUser, since: str = "") -> dict[str, Any]:
    return await service.request("GET", CONTACTS_PATH, parameters={"since": since})


async def test_a_direct_room_makes_a_contact_once_both_have_joined(synapse: Synapse) -> None:
    service = await service_user(synapse)
    alice, bob = await synapse.register("alice"), await synapse.register("bob")
    room_id = await alice.create_room(is_direct=True, invite=[bob.user_id])
    await put_account_data(alice, "m.direct", {bob.user_id: [room_id]})
    assert (await circle(service, alice))["direct"] == []
    await bob.join(room_id)
    assert (await circle(service, alice))["direct"] == [bob.user_id]
    assert (await circle(service, bob))["direct"] == [], "bob's own account does not call it a direct room"
    await bob.leave(room_id)
    assert (await circle(service, alice))["direct"] == []


async def test_every_change_is_told_before_the_next_question(synapse: Synapse) -> None:
    service = await service_user(synapse)
    alice, bob = await synapse.register("ann"), await synapse.register("ben")
    room_id = await become_contacts(alice, bob)
    token = (await changes(service))["next"]

    await put_account_data(alice, CONTACT_TAGS, {"tags": {"family": [bob.user_id]}})
    told = await changes(service, token)
    assert alice.user_id in told["users"] and not told["all"]
    assert (await circle(service, alice))["tags"] == {"tags": {"family": [bob.user_id]}}

    await ignore(bob, alice.user_id)
    assert bob.user_id in (await changes(service, told["next"]))["users"]
    assert (await circle(service, bob))["ignored"] == [alice.user_id]

    token = (await changes(service))["next"]
    await alice.leave(room_id)
    assert room_id in (await changes(service, token))["rooms"]
    assert (await circle(service, bob))["direct"] == []
    assert (await changes(service, "soon"))["all"] and (await changes(service, "999999999.0"))["all"]


async def test_people_of_other_homeservers_are_contacts_likewise(
    homeservers: tuple[Synapse, Synapse],
) -> None:
    here, away = homeservers
    service = await service_user(here)
    alice, bob = await here.register("amy"), await away.register("bob")
    room_id = await become_contacts(alice, bob)
    assert (await circle(service, alice))["direct"] == [bob.user_id]
    token = (await changes(service))["next"]
    await bob.leave(room_id)

    async def told() -> bool:
        return room_id in (await changes(service, token))["rooms"]

    await eventually(told, seconds_max=5)
    assert (await circle(service, alice))["direct"] == []
    asked = await service.request("POST", CONTACTS_PATH, {"users": [bob.user_id]})
    assert asked["circles"] == {}, "other homeservers' accounts are their own affair"


async def test_nonsense_in_account_data_is_no_contact_and_breaks_nothing(synapse: Synapse) -> None:
    service = await service_user(synapse)
    alice = await synapse.register("nonsense")
    nonsense = {"@": ["!r"], "@b:c": "!r", "@d:e": [1, "x" * 300, None], alice.user_id: ["!r"]}
    await put_account_data(alice, "m.direct", nonsense)
    await put_account_data(alice, "m.ignored_user_list", {"ignored_users": {}})
    await put_account_data(alice, MOMENTS_SWITCHES, {"window": ["?"]})
    told = await circle(service, alice)
    assert (told["direct"], told["ignored"]) == ([], [])


async def test_only_services_are_answered(synapse: Synapse) -> None:
    mallory = await synapse.register("mallory")
    for method, body in (("GET", None), ("POST", {"users": [mallory.user_id]})):
        with pytest.raises(MatrixRefused) as refused:
            await mallory.request(method, CONTACTS_PATH, body)
        assert refused.value.status == 403


async def test_a_service_befriends_and_tags_in_its_persons_name(
    homeservers: tuple[Synapse, Synapse],
) -> None:
    here, away = homeservers
    service = await service_user(here)
    alice, bob = await here.register("ada"), await away.register("ben")
    wish = {"user": alice.user_id, "friend": bob.user_id}
    first = await service.request("POST", CONTACTS_PATH, wish)
    again = await service.request("POST", CONTACTS_PATH, wish)
    assert first["made"] and again == {"room_id": first["room_id"], "made": False}
    direct = await alice.account_data("m.direct")
    assert direct is not None and direct[bob.user_id] == [first["room_id"]]
    await bob.join(first["room_id"], via=here.server_name)

    async def contact() -> bool:
        return bob.user_id in (await circle(service, alice))["direct"]

    await eventually(contact)
    tags = {"tags": {"far": [bob.user_id]}}
    await service.request(
        "POST", CONTACTS_PATH, {"user": alice.user_id, "data_type": CONTACT_TAGS, "content": tags}
    )
    assert await alice.account_data(CONTACT_TAGS) == tags
    for wrong in (
        {"user": alice.user_id, "data_type": "m.direct", "content": {}},
        {"user": bob.user_id, "friend": alice.user_id},
        {"user": alice.user_id, "friend": alice.user_id},
        {"user": alice.user_id, "friend": "ben"},
        {"users": ["@x:y"] * 101},
    ):
        with pytest.raises(MatrixRefused) as refused:
            await service.request("POST", CONTACTS_PATH, wrong)
        assert refused.value.status == 400
