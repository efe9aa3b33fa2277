"""Every page of the wallet in Chromium: nothing serious for axe, nothing too wide, inside a frame, too."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.browser.conftest import (
    DESKTOP,
    PHONE,
    OpenPage,
    is_wider_than_its_window,
    serious_findings,
    sign_in,
)
from tests.browser.past import a_full_wallet
from tests.web_stack import WebStack

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOOKS = [(PHONE, False), (PHONE, True), (DESKTOP, False), (DESKTOP, True)]
NARROWEST = 320


@pytest.mark.parametrize(("size", "dark"), LOOKS, ids=["phone", "phone-dark", "desktop", "desktop-dark"])
async def test_every_page_is_accessible_and_fits_the_screen(
    stack: WebStack, open_page: OpenPage, size: tuple[int, int], dark: bool
) -> None:
    alice, places = await a_full_wallet(stack)
    page = await open_page(size=size, dark=dark)
    await sign_in(page, stack, alice)
    for name, path in places.items():
        await page.goto(stack.url + path)
        await expect(page.locator("h1")).to_have_count(1)
        await page.evaluate("for (const part of document.querySelectorAll('details.raw')) part.open = true")
        assert await serious_findings(page) == [], name
        assert not await is_wider_than_its_window(page), name


async def test_every_page_fits_the_narrowest_phone_in_every_language(
    stack: WebStack, open_page: OpenPage
) -> None:
    alice, places = await a_full_wallet(stack)
    page = await open_page(size=(NARROWEST, 600))
    await sign_in(page, stack, alice)
    for language in ("de", "ar"):
        await stack.languages.choose(alice, language)
        for name, path in places.items():
            await page.goto(stack.url + path)
            assert not await is_wider_than_its_window(page), (language, name)


async def test_the_keyboard_goes_from_page_to_page_and_back(stack: WebStack, open_page: OpenPage) -> None:
    alice, _ = await a_full_wallet(stack)
    page = await open_page()
    await sign_in(page, stack, alice)
    await page.goto(stack.url + "/wallet")
    for name, heading in (("History", "History"), ("Spending", "Spending"), ("More", "More")):
        await page.get_by_role("navigation", name="Wallet").get_by_role("link", name=name).focus()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible()
        current = page.get_by_role("navigation", name="Wallet").locator("[aria-current=page]")
        await expect(current).to_have_text(name)
    await page.get_by_role("link", name="Statement").focus()
    await page.keyboard.press("Enter")
    await page.get_by_role("link", name="Back").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="More")).to_be_visible()


async def test_what_a_payment_was_for_is_chosen_and_shows_in_spending(
    stack: WebStack, open_page: OpenPage
) -> None:
    alice, places = await a_full_wallet(stack)
    page = await open_page()
    await sign_in(page, stack, alice)
    await page.goto(stack.url + places["payment"])
    await page.get_by_role("combobox", name="What it was for").select_option("Health")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("status").filter(has_text="Saved.")).to_be_visible()
    await page.goto(stack.url + "/wallet/spending")
    await expect(page.get_by_role("listitem").filter(has_text="Health")).to_contain_text("€15.00")


async def test_history_is_searched_and_filtered(stack: WebStack, open_page: OpenPage) -> None:
    alice, _ = await a_full_wallet(stack)
    page = await open_page()
    await sign_in(page, stack, alice)
    await page.goto(stack.url + "/wallet/history")
    await page.get_by_role("searchbox", name="Search").fill("coffee")
    await page.keyboard.press("Enter")
    await expect(page.locator("a.payment")).to_have_count(8)
    await page.get_by_label("Kind").select_option("Sent")
    await expect(page.get_by_text("Nothing fits.")).to_be_visible()
    await page.get_by_role("searchbox", name="Search").fill("12.50")
    await page.get_by_role("button", name="Search").click()
    await expect(page.locator("a.payment")).to_have_count(1)
    await page.locator("a.payment").click()
    await expect(page.get_by_text("the signature is right")).to_be_visible()


async def test_a_statement_comes_as_pdf_and_csv(stack: WebStack, open_page: OpenPage) -> None:
    alice, _ = await a_full_wallet(stack)
    page = await open_page()
    await sign_in(page, stack, alice)
    await page.goto(stack.url + "/wallet/statement")
    for name, start in (("PDF", b"%PDF-"), ("CSV", b"time,id,kind")):
        async with page.expect_download() as began:
            await page.get_by_role("link", name=name).click()
        download = await began.value
        assert download.suggested_filename.endswith(f"-EUR.{name.lower()}")
        assert (await download.path()).read_bytes().startswith(start)
