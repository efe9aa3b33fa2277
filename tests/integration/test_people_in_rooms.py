"""Requests, splits, red packets, refunds, acceptance and QR codes as people use them.

On a real Synapse, in plain and encrypted rooms, with taps that are repeated, late or somebody else's, on
services that are killed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from nio.crypto.attachments import decrypt_attachment

from appservices.vocabulary.events import RECEIPT, RED_PACKET
from appservices.vocabulary.schemas import check_block
from appservices.vocabulary.signing import verify_json
from scripts.story.homes import Home, homes_in
from scripts.story.person import Person
from tests.synapse import WAIT_SECONDS_MAX

pytestmark = pytest.mark.asyncio(loop_scope="module")

YES, NO, PACKET = "✅", "❌", "🧧"
ROUNDS_OF_KILLING = 5
PNG_BEGINS = b"\x89PNG\r\n"


@pytest.fixture(scope="module")
async def home(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Home]:
    (home,) = homes_in(tmp_path_factory.mktemp("home"), "Home")
    await home.start()
    yield home
    await home.stop()


@pytest.fixture(scope="module")
async def people(home: Home, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[Person]]:
    """Alice, Bob and Carol, with €500 each."""
    people = [Person(name, home, tmp_path_factory.mktemp(name.lower())) for name in ("Alice", "Bob", "Carol")]
    for person in people:
        await person.sign_up()
        await person.home_room()
        await home.weft("wallet", "deposit", person.user_id, "500", "EUR")
    yield people
    for person in people:
        await person.sign_off()


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "encrypted"])
async def room(request: pytest.FixtureRequest, people: list[Person]) -> str:
    return await shared_room(people, encrypted=bool(request.param))


async def shared_room(people: list[Person], *, encrypted: bool) -> str:
    first, *others = people
    wallet = first.home.user("wallet")
    members = [person.user_id for person in people] + [wallet]
    room_id = await first.make_room("Lunch", encrypted=encrypted, invite=[*members[1:]])
    for person in others:
        await person.join(room_id)
    for person in people:
        await person.sees_members(room_id, *members, encrypted=encrypted)
    return room_id


async def asked(person: Person, room_id: str, text: str) -> dict[str, Any]:
    """The wallet's answer to a command."""
    event_id = await person.say(room_id, text)
    return await person.answer_to(room_id, event_id, sender=person.home.user("wallet"))


async def seen(person: Person, room_id: str, event: dict[str, Any]) -> str:
    """Waits until a person's client has the event too; its id."""
    await person.hears(room_id, lambda other: bool(other["event_id"] == event["event_id"]), "the message")
    return str(event["event_id"])


async def balances(home: Home) -> dict[str, int]:
    rows = json.loads(await home.weft("wallet", "balances", "--json"))
    return {row["user"]: int(row["available_minor"]) for row in rows}


async def quiet(person: Person, room_id: str) -> None:
    """Until the wallet has dealt with all that was said before: it answers in order."""
    await asked(person, room_id, "!history x")


async def test_a_request_is_paid_by_a_tap_of_whom_it_asks(people: list[Person], room: str) -> None:
    alice, bob, carol = people
    before = await balances(alice.home)
    request = await asked(alice, room, "!request Bob 12.50 EUR lunch")
    assert request["content"]["body"].startswith("Alice asks Bob for €12.50 · lunch\n")
    assert request["content"]["m.mentions"] == {"user_ids": [bob.user_id]}
    id = await seen(bob, room, request)
    for person, key in ((carol, YES), (carol, NO), (bob, "👍"), (alice, YES)):
        await person.react(room, id, key)
    await bob.react(room, id, YES)
    for person in people:
        await person.reads(room, "* ✅ Bob paid Alice the €12.50 that was asked for · lunch")
        receipt = (await person.reads(room, "Bob paid Alice €12.50 · lunch"))["content"][RECEIPT]
    check_block("receipt", receipt)
    # Too late, and told to the one who taps alone.
    await alice.react(room, id, NO)
    await alice.reads(await alice.home_room(), "this request has ended")
    await quiet(alice, room)
    after = await balances(alice.home)
    assert after[bob.user_id] == before[bob.user_id] - 1250
    assert after[alice.user_id] == before[alice.user_id] + 1250
    assert after[carol.user_id] == before[carol.user_id]


async def test_a_request_is_declined_or_taken_back(people: list[Person], room: str) -> None:
    alice, bob, _carol = people
    for person, told, how in (
        (bob, alice, "❌ Bob declined to pay Alice €3.00"),
        (alice, bob, "🚫 Alice does not ask Bob for €4.00 any more"),
    ):
        amount = 3 if person is bob else 4
        id = await seen(bob, room, await asked(alice, room, f"!request Bob {amount} EUR {room[:4]}"))
        await person.react(room, id, NO)
        await alice.reads(room, f"* {how}")
        words = f"€{amount}.00"
        await told.reads(await told.home_room(), words)


async def test_what_is_too_dear_is_told_in_private(people: list[Person], room: str) -> None:
    alice, bob, _carol = people
    id = await seen(bob, room, await asked(alice, room, "!request Bob 9000 EUR a yacht"))
    await bob.react(room, id, YES)
    await bob.reads(await bob.home_room(), "That is more than you have")
    await quiet(alice, room)
    told = alice.bodies_seen(room, sender=bob.home.user("wallet"))
    assert not any("more than you have" in body for body in told)
    await alice.react(room, id, NO)


async def test_who_is_not_in_the_room_is_asked_directly(people: list[Person], room: str) -> None:
    alice, bob, carol = people
    two = await shared_room([alice, bob], encrypted=False)
    await asked(alice, two, f"!request {carol.user_id} 2 EUR taxi {room[1:5]}")
    at_home = await carol.home_room()
    request = await carol.reads(at_home, f"Alice asks Carol for €2.00 · taxi {room[1:5]}")
    await carol.react(at_home, str(request["event_id"]), YES)
    await carol.reads(at_home, f"Carol paid Alice €2.00 · taxi {room[1:5]}")
    await alice.reads(two, "* ✅ Carol paid Alice the €2.00")


async def test_a_split_shows_who_has_paid(people: list[Person], room: str) -> None:
    alice, bob, carol = people
    split = await asked(alice, room, f"!split 10.01 EUR Bob, {carol.user_id} Alice pizza for three")
    assert split["content"]["body"].splitlines()[:4] == [
        "Alice splits €10.01 · pizza for three",
        "⏳ Bob: €3.34",
        "⏳ Carol: €3.34",
        "👤 Alice: €3.33, their own part",
    ]
    id = await seen(carol, room, split)
    await carol.react(room, id, YES)
    await alice.reads(room, "⏳ Bob: €3.34\n✅ Carol: €3.34 paid")
    await bob.react(room, await seen(bob, room, split), NO)
    await alice.reads(room, "❌ Bob: €3.34 declined\n✅ Carol: €3.34 paid")


async def test_a_red_packet_is_opened_by_taps(people: list[Person], room: str) -> None:
    alice, bob, carol = people
    before = await balances(alice.home)
    packet = await asked(alice, room, f"!redpacket 10 EUR 2 happy {room[1:5]}")
    block = packet["content"][RED_PACKET]
    check_block("red_packet", block)
    async with httpx.AsyncClient(timeout=WAIT_SECONDS_MAX) as http:
        published = (await http.get(f"{alice.home.portal_url}/_weft/wallet/keys")).json()
    verify_json(block, signer=block["wallet"], keys=published["keys"])
    id = await seen(bob, room, packet)
    await bob.react(room, id, PACKET)
    mine = await bob.reads(await bob.home_room(), f"in a red packet · happy {room[1:5]}")
    found = mine["content"]["body"].split()[2]
    await bob.react(room, id, "🧧\ufe0f")
    await bob.reads(await bob.home_room(), f"You have opened this red packet already, and found {found}.")
    await carol.react(room, await seen(carol, room, packet), PACKET)
    await alice.react(room, id, PACKET)
    await alice.reads(await alice.home_room(), "This red packet is empty")
    last = await alice.reads(room, "was luckiest with")
    assert "It is empty: 2 of 2 have opened it." in last["content"]["body"]
    after = await balances(alice.home)
    assert after[alice.user_id] == before[alice.user_id] - 1000
    assert after[bob.user_id] + after[carol.user_id] == before[bob.user_id] + before[carol.user_id] + 1000
    assert mine["content"][RECEIPT]["of"] == block["id"]


async def test_who_was_paid_gives_back_by_replying(people: list[Person], room: str) -> None:
    alice, bob, _carol = people
    memo = f"shoes {room[1:5]}"
    receipt = await asked(alice, room, f"!pay Bob 20 EUR {memo}")
    await seen(bob, room, receipt)
    id = receipt["content"][RECEIPT]["id"]
    for text, answer in (
        ("!refund 5 EUR too small", "Bob gave €5.00 back to Alice · too small"),
        ("!refund 15.01", "Nothing was given back; I have told you why in our direct room."),
        ("!refund", "Bob gave €15.00 back to Alice"),
    ):
        content = {
            "msgtype": "m.text",
            "body": text,
            "m.relates_to": {"m.in_reply_to": {"event_id": receipt["event_id"]}},
        }
        sent = await bob.client.room_send(room, "m.room.message", content, ignore_unverified_devices=True)
        reply = await bob.answer_to(room, sent.event_id, sender=bob.home.user("wallet"))
        assert reply["content"]["body"] == answer
    too_much = await asked(bob, await bob.home_room(), f"!refund {id} 1")
    assert "can still be given back" in too_much["content"]["body"]
    stranger = await asked(alice, room, f"!refund {id} 1 EUR")
    assert "Only what somebody has paid you" in stranger["content"]["body"]


async def test_a_payment_waits_until_it_is_accepted(people: list[Person], room: str) -> None:
    alice, bob, carol = people
    before = await balances(alice.home)
    await asked(bob, await bob.home_room(), "!accept on")
    memo = f"gift {room[1:5]}"
    held = await asked(alice, room, f"!pay Bob 7 EUR {memo}")
    assert held["content"][RECEIPT]["state"] == "pending"
    listed = await asked(bob, await bob.home_room(), "!pending")
    assert "€7.00 from alice wait until you accept them" in listed["content"]["body"]
    id = await seen(bob, room, held)
    await carol.react(room, id, YES)
    await alice.react(room, id, NO)
    await bob.react(room, id, YES)
    accepted = await alice.reads(room, f"Bob accepted €7.00 from Alice · {memo}")
    assert accepted["content"][RECEIPT]["of"] == held["content"][RECEIPT]["id"]
    declined = await asked(alice, room, f"!pay Bob 8 EUR {memo}")
    await bob.react(room, await seen(bob, room, declined), NO)
    await alice.reads(room, f"Alice got €8.00 back, which Bob did not accept · {memo}")
    await asked(bob, await bob.home_room(), "!accept off")
    after = await balances(alice.home)
    assert after[bob.user_id] == before[bob.user_id] + 700
    assert after[alice.user_id] == before[alice.user_id] - 700


async def test_a_qr_code_comes_as_a_picture_that_the_room_can_read(people: list[Person], room: str) -> None:
    alice, bob, _carol = people
    answer = await asked(bob, room, "!receive 5 EUR tea")
    assert f"!pay {bob.user_id} 5.00 EUR tea" in answer["content"]["body"]
    picture = await alice.hears(
        room, lambda event: bool(event["content"].get("msgtype") == "m.image"), "the picture"
    )
    assert "tea" in picture["content"]["body"]
    content = picture["content"]
    uri = content["file"]["url"] if "file" in content else content["url"]
    download = await alice.client.download(uri)
    data = download.body
    if "file" in content:
        sealed = content["file"]
        assert not data.startswith(PNG_BEGINS)
        data = decrypt_attachment(data, sealed["key"]["k"], sealed["hashes"]["sha256"], sealed["iv"])
    assert data.startswith(PNG_BEGINS)
    assert ("file" in content) == alice.client.rooms[room].encrypted


async def test_bad_input_gets_one_sentence_and_changes_nothing(people: list[Person], room: str) -> None:
    alice, _bob, _carol = people
    before = await balances(alice.home)
    server = alice.home.server_name
    for text in (
        "!request",
        "!request Bob",
        "!request Bob lunch",
        "!request Bob 0",
        "!request nobody 5 EUR",
        f"!request @nobody:{server} 5 EUR",
        "!request @bob:elsewhere.example 5 EUR",
        f"!request {alice.user_id} 5 EUR",
        f"!request @wallet:{server} 5 EUR",
        "!request Bob 10000.01 EUR",
        f"!request Bob 5 EUR {'x' * 300}",
        "!split",
        "!split 10",
        "!split 10 EUR",
        "!split Bob 10 EUR",
        "!split 10 EUR Alice",
        "!split 10 EUR Bob Bob",
        "!split 0.01 EUR Bob Carol",
        "!split 10 EUR Bob and Carol",
        "!redpacket",
        "!redpacket 10 EUR",
        "!redpacket 10 EUR many",
        "!redpacket 10 EUR 0",
        "!redpacket 10 EUR 201",
        "!redpacket 200.01 EUR 5",
        "!redpacket 1 000 EUR 5",
        "!redpacket 0.01 EUR 2",
        "!redpacket -5 EUR 2",
        "!refund",
        f"!refund {'0' * 32}",
        f"!refund {'0' * 32} 1 000 EUR",
        "!receive many",
        "!receive 0 EUR",
        f"!receive 5 EUR {'x' * 101}",
        "!accept",
        "!accept maybe",
    ):
        answer = (await asked(alice, room, text))["content"]["body"]
        assert answer and "\n" not in answer, text
    alone = await asked(alice, await alice.home_room(), "!redpacket 1 EUR 1")
    assert "only you" in alone["content"]["body"]
    assert await balances(alice.home) == before


async def test_killing_the_services_at_any_moment_loses_and_doubles_nothing(people: list[Person]) -> None:
    alice, bob, carol = people
    home = alice.home
    room_id = await shared_room(people, encrypted=False)
    before = await balances(home)
    total = sum(before.values())
    chance = random.Random(hashlib.sha256(b"people").hexdigest())
    for number in range(ROUNDS_OF_KILLING):
        request = await asked(alice, room_id, f"!request Bob 1 EUR number {number}")
        packet = await asked(alice, room_id, f"!redpacket 1 EUR 2 number {number}")
        await seen(bob, room_id, request)
        await seen(bob, room_id, packet)
        tapping = asyncio.gather(
            bob.react(room_id, request["event_id"], YES),
            bob.react(room_id, packet["event_id"], PACKET),
            carol.react(room_id, packet["event_id"], PACKET),
        )
        await asyncio.sleep(chance.uniform(0, 0.2))
        pid = json.loads(await home.weft("status", "--json"))["pids"]["services"]
        os.kill(pid, signal.SIGKILL)
        await tapping
        await alice.reads(room_id, f"* ✅ Bob paid Alice the €1.00 that was asked for · number {number}")
        await alice.reads(room_id, f"number {number}\nIt is empty: 2 of 2")
    after = await balances(home)
    assert sum(after.values()) == total
    assert after[alice.user_id] == before[alice.user_id]
    receipts = [memo for memo in alice.receipts_seen(room_id) if memo.startswith("number")]
    assert sorted(receipts) == [f"number {number}" for number in range(ROUNDS_OF_KILLING)]
    await home.weft("wallet", "verify")


def _says(words: str, event: dict[str, Any]) -> bool:
    return words in str(event["content"].get("body", ""))
