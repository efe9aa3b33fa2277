"""Alice pays Bob, each with their own homeserver and wallet, over nothing but Matrix federation."""

from __future__ import annotations

import json
from typing import Any

import httpx

from appservices.vocabulary.events import RECEIPT
from appservices.vocabulary.signing import verify_json
from tests.stack import Stack
from tests.synapse import WAIT_SECONDS_MAX, MatrixUser, eventually


def make_peers(*stacks: Stack, limit: str = "1000 EUR") -> None:
    for one in stacks:
        for other in stacks:
            if one is not other:
                done = one.weft("wallet", "peer", "add", other.server_name, "--credit-limit", limit)
                assert done.returncode == 0, done.stderr


def peers_of(stack: Stack) -> list[dict[str, Any]]:
    peers: list[dict[str, Any]] = json.loads(stack.weft("wallet", "peers", "--json").stdout)
    return peers


async def test_a_payment_in_a_shared_room_is_told_there_with_a_receipt_that_verifies(
    two_stacks: tuple[Stack, Stack],
) -> None:
    here, there = two_stacks
    make_peers(here, there)
    alice, bob = await here.register("alice.clears"), await there.register("bob.clears")
    here.deposit(alice.user_id, "100 EUR")
    room_id = await alice.create_room(invite=[bob.user_id, here.wallet_user])
    await joined(bob, room_id, via=here)
    await eventually(lambda: has_joined(alice, room_id, here.wallet_user))
    await alice.send(room_id, {"msgtype": "m.text", "body": f"!pay {bob.user_id} 12.50 EUR lunch"})
    receipt = await eventually(lambda: receipt_in(bob, room_id))
    async with httpx.AsyncClient(timeout=WAIT_SECONDS_MAX) as client:
        keys = (await client.get(f"{here.web_url}/_weft/wallet/keys")).json()["keys"]
    verify_json(receipt, signer=here.wallet_user, keys=keys)
    assert (receipt["state"], receipt["payee"], receipt["amount_minor"]) == ("posted", bob.user_id, "1250")
    assert bob.user_id in there.weft("wallet", "balances").stdout
    (peer,) = peers_of(there)
    assert peer["positions"][0]["owed_minor"] == "1250"
    (peer,) = peers_of(here)
    assert peer["positions"][0]["owed_minor"] == "-1250"
    for stack in two_stacks:
        assert stack.weft("wallet", "verify").returncode == 0


async def joined(user: MatrixUser, room_id: str, *, via: Stack) -> None:
    async def look() -> bool:
        invited = (await user.request("GET", "/sync", parameters={"timeout": "0"})).get("rooms", {})
        if room_id in invited.get("invite", {}):
            await user.join(room_id, via=via.server_name)
        return room_id in await user.joined_rooms()

    await eventually(look)


async def has_joined(user: MatrixUser, room_id: str, other: str) -> bool:
    members = await user.request("GET", f"/rooms/{room_id}/joined_members")
    return other in members["joined"]


async def receipt_in(user: MatrixUser, room_id: str) -> Any:
    for event in await user.messages(room_id):
        if RECEIPT in event["content"]:
            return event["content"][RECEIPT]
    return None
