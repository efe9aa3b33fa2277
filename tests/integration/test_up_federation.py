"""Two Wefts on one machine, started with the same `--ca`: they federate, certificates checked."""

from __future__ import annotations

from tests.stack import Stack
from tests.synapse import eventually


async def test_two_that_share_an_authority_bring_their_users_together(
    two_stacks: tuple[Stack, Stack],
) -> None:
    here, there = two_stacks
    alice = await here.register("alice.travels")
    bob = await there.register("bob.receives")
    room_id = await alice.create_room(invite=[bob.user_id])

    async def joined() -> bool:
        invited = (await bob.request("GET", "/sync", parameters={"timeout": "0"})).get("rooms", {})
        if room_id in invited.get("invite", {}):
            await bob.join(room_id, via=here.server_name)
        return room_id in await bob.joined_rooms()

    await eventually(joined)
    await bob.send(room_id, {"msgtype": "m.text", "body": "hello over there"})

    async def heard() -> bool:
        return any(
            event["content"].get("body") == "hello over there" for event in await alice.messages(room_id)
        )

    await eventually(heard)


async def test_a_users_money_stays_on_their_own_homeserver(two_stacks: tuple[Stack, Stack]) -> None:
    here, there = two_stacks
    guest = await there.register("guest.with.money")
    refused = here.weft("wallet", "deposit", guest.user_id, "5 EUR")
    assert refused.returncode == 1
    assert here.server_name in refused.stderr
    there.deposit(guest.user_id, "5 EUR")
    assert guest.user_id in there.weft("wallet", "balances").stdout
    assert there.weft("wallet", "verify").returncode == 0
