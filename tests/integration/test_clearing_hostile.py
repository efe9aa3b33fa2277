"""A wallet of another homeserver that lies, over real federation: nothing it does loses anybody's money.

What may come is rejected and the link goes on; what can't be right stops the link, as docs/protocol/links.md
says, until both operators mend it. Either way it is counted where operators look.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
import yaml

from appservices.chassis.clock import system_clock
from appservices.chassis.config import load_config
from appservices.chassis.links.protocol import MESSAGE_BYTES_MAX
from appservices.vocabulary.ids import UserId, derived_id
from appservices.vocabulary.signing import SigningKey, signed_bytes
from scripts.weft_cli.composition import open_wallet
from tests.hostile_wallet import HostileWallet, hostile_synapse
from tests.severed import Payer
from tests.stack import Stack
from tests.synapse import JsonObject, MatrixRefused, eventually
from wallet_appservice.clearing.overview import peers_overview
from wallet_appservice.clearing.peers import Peers
from wallet_appservice.storage.ledger_check import verify

LIMIT_MINOR = 50_000
FLOOD_NOTES = 200


@dataclass
class Siege:
    """An honest stack and whoever is hostile to it."""

    stack: Stack
    hostile: HostileWallet
    alice: Payer
    bob: Payer
    olga: Payer
    """The operator."""

    @property
    def victim(self) -> str:
        return self.bob.user_id

    async def peer(self) -> JsonObject:
        """What `weft wallet peers` and the page show of the hostile one."""
        async with open_wallet(load_config(self.stack.data)) as payments:
            till = payments.till
            peers = Peers(database=till.database, ledger=till.ledger, clock=system_clock)
            (peer,) = await peers_overview(till.database, peers)
        return peer

    async def count(self, name: str) -> int:
        return int((await self.peer())["link"]["counts"].get(name, 0))

    async def counted(self, name: str, number: int) -> None:
        """Until so many were counted; they are written down once a second."""

        async def look() -> bool:
            return await self.count(name) >= number

        await eventually(look)

    async def owed_minor(self) -> int:
        return sum(int(position["owed_minor"]) for position in (await self.peer())["positions"])

    async def people_minor(self) -> tuple[int, int]:
        """What people have, and what of it is held."""
        async with open_wallet(load_config(self.stack.data)) as payments:
            shown = await payments.all_balances()
        return sum(item.posted_minor for item in shown), sum(item.pending_minor for item in shown)

    async def proven(self) -> bool:
        async with open_wallet(load_config(self.stack.data)) as payments:
            return (await verify(payments.till.database)).is_right

    def mend(self) -> None:
        done = self.stack.weft("wallet", "peer", "mend", self.hostile.server_name)
        assert done.returncode == 0, done.stderr

    async def page(self) -> str:
        url = f"{self.stack.web_url}/operator/peers"
        async with httpx.AsyncClient(headers={"Accept": "text/html"}) as client:
            answer = await client.get(url, headers=self.olga.headers)
        answer.raise_for_status()
        return answer.text

    async def pay_there(self, minor: int, name: str) -> tuple[JsonObject, asyncio.Task[str]]:
        """Alice pays somebody of the hostile server; what its wallet is asked, and how it will end."""
        paying = asyncio.create_task(self.alice.pay(f"@trudy:{self.hostile.server_name}", minor, name))
        id = derived_id("severed", self.alice.user_id, name)

        async def asked() -> JsonObject | None:
            return next((item for item in await self.hostile.items() if item.get("id") == id), None)

        return await eventually(asked, seconds_max=30), paying


@pytest.fixture(scope="module")
def besieged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siege]:
    folder = tmp_path_factory.mktemp("siege")
    authority_folder = folder / "authority"
    stack = Stack(folder / "honest", authority_folder=authority_folder)
    operator = f"@olga:{stack.server_name}"
    done = stack.weft(
        "init", "--server-name", stack.server_name, "--port", str(stack.port), "--ca", str(authority_folder)
    )
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load((stack.data / "weft.yaml").read_text())
    config["web"]["operators"] = [operator]
    (stack.data / "weft.yaml").write_text(yaml.safe_dump(config))
    hostile = hostile_synapse(folder / "hostile", authority_folder=authority_folder)
    try:
        stack.start()

        async def gather() -> Siege:
            wallet = await HostileWallet.on(hostile, stack.wallet_user)
            people = [await Payer.sign_in(stack, name, "100 EUR") for name in ("alice", "bob", "olga")]
            limit = f"{LIMIT_MINOR // 100} EUR"
            done = stack.weft("wallet", "peer", "add", wallet.server_name, "--credit-limit", limit)
            assert done.returncode == 0, done.stderr
            await wallet.open()
            return Siege(stack, wallet, *people)

        yield asyncio.run(gather())
        verified = stack.weft("wallet", "verify")
        assert verified.returncode == 0, verified.stdout + verified.stderr
    finally:
        stack.stop()
        hostile.stop()


@pytest.fixture
async def siege(besieged: Siege) -> AsyncIterator[Siege]:
    """The link is open before each test; after it the books are right and the honest go on paying."""
    link = (await besieged.peer())["link"]
    if link is not None and link["state"] != "open":
        besieged.mend()

        async def is_open() -> bool:
            return bool((await besieged.peer())["link"]["state"] == "open")

        await eventually(is_open, seconds_max=15)
        besieged.hostile.begin_anew()
    yield besieged
    honest = await besieged.alice.pay(besieged.victim, 1, f"honest {time.monotonic_ns()}")
    assert honest == "posted"
    assert (await besieged.people_minor())[0] - await besieged.owed_minor() == 30_000
    assert await besieged.proven()


async def test_a_forged_signature_stops_the_link_and_credits_nobody(siege: Siege) -> None:
    hostile, owed_minor = siege.hostile, await siege.owed_minor()
    forger = SigningKey.generate()
    message = await hostile.message(hostile.prepare(siege.victim, "forged"))
    await hostile.say(hostile.prepare(siege.victim, "before it"))
    assert (await hostile.answer(derived_id("hostile", "before it")))["kind"] == "fulfill"
    hostile_key, hostile.key = hostile.key, forger
    await hostile.send(hostile.signed(message))
    hostile.key = hostile_key
    assert await hostile.stopped() == "signature_wrong"
    assert await siege.owed_minor() == owed_minor + 1
    await siege.counted("signature_wrong", 1)


async def test_a_replayed_message_is_applied_once_and_counted(siege: Siege) -> None:
    hostile, owed_minor, repeated = siege.hostile, await siege.owed_minor(), await siege.count("repeated")
    content = await hostile.say(hostile.prepare(siege.victim, "replayed"))
    await hostile.answer(derived_id("hostile", "replayed"))
    for _ in range(3):
        await hostile.send(content)
    await hostile.say(hostile.prepare(siege.victim, "after it"))
    assert (await hostile.answer(derived_id("hostile", "after it")))["kind"] == "fulfill"
    assert await siege.owed_minor() == owed_minor + 2
    await siege.counted("repeated", repeated + 3)


async def test_a_number_with_other_content_stops_the_link_and_the_first_one_counts(siege: Siege) -> None:
    hostile, owed_minor = siege.hostile, await siege.owed_minor()
    before = hostile.chain
    await hostile.say(hostile.prepare(siege.victim, "first"))
    assert (await hostile.answer(derived_id("hostile", "first")))["kind"] == "fulfill"
    other = await hostile.message(hostile.prepare(siege.victim, "other"), seq=hostile.seq, prev=before)
    await hostile.send(hostile.signed(other))
    assert await hostile.stopped() == "forked"
    assert await siege.owed_minor() == owed_minor + 1
    # The operator is told in a direct message, on the command line and on the page.
    peer = await siege.peer()
    assert (peer["link"]["state"], peer["link"]["reason"]) == ("stopped", "forked")
    assert "forked" in siege.stack.weft("wallet", "peers").stdout
    assert "forked" in await siege.page()

    async def told() -> bool:
        rooms = (await siege.olga.user.request("GET", "/sync", parameters={"timeout": "0"}))["rooms"]
        for room_id in rooms.get("invite", {}):
            await siege.olga.user.join(room_id)
        for room_id in await siege.olga.user.joined_rooms():
            for event in await siege.olga.user.messages(room_id):
                if "has stopped (forked" in event["content"].get("body", ""):
                    return True
        return False

    await eventually(told, seconds_max=30)


async def test_a_gap_is_asked_for_and_nothing_is_applied_before_it_is_filled(siege: Siege) -> None:
    hostile, owed_minor = siege.hostile, await siege.owed_minor()
    await hostile.say(hostile.prepare(siege.victim, "before the gap"))
    await hostile.answer(derived_id("hostile", "before the gap"))
    missing = await hostile.next_message(hostile.prepare(siege.victim, "missing"))
    await hostile.say(hostile.prepare(siege.victim, "ahead"))

    async def asked() -> bool:
        return any(content.get("resend_from") == hostile.seq - 1 for content in await hostile.heard())

    await eventually(asked)
    assert await siege.owed_minor() == owed_minor + 1
    await siege.counted("gap", 1)
    await hostile.send(missing)
    assert (await hostile.answer(derived_id("hostile", "ahead")))["kind"] == "fulfill"
    assert await siege.owed_minor() == owed_minor + 3


async def test_what_may_not_be_is_rejected_and_counted_while_the_link_goes_on(siege: Siege) -> None:
    hostile, owed_minor = siege.hostile, await siege.owed_minor()
    here = siege.stack.server_name
    wrong: dict[str, JsonObject] = {
        "over_limit": {"amount_minor": str(LIMIT_MINOR + 1)},
        "amount_too_large": {"amount_minor": str(10**15)},
        "currency_unknown": {"currency": "XAU"},
        "payee_unknown": {"payee": f"@nobody:{here}"},
        "payee_elsewhere": {"payee": f"@trudy:{hostile.server_name}"},
        "payer_elsewhere": {"payer": siege.alice.user_id},
        "expired": {"expires_at_ms": system_clock() - 1},
        "memo_too_long": {"memo": "a\u202eb"},
        "unsupported": {"fee": {"amount_minor": "1"}},
    }
    before = (await siege.peer())["rejected"]
    await hostile.say(
        *({**hostile.prepare(siege.victim, reason), **changes} for reason, changes in wrong.items()),
        hostile.prepare(siege.victim, "far future", expires_at_ms=2**53 - 1),
    )
    for reason in wrong:
        answer = await hostile.answer(derived_id("hostile", reason))
        assert (answer["kind"], answer.get("reason")) == ("reject", reason)
    assert (await hostile.answer(derived_id("hostile", "far future")))["kind"] == "fulfill"
    assert await siege.owed_minor() == owed_minor + 1
    rejected = (await siege.peer())["rejected"]
    assert all(rejected[reason] == before.get(reason, 0) + 1 for reason in wrong)
    assert (await siege.peer())["link"]["state"] == "open"


@pytest.mark.parametrize("first", ["fulfill", "reject"])
async def test_a_second_answer_that_differs_stops_the_link_and_the_first_one_counts(
    siege: Siege, first: str
) -> None:
    hostile, held = siege.hostile, await siege.people_minor()
    asked, paying = await siege.pay_there(100, f"{first} first")
    answers: dict[str, JsonObject] = {
        "fulfill": {"kind": "fulfill", "id": asked["id"]},
        "reject": {"kind": "reject", "id": asked["id"], "reason": "over_limit"},
    }
    await hostile.say(answers.pop(first))
    assert await paying == ("posted" if first == "fulfill" else "returned")
    await hostile.say(*answers.values())
    assert await hostile.stopped() == "answered_twice"
    await siege.counted("answered_twice", 1)
    paid = 100 if first == "fulfill" else 0
    assert await siege.people_minor() == (held[0] - paid, held[1])
    assert await siege.alice.pay(f"@trudy:{hostile.server_name}", 1, f"{first} stopped") == (
        "DEV_WEFT_PEER_SILENT"
    )


async def test_both_answers_in_one_message_decide_nothing_until_the_link_is_mended(siege: Siege) -> None:
    hostile, held = siege.hostile, await siege.people_minor()
    asked, paying = await siege.pay_there(100, "both at once")
    await hostile.say(
        {"kind": "fulfill", "id": asked["id"]}, {"kind": "reject", "id": asked["id"], "reason": "expired"}
    )
    assert await hostile.stopped() == "answered_twice"
    assert await siege.people_minor() == (held[0], held[1] + 100)
    siege.mend()

    async def inquired() -> bool:
        return {"kind": "inquire", "id": asked["id"]} in await hostile.items()

    await eventually(inquired, seconds_max=30)
    hostile.begin_anew()
    await hostile.say({"kind": "reject", "id": asked["id"], "reason": "expired"})

    async def is_back() -> bool:
        return await siege.people_minor() == held

    await eventually(is_back)
    assert await paying in ("pending", "returned")


async def test_an_answer_to_what_was_never_asked_stops_the_link(siege: Siege) -> None:
    await siege.hostile.say({"kind": "fulfill", "id": "0" * 32})
    assert await siege.hostile.stopped() == "answer_unknown"
    await siege.counted("answer_unknown", 1)


async def test_a_giant_batch_is_answered_whole_and_one_above_the_size_is_none(siege: Siege) -> None:
    hostile, owed_minor = siege.hostile, await siege.owed_minor()
    prepares: list[JsonObject] = []
    while True:
        number = len(prepares)
        payee = siege.victim if number % 2 else f"@nobody{number}:{siege.stack.server_name}"
        prepares.append(hostile.prepare(payee, f"giant {number}"))
        if len(signed_bytes({"items": prepares})) > MESSAGE_BYTES_MAX - 2048:
            prepares.pop()
            break
    await hostile.say(*prepares)
    await hostile.answer(prepares[-1]["id"])
    answers = {item["id"]: item for item in await hostile.items() if item["kind"] in ("fulfill", "reject")}
    assert [answers[item["id"]]["kind"] for item in prepares[:2]] == ["reject", "fulfill"]
    assert all(item["id"] in answers for item in prepares)
    assert await siege.owed_minor() == owed_minor + len(prepares) // 2
    before = hostile.seq, hostile.chain
    with pytest.raises(MatrixRefused, match="M_TOO_LARGE"):
        await hostile.say(*(prepares * 2))
    hostile.seq, hostile.chain = before


async def test_a_thousand_and_one_items_are_no_message(siege: Siege) -> None:
    hostile = siege.hostile
    await hostile.say(*({"kind": "x"} for _ in range(1_001)))
    assert await hostile.stopped() == "unreadable"


async def test_a_flood_of_messages_keeps_nobody_from_paying_and_is_not_answered_one_by_one(
    siege: Siege,
) -> None:
    hostile = siege.hostile
    heard = len(await hostile.heard())
    note = hostile.signed(await hostile.message(wants_ack=True, sent=10**6))
    flood = [asyncio.create_task(hostile.send(note)) for _ in range(FLOOD_NOTES)]
    begun, paid = time.monotonic(), 0
    while not all(task.done() for task in flood):
        assert await siege.alice.pay(siege.victim, 1, f"in the flood {paid}", seconds_max=30) == "posted"
        paid += 1
        await asyncio.sleep(0.2)
    await asyncio.gather(*flood)
    await hostile.say(hostile.prepare(siege.victim, "after the flood"))
    assert (await hostile.answer(derived_id("hostile", "after the flood")))["kind"] == "fulfill"
    print(f"{paid} payments in {time.monotonic() - begun:.1f} s of flood")
    assert len(await hostile.heard()) - heard < FLOOD_NOTES // 2


@pytest.mark.parametrize(
    "changes",
    [
        {"amount_minor": 1},
        {"amount_minor": "NaN"},
        {"amount_minor": "-1"},
        {"amount_minor": "9" * 40},
        {"expires_at_ms": "soon"},
        {"payer": "@\u202eyllam:x"},
        {"kind": "gift"},
    ],
    ids=lambda changes: " ".join(str(value)[:8] for value in changes.values()),
)
async def test_an_item_of_another_form_stops_the_link_and_its_whole_message_is_void(
    siege: Siege, changes: JsonObject
) -> None:
    hostile, owed_minor = siege.hostile, await siege.owed_minor()
    name = f"beside {changes}"
    await hostile.say(
        hostile.prepare(siege.victim, name), {**hostile.prepare(siege.victim, f"wrong {name}"), **changes}
    )
    assert await hostile.stopped() == "unreadable"
    assert await siege.owed_minor() == owed_minor


@pytest.mark.parametrize("number", [1.5, 2**60, float("nan")])
async def test_numbers_that_matrix_does_not_have_come_past_no_homeserver(siege: Siege, number: float) -> None:
    message = await siege.hostile.message(siege.hostile.prepare(siege.victim, f"number {number}"))
    content = siege.hostile.signed(message)
    with pytest.raises((MatrixRefused, ValueError)):
        await siege.hostile.send({**content, "seq": number})


@pytest.mark.parametrize(
    "changes",
    [
        {"seq": True},
        {"seq": -1},
        {"stopped": "[/]\n\x1b[2J"},
        {"stopped": "\x00"},
        {"signatures": {}},
        {"items": [[[[]]]]},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_a_message_of_another_form_stops_the_link_with_words_of_ours(
    siege: Siege, changes: JsonObject
) -> None:
    hostile = siege.hostile
    message = await hostile.message(hostile.prepare(siege.victim, f"malformed {changes}"))
    await hostile.send({**hostile.signed(message), **changes})
    assert await hostile.stopped() in ("unreadable", "signature_wrong")
    shown = siege.stack.weft("wallet", "peers")
    assert shown.returncode == 0 and "\x1b" not in shown.stdout


async def test_a_message_nested_deeper_than_can_be_read_stops_nothing_behind_it(siege: Siege) -> None:
    hostile = siege.hostile
    message = await hostile.message(hostile.prepare(siege.victim, "deep"))
    content = hostile.signed(message)
    # As deep as a homeserver takes it: what it hands on must not choke the wallet behind it.
    depth, is_sent = 900, False
    while not is_sent:
        deep: list[Any] = []
        for _ in range(depth):
            deep = [deep]
        try:
            await hostile.send({**content, "items": deep})
            is_sent = True
        except (MatrixRefused, RecursionError):
            depth = depth * 9 // 10
    assert await hostile.stopped() in ("unreadable", "signature_wrong")
    print(f"nested {depth} deep")


async def test_nobody_but_the_wallet_of_a_peer_is_listened_to(siege: Siege) -> None:
    hostile, owed_minor = siege.hostile, await siege.owed_minor()
    mallory = await hostile.user.synapse.register("mallory")
    room_id = await siege.alice.user.create_room(invite=[mallory.user_id, siege.stack.wallet_user])
    await mallory.join(room_id, via=siege.stack.server_name)
    message = await hostile.message(hostile.prepare(siege.victim, "mallory's"))
    content = hostile.signed(replace(message, sender=UserId(mallory.user_id)))
    await mallory.send(room_id, content, event_type="dev.weft.link")
    await hostile.say(hostile.prepare(siege.victim, "after mallory"))
    await hostile.answer(derived_id("hostile", "after mallory"))
    assert await siege.owed_minor() == owed_minor + 1
