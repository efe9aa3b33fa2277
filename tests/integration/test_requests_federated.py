"""Bob asks Alice for money, each with their own homeserver and wallet; she pays by a tap in her own room."""

from __future__ import annotations

from typing import Any

import httpx

from appservices.vocabulary.events import RECEIPT
from appservices.vocabulary.signing import verify_json
from tests.integration.test_clearing_federated import has_joined, joined, make_peers
from tests.stack import Stack
from tests.synapse import MatrixUser, eventually

SECONDS_MAX = 60


async def said_by(user: MatrixUser, sender: str, words: str) -> Any:
    """The event in any of the user's rooms, invites taken up, in which that service says so."""
    invited = (await user.request("GET", "/sync", parameters={"timeout": "0"})).get("rooms", {})
    for room_id in invited.get("invite", {}):
        await user.join(room_id)
    for room_id in await user.joined_rooms():
        for event in await user.messages(room_id):
            content = event["content"]
            shown = content.get("m.new_content", content)
            if event["sender"] == sender and words in str(shown.get("body", "")):
                return {**event, "room_id": room_id}
    return None


async def test_a_request_across_servers_is_paid_by_a_tap_and_both_sides_see_it(
    two_stacks: tuple[Stack, Stack],
) -> None:
    here, there = two_stacks
    make_peers(here, there)
    alice, bob = await here.register("alice.is.asked"), await there.register("bob.asks")
    here.deposit(alice.user_id, "100 EUR")
    room_id = await bob.create_room(invite=[alice.user_id, there.wallet_user])
    await joined(alice, room_id, via=there)
    await eventually(lambda: has_joined(bob, room_id, there.wallet_user))
    await bob.send(room_id, {"msgtype": "m.text", "body": f"!request {alice.user_id} 5 EUR dinner"})
    asked = await eventually(
        lambda: said_by(alice, here.wallet_user, "React with ✅"), seconds_max=SECONDS_MAX
    )
    relation = {"rel_type": "m.annotation", "event_id": asked["event_id"], "key": "✅"}
    await alice.send(asked["room_id"], {"m.relates_to": relation}, event_type="m.reaction")
    await eventually(lambda: said_by(bob, there.wallet_user, "✅"), seconds_max=SECONDS_MAX)
    await eventually(lambda: said_by(alice, here.wallet_user, "✅"), seconds_max=SECONDS_MAX)
    receipt = (await eventually(lambda: receipt_of(bob, "dinner"), seconds_max=SECONDS_MAX))[RECEIPT]
    async with httpx.AsyncClient() as client:
        keys = (await client.get(f"{there.web_url}/_weft/wallet/keys")).json()["keys"]
    verify_json(receipt, signer=there.wallet_user, keys=keys)
    assert (receipt["payer"], receipt["payee"], receipt["amount_minor"]) == (
        alice.user_id, bob.user_id, "500",
    )  # fmt: skip
    for stack in two_stacks:
        assert stack.weft("wallet", "verify").returncode == 0


async def receipt_of(user: MatrixUser, memo: str) -> Any:
    for room_id in await user.joined_rooms():
        for event in await user.messages(room_id):
            if event["content"].get(RECEIPT, {}).get("memo") == memo:
                return event["content"]
    return None
