"""Which messages are commands, who answers them, and what is told to whom."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from appservices.chassis.commands import Command, CommandCall, CommandRouter
from appservices.chassis.database import Write
from appservices.chassis.inbox import StoredEvent
from appservices.chassis.messages import IncomingMessage, shown_name
from appservices.chassis.rooms import Members, Room
from appservices.vocabulary.ids import EventId, RoomId, UserId

HOME, WALLET = UserId("@weft:a"), UserId("@wallet:a")
ALICE, BOB, STRANGER = UserId("@alice:a"), UserId("@bob:a"), UserId("@carol:b")
SERVICES = (HOME, WALLET)


def room(*joined: str, invited: Sequence[str] = (), is_closed: bool = True) -> Room:
    members = Members(
        {UserId(user): None for user in joined}, frozenset(UserId(user) for user in invited), is_closed
    )
    return Room(RoomId("!r"), members, frozenset(SERVICES))


PRIVATE = room(ALICE, HOME, WALLET)
GROUP = room(ALICE, BOB, WALLET)


async def balance(call: CommandCall) -> Sequence[Write]:
    return call.answer_privately(f"balance of {call.sender}")


def router(service_user: UserId = WALLET) -> CommandRouter:
    name = "balance" if service_user == WALLET else "login"
    return CommandRouter(
        service_user=service_user,
        service_users=SERVICES,
        commands=[Command(name, f"!{name}", "shows", f"!{name}", balance)],
        clock=lambda: 0,
    )


async def answers(
    text: str, where: Room, *, sender: UserId = ALICE, service_user: UserId = WALLET
) -> list[tuple[str, str]]:
    """Destination and body of everything that the service says to a message."""
    message = IncomingMessage(EventId("$e"), where.room_id, sender, text, None)
    stored = StoredEvent(1, where.room_id, EventId("$e"), {}, 0)
    writes = await router(service_user).route(message, where, stored)
    said: list[dict[str, Any]] = [dict(write.parameters) for write in writes or ()]
    return [(row["room_id"] or row["to_user"], json.loads(row["content"])["body"]) for row in said]


@pytest.mark.parametrize("text", ["!balance", "balance", "!Balance", "！balance", "BALANCE", "!balance\n"])
async def test_alone_with_somebody_the_mark_may_be_left_out(text: str) -> None:
    assert await answers(text, PRIVATE) == [("!r", "balance of @alice:a")]


async def test_in_a_group_a_private_matter_is_answered_directly() -> None:
    where, body = (await answers("!balance", GROUP))[0]
    assert (where, body) == (ALICE, "balance of @alice:a")
    assert await answers("balance", GROUP) == []


@pytest.mark.parametrize(
    "where",
    [
        room(ALICE, WALLET, invited=[BOB]),
        room(ALICE, WALLET, "@wallet:b"),
        room(ALICE, WALLET, is_closed=False),
    ],
)
async def test_a_room_where_somebody_else_may_read_is_not_private(where: Room) -> None:
    assert (await answers("!balance", where))[0][0] == ALICE


async def test_unknown_input_is_answered_once_by_the_first_service_there() -> None:
    assert len(await answers("!nonsense", PRIVATE, service_user=HOME)) == 1
    assert await answers("!nonsense", PRIVATE, service_user=WALLET) == []
    assert len(await answers("!nonsense", GROUP, service_user=WALLET)) == 1
    assert await answers("good morning", GROUP) == []
    assert await answers("!!", GROUP) == await answers("! ", GROUP) == []


async def test_each_service_leaves_the_others_their_commands() -> None:
    assert await answers("!balance", PRIVATE, service_user=HOME) == []
    assert await answers("login", PRIVATE, service_user=WALLET) == []


async def test_each_service_lists_its_own_commands() -> None:
    for service_user, name in ((WALLET, "!balance"), (HOME, "!login")):
        ((_, body),) = await answers("help", PRIVATE, service_user=service_user)
        assert name in body and "!help" in body


async def test_people_of_other_servers_are_sent_to_their_own_service() -> None:
    where = room(ALICE, STRANGER, WALLET)
    ((_, body),) = await answers("!balance", where, sender=STRANGER)
    assert "@wallet:b" in body
    with_own = room(ALICE, STRANGER, WALLET, "@wallet:b")
    assert await answers("!balance", with_own, sender=STRANGER) == []
    assert await answers("!nonsense", where, sender=STRANGER) == []


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (None, "@alice:a"),
        ("  \n ", "@alice:a"),
        ("Alice\nBob paid you", "Alice Bob paid you"),
        ("\u202eecilA", "ecilA"),
        ("x" * 100, "x" * 63 + "…"),
    ],
)
def test_a_display_name_can_not_disturb_the_sentence_around_it(given: str | None, shown: str) -> None:
    assert shown_name(ALICE, given) == shown
