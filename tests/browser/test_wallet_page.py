"""The wallet page in Chromium: by keyboard, by touch, read out, narrow and wide, dark and light."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Page, expect

from appservices.vocabulary.ids import UserId
from tests.browser.conftest import (
    DESKTOP,
    PHONE,
    OpenPage,
    is_wider_than_its_window,
    serious_findings,
    sign_in,
)
from tests.web_stack import WebStack

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOOKS = [(PHONE, False), (PHONE, True), (DESKTOP, False), (DESKTOP, True)]


async def a_wallet_with_a_past(stack: WebStack) -> UserId:
    alice, bob, carol = stack.user("alice"), stack.user("bob"), stack.user("carol")
    await stack.deposit(alice, 20_000)
    await stack.deposit(bob, 5_000)
    await stack.pay(alice, bob, 1_250, memo="lunch")
    await stack.pay(bob, alice, 437, memo="coffee")
    await stack.pay(alice, carol, 300, memo="bus " * 40)
    await stack.hold(alice, bob, 1_000)
    return alice


async def pay_by_touch(page: Page, *, to: str, amount: str, memo: str = "") -> None:
    await page.get_by_label("To", exact=True).fill(to)
    await page.get_by_label("Amount").fill(amount)
    await page.get_by_label("What for").fill(memo)
    await page.get_by_role("button", name="Continue").click()


@pytest.mark.parametrize(("size", "dark"), LOOKS, ids=["phone", "phone-dark", "desktop", "desktop-dark"])
async def test_every_step_of_paying_is_accessible_and_fits_the_screen(
    stack: WebStack, open_page: OpenPage, size: tuple[int, int], dark: bool
) -> None:
    alice = await a_wallet_with_a_past(stack)
    page = await open_page(size=size, dark=dark)

    async def check() -> None:
        assert await serious_findings(page) == []
        assert not await is_wider_than_its_window(page)

    await page.goto(stack.url)
    await check()
    await sign_in(page, stack, alice)
    await page.goto(stack.url)
    await check()
    await page.locator("summary").click()
    await check()
    await page.goto(stack.url + "/wallet/send")
    await check()
    await pay_by_touch(page, to="nobody", amount="x", memo="m")
    await expect(page.locator(".problem")).to_have_count(1)
    await check()
    await pay_by_touch(page, to="bob", amount="12,50", memo="lunch")
    await expect(page.get_by_role("heading", name="You are about to pay")).to_be_visible()
    await check()
    await page.get_by_role("button", name="Pay €12.50").click()
    await expect(page.get_by_role("heading", name="Paid", exact=True)).to_be_visible()
    await check()


async def test_paying_shows_who_and_how_much_before_and_the_new_balance_after(
    stack: WebStack, open_page: OpenPage
) -> None:
    alice = await a_wallet_with_a_past(stack)
    page = await open_page()
    await sign_in(page, stack, alice)
    await page.goto(stack.url + "/wallet/send")
    await expect(page.locator("#balances")).to_contain_text("€178.87")
    await expect(page.locator("#balances")).to_contain_text("€10.00 held")
    await pay_by_touch(page, to="bob", amount="12.50", memo="dinner")
    review = page.locator("#pay")
    await expect(review).to_contain_text("€12.50")
    await expect(review).to_contain_text("@bob:weft.example")
    await expect(review).to_contain_text("dinner")
    await page.get_by_role("button", name="Pay €12.50").click()
    await expect(page.get_by_role("status")).to_have_text("Paid €12.50 to @bob:weft.example.")
    await expect(page.locator("#balances")).to_contain_text("€166.37")
    await page.get_by_role("link", name="Done").click()
    newest = page.locator("#payments li").first
    await expect(newest).to_contain_text("Bob")
    await expect(newest).to_contain_text("dinner")
    await expect(newest).to_contain_text("−€12.50")
    await expect(newest).to_contain_text("Today")


async def test_a_double_tap_pays_once(stack: WebStack, open_page: OpenPage) -> None:
    alice, bob = stack.user("alice"), stack.user("bob")
    await stack.deposit(alice, 10_000)
    page = await open_page()
    await sign_in(page, stack, alice)
    await page.goto(stack.url + "/wallet/send")
    await pay_by_touch(page, to="bob", amount="5")
    await page.get_by_role("button", name="Pay €5.00").evaluate(
        "button => { button.click(); button.click(); button.form.requestSubmit(); }"
    )
    await expect(page.get_by_role("heading", name="Paid", exact=True)).to_be_visible()
    assert await stack.balance_minor(bob) == 500


async def test_the_keyboard_alone_pays(stack: WebStack, open_page: OpenPage) -> None:
    alice, bob = stack.user("alice"), stack.user("bob")
    await stack.deposit(alice, 10_000)
    page = await open_page()
    await sign_in(page, stack, alice)
    await page.goto(stack.url + "/wallet/send")
    await page.keyboard.press("Tab")
    assert await focused(page) == "Skip to the content"
    await page.keyboard.press("Enter")
    # Back, then the form: nobody was paid yet, so nobody is suggested.
    await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    await page.keyboard.type("bob")
    await page.keyboard.press("Tab")
    await page.keyboard.type("7.25")
    for _ in range(2):
        await page.keyboard.press("Tab")
    await page.keyboard.type("books")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="You are about to pay")).to_be_focused()
    await page.keyboard.press("Tab")
    assert await focused(page) == "Pay €7.25"
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Paid", exact=True)).to_be_focused()
    assert await stack.balance_minor(bob) == 725


async def test_a_refusal_is_read_out_keeps_what_was_typed_and_goes_to_its_field(
    stack: WebStack, open_page: OpenPage
) -> None:
    alice = stack.user("alice")
    stack.user("bob")
    await stack.deposit(alice, 1_000)
    page = await open_page()
    await sign_in(page, stack, alice)
    await page.goto(stack.url + "/wallet/send")
    await pay_by_touch(page, to="bob", amount="10.01", memo="too much")
    amount = page.get_by_label("Amount")
    await expect(amount).to_be_focused()
    await expect(amount).to_have_value("10.01")
    await expect(amount).to_have_accessible_description(
        "That is more than you have: you can pay €10.00 at most."
    )
    await expect(page.get_by_role("status")).to_contain_text("Nothing was paid.")
    await expect(page.get_by_label("What for")).to_have_value("too much")
    await amount.fill("10")
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Pay €10.00").click()
    await expect(page.get_by_role("heading", name="Paid", exact=True)).to_be_visible()


async def test_changing_keeps_what_was_typed(stack: WebStack, open_page: OpenPage) -> None:
    alice = await a_wallet_with_a_past(stack)
    page = await open_page()
    await sign_in(page, stack, alice)
    await page.goto(stack.url + "/wallet/send")
    await pay_by_touch(page, to="bob", amount="1", memo="x")
    await page.get_by_role("button", name="Change").click()
    await expect(page.get_by_label("To", exact=True)).to_have_value("bob")
    await expect(page.get_by_label("What for")).to_have_value("x")


async def test_a_recent_person_is_filled_in_with_one_tap(stack: WebStack, open_page: OpenPage) -> None:
    alice = await a_wallet_with_a_past(stack)
    page = await open_page()
    await sign_in(page, stack, alice)
    await page.goto(stack.url + "/wallet/send")
    await page.get_by_label("What for").fill("kept")
    await page.get_by_role("link", name="Bob").click()
    await expect(page.get_by_label("To", exact=True)).to_have_value("@bob:weft.example")
    await expect(page.get_by_label("What for")).to_have_value("kept")
    await expect(page.get_by_label("Amount")).to_be_focused()


async def test_a_lost_answer_is_told_and_paying_again_pays_once(stack: WebStack, open_page: OpenPage) -> None:
    alice, bob = stack.user("alice"), stack.user("bob")
    await stack.deposit(alice, 10_000)
    page = await open_page()
    await sign_in(page, stack, alice)
    await page.goto(stack.url + "/wallet/send")
    await pay_by_touch(page, to="bob", amount="5")

    async def lose_the_answer(route: object) -> None:
        await route.fetch()  # type: ignore[attr-defined]
        await route.abort()  # type: ignore[attr-defined]

    await page.route("**/wallet/pay", lose_the_answer, times=1)
    await page.get_by_role("button", name="Pay €5.00").click()
    await expect(page.get_by_role("alert")).to_contain_text("can't be reached")
    assert await stack.balance_minor(bob) == 500
    await page.get_by_role("button", name="Pay €5.00").click()
    await expect(page.get_by_role("heading", name="Paid", exact=True)).to_be_visible()
    assert await stack.balance_minor(bob) == 500


async def test_what_comes_in_is_shown_and_read_out_without_disturbing_who_types(
    stack: WebStack, open_page: OpenPage
) -> None:
    alice = await a_wallet_with_a_past(stack)
    page = await open_page()
    await sign_in(page, stack, alice)
    await page.goto(stack.url + "/wallet/send")
    await page.get_by_label("To", exact=True).fill("ca")
    await stack.pay(stack.user("bob"), alice, 1_000, memo="thanks")
    await page.evaluate("window.dispatchEvent(new Event('focus'))")
    await expect(page.locator("#balances")).to_contain_text("€188.87")
    await expect(page.get_by_role("status")).to_have_text("Your wallet has changed.")
    await expect(page.get_by_label("To", exact=True)).to_be_focused()
    await expect(page.get_by_label("To", exact=True)).to_have_value("ca")


async def test_older_payments_come_on_demand(stack: WebStack, open_page: OpenPage) -> None:
    alice, bob = stack.user("alice"), stack.user("bob")
    await stack.deposit(alice, 10_000)
    for number in range(12):
        await stack.pay(alice, bob, 100 + number)
    page = await open_page()
    await sign_in(page, stack, alice)
    await page.goto(stack.url + "/wallet")
    await expect(page.locator("a.payment")).to_have_count(10)
    await page.get_by_role("link", name="Show more").click()
    await expect(page.locator("a.payment")).to_have_count(13)
    await expect(page.get_by_role("link", name="Show more")).to_have_count(0)


async def test_paying_works_without_script(stack: WebStack, open_page: OpenPage) -> None:
    alice, bob = stack.user("alice"), stack.user("bob")
    await stack.deposit(alice, 10_000)
    page = await open_page(script=False)
    await sign_in(page, stack, alice)
    await page.goto(stack.url + "/wallet/send")
    await pay_by_touch(page, to="bob", amount="5")
    await page.get_by_role("button", name="Pay €5.00").click()
    await expect(page.get_by_role("heading", name="Paid", exact=True)).to_be_visible()
    await page.reload()
    assert await stack.balance_minor(bob) == 500


async def test_signing_in_by_a_code_goes_on_by_itself_and_signing_out_ends_it(
    stack: WebStack, open_page: OpenPage
) -> None:
    page = await open_page()
    await page.goto(stack.url + "/wallet")
    code = await page.locator("#code").inner_text()
    assert await stack.sessions.confirm_code(code, stack.user("alice"))
    await page.wait_for_url(stack.url + "/wallet")
    await page.locator("summary").click()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()
    await page.goto(stack.url + "/wallet")
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


async def test_a_session_that_ended_elsewhere_leads_to_signing_in(
    stack: WebStack, open_page: OpenPage
) -> None:
    alice = await a_wallet_with_a_past(stack)
    page = await open_page()
    await sign_in(page, stack, alice)
    await page.goto(stack.url + "/wallet/send")
    await stack.sessions.sign_out_everywhere(alice)
    await pay_by_touch(page, to="bob", amount="5")
    await page.wait_for_url("**/signin?next=/wallet")


async def focused(page: Page) -> str:
    await asyncio.sleep(0)
    text: str = await page.evaluate("document.activeElement.innerText.trim()")
    return text


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_the_pages_go_from_right_to_left_for_who_speaks_arabic(
    stack: WebStack, open_page: OpenPage, dark: bool
) -> None:
    alice = stack.user("alice")
    await stack.deposit(alice, 10_000)
    page = await open_page(dark=dark)
    await page.goto(stack.url + "/signin")
    await page.get_by_role("button", name="العربية").click()
    await expect(page.get_by_role("heading", name="تسجيل الدخول")).to_be_visible()
    assert await serious_findings(page) == []
    # The sign-in page polls, and would go on by itself in the middle of what follows.
    await page.goto("about:blank")
    await sign_in(page, stack, alice)
    await page.goto(stack.url + "/wallet")
    await page.locator("summary").first.click()
    await page.get_by_role("button", name="العربية").click()
    assert await stack.languages.chosen_by(alice) == "ar"
    await expect(page.locator("time").first).to_contain_text("اليوم")
    for path in ("/", "/wallet", "/wallet/send", "/wallet/history", "/wallet/spending", "/wallet/statement"):
        await page.goto(stack.url + path)
        assert await page.evaluate("getComputedStyle(document.body).direction") == "rtl"
        assert not await is_wider_than_its_window(page), path
        assert await serious_findings(page) == [], path
