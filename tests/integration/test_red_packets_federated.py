"""A red packet in a room of people of two homeservers is opened by members of both."""

from __future__ import annotations

import json
from typing import Any

from appservices.vocabulary.events import RECEIPT, RED_PACKET
from tests.integration.test_clearing_federated import has_joined, joined, make_peers
from tests.integration.test_requests_federated import said_by
from tests.stack import Stack
from tests.synapse import MatrixUser, eventually

SECONDS_MAX = 60


async def test_members_of_two_servers_open_a_red_packet_each_once(two_stacks: tuple[Stack, Stack]) -> None:
    here, there = two_stacks
    make_peers(here, there)
    alice = await here.register("alice.gives")
    bob, carol = await there.register("bob.opens"), await there.register("carol.is.late")
    here.deposit(alice.user_id, "10 EUR")
    room_id = await alice.create_room(invite=[bob.user_id, carol.user_id, here.wallet_user])
    for guest in (bob, carol):
        await joined(guest, room_id, via=here)
    await eventually(lambda: has_joined(alice, room_id, here.wallet_user))
    await alice.send(room_id, {"msgtype": "m.text", "body": "!redpacket 5 EUR 2 happy new year"})
    packet = await eventually(lambda: packet_in(bob, room_id), seconds_max=SECONDS_MAX)
    await tap(bob, room_id, packet)
    await tap(alice, room_id, packet)
    found = await eventually(
        lambda: said_by(bob, there.wallet_user, "happy new year"), seconds_max=SECONDS_MAX
    )
    receipt = found["content"][RECEIPT]
    assert (receipt["kind"], receipt["payer"], receipt["payee"]) == ("share", here.wallet_user, bob.user_id)
    # Both shares have moved before the third one comes.
    await eventually(lambda: says(bob, room_id, "It is empty: 2 of 2"), seconds_max=SECONDS_MAX)
    await tap(carol, room_id, packet)
    await eventually(lambda: said_by(carol, there.wallet_user, "red packet"), seconds_max=SECONDS_MAX)
    assert balance(there, bob) == int(receipt["amount_minor"]) == 1_000 - balance(here, alice)
    assert balance(there, carol) == 0
    for stack in two_stacks:
        assert stack.weft("wallet", "verify").returncode == 0


async def packet_in(user: MatrixUser, room_id: str) -> Any:
    for event in await user.messages(room_id):
        if RED_PACKET in event["content"] and "m.new_content" not in event["content"]:
            return event["event_id"]
    return None


async def says(user: MatrixUser, room_id: str, words: str) -> bool:
    return any(words in str(event["content"].get("body", "")) for event in await user.messages(room_id))


async def tap(user: MatrixUser, room_id: str, event_id: str) -> None:
    relation = {"rel_type": "m.annotation", "event_id": event_id, "key": "🧧"}
    await user.send(room_id, {"m.relates_to": relation}, event_type="m.reaction")


def balance(stack: Stack, user: MatrixUser) -> int:
    rows = json.loads(stack.weft("wallet", "balances", "--json").stdout)
    return sum(int(row["posted_minor"]) for row in rows if row["user"] == user.user_id)
