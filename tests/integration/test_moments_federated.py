"""Moments between two Wefts over real federation, with one of them away at times."""

from __future__ import annotations

import sqlite3

from appservices.vocabulary.events import CONTACT_TAGS
from tests.contacts import become_contacts, put_account_data
from tests.moments_people import friend, friends, jpeg
from tests.stack import Stack
from tests.synapse import eventually

BOTH = tuple[Stack, Stack]


def kept(stack: Stack, text: str) -> int:
    """How many Moments with that text a server has."""
    with sqlite3.connect(f"file:{stack.data / 'moments.db'}?mode=ro", uri=True) as connection:
        query = "SELECT COUNT(*) FROM moments WHERE content LIKE ?"
        (count,) = connection.execute(query, (f"%{text}%",)).fetchone()
    return int(count)


async def test_a_moment_and_what_is_said_of_it_cross_to_those_it_is_for(two_stacks: BOTH) -> None:
    here, there = two_stacks
    alice, dave = await friends(here, "alice", "dave")
    bob, eve = [await friend(there, name) for name in ("bob", "eve")]
    for person in (bob, eve):
        await become_contacts(alice.user, person.user)
    await become_contacts(dave.user, bob.user)

    post = await alice.picture(jpeg("teal"), caption="Across the sea")
    for_bob, for_dave = await bob.sees("Across the sea"), await dave.sees("Across the sea")
    await eve.sees("Across the sea")
    assert len(await bob.download(for_bob["content"]["url"])) > 100

    await bob.like(for_bob["event_id"])
    await alice.sees("❤️ Bob")
    await dave.sees("Across the sea\n❤️ Bob")
    await dave.reply(for_dave["event_id"], "from the other side")
    await alice.sees("Dave: from the other side")
    await bob.sees("Dave: from the other side")
    await bob.reply(for_bob["event_id"], "well said")
    told = await alice.sees("Bob: well said")
    await dave.sees("Bob: well said")
    # Eve is no contact of Bob's nor Dave's: for her nothing was said.
    assert [event["content"]["body"] for event in await eve.moments()] == ["Alice: Across the sea"]
    assert told["content"]["m.relates_to"] == {"m.in_reply_to": {"event_id": post}}

    await alice.take_back(post)
    for person in (bob, eve, dave):
        await person.sees_no("Across the sea")
    assert kept(there, "Across the sea") == 0


async def test_no_server_hears_of_what_is_for_none_of_its_people(two_stacks: BOTH) -> None:
    here, there = two_stacks
    alice, dave = await friends(here, "alice", "dave")
    bob = await friend(there, "bob")
    await become_contacts(alice.user, bob.user)
    await put_account_data(alice.user, CONTACT_TAGS, {"tags": {"near": [dave.id]}})
    await alice.say("/tag near Only for Dave")
    await dave.sees("Only for Dave")
    await alice.say("For all friends")
    await bob.sees("For all friends")
    assert kept(there, "Only for Dave") == 0

    await put_account_data(alice.user, CONTACT_TAGS, {"tags": {"near": [dave.id, bob.id]}})
    await bob.sees("Only for Dave")
    await put_account_data(alice.user, CONTACT_TAGS, {"tags": {"near": [dave.id]}})
    await bob.sees_no("Only for Dave")
    assert kept(there, "Only for Dave") == 0


async def test_a_server_that_was_away_catches_up(two_stacks: BOTH) -> None:
    here, there = two_stacks
    alice, bob = await friend(here, "alice"), await friend(there, "bob")
    room_id = await become_contacts(alice.user, bob.user)
    first = await alice.say("Before the storm")
    await bob.sees("Before the storm")
    there.kill("services")
    await alice.take_back(first)
    await alice.say("In the storm")
    there.wait_until_ready()
    await bob.sees("In the storm")
    await bob.sees_no("Before the storm")

    await bob.user.leave(room_id)

    async def forgotten() -> bool:
        return kept(there, "In the storm") == 0

    await eventually(forgotten, seconds_max=30)
    await bob.sees_no("In the storm")
