"""The pages by which people deal with one another, over real HTTP without script."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from appservices.vocabulary.ids import RoomId, UserId
from appservices.vocabulary.money import Money
from tests.synapse import WAIT_SECONDS_MAX
from tests.web_stack import EUR, WebStack, running_web, web_config
from wallet_appservice.payments.red_packet_records import PacketOrder, RedPacket
from wallet_appservice.payments.request_records import Request, RequestOrder

_HIDDEN = re.compile(r'<input type="hidden" name="([a-z_]+)" value="([^"]*)">')


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[WebStack]:
    async with running_web(web_config(tmp_path)) as stack:
        yield stack


class Visitor:
    """A signed-in user of the pages whose browser runs no script."""

    def __init__(self, browser: httpx.AsyncClient, user: UserId) -> None:
        self.browser = browser
        self.user = user

    async def fields(self, path: str, action: str) -> dict[str, str]:
        page = (await self.browser.get(path)).text
        form = page[page.index(f'action="{action}"') :]
        return dict(_HIDDEN.findall(form[: form.index("</form>")]))

    async def send(self, path: str, action: str, **typed: str) -> httpx.Response:
        """Fills in the form of that action on that page and sends it; follows where it leads."""
        fields = {**await self.fields(path, action), **typed}
        return await self.browser.post(action, data=fields, follow_redirects=True)


async def visitor(stack: WebStack, name: str, *, has_minor: int = 10_000) -> Visitor:
    user = stack.user(name)
    if has_minor:
        await stack.deposit(user, has_minor)
    browser = httpx.AsyncClient(
        base_url=stack.url, headers={"Sec-Fetch-Site": "same-origin"}, timeout=WAIT_SECONDS_MAX
    )
    browser.cookies.set(f"weft_session_{stack.config.web.port}", (await stack.session(user)).token)
    return Visitor(browser, user)


async def test_a_request_is_made_on_one_page_and_paid_on_anothers(stack: WebStack) -> None:
    alice, bob = await visitor(stack, "alice"), await visitor(stack, "bob")
    wrong = await alice.send("/wallet/request", "/wallet/request", payee="bob", amount="x")
    assert wrong.status_code == 422 and 'id="amount-problem"' in wrong.text
    made = await alice.send("/wallet/request", "/wallet/request", payee="bob", amount="18.50", memo="Cinema")
    assert "Asked." in made.text and "€18.50" in made.text
    path = made.url.path
    overview = (await bob.browser.get("/wallet")).text
    assert "Alice asks you for money" in overview and "6 days left" in overview
    paid = await bob.send(path, f"{path}/pay")
    assert "Paid" in paid.text and await stack.balance_minor(alice.user) == 11_850
    again = await bob.browser.post(f"{path}/pay", data=await bob.fields("/wallet/request", "/wallet/request"))
    assert again.status_code == 303 and await stack.balance_minor(alice.user) == 11_850
    assert "What waits" not in (await bob.browser.get("/wallet")).text


async def test_a_request_is_declined_from_its_card_and_a_split_taken_back(stack: WebStack) -> None:
    alice, bob = await visitor(stack, "alice"), await visitor(stack, "bob")
    stack.user("carol")
    split = await alice.send("/wallet/split", "/wallet/split", people="bob\ncarol", amount="30", own_part="1")
    path = split.url.path
    assert split.text.count("€10.00") == 3 and "own part" in split.text
    declined = await bob.send("/wallet/pending", f"{path}/decline")
    assert "declined" in declined.text
    back = await alice.send("/wallet/pending", f"{path}/cancel")
    assert "taken back" in back.text
    assert "Nothing waits." in (await alice.browser.get("/wallet/pending")).text
    stranger = await visitor(stack, "erik", has_minor=0)
    assert (await stranger.browser.get(path)).status_code == 404


async def test_a_split_says_whose_name_it_can_not_read(stack: WebStack) -> None:
    alice = await visitor(stack, "alice")
    stack.user("bob")
    page = await alice.send("/wallet/split", "/wallet/split", people="bob @:", amount="10")
    assert page.status_code == 422 and "is no Matrix user" in page.text and "bob @:" in page.text
    nobody = await alice.send("/wallet/split", "/wallet/split", people="", amount="10", own_part="1")
    assert nobody.status_code == 422 and "With whom?" in nobody.text


async def test_a_red_packet_is_opened_once_on_its_page_and_shows_who_found_what(stack: WebStack) -> None:
    alice, bob = await visitor(stack, "alice"), await visitor(stack, "bob", has_minor=0)
    outsider = await visitor(stack, "erik", has_minor=0)
    room = RoomId("!party:weft.example")
    stack.members[room] = {alice.user, bob.user}
    packet = await stack.dealings.red_packets.fill(
        PacketOrder(
            id=stack.new_id(), sender=alice.user, room_id=room, money=Money(1_000, EUR), count=1, words="Luck"
        )
    )
    assert isinstance(packet, RedPacket)
    path = f"/wallet/red-packets/{packet.id}"
    found = await bob.send(path, f"{path}/open")
    assert "You found" in found.text and "1 of 1 opened" in found.text
    assert await stack.balance_minor(bob.user) == 1_000
    late = await alice.browser.get(path)
    assert f'action="{path}/open"' not in late.text
    assert (await outsider.browser.get(path)).status_code == 404


async def test_a_red_packet_without_a_room_becomes_a_command_to_send_there(stack: WebStack) -> None:
    alice = await visitor(stack, "alice")
    page = await alice.send(
        "/wallet/red-packet", "/wallet/red-packet", amount="20", count="5", equal="1", words="Good luck"
    )
    assert 'value="!redpacket 20.00 EUR 5 equal Good luck"' in page.text
    wrong = await alice.send("/wallet/red-packet", "/wallet/red-packet", amount="20", count="0")
    assert wrong.status_code == 422 and 'id="count-problem"' in wrong.text
    assert await stack.balance_minor(alice.user) == 10_000


async def test_a_payment_that_waits_is_accepted_or_declined_by_its_payee_alone(stack: WebStack) -> None:
    alice, bob = await visitor(stack, "alice"), await visitor(stack, "bob", has_minor=0)
    saved = await bob.send("/wallet/settings", "/wallet/settings", acceptance="on")
    assert "Saved." in saved.text
    first = await stack.pay(alice.user, bob.user, 500, memo="waits")
    second = await stack.pay(alice.user, bob.user, 700)
    assert "Bob has to accept your payment" in (await alice.browser.get("/wallet/pending")).text
    accepted = await bob.send("/wallet/pending", f"/wallet/payments/{first.id}/accept")
    assert accepted.status_code == 200 and await stack.balance_minor(bob.user) == 500
    csrf = (await alice.fields("/wallet/request", "/wallet/request"))["csrf"]
    foreign = await alice.browser.post(f"/wallet/payments/{second.id}/accept", data={"csrf": csrf})
    assert foreign.status_code == 404 and await stack.balance_minor(bob.user) == 500
    declined = await bob.send(f"/wallet/history/{second.id}", f"/wallet/payments/{second.id}/accept")
    assert declined.status_code == 200 and await stack.balance_minor(bob.user) == 1_200


async def test_a_payee_gives_back_in_parts_and_never_more(stack: WebStack) -> None:
    alice, bob = await visitor(stack, "alice"), await visitor(stack, "bob", has_minor=0)
    paid = await stack.pay(alice.user, bob.user, 1_000, memo="shoes")
    path = f"/wallet/history/{paid.id}"
    assert "Give it back" not in (await alice.browser.get(path)).text
    part = await bob.send(path, f"{path}/refund", amount="4", memo="too small")
    assert "Gives back" in part.text and await stack.balance_minor(alice.user) == 9_400
    assert 'value="6.00"' in (await bob.browser.get(path)).text
    too_much = await bob.send(path, f"{path}/refund", amount="6.01")
    assert too_much.status_code == 400 and "can still be given back" in too_much.text
    assert await stack.balance_minor(alice.user) == 9_400


async def test_a_larger_share_asks_for_the_pin_before_it_is_paid(stack: WebStack) -> None:
    alice, bob = await visitor(stack, "alice"), await visitor(stack, "bob", has_minor=50_000)
    pin = await bob.send("/wallet/security", "/wallet/security/pin", new_pin="592837", new_pin_again="592837")
    assert "Your PIN is set." in pin.text
    asked = await stack.dealings.requests.ask(
        RequestOrder(id=stack.new_id(), requester=alice.user, people=(bob.user,), money=Money(20_000, EUR))
    )
    assert isinstance(asked, Request)
    path = f"/wallet/requests/{asked.id}"
    assert 'name="pin"' in (await bob.browser.get(path)).text
    refused = await bob.send(path, f"{path}/pay", pin="000000")
    assert refused.status_code == 422 and await stack.balance_minor(alice.user) == 10_000
    await bob.send(path, f"{path}/pay", pin="592837")
    assert await stack.balance_minor(alice.user) == 30_000
