"""Services speak with everybody in their own language, in rooms of a real Synapse."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from scripts.story.homes import Home, homes_in
from scripts.story.person import Person

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
async def home(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Home]:
    (home,) = homes_in(tmp_path_factory.mktemp("home"), "Home")
    await home.start()
    yield home
    await home.stop()


@pytest.fixture(scope="module")
async def people(
    home: Home, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Person, Person]]:
    pair = tuple(Person(name, home, tmp_path_factory.mktemp(name)) for name in ("Alice", "Bob"))
    for person in pair:
        await person.sign_up()
    yield pair[0], pair[1]
    for person in pair:
        await person.sign_off()


async def asked(person: Person, room_id: str, text: str, *, service: str) -> str:
    event_id = await person.say(room_id, text)
    answer = await person.answer_to(room_id, event_id, sender=person.home.user(service))
    return str(answer["content"]["body"])


async def test_each_is_answered_in_the_language_they_have_chosen(people: tuple[Person, Person]) -> None:
    alice, _bob = people
    home = alice.home
    room_id = await alice.home_room()
    assert (await asked(alice, room_id, "!language", service="weft")).startswith("I speak English")
    assert "Deutsch" in await asked(alice, room_id, "!language Klingon", service="weft")
    assert await asked(alice, room_id, "!language german", service="weft") == "Ich spreche mit dir Deutsch."
    await home.weft("wallet", "deposit", alice.user_id, "500", "EUR", "--reference", "Start")
    assert (await alice.receipt(room_id, "Start"))["body"] == (
        "alice hat 500,00\u00a0€ als Einzahlung bekommen · Start"
    )
    assert await asked(alice, room_id, "!balance", service="wallet") == "Du hast 500,00\u00a0€"
    help_text = await asked(alice, room_id, "!help", service="wallet")
    assert "!pay <Person> <Betrag> [Notiz] — zahlt jemandem etwas" in help_text
    server = home.server_name
    assert await asked(alice, room_id, "!pay", service="wallet") == (
        f"Wem soll gezahlt werden? Beispiel: !pay @bob:{server} 12,50 EUR Mittagessen"
    )
    refused = await asked(alice, room_id, "!pay @bob 9999,99 EUR", service="wallet")
    assert refused == "Das ist mehr, als du hast: du kannst höchstens 500,00\u00a0€ zahlen."


async def test_a_receipt_is_in_its_payers_language_and_who_is_not_there_gets_it_in_theirs(
    people: tuple[Person, Person],
) -> None:
    alice, bob = people
    wallet = alice.home.user("wallet")
    alices, bobs = await alice.home_room(), await bob.home_room()
    await asked(alice, alices, "!language de", service="weft")
    await asked(bob, bobs, "language العربية", service="weft")
    await alice.say(alices, f"pay {bob.user_id} 12,50 EUR coffee")
    # A Home room that was made a moment before its person took a name may call them by their localpart.
    in_german = (await alice.receipt(alices, "coffee"))["body"].casefold()
    assert in_german == "alice hat bob 12,50\u00a0€ gezahlt · coffee"
    in_arabic = (await bob.receipt(bobs, "coffee"))["body"].casefold()
    assert in_arabic == (
        "دفع \u2068alice\u2069 إلى \u2068bob\u2069 مبلغ \u200f12.50\u00a0€ · \u2068coffee\u2069"
    )
    room_id = await alice.make_room("Lunch", encrypted=True, invite=[bob.user_id, wallet])
    await bob.join(room_id)
    for person in (alice, bob):
        await person.sees_members(room_id, alice.user_id, bob.user_id, wallet, encrypted=True)
    await bob.say(room_id, "!pay Alice 1 EUR back")
    assert "دفع" in (await alice.receipt(room_id, "back"))["body"]
    refused = await asked(alice, room_id, "!pay Carol 1 EUR", service="wallet")
    assert refused.startswith("In diesem Raum heißt niemand „Carol“.")
    assert "\u2068!pay" in await asked(bob, bobs, "!help", service="wallet")
