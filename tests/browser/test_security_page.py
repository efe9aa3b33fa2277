"""PIN and passkeys in Chromium: set up, used for the very payment, and refused for any other."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect
from sqlalchemy import update

from appservices.vocabulary.ids import UserId
from tests.browser.conftest import (
    DESKTOP,
    PHONE,
    OpenPage,
    is_wider_than_its_window,
    serious_findings,
    sign_in,
)
from tests.integration.test_clearing_pages import OtherWallet, owing
from tests.protected_wallet import PIN, an_order
from tests.synapse import free_port
from tests.web_stack import SERVER_NAME, WebStack, running_web, web_config
from wallet_appservice.payments.records import PaymentOrder
from wallet_appservice.storage.proof_tables import passkeys

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOOKS = [(PHONE, False), (PHONE, True), (DESKTOP, False)]
SECURITY = "/wallet/security"
PICTURES = os.environ.get("WEFT_PICTURES")
"""A folder to put pictures of the pages into, for whoever wants to look at them."""


@pytest_asyncio.fixture(loop_scope="session")
async def stack(tmp_path: Path) -> AsyncIterator[WebStack]:
    # Browsers have passkeys on localhost, and on no IP address.
    port = free_port()
    config = web_config(
        tmp_path, port=port, public_url=f"http://localhost:{port}", operators=[f"@admin:{SERVER_NAME}"]
    )
    async with running_web(config) as stack:
        yield stack


async def with_authenticator(page: Page) -> None:
    """Gives the browser a device that makes passkeys and always finds its person verified."""
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("WebAuthn.enable")
    await devtools.send(
        "WebAuthn.addVirtualAuthenticator",
        {
            "options": {
                "protocol": "ctap2",
                "transport": "internal",
                "hasResidentKey": True,
                "hasUserVerification": True,
                "isUserVerified": True,
                "automaticPresenceSimulation": True,
            }
        },
    )


async def check(page: Page, name: str = "") -> None:
    assert await serious_findings(page) == []
    assert not await is_wider_than_its_window(page)
    if PICTURES and name:
        await page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True, caret="initial")


async def rich_alice(stack: WebStack) -> UserId:
    alice = stack.user("alice")
    stack.user("bob")
    await stack.deposit(alice, 100_000)
    return alice


async def set_pin(page: Page, stack: WebStack) -> None:
    await page.goto(stack.url + SECURITY)
    await page.get_by_label("New PIN", exact=True).fill(PIN)
    await page.get_by_label("New PIN again").fill(PIN)
    await page.get_by_role("button", name="Set PIN").click()
    await expect(page.get_by_text("Your PIN is set.")).to_be_visible()


async def add_passkey(page: Page, stack: WebStack, name: str = "My phone") -> None:
    await page.goto(stack.url + SECURITY)
    await page.get_by_label("Name of the new passkey").fill(name)
    await page.get_by_role("button", name="Add a passkey").click()
    await expect(page.get_by_text("Your passkey is added.")).to_be_visible()


async def review(page: Page, stack: WebStack, amount: str) -> None:
    await page.goto(stack.url + "/wallet/send")
    await page.get_by_label("To", exact=True).fill("bob")
    await page.get_by_label("Amount").fill(amount)
    await page.get_by_role("button", name="Continue").click()
    await expect(page.get_by_role("heading", name="You are about to pay")).to_be_visible()


async def asked_by_chat(stack: WebStack, payer: UserId) -> PaymentOrder:
    order = an_order("chat", 25_000, payer=payer, payee=stack.user("bob"), memo="A bicycle, second-hand")
    confirmations = stack.protection.confirmations
    await stack.payments.pay(order, tell=lambda _outcome: [confirmations.asked(order)])
    return order


@pytest.mark.parametrize(("size", "dark"), LOOKS, ids=["phone", "phone-dark", "desktop"])
async def test_setting_a_pin_and_paying_with_it_is_accessible_and_fits_the_screen(
    stack: WebStack, open_page: OpenPage, size: tuple[int, int], dark: bool
) -> None:
    alice = await rich_alice(stack)
    page = await open_page(size=size, dark=dark)
    look = f"{size[0]}{'-dark' if dark else ''}"
    await sign_in(page, stack, alice)
    await page.goto(stack.url + SECURITY)
    await check(page, f"security-fresh-{look}")
    await set_pin(page, stack)
    await check(page, f"security-{look}")
    await review(page, stack, "150")
    await check(page, f"review-{look}")
    await page.get_by_label("Your PIN").fill("111222")
    await page.get_by_role("button", name="Pay €150.00").click()
    await expect(page.get_by_text("That PIN is not right.").first).to_be_visible()
    await check(page, f"review-wrong-{look}")
    await page.get_by_label("Your PIN").fill(PIN)
    await page.get_by_role("button", name="Pay €150.00").click()
    await expect(page.get_by_role("heading", name="Paid", exact=True)).to_be_visible()
    assert await stack.balance_minor(UserId("@bob:weft.example")) == 15_000


async def test_what_was_asked_for_by_chat_is_confirmed_with_the_pin(
    stack: WebStack, open_page: OpenPage
) -> None:
    alice = await rich_alice(stack)
    page = await open_page()
    await sign_in(page, stack, alice)
    await set_pin(page, stack)
    order = await asked_by_chat(stack, alice)
    await page.goto(f"{stack.url}/wallet/confirm/{order.id}")
    await check(page, "confirm")
    await page.get_by_label("Your PIN").fill(PIN)
    await page.get_by_role("button", name="Pay €250.00").click()
    await expect(page.get_by_role("heading", name="Paid", exact=True)).to_be_visible()
    await page.goto(f"{stack.url}/wallet/confirm/{order.id}")
    await expect(page.get_by_role("status").first).to_contain_text("This payment has been made.")
    await check(page, "confirmed")


async def test_a_passkey_pays_above_the_limit_and_each_answer_serves_once(
    stack: WebStack, open_page: OpenPage
) -> None:
    alice = await rich_alice(stack)
    page = await open_page()
    await with_authenticator(page)
    await sign_in(page, stack, alice)
    await add_passkey(page, stack)
    await check(page, "security-passkey")
    await review(page, stack, "150")
    await check(page, "review-passkey")
    answers: list[str] = []
    page.on(
        "request",
        lambda request: answers.append(request.post_data or "") if request.url.endswith("/pay") else None,
    )
    await page.get_by_role("button", name="Pay €150.00").click()
    await expect(page.get_by_role("heading", name="Paid", exact=True)).to_be_visible()
    assert await stack.balance_minor(UserId("@bob:weft.example")) == 15_000
    # The same answer for another payment, and for the same one again under another id.
    body = dict(part.split("=", 1) for part in answers[-1].split("&"))
    for changed in ({"id": an_order("other", 1).id}, {"id": an_order("other", 1).id, "amount": "140"}):
        answer = await page.request.post(
            stack.url + "/wallet/pay",
            data="&".join(f"{name}={value}" for name, value in {**body, **changed}.items()),
            headers={
                "Content-Type": "application/x-www-form-urlencoded",
                "Sec-Fetch-Site": "same-origin",
            },
            max_redirects=0,
        )
        assert answer.status == 422 and "could not be checked" in await answer.text()
    assert await stack.balance_minor(UserId("@bob:weft.example")) == 15_000


async def test_with_pin_and_passkey_either_confirms_what_was_asked_for_by_chat(
    stack: WebStack, open_page: OpenPage
) -> None:
    alice = await rich_alice(stack)
    page = await open_page()
    await with_authenticator(page)
    await sign_in(page, stack, alice)
    await set_pin(page, stack)
    await page.locator("#passkey-proof-pin").fill(PIN)
    await page.get_by_label("Name of the new passkey").fill("My phone")
    await page.get_by_role("button", name="Add a passkey").click()
    await expect(page.get_by_text("Your passkey is added.")).to_be_visible()
    order = await asked_by_chat(stack, alice)
    await page.goto(f"{stack.url}/wallet/confirm/{order.id}")
    await check(page, "confirm-both")
    await page.get_by_role("button", name="Use a passkey").click()
    await expect(page.get_by_role("heading", name="Paid", exact=True)).to_be_visible()


async def test_a_passkeys_answer_is_for_the_very_amount(stack: WebStack, open_page: OpenPage) -> None:
    alice = await rich_alice(stack)
    page = await open_page()
    await with_authenticator(page)
    await sign_in(page, stack, alice)
    await add_passkey(page, stack)
    await review(page, stack, "150")
    # As if the page had been made to ask for a signature under a small payment.
    button = page.locator("[data-passkey=use]")
    payment = json.loads(await button.get_attribute("data-payment") or "")
    await button.evaluate(
        "(button, payment) => { button.dataset.payment = payment; }",
        json.dumps({**payment, "amount_minor": "100"}),
    )
    await page.get_by_role("button", name="Pay €150.00").click()
    await expect(page.get_by_text("could not be checked").first).to_be_visible()
    assert await stack.balance_minor(UserId("@bob:weft.example")) == 0


async def test_a_passkey_whose_counter_went_back_is_refused(stack: WebStack, open_page: OpenPage) -> None:
    alice = await rich_alice(stack)
    page = await open_page()
    await with_authenticator(page)
    await sign_in(page, stack, alice)
    await add_passkey(page, stack)
    async with stack.payments.till.database.begin() as work:
        await work.execute(update(passkeys).values(sign_count=10_000))
        await work.commit()
    await review(page, stack, "150")
    await page.get_by_role("button", name="Pay €150.00").click()
    await expect(page.get_by_text("could not be checked").first).to_be_visible()
    assert await stack.balance_minor(UserId("@bob:weft.example")) == 0


async def test_a_passkey_lets_a_forgotten_pin_be_set_anew_and_is_removed_by_it(
    stack: WebStack, open_page: OpenPage
) -> None:
    alice = await rich_alice(stack)
    page = await open_page()
    await with_authenticator(page)
    await sign_in(page, stack, alice)
    await add_passkey(page, stack)
    await page.get_by_label("New PIN", exact=True).fill(PIN)
    await page.get_by_label("New PIN again").fill(PIN)
    await page.get_by_role("button", name="Set PIN").click()
    await expect(page.get_by_text("Your PIN is set.")).to_be_visible()
    # A second one, allowed by the PIN: this device has one already, and says so.
    await page.get_by_label("Name of the new passkey").fill("Again")
    keys = page.locator("section", has=page.get_by_role("heading", name="Passkeys"))
    await keys.get_by_role("button", name="Add a passkey").click()
    await expect(keys.locator("form[action$='/passkeys'] [data-passkey-problem]")).to_be_visible()
    await keys.get_by_text("Remove", exact=True).click()
    await keys.locator("form[action$='/remove']").get_by_label("Your PIN").fill(PIN)
    await keys.get_by_role("button", name="Remove this passkey").click()
    await expect(page.get_by_text("Your passkey is removed.")).to_be_visible()
    assert await stack.protection.proofs.passkeys.of(alice) == []


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
async def test_the_operators_page_is_accessible_and_fits_the_screen(
    stack: WebStack, open_page: OpenPage, size: tuple[int, int]
) -> None:
    await rich_alice(stack)
    admin = stack.user("admin")
    await stack.hold(stack.user("alice"), stack.user("bob"), 1_000)
    page = await open_page(size=size)
    await sign_in(page, stack, admin)
    await page.goto(stack.url + "/operator")
    await expect(page.get_by_role("heading", name="EUR in circulation")).to_be_visible()
    await check(page, f"operator-{size[0]}")
    stack.payments.elsewhere = OtherWallet(stack.payments.till)
    await owing(stack)
    await page.goto(stack.url + "/operator/peers")
    await expect(page.get_by_role("img", name="What they owe us")).to_be_visible()
    await check(page, f"operator-peers-{size[0]}")
