"""Acting as users of an application service on a real Synapse."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from appservices.chassis.homeserver import Homeserver, MatrixRefused, MatrixUnavailable, Retries, open_session
from appservices.chassis.intents import Intent, IntentPool, Profile
from appservices.vocabulary.ids import EventId, RoomId, ServerName, UserId
from tests.integration.encrypted_rooms import Stage, stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOTICE = {"msgtype": "m.notice", "body": "hello"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    # Few messages a second for whomever the registration does not except.
    limits = {"rc_message": {"per_second": 4, "burst_count": 2}}
    async with stage(tmp_path_factory.mktemp("intents"), limits, rate_limited=True) as ready:
        yield ready


async def ready_intent(house: Stage, *, device_id: str | None = "DEVICE") -> Intent:
    """A registered user of the service, with a device."""
    intents = house.intents
    user_id = intents.user(house.name("bot"))
    await intents.intent(user_id).ensure_registered()
    if device_id is not None:
        await intents.intent(user_id).ensure_device(device_id, display_name="Weft")
    return intents.intent(user_id, device_id)


async def test_registering_a_user_again_is_harmless(house: Stage) -> None:
    intent = await ready_intent(house)
    await intent.ensure_registered()
    await intent.ensure_device("DEVICE", display_name="Weft")
    assert await intent.devices() == ("DEVICE",)


async def test_a_user_shows_the_name_and_picture_that_were_set(house: Stage) -> None:
    intent = await ready_intent(house)
    picture = await intent.upload(b"not really a picture", content_type="image/png", filename="face.png")
    assert picture.startswith(f"mxc://{house.synapse.server_name}/")
    await intent.set_display_name("Wallet ✓")
    await intent.set_avatar(picture)
    assert await intent.profile(intent.user_id) == Profile(display_name="Wallet ✓", avatar_url=picture)


async def test_nobody_has_no_profile(house: Stage) -> None:
    intent = await ready_intent(house)
    assert await intent.profile(UserId(f"@nobody:{house.synapse.server_name}")) is None


async def test_a_room_is_made_joined_spoken_in_and_left(house: Stage) -> None:
    host, guest = await ready_intent(house), await ready_intent(house)
    room_id = await host.create_room(name="Tea", preset="private_chat")
    await host.invite(room_id, guest.user_id)
    assert await guest.join(room_id) == room_id
    assert set(await host.joined_members(room_id)) == {host.user_id, guest.user_id}
    assert room_id in await guest.joined_rooms()
    await host.send_state(room_id, "m.room.topic", {"topic": "tea"})
    assert await guest.state_event(room_id, "m.room.topic") == {"topic": "tea"}
    assert await guest.state_event(room_id, "m.room.encryption") is None
    assert {event["type"] for event in await guest.room_state(room_id)} >= {"m.room.create", "m.room.topic"}
    event_id = await host.send(room_id, "m.room.message", NOTICE, transaction_id="tea")
    await guest.set_typing(room_id, typing=True)
    await host.redact(room_id, event_id, transaction_id="no-tea", reason="cold")
    await guest.leave(room_id)
    assert set(await host.joined_members(room_id)) == {host.user_id}


async def test_what_is_forbidden_is_refused_at_once_with_its_reason(house: Stage) -> None:
    intent = await ready_intent(house)
    began = time.monotonic()
    with pytest.raises(MatrixRefused) as refusal:
        await intent.send(RoomId("!nowhere:localhost"), "m.room.message", NOTICE, transaction_id="t")
    assert refusal.value.status == 403
    assert refusal.value.errcode == "M_FORBIDDEN"
    assert time.monotonic() - began < 20


async def test_a_rate_limit_delays_and_loses_nothing(house: Stage) -> None:
    intent = await ready_intent(house)
    room_id = await intent.create_room(preset="private_chat")
    began = time.monotonic()
    sent = [
        await intent.send(room_id, "m.room.message", NOTICE, transaction_id=f"{intent.user_id} {number}")
        for number in range(6)
    ]
    assert len(set(sent)) == 6
    # Two at once and then four a second: without waiting it would have taken no time.
    assert time.monotonic() - began > 0.7


async def test_users_of_one_service_act_at_the_same_time(house: Stage) -> None:
    intents = house.intents
    users = [intents.user(house.name("bot")) for _ in range(2)]
    for user_id in users:
        await intents.intent(user_id).ensure_registered()
    first, second = (intents.intent(user_id) for user_id in users)
    room_ids = await asyncio.gather(
        *(each.create_room(preset="private_chat") for each in (first, second) * 3)
    )
    assert len(set(room_ids)) == 6
    assert set(await first.joined_rooms()) == {*room_ids[::2]}
    assert set(await second.joined_rooms()) == {*room_ids[1::2]}


async def test_a_message_sent_again_after_the_homeserver_was_killed_is_there_once(house: Stage) -> None:
    intent = await ready_intent(house)
    room_id = await intent.create_room(preset="private_chat")
    event_id = await intent.send(room_id, "m.room.message", NOTICE, transaction_id="outbox-1")
    house.synapse.kill()
    again = asyncio.create_task(intent.send(room_id, "m.room.message", NOTICE, transaction_id="outbox-1"))
    await asyncio.to_thread(house.synapse.start)
    assert await again == event_id
    assert await _messages(intent, room_id) == [event_id]


async def test_an_unknown_token_says_what_the_operator_must_do(house: Stage) -> None:
    intents = IntentPool(
        Homeserver(
            house.synapse.url,
            as_token="as-token-that-nobody-registered",
            server_name=ServerName(house.synapse.server_name),
            session=house.session,
        )
    )
    with pytest.raises(MatrixUnavailable, match="app_service_config_files"):
        await intents.intent(intents.user("bot_x")).ensure_registered()
    with pytest.raises(MatrixUnavailable, match="registration"):
        await house.intents.intent(house.intents.user("alice")).joined_rooms()


async def test_a_homeserver_that_is_away_is_given_up_after_the_limit(tmp_path: Path) -> None:
    async with open_session() as session:
        homeserver = Homeserver(
            "http://127.0.0.1:9",
            as_token="as-token-for-tests",
            server_name=ServerName("localhost"),
            session=session,
            retries=Retries(attempts_max=3, pause_first_seconds=0.01),
        )
        with pytest.raises(MatrixUnavailable, match=r"http://127.0.0.1:9"):
            await homeserver.call("GET", "/account/whoami", user_id=None)


async def _messages(intent: Intent, room_id: RoomId) -> list[EventId]:
    answer = await intent.call("GET", f"/rooms/{room_id}/messages", parameters={"dir": "b", "limit": "100"})
    return [EventId(event["event_id"]) for event in answer["chunk"] if event["type"] == "m.room.message"]
