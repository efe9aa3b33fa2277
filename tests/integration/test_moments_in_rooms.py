"""Moments as people use them in any Matrix client: in their Moments rooms, on a whole Weft, real Synapse."""

from __future__ import annotations

import io
from urllib.parse import quote

import pytest
from PIL import Image

from appservices.moments.distribution import UNSEEN_MAX
from appservices.vocabulary.events import CONTACT_TAGS, FUNCTIONAL_MEMBERS
from tests.contacts import become_contacts, ignore, put_account_data
from tests.moments_people import friend, friends, jpeg
from tests.stack import Stack
from tests.synapse import MatrixRefused, eventually


async def test_a_moment_is_liked_commented_on_and_taken_back_in_rooms_alone(stack: Stack) -> None:
    alice, bob, carol = await friends(stack, "alice", "bob", "carol")
    members = await alice.user.state(alice.room_id, FUNCTIONAL_MEMBERS)
    assert members == {"service_members": [f"@moments:{stack.server_name}"]}

    post = await alice.say("Lunch by the sea\n📍 Hamburg")
    for_bob = await bob.sees("Alice: Lunch by the sea\n📍 Hamburg")
    for_carol = await carol.sees("Lunch by the sea")

    like = await bob.like(for_bob["event_id"])
    await alice.sees("❤️ Bob")
    await carol.sees("Lunch by the sea\n📍 Hamburg\n❤️ Bob")

    comment = await carol.reply(for_carol["event_id"], "looks great")
    told = await alice.sees("Carol: looks great")
    assert told["content"]["m.relates_to"] == {"m.in_reply_to": {"event_id": post}}
    await bob.sees("Carol: looks great")
    await alice.reply(told["event_id"], "it was")
    answered = await carol.sees("Alice: it was", so=lambda event: "m.relates_to" in event["content"])
    assert "looks great" not in answered["content"]["body"]

    await bob.take_back(like)
    await carol.sees_no("❤️ Bob")
    await carol.take_back(comment)
    await alice.sees_no("looks great")
    await alice.take_back(post)
    for person in (bob, carol):
        await person.sees_no("Lunch by the sea")
        assert await person.moments() == []


async def test_a_stranger_among_the_audience_is_not_seen(stack: Stack) -> None:
    """Bob and Carol are both Alice's contacts, and not each other's."""
    alice, bob, carol = [await friend(stack, name) for name in ("alice", "bob", "carol")]
    await become_contacts(alice.user, bob.user)
    await become_contacts(alice.user, carol.user)
    await alice.say("New flat")
    for_bob, for_carol = await bob.sees("New flat"), await carol.sees("New flat")
    await bob.like(for_bob["event_id"])
    await bob.reply(for_bob["event_id"], "congratulations from me")
    await alice.sees("congratulations")
    await carol.reply(for_carol["event_id"], "may I visit")
    await alice.sees("may I visit")
    await bob.sees("congratulations")
    for person, stranger in ((bob, "may I visit"), (carol, "congratulations"), (carol, "❤️")):
        assert all(stranger not in str(event["content"]) for event in await person.moments())
    # They become contacts, and both see what the other had made.
    await become_contacts(bob.user, carol.user)
    await carol.sees("Bob: congratulations from me")
    await bob.sees("Carol: may I visit")


async def test_tags_and_friendships_of_now_decide_about_older_moments(stack: Stack) -> None:
    alice, bob, carol = await friends(stack, "alice", "bob", "carol")
    await put_account_data(alice.user, CONTACT_TAGS, {"tags": {"family": [bob.id]}})
    await alice.say("/tag family Grandma is here")
    await alice.say("Everybody may know")
    await bob.sees("Grandma is here")
    await carol.sees("Everybody may know")
    await carol.sees_no("Grandma")

    await put_account_data(alice.user, CONTACT_TAGS, {"tags": {"family": [carol.id]}})
    await carol.sees("Grandma is here")
    await bob.sees_no("Grandma")

    await ignore(alice.user, carol.id)
    await carol.sees_no("Everybody may know")
    await carol.sees_no("Grandma")
    await bob.sees("Everybody may know")


async def test_audiences_by_words_and_what_is_wrong_with_them(stack: Stack) -> None:
    alice, bob = await friends(stack, "alice", "bob")
    await alice.say("/me A secret")
    await alice.say("!only colleagues Nobody reads this")
    await alice.sees("You have no tags yet")
    await alice.say("/me")
    await alice.sees("There is nothing in it")
    emote = {"msgtype": "m.emote", "body": "is thinking"}
    await alice.user.send(alice.room_id, emote)
    await alice.user.send(alice.room_id, {"msgtype": "m.audio", "body": "song.mp3", "url": "mxc://a/b"})
    await alice.sees("I can take words, pictures and videos")
    await alice.say("For friends")
    await bob.sees("For friends")
    assert [event["content"]["body"] for event in await bob.moments()] == ["Alice: For friends"]


async def test_pictures_in_a_row_are_one_moment_without_where_they_were_taken(stack: Stack) -> None:
    alice, bob = await friends(stack, "alice", "bob")
    first = jpeg("crimson", with_place=True)
    assert Image.open(io.BytesIO(first)).getexif().get_ifd(0x8825)
    await alice.picture(first, caption="Three colours")
    await alice.picture(jpeg("gold"))
    last = await alice.picture(jpeg("navy"))
    message = await bob.sees("Three colours", so=lambda event: event["content"]["msgtype"] == "m.image")
    sheet = Image.open(io.BytesIO(await bob.download(message["content"]["url"])))
    assert sheet.width > sheet.height
    colours = {sheet.getpixel((column * sheet.width // 3 + 100, 100)) for column in range(3)}
    assert len(colours) == 3
    assert len(await bob.moments()) == 1

    await alice.take_back(last)
    two = await bob.sees("Three colours", so=lambda event: event["content"] != message["content"])
    assert two["event_id"] == message["event_id"]

    await alice.picture(jpeg("olive", with_place=True), caption="Alone")
    alone = await bob.sees("Alone")
    picture = Image.open(io.BytesIO(await bob.download(alone["content"]["url"])))
    assert not picture.getexif() and b"Camera" not in await bob.download(alone["content"]["url"])

    await alice.picture(b"no picture at all", caption="Broken")
    await alice.sees("That is no picture that can be read")


async def test_an_edit_changes_what_friends_see(stack: Stack) -> None:
    alice, bob = await friends(stack, "alice", "bob")
    post = await alice.say("Lunhc")
    await bob.sees("Lunhc")
    await alice.say(
        "* Lunch",
        **{
            "m.new_content": {"msgtype": "m.text", "body": "Lunch"},
            "m.relates_to": {"rel_type": "m.replace", "event_id": post},
        },
    )
    await bob.sees("Alice: Lunch")
    await bob.sees_no("Lunhc")


async def test_nobody_but_the_service_claims_to_bring_a_moment(stack: Stack) -> None:
    bob = await friend(stack, "bob")
    with pytest.raises(MatrixRefused) as refused:
        await bob.say("Alice: forged", **{"dev.weft.moment": {"id": "0" * 32, "author": bob.id}})
    assert refused.value.status == 403


async def test_a_room_that_somebody_else_has_come_into_gets_nothing_more(stack: Stack) -> None:
    alice, bob = await friends(stack, "alice", "bob")
    eve = await friend(stack, "eve")
    await bob.user.invite(bob.room_id, eve.id)
    await eve.user.join(bob.room_id)
    await alice.say("Only for friends")
    await alice.say("!tags")
    await alice.sees("You have no tags")
    assert await bob.moments() == []
    await eve.user.leave(bob.room_id)
    await alice.say("Again among us")
    await bob.sees("Again among us")


async def test_a_friend_is_added_by_command_and_tags_are_kept_in_the_account(stack: Stack) -> None:
    alice, bob = await friend(stack, "alice"), await friend(stack, "bob")
    await alice.say(f"!friend {bob.id}")
    await alice.sees("I have begun a direct chat")

    async def invited() -> str | None:
        direct = await alice.user.account_data("m.direct") or {}
        return next(iter(direct.get(bob.id, [])), None)

    room_id = await eventually(invited)
    await bob.user.join(room_id)
    await put_account_data(bob.user, "m.direct", {alice.id: [room_id]})
    await alice.say(f"!tag family {bob.id}")
    await alice.sees("family: Bob")
    assert await alice.user.account_data(CONTACT_TAGS) == {"tags": {"family": [bob.id]}}
    await alice.say("!friend @nobody_at_all:" + stack.server_name)
    await alice.sees("There is no user")
    await alice.say("!friend")
    code = await alice.sees("Others add you by this code")
    assert code["content"]["msgtype"] == "m.image"
    assert f"matrix:u/{alice.id[1:]}?action=chat" in code["content"]["body"]
    await alice.say("Hello Bob")
    await bob.sees("Hello Bob")


async def test_a_room_in_which_nobody_reads_is_not_flooded_and_catches_up_at_the_next_visit(
    stack: Stack,
) -> None:
    alice, bob = await friends(stack, "alice", "bob")
    for number in range(UNSEEN_MAX + 5):
        await alice.say(f"Moment number {number:02}.")
    # One who reads along has all of them, so all have been told by then.
    await bob.sees(f"Moment number {UNSEEN_MAX - 1:02}.")
    await alice.say("!tags")
    await alice.sees("You have no tags")
    came = [event["content"]["body"] for event in await bob.moments()]
    assert len(came) == UNSEEN_MAX and f"Alice: Moment number {UNSEEN_MAX:02}." not in came
    last = (await bob.moments())[-1]["event_id"]
    path = f"/rooms/{quote(bob.room_id)}/receipt/m.read/{quote(last)}"
    await bob.user.request("POST", path, {})
    for number in range(UNSEEN_MAX, UNSEEN_MAX + 5):
        await bob.sees(f"Moment number {number:02}.")
