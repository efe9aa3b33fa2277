"""Payments as people make them: in rooms, plain and encrypted, on a Weft that is killed in between."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import yaml

from appservices.vocabulary.events import KEYS, RECEIPT
from appservices.vocabulary.schemas import check_block
from appservices.vocabulary.signing import verify_json
from scripts.story.homes import Home, homes_in
from scripts.story.person import Person
from tests.synapse import WAIT_SECONDS_MAX

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUNDS_OF_KILLING = 6


@pytest.fixture(scope="module")
async def home(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Home]:
    (home,) = homes_in(tmp_path_factory.mktemp("home"), "Home")
    await home.start()
    yield home
    await home.stop()


@pytest.fixture(scope="module")
async def alice(home: Home, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Person]:
    async for person in signed_up("Alice", home, tmp_path_factory.mktemp("alice")):
        yield person


@pytest.fixture(scope="module")
async def bob(home: Home, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Person]:
    async for person in signed_up("Bob", home, tmp_path_factory.mktemp("bob")):
        yield person


async def signed_up(name: str, home: Home, folder: Path) -> AsyncIterator[Person]:
    person = Person(name, home, folder)
    await person.sign_up()
    yield person
    await person.sign_off()


@pytest.fixture(scope="module")
async def rich_alice(home: Home, alice: Person) -> Person:
    await alice.home_room()
    await home.weft("wallet", "deposit", alice.user_id, "500", "EUR")
    return alice


@pytest.fixture(scope="module")
async def lunch(rich_alice: Person, bob: Person) -> str:
    return await shared_room(rich_alice, bob, encrypted=False)


async def shared_room(alice: Person, bob: Person, *, encrypted: bool) -> str:
    wallet = alice.home.user("wallet")
    room_id = await alice.make_room("Lunch", encrypted=encrypted, invite=[bob.user_id, wallet])
    await bob.join(room_id)
    for person in (alice, bob):
        await person.sees_members(room_id, alice.user_id, bob.user_id, wallet, encrypted=encrypted)
    return room_id


async def asked(person: Person, room_id: str, text: str) -> str:
    """The wallet's answer to a command."""
    event_id = await person.say(room_id, text)
    answer = await person.answer_to(room_id, event_id, sender=person.home.user("wallet"))
    return str(answer["content"]["body"])


async def balances(home: Home) -> dict[str, int]:
    rows = json.loads(await home.weft("wallet", "balances", "--json"))
    return {row["user"]: int(row["available_minor"]) for row in rows}


async def kill(home: Home, victim: str) -> None:
    pid = json.loads(await home.weft("status", "--json"))["pids"][victim]
    os.kill(pid, signal.SIGKILL)


async def until_ready(home: Home) -> None:
    async with asyncio.timeout(60), httpx.AsyncClient(timeout=WAIT_SECONDS_MAX) as http:
        while True:
            try:
                if (await http.get(f"{home.portal_url}/_weft/health")).status_code == 200 and (
                    await http.get(f"{home.url}/_matrix/client/versions")
                ).status_code == 200:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
async def test_a_payment_is_seen_by_both_and_its_receipt_verifies(
    rich_alice: Person, bob: Person, encrypted: bool
) -> None:
    room_id = await shared_room(rich_alice, bob, encrypted=encrypted)
    before = await balances(rich_alice.home)
    memo = f"lunch {encrypted}"
    await rich_alice.say(room_id, f"!pay {bob.user_id} 12.50 EUR {memo}")
    seen = [await person.receipt(room_id, memo) for person in (rich_alice, bob)]
    assert seen[0] == seen[1]
    assert seen[0]["body"] == f"Alice paid Bob €12.50 · {memo}"
    assert seen[0]["msgtype"] == "m.notice"
    receipt = seen[0][RECEIPT]
    check_block("receipt", receipt)
    async with httpx.AsyncClient(timeout=WAIT_SECONDS_MAX) as http:
        published = (await http.get(f"{rich_alice.home.portal_url}/_weft/wallet/keys")).json()
    verify_json(receipt, signer=receipt["wallet"], keys=published["keys"])
    assert receipt["room_id"] == room_id
    after = await balances(rich_alice.home)
    assert after[rich_alice.user_id] == before[rich_alice.user_id] - 1250
    assert after[bob.user_id] == before.get(bob.user_id, 0) + 1250


async def test_bad_input_gets_one_sentence_and_changes_nothing(
    rich_alice: Person, bob: Person, lunch: str
) -> None:
    before = await balances(rich_alice.home)
    server = rich_alice.home.server_name
    for text in (
        "!pay",
        "!pay Bob",
        "!pay Bob lunch",
        "!pay Bob 0",
        "!pay Bob 0.00 EUR",
        "!pay Bob -5 EUR",
        "!pay Bob 12.505 EUR",
        "!pay Bob 5 XXX",
        "!pay Bob 5 $",
        "!pay Bob 1e3",
        "!pay Bob NaN EUR",
        "!pay Bob 99999999999999999999999 EUR",
        "!pay Bob 10000.01 EUR",
        "!pay Bob 501 EUR",
        "!pay Bob 1 000 EUR",
        f"!pay @nobody:{server} 5 EUR",
        "!pay @bob:elsewhere.example 5 EUR",
        "!pay nobody 5 EUR",
        f"!pay {rich_alice.user_id} 5 EUR",
        f"!pay @wallet:{server} 5 EUR",
        f"!pay Bob 5 EUR {'x' * 300}",
        "!history 0",
        "!history many",
        "!balance please",
        "!paay Bob 5 EUR",
    ):
        answer = await asked(rich_alice, lunch, text)
        assert answer and "\n" not in answer, text
    assert await balances(rich_alice.home) == before


async def test_money_matters_are_told_in_private(rich_alice: Person, bob: Person, lunch: str) -> None:
    room_id = await rich_alice.home_room()
    assert (await asked(rich_alice, room_id, "balance")).startswith("You have €")
    assert (await asked(rich_alice, room_id, "!Balance")).startswith("You have €")
    assert "direct room" in await asked(rich_alice, lunch, "!balance")
    assert "deposit" in await asked(rich_alice, room_id, "history 50")
    await rich_alice.hears(
        room_id,
        lambda event: (
            event["content"].get("body", "").startswith("You have €")
            and "m.relates_to" not in event["content"]
        ),
        "the balance by direct message",
    )
    told = await asked(rich_alice, lunch, "!pay Bob 9999 EUR")
    assert "€" not in told


async def test_a_newcomer_is_told_in_their_home_what_to_write(rich_alice: Person) -> None:
    room_id = await rich_alice.home_room()
    greeting = await rich_alice.hears(
        room_id, lambda event: event["content"].get("body", "").startswith("Welcome!"), "the welcome"
    )
    assert greeting["sender"] == rich_alice.home.user("weft")
    assert "balance" in greeting["content"]["body"]


@pytest.mark.parametrize("openness", ["joinable", "readable", "friends to come"])
async def test_a_room_where_one_happens_to_be_alone_is_not_told_secrets(
    rich_alice: Person, lunch: str, openness: str
) -> None:
    home_id = await rich_alice.home_room()
    wallet = rich_alice.home.user("wallet")
    state = {
        "joinable": [{"type": "m.room.join_rules", "content": {"join_rule": "public"}}],
        "readable": [
            {"type": "m.room.history_visibility", "content": {"history_visibility": "world_readable"}}
        ],
        "friends to come": [],
    }[openness]
    answer = await rich_alice.client.room_create(name="Shop", invite=[wallet], initial_state=state)
    room_id = answer.room_id
    await rich_alice.sees_members(room_id, wallet)
    if openness != "friends to come":
        assert "direct room" in await asked(rich_alice, room_id, "!balance")
    # What is asked elsewhere is answered in the Home room, not here.
    question = await rich_alice.say(lunch, f"!pay Bob {9000 + len(openness)} EUR")
    await rich_alice.answer_to(lunch, question, sender=wallet)
    await asked(rich_alice, lunch, "!balance")
    await rich_alice.hears(
        home_id, lambda event: "more than you have" in event["content"].get("body", ""), "the refusal"
    )
    await asked(rich_alice, home_id, "balance")
    assert not any("€" in body for body in rich_alice.bodies_seen(room_id, sender=wallet))


async def test_a_receipt_answers_the_command_that_it_is_for(
    rich_alice: Person, bob: Person, lunch: str
) -> None:
    event_id = await rich_alice.say(lunch, "!pay\tBob\u00a01 EUR answered")
    answer = await bob.answer_to(lunch, event_id, sender=rich_alice.home.user("wallet"))
    assert answer["content"][RECEIPT]["memo"] == "answered"


async def test_the_wallets_keys_stand_in_the_home_room(rich_alice: Person) -> None:
    room_id = await rich_alice.home_room()
    wallet = rich_alice.home.user("wallet")
    async with asyncio.timeout(60):
        while True:
            answer = await rich_alice.client.room_get_state_event(room_id, KEYS, wallet)
            if getattr(answer, "content", {}).get("keys"):
                break
            await asyncio.sleep(0.2)
    check_block("keys", answer.content)


async def test_the_same_event_delivered_again_is_one_payment(
    rich_alice: Person, bob: Person, lunch: str
) -> None:
    home = rich_alice.home
    event_id = await rich_alice.say(lunch, "!pay Bob 1 EUR twice")
    await rich_alice.receipt(lunch, "twice")
    before = await balances(home)
    registration = yaml.safe_load((home.folder / "registrations" / "wallet.yaml").read_text())
    event = {
        "type": "m.room.message",
        "event_id": event_id,
        "room_id": lunch,
        "sender": rich_alice.user_id,
        "origin_server_ts": 1,
        "content": {"msgtype": "m.text", "body": "!pay Bob 1 EUR twice"},
    }
    async with httpx.AsyncClient(
        base_url=f"{registration['url']}/_matrix/app/v1/",
        headers={"Authorization": f"Bearer {registration['hs_token']}"},
        timeout=WAIT_SECONDS_MAX,
    ) as http:
        for transaction_id in ("again-1", "again-1", "again-2"):
            answer = await http.put(f"transactions/{transaction_id}", json={"events": [event]})
            assert answer.status_code == 200
        for body in ("", "[]", '{"events": 5}', '{"events": [5, {}]}', "{"):
            answer = await http.put(f"transactions/bad-{len(body)}", content=body)
            assert answer.status_code in (200, 400)
        wrong = {"Authorization": "Bearer wrong"}
        assert (await http.put("transactions/t", json={"events": [event]}, headers=wrong)).status_code == 403
        assert (await http.get(f"users/{home.user('wallet')}")).status_code == 200
        assert (await http.get(f"users/{home.user('nobody')}")).status_code == 404
        assert (await http.post("ping", json={})).status_code == 200
    async with httpx.AsyncClient(timeout=WAIT_SECONDS_MAX) as http:
        bare = await http.put(f"{registration['url']}/_matrix/app/v1/transactions/t", json={"events": []})
        assert bare.status_code == 401
    await asked(rich_alice, lunch, "!history x")
    assert await balances(home) == before


async def test_what_is_owed_to_the_outbox_is_sent_after_the_service_was_away(
    rich_alice: Person, bob: Person
) -> None:
    home = rich_alice.home
    room_id = await bob.home_room()
    await home.weft("down")
    # The command line works while nothing runs; whether Bob exists can't be asked then, he is known.
    await home.start()
    await home.weft("wallet", "deposit", bob.user_id, "3", "EUR", "--reference", "while away")
    content = await bob.receipt(room_id, "while away")
    assert content[RECEIPT]["kind"] == "deposit"


@pytest.mark.parametrize("victim", ["services", "synapse"])
async def test_killing_a_process_at_any_moment_loses_and_doubles_nothing(
    rich_alice: Person, bob: Person, victim: str
) -> None:
    home = rich_alice.home
    room_id = await shared_room(rich_alice, bob, encrypted=victim == "services")
    before = await balances(home)
    chance = random.Random(victim)
    memos = []
    for number in range(ROUNDS_OF_KILLING):
        memo = f"{victim} {number}"
        memos.append(memo)
        sending = asyncio.create_task(rich_alice.say(room_id, f"!pay Bob 1 EUR {memo}"))
        await asyncio.sleep(chance.uniform(0, 0.15))
        await kill(home, victim)
        await until_ready(home)
        # The client itself tries again, under the same transaction id.
        await sending
    for memo in memos:
        await bob.receipt(room_id, memo)
    after = await balances(home)
    assert after[bob.user_id] == before.get(bob.user_id, 0) + 100 * len(memos)
    assert after[rich_alice.user_id] == before[rich_alice.user_id] - 100 * len(memos)
    assert sorted(bob.receipts_seen(room_id)) == sorted(memos)
    await home.weft("wallet", "verify")
