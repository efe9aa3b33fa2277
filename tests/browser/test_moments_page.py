"""The Moments page in a real Chromium, on a whole Weft: phone and desktop, dark and right to left."""

from __future__ import annotations

import secrets
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from appservices.chassis.clock import Tokens, system_clock
from appservices.chassis.database import open_database
from appservices.chassis.web_sessions import SessionStore, SignInWay
from appservices.vocabulary.ids import UserId
from tests.browser.conftest import DESKTOP, OpenPage, is_wider_than_its_window, serious_findings
from tests.conftest import StackOf
from tests.contacts import ignore
from tests.moments_people import Friend, friends, jpeg
from tests.stack import Stack

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def weft(stack_of: StackOf) -> Stack:
    """The whole Weft of the session; `stack` is the browser tests' own, without a homeserver."""
    stack = stack_of(0)
    stack.wait_until_ready()
    return stack


async def session_of(weft: Stack, user: str) -> str:
    """A session of the portal, as signing in gives one."""
    database = open_database("sqlite:///weft.db", folder=weft.data)
    try:
        store = SessionStore(database, system_clock, Tokens(), session_hours=1)
        return (await store.begin(UserId(user), SignInWay.CODE, "Firefox")).token
    finally:
        await database.close()


async def signed_in(page: Page, weft: Stack, user: str) -> Page:
    port = weft.web_url.rpartition(":")[2]
    token = await session_of(weft, user)
    await page.context.add_cookies([{"name": f"weft_session_{port}", "value": token, "url": weft.web_url}])
    return page


@pytest_asyncio.fixture(loop_scope="session")
async def people(weft: Stack) -> list[Friend]:
    return await friends(weft, "alice", "bob")


async def test_pictures_are_posted_seen_liked_and_commented_on(
    weft: Stack, people: list[Friend], open_page: OpenPage, tmp_path: Path
) -> None:
    alice, bob = people
    page = await signed_in(await open_page(), weft, alice.id)
    await page.goto(f"{weft.web_url}/moments/new")
    await page.get_by_label("What you want to say").fill("Three colours https://example.org/a")
    pictures = []
    for colour in ("crimson", "gold", "navy"):
        path = tmp_path / f"{colour}.jpg"
        path.write_bytes(jpeg(colour, size=(600, 400), with_place=True))
        pictures.append(path)
    await page.locator("[data-files]").set_input_files(pictures)
    await expect(page.locator("[data-chosen] img")).to_have_count(3)
    # The network fails, and nothing is lost.
    await page.context.set_offline(True)
    await page.get_by_role("button", name="Post").click(no_wait_after=True)
    await page.context.set_offline(False)
    await page.goto(f"{weft.web_url}/moments/new")
    await expect(page.get_by_label("What you want to say")).to_have_value(
        "Three colours https://example.org/a"
    )
    await expect(page.locator("[data-chosen] img")).to_have_count(3)
    await page.get_by_role("button", name="Post").click()
    await page.wait_for_url(f"{weft.web_url}/moments")
    await expect(page.locator(".pictures-3 img")).to_have_count(3)
    loaded = "() => [...document.images].every((image) => image.complete && image.naturalWidth > 0)"
    await page.wait_for_function(loaded)
    assert not await is_wider_than_its_window(page)
    assert await serious_findings(page) == []
    await page.goto(f"{weft.web_url}/moments/new")
    await expect(page.get_by_label("What you want to say")).to_have_value("")

    other = await signed_in(await open_page(size=DESKTOP, dark=True), weft, bob.id)
    await other.goto(f"{weft.web_url}/moments")
    card = other.locator("article", has_text="Three colours")
    await card.get_by_role("button", name="Like").click()
    await expect(other.locator("article .likers", has_text="Bob")).to_be_visible()
    await card.get_by_label("Comment", exact=True).fill("<b>nice</b>")
    await card.get_by_role("button", name="Send the comment").click()
    await expect(card.locator(".comments")).to_contain_text("Bob: <b>nice</b>")
    assert await serious_findings(other) == []

    await page.goto(f"{weft.web_url}/moments")
    await expect(page.locator(".dot")).to_be_visible()
    await page.goto(f"{weft.web_url}/moments/news")
    await expect(page.locator(".news li")).to_have_count(2)
    await page.goto(f"{weft.web_url}/moments")
    await expect(page.locator(".dot")).to_have_count(0)
    # And all of it is in the rooms as well.
    await bob.sees("Three colours")
    await alice.sees("Bob: <b>nice</b>")


async def test_a_friend_is_tagged_and_kept_away_on_the_page(
    weft: Stack, people: list[Friend], open_page: OpenPage
) -> None:
    alice, bob = people
    page = await signed_in(await open_page(), weft, alice.id)
    await page.goto(f"{weft.web_url}/moments/people")
    await page.locator("summary", has_text="Bob").click()
    await page.get_by_label("New tag").fill("family")
    await page.locator("fieldset").get_by_role("button", name="Save").click()
    await expect(page.locator(".badge", has_text="family")).to_be_visible()
    await page.goto(f"{weft.web_url}/moments/new")
    await page.get_by_label("What you want to say").fill("For the family")
    await page.get_by_label("Only some").check()
    await page.locator(".some").get_by_text("family").click()
    await page.get_by_role("button", name="Post").click()
    await expect(page.locator("article", has_text="For the family")).to_contain_text("Only family")
    assert await serious_findings(page) == []
    other = await signed_in(await open_page(), weft, bob.id)
    await other.goto(f"{weft.web_url}/moments")
    card = other.locator("article", has_text="For the family")
    await expect(card).to_be_visible()
    assert "Only family" not in await card.inner_text()

    await page.goto(f"{weft.web_url}/moments/people")
    await page.locator("summary", has_text="Bob").click()
    await page.get_by_label("Don't show them my Moments").check()
    await page.locator("form", has_text="Don't show them").get_by_role("button", name="Save").click()
    await other.reload()
    await expect(card).to_have_count(0)


async def test_the_page_reads_from_right_to_left(
    weft: Stack, people: list[Friend], open_page: OpenPage
) -> None:
    alice, _bob = people
    await alice.say("مساء الخير\n📍 Hamburg")
    page = await signed_in(await open_page(dark=True), weft, alice.id)
    for path in ("", "/new", "/people", "/news", f"/of/{alice.id}"):
        await page.goto(f"{weft.web_url}/moments{path}?lang=ar")
        assert await page.locator("html").get_attribute("dir") == "rtl"
        assert not await is_wider_than_its_window(page), path
        assert await serious_findings(page) == [], path


async def test_what_is_not_for_somebody_looks_like_what_is_not_there(weft: Stack) -> None:
    """Pages, pictures, likes and comments answer a stranger about a hidden Moment as about none."""
    alice, bob = await friends(weft, "alice", "bob")
    mallory = await weft.register(f"mallory_{secrets.token_hex(3)}")
    await alice.picture(jpeg("teal"), caption="Among friends")
    moment = (await bob.sees("Among friends"))["content"]["dev.weft.moment"]["id"]

    async def answers(user: str, moment_id: str) -> list[tuple[int, str]]:
        token = await session_of(weft, user)
        headers = {"Authorization": f"Bearer {token}"}
        comment = {"id": secrets.token_hex(16), "text": "hello"}
        async with httpx.AsyncClient(base_url=weft.web_url, headers=headers) as http:
            told = [
                await http.get(f"/moments/one/{moment_id}"),
                await http.get(f"/moments/pictures/{moment_id}/{part}"),
                await http.post(f"/moments/like/{moment_id}", data={"on": "1"}),
                await http.post(f"/moments/comment/{moment_id}", data=comment),
                await http.get(f"/moments/edit/{moment_id}"),
                await http.post(f"/moments/delete/{moment_id}"),
            ]
        return [(answer.status_code, answer.text) for answer in told]

    token = await session_of(weft, bob.id)
    async with httpx.AsyncClient(base_url=weft.web_url, headers={"Authorization": f"Bearer {token}"}) as http:
        page = (await http.get(f"/moments/one/{moment}")).text
        address = page.partition('href="/moments/pictures/')[2].partition('"')[0].replace("&amp;", "&")
        part = address.partition("?")[0].partition("/")[2]
        assert (await http.get(f"/moments/pictures/{address}")).headers["content-type"] == "image/jpeg"
    async with httpx.AsyncClient(base_url=weft.web_url) as nobody:
        # The page's own address, which a widget's browser asks for, without any session.
        assert (await nobody.get(f"/moments/pictures/{address}")).status_code == 200
        for guessed in (f"{moment}/{part}", address.replace(bob.id.partition(":")[0][1:], "mallory")):
            assert (await nobody.get(f"/moments/pictures/{guessed}")).status_code == 404

        hidden, none = await answers(mallory.user_id, moment), await answers(mallory.user_id, "0" * 32)
        assert [status for status, _text in hidden] == [404] * 6
        assert hidden == none
        # Bob is removed, and his very next request gets nothing.
        await ignore(alice.user, bob.id)
        assert (await nobody.get(f"/moments/pictures/{address}")).status_code == 404
        assert await answers(bob.id, moment) == await answers(bob.id, "0" * 32)
