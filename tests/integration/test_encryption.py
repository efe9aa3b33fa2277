"""A bot in encrypted rooms, against a real Synapse and real users' clients (matrix-nio)."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from appservices.chassis.encryption import Undecryptable, UndecryptableReason
from appservices.vocabulary.ids import RoomId
from tests.encrypted_client import EncryptedClient
from tests.integration.encrypted_rooms import ENCRYPTION, JsonObject, Stage, say, stage
from tests.synapse import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with stage(tmp_path_factory.mktemp("encryption")) as ready:
        yield ready


async def test_a_bot_reads_an_encrypted_message_and_answers_encrypted(house: Stage) -> None:
    async with await house.client(house.name("alice")) as alice, house.bot(house.name("bot")) as bot:
        room_id = await house.room_of(alice, bot)
        event_id = await alice.send_text(room_id, "!balance")
        clear = await house.read(bot, event_id)
        assert clear["type"] == "m.room.message"
        assert clear["content"]["body"] == "!balance"
        assert clear["sender"] == alice.user_id
        assert clear["event_id"] == event_id
        answer_id = await say(bot, room_id, "You have 100.00 EUR")
        answer = await alice.wait_for_text(room_id, "You have 100.00 EUR", sender=bot.user_id)
        assert answer["event_id"] == answer_id
        assert (await house.feed.event(answer_id))["type"] == "m.room.encrypted"


async def test_a_relation_stays_readable_for_the_homeserver_and_the_rest_does_not(house: Stage) -> None:
    async with await house.client(house.name("alice")) as alice, house.bot(house.name("bot")) as bot:
        room_id = await house.room_of(alice, bot)
        question_id = await alice.send_text(room_id, "!history")
        relation = {"m.in_reply_to": {"event_id": question_id}}
        content = {"msgtype": "m.notice", "body": "nothing yet", "m.relates_to": relation}
        answer_id = await bot.send(room_id, "m.room.message", content, transaction_id="relation")
        sealed = await house.feed.event(answer_id)
        assert sealed["content"]["m.relates_to"] == relation
        assert "nothing yet" not in str(sealed)
        answer = await alice.wait_for_text(room_id, "nothing yet", sender=bot.user_id)
        assert answer["content"]["m.relates_to"] == relation
        reply = {
            "msgtype": "m.text",
            "body": "thanks",
            "m.relates_to": {"m.in_reply_to": {"event_id": answer_id}},
        }
        clear = await house.read(bot, await alice.send(room_id, reply))
        assert clear["content"]["m.relates_to"] == reply["m.relates_to"]


async def test_one_who_joins_reads_on_and_one_who_left_does_not(house: Stage) -> None:
    async with (
        await house.client(house.name("alice")) as alice,
        await house.client(house.name("carol")) as carol,
        house.bot(house.name("bot")) as bot,
    ):
        room_id = await house.room_of(alice, bot)
        await say(bot, room_id, "between us")
        await alice.wait_for_text(room_id, "between us", sender=bot.user_id)
        await alice.user.invite(room_id, carol.user_id)
        await carol.user.join(room_id)
        await _has_observed(house, room_id, carol.user_id, "join")
        await say(bot, room_id, "welcome")
        await carol.wait_for_text(room_id, "welcome", sender=bot.user_id)
        await carol.user.leave(room_id)
        await _has_observed(house, room_id, carol.user_id, "leave")
        secret_id = await say(bot, room_id, "she is gone")
        await alice.wait_for_text(room_id, "she is gone", sender=bot.user_id)
        sessions = await _sessions(house, bot_events=[secret_id])
        assert carol.nio.olm.inbound_group_store.get(room_id, *sessions[0]) is None
        assert alice.nio.olm.inbound_group_store.get(room_id, *sessions[0]) is not None


async def test_many_answers_at_once_and_two_bots_in_one_room_are_all_readable(house: Stage) -> None:
    async with (
        await house.client(house.name("alice")) as alice,
        house.bot(house.name("bot")) as first,
        house.bot(house.name("bot")) as second,
    ):
        room_id = await house.room_of(alice, first)
        await first.intent.invite(room_id, second.user_id)
        await second.intent.join(room_id)
        first.observe(_member(room_id, second.user_id))
        bots = (first, second)
        sent = await asyncio.gather(*(say(bots[n % 2], room_id, f"number {n}") for n in range(20)))
        for number, event_id in enumerate(sent):
            event = await alice.wait_for_event(room_id, event_id)
            assert event["content"].get("body") == f"number {number}"
            assert (await house.read(bots[(number + 1) % 2], event_id))["content"][
                "body"
            ] == f"number {number}"


async def test_one_who_is_invited_can_read_what_was_said_before_joining(house: Stage) -> None:
    async with (
        await house.client(house.name("alice")) as alice,
        await house.client(house.name("carol")) as carol,
        house.bot(house.name("bot")) as bot,
    ):
        room_id = await house.room_of(alice, bot)
        await alice.user.invite(room_id, carol.user_id)
        await _has_observed(house, room_id, carol.user_id, "invite")
        await say(bot, room_id, "for those who are coming")
        await carol.user.join(room_id)
        await carol.wait_for_text(room_id, "for those who are coming", sender=bot.user_id)


async def test_a_new_device_of_a_member_reads_the_next_message(house: Stage) -> None:
    async with await house.client(house.name("alice")) as alice, house.bot(house.name("bot")) as bot:
        room_id = await house.room_of(alice, bot)
        await say(bot, room_id, "first")
        await alice.wait_for_text(room_id, "first", sender=bot.user_id)
        phone_user = await house.synapse.login(alice.user_id[1:].split(":")[0])
        async with EncryptedClient(phone_user, house.folder / "clients" / "phone") as phone:

            async def told() -> bool:
                await say(bot, room_id, body := f"hello {secrets.token_hex(3)}")
                event = await alice.wait_for_text(room_id, body, sender=bot.user_id)
                seen = await phone.wait_for_event(room_id, event["event_id"])
                return bool(seen["type"] == "m.room.message")

            # A message sent before the homeserver has told of the new device is rightly not for it.
            await eventually(told)


async def test_encryption_enabled_later_holds_from_the_next_message(house: Stage) -> None:
    async with await house.client(house.name("alice")) as alice, house.bot(house.name("bot")) as bot:
        room_id = await house.room_of(alice, bot, encrypted=False)
        plain_id = await say(bot, room_id, "in plain")
        assert (await house.feed.event(plain_id))["type"] == "m.room.message"
        # The bot is not told: what it believed a moment ago must not matter.
        house.feed.on_event = None
        await alice.user.put_state(room_id, "m.room.encryption", ENCRYPTION["content"])
        sealed_id = await say(bot, room_id, "now sealed")
        assert (await house.feed.event(sealed_id))["type"] == "m.room.encrypted"
        await alice.wait_for_text(room_id, "now sealed", sender=bot.user_id)


async def test_a_key_that_comes_late_is_announced(house: Stage) -> None:
    name = house.name("bot")
    bot = await house.open_bot(name)
    async with await house.client(house.name("alice")) as alice, bot:
        room_id = await house.room_of(alice, bot)
        event = await house.feed.event(await alice.send_text(room_id, "patience"))
        assert await bot.decrypt(event) is None
        arrived = asyncio.Event()
        bot.on_new_keys(arrived.set)
        running = asyncio.create_task(bot.run())
        try:
            async with asyncio.timeout(60):
                await arrived.wait()
            clear = await bot.decrypt(event)
            assert clear is not None
            assert clear["content"]["body"] == "patience"
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_a_bot_that_was_closed_is_the_same_device_and_reads_what_it_missed(house: Stage) -> None:
    name = house.name("bot")
    async with await house.client(house.name("alice")) as alice:
        async with house.bot(name) as bot:
            device_id = bot.device_id
            room_id = await house.room_of(alice, bot)
            before_id = await alice.send_text(room_id, "before")
            await house.read(bot, before_id)
        missed_id = await alice.send_text(room_id, "while you were away")
        async with house.bot(name) as bot:
            assert bot.device_id == device_id
            assert (await house.read(bot, missed_id))["content"]["body"] == "while you were away"
            assert (await house.read(bot, before_id))["content"]["body"] == "before"
            answer_id = await say(bot, room_id, "back again")
            assert (await house.feed.event(answer_id))["type"] == "m.room.encrypted"
            await alice.wait_for_text(room_id, "back again", sender=bot.user_id)


async def test_a_bot_whose_store_is_lost_gets_a_new_device_and_drops_the_old(house: Stage) -> None:
    name = house.name("bot")
    async with await house.client(house.name("alice")) as alice:
        async with house.bot(name) as bot:
            lost_device_id = bot.device_id
            room_id = await house.room_of(alice, bot)
            await house.read(bot, await alice.send_text(room_id, "before"))
        shutil.rmtree(house.bot_folder(name))
        async with house.bot(name) as bot:
            assert bot.device_id != lost_device_id
            assert await bot.intent.devices() == (bot.device_id,)

            async def heard() -> JsonObject | None:
                event = await house.feed.event(await alice.send_text(room_id, "after"))
                await asyncio.sleep(0.3)
                return await bot.decrypt(event)

            # Alice's client learns of the new device a moment later.
            assert (await eventually(heard))["content"]["body"] == "after"
            await say(bot, room_id, "I am new here")
            await alice.wait_for_text(room_id, "I am new here", sender=bot.user_id)


async def test_a_device_removed_from_the_homeserver_is_made_again(house: Stage) -> None:
    async with await house.client(house.name("alice")) as alice, house.bot(house.name("bot")) as bot:
        room_id = await house.room_of(alice, bot)
        await say(bot, room_id, "first")
        await alice.wait_for_text(room_id, "first", sender=bot.user_id)
        await house.intents.intent(bot.user_id).delete_device(bot.device_id)
        await say(bot, room_id, "second")
        await alice.wait_for_text(room_id, "second", sender=bot.user_id)
        assert await bot.intent.devices() == (bot.device_id,)


async def test_a_message_copied_by_somebody_else_is_not_believed(house: Stage) -> None:
    async with (
        await house.client(house.name("alice")) as alice,
        await house.client(house.name("mallory")) as mallory,
        house.bot(house.name("bot")) as bot,
    ):
        room_id = await house.room_of(alice, bot, mallory)
        original = await house.feed.event(await alice.send_text(room_id, "!pay @mallory 5"))
        copied_id = await mallory.user.send(room_id, original["content"], event_type="m.room.encrypted")
        await house.read(bot, original["event_id"])
        with pytest.raises(Undecryptable) as refusal:
            await bot.decrypt(await house.feed.event(copied_id))
        assert refusal.value.reason is UndecryptableReason.SENDER_DIFFERS


async def test_a_repeated_ciphertext_is_refused_also_after_a_restart(house: Stage) -> None:
    name = house.name("bot")
    async with await house.client(house.name("alice")) as alice:
        async with house.bot(name) as bot:
            room_id = await house.room_of(alice, bot)
            original = await house.feed.event(await alice.send_text(room_id, "!pay @bob 5"))
            await house.read(bot, original["event_id"])
        repeated_id = await alice.user.send(room_id, original["content"], event_type="m.room.encrypted")
        async with house.bot(name) as bot:
            with pytest.raises(Undecryptable) as refusal:
                await bot.decrypt(await house.feed.event(repeated_id))
            assert refusal.value.reason is UndecryptableReason.REPLAYED
            assert await bot.decrypt(original) is not None


async def test_the_reason_for_a_withheld_key_is_told(house: Stage) -> None:
    async with await house.client(house.name("alice")) as alice, house.bot(house.name("bot")) as bot:
        room_id = await house.room_of(alice, bot)
        sealed = {
            "type": "m.room.encrypted",
            "event_id": "$sealed",
            "room_id": room_id,
            "sender": alice.user_id,
            "origin_server_ts": 1,
            "content": {"algorithm": "m.megolm.v1.aes-sha2", "session_id": "s", "ciphertext": "c"},
        }
        assert await bot.decrypt(sealed) is None
        await _to_device(
            alice,
            bot.user_id,
            bot.device_id,
            "m.room_key.withheld",
            {
                "algorithm": "m.megolm.v1.aes-sha2",
                "room_id": room_id,
                "session_id": "s",
                "code": "m.unverified",
            },
        )

        async def refused() -> UndecryptableReason | None:
            try:
                await bot.decrypt(sealed)
            except Undecryptable as refusal:
                assert "verified" in refusal.sentence
                return refusal.reason
            return None

        assert await eventually(refused) is UndecryptableReason.KEY_WITHHELD


async def test_a_missing_key_is_asked_for_and_taken_when_its_maker_forwards_it(house: Stage) -> None:
    async with await house.client(house.name("alice")) as alice, house.bot(house.name("bot")) as bot:
        room_id = await house.room_of(alice, bot)
        await house.read(bot, await alice.send_text(room_id, "so that the two devices know each other"))
        olm = alice.nio.olm
        olm.create_outbound_group_session(room_id)
        session = olm.outbound_group_sessions[room_id]
        inbound = olm.inbound_group_store.get(room_id, olm.account.identity_keys["curve25519"], session.id)
        session.mark_as_shared()
        event_id = await alice.send_text(room_id, "without a key")
        event = await house.feed.event(event_id)
        assert await bot.decrypt(event) is None

        requests: list[Any] = []
        olm._handle_key_requests = requests.append

        async def asked() -> bool:
            return bool(requests) and requests[0].session_id == session.id

        await eventually(asked)
        device = olm.device_store[bot.user_id][bot.device_id]
        message = olm._encrypt_forwarding_key(
            room_id, inbound, olm.session_store.get(device.curve25519), device
        )
        await alice.nio.to_device(message)
        assert (await house.read(bot, event_id))["content"]["body"] == "without a key"


async def test_garbage_from_strangers_does_not_stop_a_bot(house: Stage) -> None:
    async with await house.client(house.name("alice")) as alice, house.bot(house.name("bot")) as bot:
        room_id = await house.room_of(alice, bot)
        keys = await alice.user.request("POST", "/keys/query", {"device_keys": {bot.user_id: []}})
        curve_key = keys["device_keys"][bot.user_id][bot.device_id]["keys"][f"curve25519:{bot.device_id}"]
        for content in (
            {},
            {"algorithm": "m.olm.v1.curve25519-aes-sha2", "sender_key": 1, "ciphertext": {}},
            {
                "algorithm": "m.olm.v1.curve25519-aes-sha2",
                "sender_key": "x",
                "ciphertext": {curve_key: {"type": 0, "body": "!!"}},
            },
            {
                "algorithm": "m.olm.v1.curve25519-aes-sha2",
                "sender_key": curve_key,
                "ciphertext": {curve_key: {"type": 1, "body": "AAAA"}},
            },
        ):
            await _to_device(alice, bot.user_id, bot.device_id, "m.room.encrypted", content)
        await _to_device(
            alice, bot.user_id, bot.device_id, "m.key.verification.start", {"method": "m.sas.v1"}
        )
        event_id = await alice.send_text(room_id, "still there?")
        assert (await house.read(bot, event_id))["content"]["body"] == "still there?"


async def test_messages_that_no_key_fits_are_refused_with_a_reason(house: Stage) -> None:
    async with await house.client(house.name("alice")) as alice, house.bot(house.name("bot")) as bot:
        room_id = await house.room_of(alice, bot)
        event = await house.feed.event(await alice.send_text(room_id, "hello"))
        await house.read(bot, event["event_id"])
        damaged = {**event, "event_id": "$damaged", "content": {**event["content"], "ciphertext": "AwgA"}}
        unknown = {**event, "content": {**event["content"], "algorithm": "m.rot13"}}
        empty = {**event, "content": {}}
        for sealed, reason in (
            (damaged, UndecryptableReason.MALFORMED),
            (unknown, UndecryptableReason.ALGORITHM_UNKNOWN),
            (empty, UndecryptableReason.ALGORITHM_UNKNOWN),
            ({**event, "event_id": 7}, UndecryptableReason.MALFORMED),
        ):
            with pytest.raises(Undecryptable) as refusal:
                await bot.decrypt(sealed)
            assert refusal.value.reason is reason


def _member(room_id: RoomId, user_id: str) -> JsonObject:
    return {
        "type": "m.room.member",
        "room_id": room_id,
        "state_key": user_id,
        "content": {"membership": "join"},
    }


async def _has_observed(house: Stage, room_id: RoomId, user_id: str, membership: str) -> None:
    async def look() -> bool:
        return any(
            event["room_id"] == room_id
            and event.get("state_key") == user_id
            and event["content"].get("membership") == membership
            for event in house.feed.events
        )

    await eventually(look)


async def _sessions(house: Stage, *, bot_events: list[str]) -> list[tuple[str, str]]:
    """Sender key and session id of sealed events."""
    contents = [(await house.feed.event(event_id))["content"] for event_id in bot_events]
    return [(content["sender_key"], content["session_id"]) for content in contents]


async def _to_device(
    client: EncryptedClient, user_id: str, device_id: str, event_type: str, content: JsonObject
) -> None:
    path = f"/sendToDevice/{quote(event_type)}/{secrets.token_hex(8)}"
    await client.user.request("PUT", path, {"messages": {user_id: {device_id: content}}})
