"""Other servers' events are not blocked, and their invites of services are not accepted unasked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from appservices.vocabulary.events import EXTENSION, RECEIPT
from tests.certificates import LocalAuthority
from tests.extensions import module_config, register_services
from tests.synapse import JsonObject, MatrixRefused, MatrixUser, Synapse, eventually


@pytest.fixture
def homeservers(tmp_path: Path) -> Iterator[tuple[Synapse, Synapse]]:
    """One with the module and one without."""
    authority = LocalAuthority.make(tmp_path / "authority")
    with (
        Synapse(tmp_path / "guarded", authority=authority) as guarded,
        Synapse(tmp_path / "stock", authority=authority) as stock,
    ):
        guarded.start(module_config(guarded))
        stock.start()
        yield guarded, stock


async def test_other_servers_are_neither_blocked_nor_served(homeservers: tuple[Synapse, Synapse]) -> None:
    guarded, stock = homeservers
    wallet = await register_services(guarded)
    alice, bob = await guarded.register("alice"), await stock.register("bob")
    room_id = await bob.create_room(name="Tea", invite=[alice.user_id, wallet.user_id])

    await join_remotely(alice, room_id, via=stock.server_name)
    forged = {"msgtype": "m.notice", "body": "Bob paid Alice €1,000", RECEIPT: {"id": "0" * 32}}
    await bob.send(room_id, forged)
    await bob.put_state(room_id, EXTENSION, {"enabled": "of another version"}, state_key="dancing")

    async def seen_by_alice() -> JsonObject | None:
        return next((event for event in await alice.messages(room_id) if RECEIPT in event["content"]), None)

    assert (await eventually(seen_by_alice))["sender"] == bob.user_id
    assert await alice.state(room_id, EXTENSION, state_key="dancing") is not None
    with pytest.raises(MatrixRefused):
        await alice.send(room_id, forged)
    # The remote invite still waits for the service's own decision; a local one is accepted at once.
    assert await bob.membership(room_id, wallet.user_id) == "invite"
    other_id = await bob.create_room(
        name="Cake", invite=[alice.user_id], power_level_content_override={"invite": 0}
    )
    await join_remotely(alice, other_id, via=stock.server_name)
    await alice.invite(other_id, wallet.user_id)

    async def wallet_joined() -> bool:
        return await bob.membership(other_id, wallet.user_id) == "join"

    await eventually(wallet_joined)


async def join_remotely(user: MatrixUser, room_id: str, *, via: str) -> None:
    """Tries until the invite has arrived."""

    async def accepted() -> bool:
        try:
            await user.join(room_id, via=via)
        except MatrixRefused:
            return False
        return True

    await eventually(accepted)
