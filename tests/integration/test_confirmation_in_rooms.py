"""A payment by chat above the chat limit, on a whole Weft: a private link, its page, the PIN, one payment."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator

import httpx
import pytest

from appservices.vocabulary.events import RECEIPT
from scripts.story.homes import Home, homes_in
from scripts.story.person import Person
from tests.protected_wallet import OTHER_PIN, PIN
from tests.synapse import WAIT_SECONDS_MAX

pytestmark = pytest.mark.asyncio(loop_scope="module")

_HIDDEN = re.compile(r'<input type="hidden" name="([a-z_]+)" value="([^"]*)">')


@pytest.fixture(scope="module")
async def home(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Home]:
    (home,) = homes_in(tmp_path_factory.mktemp("home"), "Home")
    await home.start()
    yield home
    await home.stop()


@pytest.fixture(scope="module")
async def people(home: Home, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[Person]]:
    people = [Person(name, home, tmp_path_factory.mktemp(name.lower())) for name in ("Alice", "Bob")]
    for person in people:
        await person.sign_up()
        await person.home_room()
    await home.weft("wallet", "deposit", people[0].user_id, "1000", "EUR")
    yield people
    for person in people:
        await person.sign_off()


async def told(person: Person, room_id: str, words: str) -> str:
    """What a service says in a room with those words in it."""
    event = await person.hears(
        room_id,
        lambda event: event["sender"] != person.user_id and words in str(event["content"].get("body", "")),
        f"“{words}”",
    )
    return str(event["content"]["body"])


async def browser_of(person: Person) -> httpx.AsyncClient:
    """A browser that the person has signed in by a link from chat."""
    room_id = await person.home_room()
    event_id = await person.say(room_id, "!login")
    answer = await person.answer_to(room_id, event_id, sender=person.home.user("weft"))
    link = re.search(r"http\S+/signin/link/[0-9a-f]+", answer["content"]["body"])
    assert link is not None
    headers = {"Sec-Fetch-Site": "same-origin", "User-Agent": "Mozilla/5.0 (X11; Linux) Firefox/140.0"}
    browser = httpx.AsyncClient(base_url=person.home.portal_url, headers=headers, timeout=WAIT_SECONDS_MAX)
    assert (await browser.post(link.group(), data={"next": "/"})).status_code == 303
    return browser


async def send(browser: httpx.AsyncClient, page: str, path: str, **fields: str) -> httpx.Response:
    text = (await browser.get(page)).text
    form = text[text.index(f'action="{path}"') :]
    hidden = dict(_HIDDEN.findall(form[: form.index("</form>")]))
    return await browser.post(path, data={**hidden, **fields})


async def balances(home: Home) -> dict[str, int]:
    rows = json.loads(await home.weft("wallet", "balances", "--json"))
    return {row["user"]: int(row["available_minor"]) for row in rows}


async def test_above_the_chat_limit_a_private_link_and_the_pin_pay_once(
    home: Home, people: list[Person]
) -> None:
    alice, bob = people
    wallet = home.user("wallet")
    room_id = await alice.make_room("Bikes", encrypted=False, invite=[bob.user_id, wallet])
    await bob.join(room_id)
    await alice.sees_members(room_id, alice.user_id, bob.user_id, wallet)
    browser = await browser_of(alice)
    done = await send(browser, "/wallet/security", "/wallet/security/pin", new_pin=PIN, new_pin_again=PIN)
    assert done.status_code == 303
    await told(alice, await alice.home_room(), "You have a PIN now (Firefox on Linux)")

    event_id = await alice.say(room_id, f"!pay {bob.user_id} 250 EUR bike")
    answer = await alice.answer_to(room_id, event_id, sender=wallet)
    assert answer["content"]["body"].startswith("Nothing was paid yet")
    private = await told(alice, await alice.home_room(), "Confirm it here within 15 minutes")
    link = re.search(r"http\S+(/wallet/confirm/[0-9a-f]{32})", private)
    assert link is not None and link.group().startswith(home.portal_url)
    assert "/wallet/confirm/" not in " ".join(alice.bodies_seen(room_id, sender=wallet))
    path = link.group(1)

    async with httpx.AsyncClient(base_url=home.portal_url, timeout=WAIT_SECONDS_MAX) as stranger:
        assert (await stranger.get(path)).headers["location"] == f"/signin?next={path}"
    bobs = await browser_of(bob)
    assert (await bobs.get(path)).status_code == 404
    await bobs.aclose()

    assert (await send(browser, path, path)).status_code == 422
    assert (await send(browser, path, path, pin=OTHER_PIN)).status_code == 422
    assert bob.user_id not in await balances(home)
    answers = await asyncio.gather(*(send(browser, path, path, pin=PIN) for _ in range(2)))
    assert 303 in {answer.status_code for answer in answers}
    receipt = await bob.receipt(room_id, "bike")
    assert receipt["m.relates_to"]["m.in_reply_to"]["event_id"] == event_id
    assert receipt[RECEIPT]["amount_minor"] == "25000"
    assert "This payment has been made." in (await browser.get(path)).text
    assert await balances(home) == {alice.user_id: 75_000, bob.user_id: 25_000}
    await browser.aclose()


async def test_a_request_above_the_chat_limit_is_paid_on_its_page(home: Home, people: list[Person]) -> None:
    alice, bob = people
    wallet = home.user("wallet")
    room_id = await bob.make_room("Tickets", encrypted=False, invite=[alice.user_id, wallet])
    await alice.join(room_id)
    await bob.sees_members(room_id, alice.user_id, bob.user_id, wallet)
    asked_id = await bob.say(room_id, f"!request {alice.user_id} 300 EUR tickets")
    asked = await bob.answer_to(room_id, asked_id, sender=wallet)
    before = await balances(home)
    await alice.hears(room_id, lambda event: event["event_id"] == asked["event_id"], "the request")
    await alice.react(room_id, asked["event_id"], "✅")
    private = await told(alice, await alice.home_room(), "Pay it here, or leave it")
    link = re.search(r"http\S+(/wallet/requests/[0-9a-f]{32})", private)
    assert link is not None
    path = link.group(1)
    browser = await browser_of(alice)
    assert (await send(browser, path, f"{path}/pay")).status_code == 422
    assert await balances(home) == before
    assert (await send(browser, path, f"{path}/pay", pin=PIN)).status_code == 303
    assert (await bob.receipt(room_id, "tickets"))[RECEIPT]["amount_minor"] == "30000"
    after = await balances(home)
    assert after[bob.user_id] - before[bob.user_id] == 30_000 == before[alice.user_id] - after[alice.user_id]
    await browser.aclose()


async def test_a_red_packet_above_ones_own_chat_limit_is_filled_on_its_page(
    home: Home, people: list[Person]
) -> None:
    alice, bob = people
    wallet = home.user("wallet")
    room_id = await alice.make_room("Luck", encrypted=False, invite=[bob.user_id, wallet])
    await bob.join(room_id)
    await alice.sees_members(room_id, alice.user_id, bob.user_id, wallet)
    browser = await browser_of(alice)
    limited = await send(browser, "/wallet/security", "/wallet/security/limits", chat="10", pin=PIN)
    assert limited.status_code == 303
    event_id = await alice.say(room_id, "!redpacket 20 EUR 1 good luck")
    answer = await alice.answer_to(room_id, event_id, sender=wallet)
    assert answer["content"]["body"].startswith("Nothing was put in")
    private = await told(alice, await alice.home_room(), "by chat without a second look (€10.00)")
    link = re.search(r"http\S+(/wallet/red-packet\?\S+)", private)
    assert link is not None
    form = {"action": "/wallet/red-packet", "amount": "20.00", "currency": "EUR", "count": "1"}
    page = await browser.get(link.group(1))
    shown = dict(_HIDDEN.findall(page.text))
    assert shown["room"] == room_id and 'value="good luck"' in page.text
    first = await browser.post(form.pop("action"), data={**form, **shown, "words": "good luck"})
    assert first.status_code == 200 and "Your PIN" in first.text
    again = {**form, **dict(_HIDDEN.findall(first.text)), "words": "good luck"}
    assert again["id"] == shown["id"]
    assert (await browser.post("/wallet/red-packet", data={**again, "pin": OTHER_PIN})).status_code == 422
    before = await balances(home)
    assert (await browser.post("/wallet/red-packet", data={**again, "pin": PIN})).status_code == 303
    packet = await bob.hears(
        room_id, lambda event: "🧧" in str(event["content"].get("body", "")), "the red packet"
    )
    await bob.react(room_id, packet["event_id"], "🧧")
    await told(bob, await bob.home_room(), "in a red packet · good luck")
    after = await balances(home)
    assert after[bob.user_id] - before[bob.user_id] == 2_000 == before[alice.user_id] - after[alice.user_id]
    await browser.aclose()


async def test_the_first_payment_to_somebody_is_remarked_upon_in_private(
    home: Home, people: list[Person]
) -> None:
    alice, bob = people
    home_id = await bob.home_room()
    await bob.say(home_id, f"!pay {alice.user_id} 1 EUR back")
    assert alice.user_id in await told(bob, home_id, "your first payment")


async def test_an_operator_resets_a_locked_pin_and_the_log_tells_it(home: Home, people: list[Person]) -> None:
    alice = people[0]
    browser = await browser_of(alice)
    security = "/wallet/security"
    for _ in range(3):
        await send(browser, security, f"{security}/pin/remove", pin=OTHER_PIN)
    await told(alice, await alice.home_room(), "your PIN is locked until")
    assert f"Removed of {alice.user_id}: PIN." in await home.weft("wallet", "pin", "reset", alice.user_id)
    await told(alice, await alice.home_room(), "Your PIN was removed (your operator)")
    actions = [entry["action"] for entry in json.loads(await home.weft("wallet", "audit", "--json"))]
    assert actions == ["pin_reset", "pin_locked", "limit", "pin_set", "deposit"]
    assert "The audit log holds: 5 entries" in await home.weft("wallet", "audit", "--verify")
    await browser.aclose()
