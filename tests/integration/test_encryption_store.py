"""A bot's store and identity: killed at any moment, damaged, shared, taken over."""

from __future__ import annotations

import asyncio
import random
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from appservices.chassis.cross_signing import KEYS_NAME, CrossSigningConflict, ensure_cross_signed
from appservices.chassis.crypto_store import DATABASE_NAME, PICKLE_KEY_NAME, CryptoStoreUnusable
from appservices.chassis.encryption import BotDevice
from appservices.vocabulary.signing import verify_json
from tests.integration.encrypted_rooms import JsonObject, Stage, say, stage
from tests.synapse import PROJECT_ROOT, MatrixUser

pytestmark = pytest.mark.asyncio(loop_scope="module")

KILLS = 6


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with stage(tmp_path_factory.mktemp("stores")) as ready:
        yield ready


@asynccontextmanager
async def bot_process(house: Stage, name: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A bot that listens in a process of its own and is killed (SIGKILL) at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.listening_bot",
        house.synapse.url,
        house.feed.as_token,
        house.intents.user(name),
        str(house.bot_folder(name)),
        cwd=PROJECT_ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        await process.wait()


async def test_no_message_is_lost_to_a_bot_that_is_killed_again_and_again(house: Stage) -> None:
    name = house.name("bot")
    rng = random.Random(7)
    async with await house.client(house.name("alice")) as alice:
        bot = await house.open_bot(name)
        room_id = await house.room_of(alice, bot)
        device_id = bot.device_id
        bot.close()
        sent = []
        for round_number in range(KILLS):
            async with bot_process(house, name):
                for number in range(3):
                    # A new session each time, so that each message needs a key of its own.
                    alice.nio.invalidate_outbound_session(room_id)
                    sent.append(await alice.send_text(room_id, f"{round_number}.{number}"))
                await asyncio.sleep(rng.uniform(0, 0.1))
        async with house.bot(name) as bot:
            assert bot.device_id == device_id
            bodies = [(await house.read(bot, event_id))["content"]["body"] for event_id in sent]
        assert bodies == [f"{round_number}.{number}" for round_number in range(KILLS) for number in range(3)]


async def test_a_bot_listens_on_after_the_homeserver_was_killed(house: Stage) -> None:
    async with await house.client(house.name("alice")) as alice, house.bot(house.name("bot")) as bot:
        room_id = await house.room_of(alice, bot)
        await say(bot, room_id, "before", transaction_id="killed-1")
        house.synapse.kill()
        again = asyncio.create_task(say(bot, room_id, "before", transaction_id="killed-1"))
        await asyncio.to_thread(house.synapse.start)
        await again
        alice.nio.invalidate_outbound_session(room_id)
        event_id = await alice.send_text(room_id, "are you there?")
        assert (await house.read(bot, event_id))["content"]["body"] == "are you there?"
        await say(bot, room_id, "after")
        await alice.wait_for_text(room_id, "after", sender=bot.user_id)
        sealed = [event for room, event in alice.events if room == room_id and event["sender"] == bot.user_id]
        assert [event["content"].get("body") for event in sealed if event["type"] == "m.room.message"] == [
            "before",
            "after",
        ]


async def test_one_time_keys_are_never_offered_twice(house: Stage) -> None:
    name = house.name("bot")
    seen: list[str] = []
    user = await house.synapse.register(house.name("claimer"))
    for _ in range(3):
        bot = await house.open_bot(name)
        for _ in range(30):
            seen.append(await _claimed_key(user, bot))
        bot.close()
    assert len(set(seen)) == len(seen) == 90


async def test_a_bot_out_of_one_time_keys_can_still_be_reached(house: Stage) -> None:
    bot = await house.open_bot(house.name("bot"))
    user = await house.synapse.register(house.name("claimer"))
    async with bot:
        keys = [await _claimed_key(user, bot) for _ in range(60)]
    # The fallback key, given out when nothing else is left.
    assert keys[-1] == keys[-2] != keys[0]


async def test_a_store_belongs_to_one_process(house: Stage) -> None:
    name = house.name("bot")
    async with await house.open_bot(name):
        with pytest.raises(CryptoStoreUnusable, match="in use by another process"):
            await house.open_bot(name)
    (await house.open_bot(name)).close()


async def test_only_the_owner_can_look_into_a_store(house: Stage) -> None:
    name = house.name("bot")
    (await house.open_bot(name)).close()
    folder = house.bot_folder(name)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for secret in (PICKLE_KEY_NAME, KEYS_NAME):
        assert stat.S_IMODE((folder / secret).stat().st_mode) == 0o600


async def test_a_store_without_its_key_is_refused_not_replaced(house: Stage) -> None:
    name = house.name("bot")
    async with await house.open_bot(name) as bot:
        device_id = bot.device_id
    key_path = house.bot_folder(name) / PICKLE_KEY_NAME
    key = key_path.read_text()
    key_path.unlink()
    with pytest.raises(CryptoStoreUnusable, match=r"pickle\.key is missing"):
        await house.open_bot(name)
    key_path.write_text("0" * 64)
    with pytest.raises(CryptoStoreUnusable, match="put back the two that belong together"):
        await house.open_bot(name)
    key_path.write_text(key)
    async with await house.open_bot(name) as bot:
        assert bot.device_id == device_id


async def test_a_damaged_store_says_what_to_do(house: Stage) -> None:
    name = house.name("bot")
    (await house.open_bot(name)).close()
    (house.bot_folder(name) / DATABASE_NAME).write_bytes(b"not a database, but long enough to look at" * 50)
    with pytest.raises(CryptoStoreUnusable, match="to give @"):
        await house.open_bot(name)


async def test_a_store_that_the_homeserver_contradicts_is_set_aside(house: Stage) -> None:
    name = house.name("bot")
    async with await house.open_bot(name) as bot:
        device_id = bot.device_id
        await _replace_keys(house, bot)
    async with await house.open_bot(name) as bot:
        assert bot.device_id != device_id
        assert len(list(house.bot_folder(name).glob(f"{DATABASE_NAME}.set-aside-*"))) == 1
        assert await bot.intent.devices() == (bot.device_id,)


async def test_a_bots_device_is_signed_by_its_user(house: Stage) -> None:
    name = house.name("bot")
    async with await house.open_bot(name) as bot:
        first = await _keys(bot)
        self_signing = first["self_signing_keys"][bot.user_id]["keys"]
        verify_json(first["device_keys"][bot.user_id][bot.device_id], signer=bot.user_id, keys=self_signing)
        master = first["master_keys"][bot.user_id]["keys"]
        verify_json(first["self_signing_keys"][bot.user_id], signer=bot.user_id, keys=master)
        verify_json(first["user_signing_keys"][bot.user_id], signer=bot.user_id, keys=master)
    async with await house.open_bot(name) as bot:
        assert (await _keys(bot))["master_keys"] == first["master_keys"]


async def test_lost_cross_signing_keys_are_made_anew(house: Stage) -> None:
    name = house.name("bot")
    async with await house.open_bot(name) as bot:
        first = await _keys(bot)
    (house.bot_folder(name) / KEYS_NAME).unlink()
    async with await house.open_bot(name) as bot:
        second = await _keys(bot)
        assert second["master_keys"] != first["master_keys"]
        self_signing = second["self_signing_keys"][bot.user_id]["keys"]
        verify_json(second["device_keys"][bot.user_id][bot.device_id], signer=bot.user_id, keys=self_signing)


async def test_another_identity_on_the_homeserver_is_not_replaced_while_ours_is_held(house: Stage) -> None:
    name = house.name("bot")
    async with await house.open_bot(name) as bot:
        elsewhere = house.folder / house.name("elsewhere")
        elsewhere.mkdir()
        await ensure_cross_signed(bot.intent, folder=elsewhere, device_id=bot.device_id)
        theirs = (await _keys(bot))["master_keys"]
        with pytest.raises(CrossSigningConflict, match="another cross-signing identity"):
            await ensure_cross_signed(bot.intent, folder=house.bot_folder(name), device_id=bot.device_id)
        assert (await _keys(bot))["master_keys"] == theirs
    # The bot works on; that its identity is disputed is in the log.
    async with await house.client(house.name("alice")) as alice, house.bot(name) as bot:
        room_id = await house.room_of(alice, bot)
        await say(bot, room_id, "still here")
        await alice.wait_for_text(room_id, "still here", sender=bot.user_id)


async def _keys(bot: BotDevice) -> JsonObject:
    keys: JsonObject = await bot.intent.call("POST", "/keys/query", {"device_keys": {bot.user_id: []}})
    return keys


async def _claimed_key(user: MatrixUser, bot: BotDevice) -> str:
    claim = {"one_time_keys": {bot.user_id: {bot.device_id: "signed_curve25519"}}}
    answer = await user.request("POST", "/keys/claim", claim)
    keys: dict[str, Any] = answer["one_time_keys"][bot.user_id][bot.device_id]
    return str(next(iter(keys.values()))["key"])


async def _replace_keys(house: Stage, bot: BotDevice) -> None:
    """Replaces the device on the homeserver by one of the same id with other keys."""
    intent = house.intents.intent(bot.user_id)
    await intent.delete_device(bot.device_id)
    await intent.ensure_device(bot.device_id, display_name="Impostor")
    strange = {
        "user_id": bot.user_id,
        "device_id": bot.device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {f"curve25519:{bot.device_id}": "A" * 43, f"ed25519:{bot.device_id}": "B" * 43},
        "signatures": {},
    }
    await bot.intent.call("POST", "/keys/upload", {"device_keys": strange})
