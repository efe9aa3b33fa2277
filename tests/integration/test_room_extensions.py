"""Extensions in rooms of a real Synapse: what is refused, and who is brought in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import pytest

from appservices.vocabulary.events import (
    EXTENSION,
    FUNCTIONAL_MEMBERS,
    KEYS,
    LINK,
    RECEIPT,
    SERVICE_ONLY_BLOCKS,
)
from tests.extensions import AS_TOKENS, module_config, register_services
from tests.synapse import MatrixRefused, MatrixUser, Synapse, eventually

FORGED: Final = {"msgtype": "m.notice", "body": "Alice paid Bob €1,000", RECEIPT: {"id": "0" * 32}}
ENABLED: Final = {"enabled": True}


@pytest.fixture(scope="module")
def synapse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Synapse]:
    with Synapse(tmp_path_factory.mktemp("extensions")) as synapse:
        synapse.start(module_config(synapse) | {"max_event_delay_duration": "1h"})
        asyncio.run(register_services(synapse))
        yield synapse


@pytest.fixture
def wallet(synapse: Synapse) -> MatrixUser:
    return MatrixUser(synapse, f"@wallet:{synapse.server_name}", AS_TOKENS["wallet"], None)


_names = iter(range(10_000))


async def somebody(synapse: Synapse) -> MatrixUser:
    return await synapse.register(f"user{next(_names)}")


async def service_members(user: MatrixUser, room_id: str) -> list[str]:
    content = await user.state(room_id, FUNCTIONAL_MEMBERS)
    return [] if content is None else list(content["service_members"])


async def joined(user: MatrixUser, room_id: str, other: str) -> bool:
    return await user.membership(room_id, other) == "join"


async def key_power(user: MatrixUser, room_id: str) -> object:
    """The level of `dev.weft.keys`; None where the room's default counts."""
    levels = await user.state(room_id, "m.room.power_levels")
    assert levels is not None
    return levels["events"].get(KEYS)


@pytest.mark.parametrize("block", SERVICE_ONLY_BLOCKS)
async def test_a_message_that_claims_what_only_a_service_may_claim_is_refused(
    synapse: Synapse, block: str
) -> None:
    alice = await somebody(synapse)
    room_id = await alice.create_room(name="Tea")
    with pytest.raises(MatrixRefused) as refused:
        await alice.send(room_id, {"msgtype": "m.notice", "body": "…", block: {}})
    assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")
    assert refused.value.error == f"Only a service of this homeserver may send {block}."
    with pytest.raises(MatrixRefused) as refused:
        await alice.send(room_id, {}, event_type=block)
    assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")


async def test_an_edit_that_adds_a_forged_receipt_is_refused(synapse: Synapse) -> None:
    alice = await somebody(synapse)
    room_id = await alice.create_room(name="Tea")
    event_id = await alice.send(room_id, {"msgtype": "m.text", "body": "hello"})
    edit = {
        "msgtype": "m.text",
        "body": "* hello",
        "m.new_content": FORGED,
        "m.relates_to": {"rel_type": "m.replace", "event_id": event_id},
    }
    with pytest.raises(MatrixRefused) as refused:
        await alice.send(room_id, edit)
    assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize("event_type", [RECEIPT, "m.room.topic", "org.example.other", "m.room.member"])
async def test_state_with_a_forged_receipt_is_refused(synapse: Synapse, event_type: str) -> None:
    alice = await somebody(synapse)
    room_id = await alice.create_room(name="Tea")
    member = event_type == "m.room.member"
    content = {RECEIPT: {}, **({"membership": "join"} if member else {})}
    with pytest.raises(MatrixRefused) as refused:
        await alice.put_state(room_id, event_type, content, state_key=alice.user_id if member else "")
    assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")
    assert "Only a service" in refused.value.error


@pytest.mark.parametrize(
    "options",
    [
        {"initial_state": [{"type": RECEIPT, "state_key": "", "content": {}}]},
        {"initial_state": [{"type": "org.example.other", "content": {RECEIPT: {}}}]},
        {"creation_content": {RECEIPT: {}}},
        {"creation_content": {"type": LINK}},
        {"power_level_content_override": {RECEIPT: {}}},
    ],
)
async def test_a_room_that_begins_with_a_forged_receipt_is_not_made(
    synapse: Synapse, options: dict[str, Any]
) -> None:
    alice = await somebody(synapse)
    with pytest.raises(MatrixRefused) as refused:
        await alice.create_room(**options)
    assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")
    assert "Only a service" in refused.value.error


async def test_a_service_may_make_a_room_of_its_own_type(synapse: Synapse, wallet: MatrixUser) -> None:
    room_id = await wallet.create_room(creation_content={"type": LINK})
    create = await wallet.state(room_id, "m.room.create")
    assert create is not None and create["type"] == LINK


async def test_keys_are_published_by_the_service_itself_alone(synapse: Synapse, wallet: MatrixUser) -> None:
    alice = await somebody(synapse)
    room_id = await alice.create_room(name="Tea")
    for state_key in (alice.user_id, wallet.user_id):
        with pytest.raises(MatrixRefused) as refused:
            await alice.put_state(room_id, KEYS, {"keys": {}}, state_key=state_key)
        assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")


async def test_the_service_itself_may_send_what_is_refused_to_others(
    synapse: Synapse, wallet: MatrixUser
) -> None:
    alice = await somebody(synapse)
    room_id = await alice.create_room(name="Tea", power_level_content_override={"state_default": 0})
    await alice.invite(room_id, wallet.user_id)
    await eventually(lambda: joined(alice, room_id, wallet.user_id))
    await wallet.send(room_id, FORGED)
    await wallet.put_state(room_id, KEYS, {"service": wallet.user_id, "keys": {}}, state_key=wallet.user_id)
    assert [event["sender"] for event in await alice.messages(room_id) if RECEIPT in event["content"]] == [
        wallet.user_id
    ]


@pytest.mark.parametrize(
    ("extension", "content", "words"),
    [
        ("payments", {}, "'enabled' is a required property"),
        ("payments", {"enabled": "yes"}, "enabled: 'yes' is not of type 'boolean'"),
        ("payments", {"enabled": True, "settings": []}, "settings: [] is not of type 'object'"),
        ("dancing", ENABLED, "This homeserver has no extension dancing."),
        ("mini_app:abc", ENABLED, "This homeserver has no extension mini_app."),
        ("", ENABLED, "must be an extension id"),
        ("Payments!", ENABLED, "must be an extension id"),
    ],
)
async def test_an_invalid_extension_is_refused_in_one_sentence(
    synapse: Synapse, extension: str, content: dict[str, Any], words: str
) -> None:
    alice = await somebody(synapse)
    room_id = await alice.create_room(name="Tea")
    with pytest.raises(MatrixRefused) as refused:
        await alice.put_state(room_id, EXTENSION, content, state_key=extension)
    assert (refused.value.status, refused.value.errcode) == (400, "M_BAD_JSON")
    assert words in refused.value.error
    with pytest.raises(MatrixRefused) as refused:
        await alice.create_room(
            initial_state=[{"type": EXTENSION, "state_key": extension, "content": content}]
        )
    assert (refused.value.status, refused.value.errcode) == (400, "M_BAD_JSON")


async def test_an_enabled_extension_brings_its_service_in_beside_other_functional_members(
    synapse: Synapse, wallet: MatrixUser
) -> None:
    alice = await somebody(synapse)
    room_id = await alice.create_room(name="Tea")
    other = {"service_members": ["@reminder:localhost"], "org.example.kept": 1}
    await alice.put_state(room_id, FUNCTIONAL_MEMBERS, other)
    await alice.put_state(room_id, EXTENSION, ENABLED, state_key="payments")

    async def listed() -> bool:
        return wallet.user_id in await service_members(alice, room_id)

    await eventually(listed)
    assert await joined(alice, room_id, wallet.user_id)
    assert await alice.state(room_id, FUNCTIONAL_MEMBERS) == {
        "service_members": ["@reminder:localhost", wallet.user_id],
        "org.example.kept": 1,
    }


async def test_a_service_that_is_brought_in_may_show_its_keys_without_power(
    synapse: Synapse, wallet: MatrixUser
) -> None:
    alice = await somebody(synapse)
    for by_invite in (False, True):
        room_id = await alice.create_room(name="Tea")
        before = await alice.state(room_id, "m.room.power_levels")
        if by_invite:
            await alice.invite(room_id, wallet.user_id)
        else:
            await alice.put_state(room_id, EXTENSION, ENABLED, state_key="payments")
        await eventually(partial(joined, alice, room_id, wallet.user_id))
        assert before is not None and KEYS not in before["events"]
        after = {**before, "events": {**before["events"], KEYS: 0}}
        assert await alice.state(room_id, "m.room.power_levels") == after
        content = {"service": wallet.user_id, "keys": {}}
        await wallet.put_state(room_id, KEYS, content, state_key=wallet.user_id)
        with pytest.raises(MatrixRefused):
            await wallet.put_state(room_id, "m.room.topic", {"topic": "Mine"})


async def test_a_service_that_is_there_already_may_show_its_keys_when_it_is_enabled(
    synapse: Synapse, wallet: MatrixUser
) -> None:
    alice = await somebody(synapse)
    room_id = await alice.create_room(name="Tea", preset="public_chat")
    await wallet.join(room_id)
    assert await key_power(alice, room_id) is None
    await alice.put_state(room_id, EXTENSION, ENABLED, state_key="payments")

    async def may_show() -> bool:
        return await key_power(alice, room_id) == 0

    await eventually(may_show)
    await wallet.put_state(room_id, KEYS, {"service": wallet.user_id, "keys": {}}, state_key=wallet.user_id)


async def test_a_level_that_the_room_has_for_keys_is_left_alone(synapse: Synapse, wallet: MatrixUser) -> None:
    alice = await somebody(synapse)
    room_id = await alice.create_room(name="Tea", power_level_content_override={"events": {KEYS: 50}})
    await alice.put_state(room_id, EXTENSION, ENABLED, state_key="payments")
    await eventually(lambda: joined(alice, room_id, wallet.user_id))
    assert await key_power(alice, room_id) == 50


async def test_a_disabled_extension_lets_its_service_out(synapse: Synapse, wallet: MatrixUser) -> None:
    alice = await somebody(synapse)
    room_id = await alice.create_room(name="Tea")
    await alice.put_state(room_id, EXTENSION, ENABLED, state_key="payments")
    await eventually(lambda: joined(alice, room_id, wallet.user_id))
    await alice.put_state(room_id, EXTENSION, {"enabled": False}, state_key="payments")

    async def out() -> bool:
        return await alice.membership(room_id, wallet.user_id) == "leave"

    await eventually(out)
    assert await service_members(alice, room_id) == []


async def test_a_kicked_service_is_listed_until_its_extension_is_disabled(
    synapse: Synapse, wallet: MatrixUser
) -> None:
    alice = await somebody(synapse)
    room_id = await alice.create_room(name="Tea")
    await alice.put_state(room_id, EXTENSION, ENABLED, state_key="payments")

    async def listed() -> bool:
        return await service_members(alice, room_id) == [wallet.user_id]

    await eventually(listed)
    await alice.request("POST", f"/rooms/{room_id}/kick", {"user_id": wallet.user_id})
    assert await listed()
    await alice.put_state(room_id, EXTENSION, {"enabled": False}, state_key="payments")

    async def unlisted() -> bool:
        return await service_members(alice, room_id) == []

    await eventually(unlisted)
    assert await alice.membership(room_id, wallet.user_id) == "leave"


async def test_a_service_stays_while_another_of_its_extensions_is_enabled(
    synapse: Synapse, wallet: MatrixUser
) -> None:
    alice = await somebody(synapse)
    room_id = await alice.create_room(name="Tea")
    await alice.put_state(room_id, EXTENSION, ENABLED, state_key="payments")
    await alice.put_state(room_id, EXTENSION, ENABLED, state_key="payments:second")
    await eventually(lambda: joined(alice, room_id, wallet.user_id))
    await alice.put_state(room_id, EXTENSION, {"enabled": False}, state_key="payments:second")
    # Errands of one room are done in order, so what follows is done after the one above.
    await alice.invite(room_id, f"@weft:{synapse.server_name}")
    await eventually(lambda: joined(alice, room_id, f"@weft:{synapse.server_name}"))
    assert await joined(alice, room_id, wallet.user_id)


async def test_a_member_without_power_enables_nothing(synapse: Synapse, wallet: MatrixUser) -> None:
    alice, bob = await somebody(synapse), await somebody(synapse)
    room_id = await alice.create_room(name="Tea", preset="public_chat")
    await bob.join(room_id)
    with pytest.raises(MatrixRefused) as refused:
        await bob.put_state(room_id, EXTENSION, ENABLED, state_key="payments")
    assert refused.value.status == 403
    await alice.invite(room_id, f"@weft:{synapse.server_name}")
    await eventually(lambda: joined(alice, room_id, f"@weft:{synapse.server_name}"))
    assert await alice.membership(room_id, wallet.user_id) is None


async def test_a_room_made_with_an_extension_begins_with_its_service(
    synapse: Synapse, wallet: MatrixUser
) -> None:
    alice = await somebody(synapse)
    room_id = await alice.create_room(
        name="Tea", initial_state=[{"type": EXTENSION, "state_key": "payments", "content": ENABLED}]
    )
    await eventually(lambda: joined(alice, room_id, wallet.user_id))


async def test_a_service_accepts_a_local_invite_and_is_listed(synapse: Synapse, wallet: MatrixUser) -> None:
    alice, bob = await somebody(synapse), await somebody(synapse)
    room_id = await alice.create_room(invite=[bob.user_id, wallet.user_id])

    async def listed() -> bool:
        return await service_members(alice, room_id) == [wallet.user_id]

    await eventually(listed)
    assert await joined(alice, room_id, wallet.user_id)


async def test_a_service_accepts_an_invite_by_a_member_who_may_not_list_it(
    synapse: Synapse, wallet: MatrixUser
) -> None:
    alice, bob = await somebody(synapse), await somebody(synapse)
    room_id = await alice.create_room(name="Tea", preset="private_chat", invite=[bob.user_id])
    await bob.join(room_id)
    levels = await alice.state(room_id, "m.room.power_levels")
    await bob.invite(room_id, wallet.user_id)
    await eventually(lambda: joined(alice, room_id, wallet.user_id))
    # Errands of one room are done in order, so all that the first would change is changed after the second.
    await bob.invite(room_id, f"@weft:{synapse.server_name}")
    await eventually(lambda: joined(alice, room_id, f"@weft:{synapse.server_name}"))
    assert await service_members(alice, room_id) == []
    assert await alice.state(room_id, "m.room.power_levels") == levels


async def test_a_direct_chat_with_a_service_keeps_the_service_in_its_name(
    synapse: Synapse, wallet: MatrixUser
) -> None:
    alice = await somebody(synapse)
    room_id = await alice.create_room(preset="trusted_private_chat", is_direct=True, invite=[wallet.user_id])
    await eventually(lambda: joined(alice, room_id, wallet.user_id))
    await alice.invite(room_id, f"@weft:{synapse.server_name}")
    await eventually(lambda: joined(alice, room_id, f"@weft:{synapse.server_name}"))
    assert await service_members(alice, room_id) == []


async def test_an_administrator_is_guarded_and_served_like_everybody(
    synapse: Synapse, wallet: MatrixUser
) -> None:
    root = await synapse.register_admin("root")
    room_id = await root.create_room(name="Tea")
    with pytest.raises(MatrixRefused) as refused:
        await root.send(room_id, FORGED)
    assert refused.value.errcode == "M_FORBIDDEN"
    with pytest.raises(MatrixRefused) as refused:
        await root.put_state(room_id, EXTENSION, {}, state_key="payments")
    assert refused.value.errcode == "M_BAD_JSON"
    with pytest.raises(MatrixRefused) as refused:
        await root.create_room(initial_state=[{"type": RECEIPT, "content": {}}])
    assert refused.value.errcode == "M_FORBIDDEN"
    await root.put_state(room_id, EXTENSION, ENABLED, state_key="payments")
    await eventually(lambda: joined(root, room_id, wallet.user_id))
    # Synapse doesn't ask modules about an administrator's invites: a sweep finds them.
    invited = await root.create_room(name="Cake")
    await root.invite(invited, wallet.user_id)
    made = await root.create_room(name="Pie", invite=[wallet.user_id])
    await eventually(lambda: joined(root, made, wallet.user_id))
    await eventually(lambda: joined(root, invited, wallet.user_id))


async def test_a_delayed_extension_or_forgery_is_judged_when_it_is_sent(
    synapse: Synapse, wallet: MatrixUser
) -> None:
    alice = await somebody(synapse)
    room_id = await alice.create_room(name="Tea")
    delayed = {"org.matrix.msc4140.delay": "1000"}
    path = f"/rooms/{room_id}"
    await alice.request("PUT", f"{path}/send/m.room.message/1", FORGED, parameters=delayed)
    await alice.request("PUT", f"{path}/state/{EXTENSION}/payments", ENABLED, parameters=delayed)
    await eventually(lambda: joined(alice, room_id, wallet.user_id))
    assert not [event for event in await alice.messages(room_id) if RECEIPT in event["content"]]


async def test_an_uninvolved_invite_is_left_to_the_invited(synapse: Synapse) -> None:
    alice, bob = await somebody(synapse), await somebody(synapse)
    room_id = await alice.create_room(name="Tea", invite=[bob.user_id])
    assert await alice.membership(room_id, bob.user_id) == "invite"
