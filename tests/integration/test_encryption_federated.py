"""A bot and people of another homeserver in one encrypted room."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from appservices.chassis.known_devices import REMOTE_TIMEOUT_SECONDS
from appservices.vocabulary.ids import RoomId
from tests.certificates import LocalAuthority
from tests.encrypted_client import EncryptedClient
from tests.integration.encrypted_rooms import Stage, say, stage
from tests.synapse import Synapse, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Pair:
    """The bot's homeserver, and another one."""

    house: Stage
    away: Synapse


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    folder = tmp_path_factory.mktemp("federated")
    authority = LocalAuthority.make(folder / "ca")
    with Synapse(folder / "away", authority=authority) as away:
        await asyncio.to_thread(away.start)
        async with stage(folder, authority=authority) as house:
            yield Pair(house, away)


async def test_people_of_another_homeserver_are_read_and_answered(pair: Pair) -> None:
    house = pair.house
    bob_user = await pair.away.register(house.name("bob"))
    async with (
        await house.client(house.name("alice")) as alice,
        EncryptedClient(bob_user, house.folder / "clients" / "bob") as bob,
        house.bot(house.name("bot")) as bot,
    ):
        room_id = await house.room_of(alice, bot)
        await alice.user.invite(room_id, bob.user_id)

        async def joined() -> bool:
            await bob.user.join(room_id, via=house.synapse.server_name)
            return True

        await eventually(joined)
        await _in_room(house, room_id, bob.user_id)
        await say(bot, room_id, "hello over there")
        await bob.wait_for_text(room_id, "hello over there", sender=bot.user_id)
        await bob.wait_until_encrypted(room_id, members=3)
        event_id = await bob.send_text(room_id, "!balance")
        assert (await house.read(bot, event_id))["content"]["body"] == "!balance"


async def test_a_homeserver_that_is_down_does_not_keep_others_waiting(pair: Pair) -> None:
    house = pair.house
    carol = await pair.away.register(house.name("carol"))
    async with (
        await house.client(house.name("alice")) as alice,
        house.bot(house.name("bot")) as bot,
    ):
        room_id = await house.room_of(alice, bot)
        await alice.user.invite(room_id, carol.user_id)
        await carol.join(room_id, via=house.synapse.server_name)
        await _in_room(house, room_id, carol.user_id)
        pair.away.kill()
        try:
            began = time.monotonic()
            await say(bot, room_id, "first")
            await alice.wait_for_text(room_id, "first", sender=bot.user_id)
            assert time.monotonic() - began < REMOTE_TIMEOUT_SECONDS + 20
            began = time.monotonic()
            await say(bot, room_id, "second")
            assert time.monotonic() - began < REMOTE_TIMEOUT_SECONDS
        finally:
            await asyncio.to_thread(pair.away.start)


async def _in_room(house: Stage, room_id: RoomId, user_id: str) -> None:
    async def look() -> bool:
        return any(
            event["room_id"] == room_id
            and event.get("state_key") == user_id
            and event["content"].get("membership") == "join"
            for event in house.feed.events
        )

    await eventually(look)
