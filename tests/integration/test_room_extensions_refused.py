"""An attempt that Synapse refuses does nothing, whatever others are allowed before and after it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from appservices.vocabulary.events import EXTENSION, FUNCTIONAL_MEMBERS
from tests.certificates import LocalAuthority
from tests.extensions import module_config, register_services
from tests.synapse import MatrixRefused, MatrixUser, Synapse, eventually

ENABLED: Final = {"enabled": True}
TRIES: Final = 3


@pytest.fixture
def homeservers(tmp_path: Path) -> Iterator[tuple[Synapse, Synapse]]:
    """Two with the module, each with service users of its own once they are registered."""
    authority = LocalAuthority.make(tmp_path / "authority")
    with (
        Synapse(tmp_path / "ours", authority=authority) as ours,
        Synapse(tmp_path / "theirs", authority=authority) as theirs,
    ):
        ours.start(module_config(ours))
        theirs.start(module_config(theirs))
        yield ours, theirs


@pytest.fixture
def synapse(tmp_path: Path) -> Iterator[Synapse]:
    with Synapse(tmp_path) as synapse:
        synapse.start(module_config(synapse))
        yield synapse


async def test_a_refused_attempt_is_not_done_when_another_server_enables_the_extension(
    homeservers: tuple[Synapse, Synapse],
) -> None:
    ours, theirs = homeservers
    our_wallet, their_wallet = await register_services(ours), await register_services(theirs)
    alice, bob = await ours.register("alice"), await theirs.register("bob")
    room_id = await alice.create_room(name="Tea", preset="public_chat")
    await bob.join(room_id, via=ours.server_name)
    await enable_in_vain(bob, room_id)
    await alice.put_state(room_id, EXTENSION, ENABLED, state_key="payments")

    async def bob_sees_it() -> bool:
        members = await bob.state(room_id, FUNCTIONAL_MEMBERS)
        return members == {"service_members": [our_wallet.user_id]}

    await eventually(bob_sees_it)
    await tried_again(theirs, room_id)
    assert await bob.membership(room_id, our_wallet.user_id) == "join"
    assert await bob.membership(room_id, their_wallet.user_id) is None


async def test_a_refused_invite_does_not_accept_that_of_another_server(
    homeservers: tuple[Synapse, Synapse],
) -> None:
    ours, theirs = homeservers
    their_wallet = await register_services(theirs)
    alice, bob = await ours.register("alice"), await theirs.register("bob")
    room_id = await alice.create_room(
        name="Tea", preset="public_chat", power_level_content_override={"invite": 50}
    )
    await bob.join(room_id, via=ours.server_name)
    with pytest.raises(MatrixRefused) as refused:
        await bob.invite(room_id, their_wallet.user_id)
    assert refused.value.status == 403
    await alice.invite(room_id, their_wallet.user_id)

    async def invited() -> bool:
        return await bob.membership(room_id, their_wallet.user_id) is not None

    await eventually(invited)
    await tried_again(theirs, room_id)
    assert await bob.membership(room_id, their_wallet.user_id) == "invite"


async def test_a_refused_attempt_takes_nothing_from_one_that_was_accepted(synapse: Synapse) -> None:
    alice, bob = await synapse.register("alice"), await synapse.register("bob")
    room_id = await alice.create_room(name="Tea", preset="public_chat")
    await bob.join(room_id)
    # No service user is registered yet, so the extension is still a promise when Bob tries.
    await alice.put_state(room_id, EXTENSION, ENABLED, state_key="payments")
    await enable_in_vain(bob, room_id)
    wallet = await register_services(synapse)

    async def listed() -> bool:
        return await alice.state(room_id, FUNCTIONAL_MEMBERS) == {"service_members": [wallet.user_id]}

    await eventually(listed)
    assert await alice.membership(room_id, wallet.user_id) == "join"
    inviters = {
        event["sender"]
        for event in await alice.messages(room_id)
        if event.get("state_key") == wallet.user_id and event["content"]["membership"] == "invite"
    }
    assert inviters == {alice.user_id}


async def test_an_attempt_with_other_settings_is_not_done_by_the_same_senders_older_event(
    synapse: Synapse,
) -> None:
    wallet = await register_services(synapse)
    alice, carol = await synapse.register("alice"), await synapse.register("carol")
    room_id = await alice.create_room(name="Tea", preset="public_chat")
    await carol.join(room_id)
    levels = await alice.state(room_id, "m.room.power_levels")
    assert levels is not None
    await alice.put_state(room_id, "m.room.power_levels", {**levels, "users": {carol.user_id: 100}})
    await carol.put_state(room_id, EXTENSION, ENABLED, state_key="payments")

    async def listed() -> bool:
        return await alice.state(room_id, FUNCTIONAL_MEMBERS) == {"service_members": [wallet.user_id]}

    await eventually(listed)
    await alice.put_state(room_id, "m.room.power_levels", levels)
    await alice.request("POST", f"/rooms/{room_id}/kick", {"user_id": wallet.user_id})
    await enable_in_vain(carol, room_id, {**ENABLED, "settings": {"currency": "EUR"}})
    await tried_again(synapse, room_id)
    assert await alice.membership(room_id, wallet.user_id) == "leave"


async def enable_in_vain(user: MatrixUser, room_id: str, content: Mapping[str, Any] = ENABLED) -> None:
    with pytest.raises(MatrixRefused) as refused:
        await user.put_state(room_id, EXTENSION, content, state_key="payments")
    assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")


async def tried_again(synapse: Synapse, room_id: str) -> None:
    """Waits until the room's errand was tried on what the homeserver knows now, and still waits itself."""
    seen: set[Any] = set()

    async def postponed() -> bool:
        with closing(sqlite3.connect(synapse.folder / "homeserver.db")) as database:
            rows = database.execute("SELECT due_ms FROM weft_errands WHERE lane = ?", (room_id,)).fetchall()
        seen.update(rows)
        return len(seen) > TRIES or not rows

    await eventually(postponed)
