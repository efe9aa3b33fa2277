"""The wallet as a widget: a client at another origin hosts it, and a real Synapse vouches for the user."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
import pytest_asyncio
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from playwright.async_api import FrameLocator, Page, expect

from tests.browser.conftest import OpenPage, serious_findings
from tests.synapse import MatrixUser, Synapse, free_port
from tests.web_stack import WebStack, running_web, served, web_config

pytestmark = pytest.mark.asyncio(loop_scope="session")

CLIENT_PAGE: Final = Path(__file__).parent / "matrix_client.html"

Host = Callable[..., Awaitable[tuple[Page, FrameLocator]]]


@pytest.fixture(scope="module")
def synapse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Synapse]:
    with Synapse(tmp_path_factory.mktemp("synapse")) as synapse:
        synapse.start()
        yield synapse


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def alice(synapse: Synapse) -> MatrixUser:
    return await synapse.register("alice")


@pytest_asyncio.fixture(loop_scope="session")
async def stack(tmp_path: Path, synapse: Synapse) -> AsyncIterator[WebStack]:
    config = web_config(
        tmp_path,
        server_name=synapse.server_name,
        homeserver_url=synapse.url,
        client_origins=["http://localhost:*"],
    )
    async with running_web(config) as stack:
        await stack.deposit(stack.user("alice"), 10_000)
        stack.user("bob")
        yield stack


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def client_port() -> AsyncIterator[int]:
    """Where the client's page is served: as localhost it is a configured client, as 127.0.0.1 it is not."""
    app = FastAPI()
    app.get("/", response_class=HTMLResponse)(CLIENT_PAGE.read_text)
    port = free_port()
    async with served(app, port=port):
        yield port


async def openid_token(user: MatrixUser) -> dict[str, Any]:
    return await user.request("POST", f"/user/{user.user_id}/openid/request_token", {})


@pytest_asyncio.fixture(loop_scope="session")
async def host(open_page: OpenPage, stack: WebStack, alice: MatrixUser, client_port: int) -> Host:
    """A client that shows the wallet to Alice and answers its OpenID request as told."""

    async def host(
        *, answer: str = "allowed", vouches_for: MatrixUser = alice, at: str = "localhost", **look: Any
    ) -> tuple[Page, FrameLocator]:
        page = await open_page(**look)
        await page.expose_function("freshOpenIdToken", lambda: openid_token(vouches_for))
        await page.goto(f"http://{at}:{client_port}/")
        await page.evaluate("answer => { window.openIdAnswer = answer; }", answer)
        await show_widget(page, stack.url, user=alice.user_id)
        return page, page.frame_locator("#widget")

    return host


async def show_widget(page: Page, weft_url: str, *, user: str, theme: str = "light") -> None:
    await page.evaluate(
        "url => showWidget(url)", f"{weft_url}/wallet?widget=1&user_id={quote(user)}&theme={theme}"
    )


@pytest.mark.parametrize("answer", ["allowed", "asked"])
async def test_the_client_vouches_and_the_widget_pays(stack: WebStack, host: Host, answer: str) -> None:
    page, widget = await host(answer=answer)
    await expect(widget.locator("#balances")).to_contain_text("€100.00")
    await expect(widget.get_by_text("Signed in as @alice:localhost")).to_be_visible()
    assert {"content_loaded", "get_openid"} <= set(await page.evaluate("window.seen"))
    await page.wait_for_function("window.capabilities !== null")
    assert await page.evaluate("window.capabilities") == []
    await widget.get_by_role("link", name="Send").click()
    await expect(widget.get_by_role("heading", name="Send")).to_be_visible()
    await widget.get_by_label("To", exact=True).fill("bob")
    await widget.get_by_label("Amount").fill("12.50")
    await widget.get_by_role("button", name="Continue").click()
    await widget.get_by_role("button", name="Pay €12.50").click()
    await expect(widget.get_by_role("heading", name="Paid", exact=True)).to_be_visible()
    await expect(widget.locator("#balances")).to_contain_text("€87.50")
    assert await stack.balance_minor(stack.user("bob")) == 1250
    assert await page.context.cookies() == []


async def test_the_widget_signs_in_once_for_a_tab_and_again_when_its_session_has_ended(
    stack: WebStack, host: Host, alice: MatrixUser
) -> None:
    page, widget = await host()
    await expect(widget.locator("#balances")).to_be_visible()
    # Chromium lets a widget remember only within the client's own site.
    same_site = stack.url.replace("127.0.0.1", "localhost")
    for theme, asked in (("light", 1), ("dark", 0)):
        await page.evaluate("window.seen = []")
        await show_widget(page, same_site, user=alice.user_id, theme=theme)
        await expect(widget.locator(f"html.cpd-theme-{theme} #balances")).to_be_visible()
        assert (await page.evaluate("window.seen")).count("get_openid") == asked
    await stack.sessions.sign_out_everywhere(stack.user("alice"))
    await page.evaluate("window.seen = []")
    await show_widget(page, same_site, user=alice.user_id)
    await expect(widget.locator("html.cpd-theme-light #balances")).to_be_visible()
    assert (await page.evaluate("window.seen")).count("get_openid") == 1


async def test_a_cookie_of_the_same_site_does_not_sign_a_widget_in(
    stack: WebStack, host: Host, alice: MatrixUser
) -> None:
    page, widget = await host(answer="declined")
    began = await stack.session(stack.user("bob"))
    same_site = stack.url.replace("127.0.0.1", "localhost")
    cookie = f"weft_session_{stack.config.web.port}"
    await page.context.add_cookies([{"name": cookie, "value": began.token, "url": same_site}])
    await show_widget(page, same_site, user=alice.user_id)
    await expect(widget.get_by_role("heading", name="Not signed in")).to_be_visible()
    await expect(widget.locator("#balances")).to_have_count(0)


async def test_who_declines_is_told_and_may_try_again(host: Host) -> None:
    page, widget = await host(answer="declined")
    await expect(widget.get_by_role("heading", name="Not signed in")).to_be_visible()
    await expect(widget.get_by_role("button", name="Try again")).to_be_focused()
    await page.evaluate("window.openIdAnswer = 'allowed'")
    await widget.get_by_role("button", name="Try again").click()
    await expect(widget.locator("#balances")).to_be_visible()


async def test_signing_out_in_the_widget_ends_its_session(stack: WebStack, host: Host) -> None:
    _, widget = await host()
    await widget.get_by_role("button", name="Sign out").click()
    await expect(widget.get_by_role("heading", name="You are signed out")).to_be_visible()
    await expect(widget.locator("#balances")).to_have_count(0)
    await expect(widget.get_by_role("button", name="Sign in again")).to_be_focused()
    assert await stack.sessions.of_user(stack.user("alice")) == []


async def test_a_widget_opened_for_one_user_is_not_signed_in_as_another(
    stack: WebStack, host: Host, synapse: Synapse
) -> None:
    mallory = await synapse.register("mallory")
    _, widget = await host(vouches_for=mallory)
    await expect(widget.get_by_role("heading", name="Not signed in")).to_be_visible()
    await expect(widget.get_by_role("alert").first).to_contain_text("another user")


async def test_a_message_that_is_not_the_clients_own_is_not_listened_to(stack: WebStack, host: Host) -> None:
    page, widget = await host(answer="silent")
    await page.wait_for_function("window.seen.includes('get_openid')")
    # Another widget of the same client knows, or guesses, what the answer must look like.
    await page.evaluate(
        """() => {
            const other = document.createElement("iframe");
            document.body.append(other);
            other.contentWindow.eval(`parent.frames[0].postMessage({ api: "toWidget", requestId: "x",
                widgetId: "weft_wallet", action: "capabilities", data: {} }, "*")`);
        }"""
    )
    await asyncio.sleep(0.3)
    assert await page.evaluate("window.capabilities") == []
    await expect(widget.locator("#balances")).to_have_count(0)


async def test_every_page_is_reached_inside_the_widget(stack: WebStack, host: Host) -> None:
    page, widget = await host()
    tabs = widget.get_by_role("navigation", name="Wallet")
    for name in ("History", "Scan", "Spending", "More"):
        await tabs.get_by_role("link", name=name).click()
        await expect(widget.get_by_role("heading", name=name, exact=True)).to_be_focused()
    await widget.get_by_role("link", name="Statement").click()
    await expect(widget.get_by_role("heading", name="Statement", exact=True)).to_be_focused()
    async with page.expect_download() as began:
        await widget.get_by_role("link", name="CSV").click()
    assert (await (await began.value).path()).read_bytes().startswith(b"time,id,kind")
    await tabs.get_by_role("link", name="History").click()
    await widget.get_by_role("searchbox", name="Search").fill("nothing like it")
    await widget.get_by_role("button", name="Search").click()
    await expect(widget.get_by_text("Nothing fits.")).to_be_visible()
    await widget.get_by_role("link", name="Show all").click()
    await widget.locator("a.payment").first.click()
    await expect(widget.get_by_text("the signature is right")).to_be_visible()
    assert await serious_findings(page.frames[1]) == []
    assert page.frames[1].url.startswith(f"{stack.url}/wallet?widget=1"), "its address still signs it in"
    assert await page.context.cookies() == []


async def test_a_code_that_is_pasted_in_the_widget_fills_in_the_form(host: Host) -> None:
    _, widget = await host()
    await widget.get_by_role("link", name="Scan").first.click()
    await widget.get_by_label("Link or Matrix user").fill("https://matrix.to/#/@bob:localhost")
    await widget.get_by_role("button", name="Open").click()
    await expect(widget.get_by_label("To", exact=True)).to_have_value("@bob:localhost")


async def test_a_page_that_is_no_configured_client_can_not_show_the_wallet(host: Host) -> None:
    page, _ = await host(at="127.0.0.1")
    await page.wait_for_function("document.getElementById('widget').contentDocument === null")
    assert await page.evaluate("window.seen") == []


async def test_opened_in_a_tab_of_its_own_a_widget_is_the_ordinary_page(
    stack: WebStack, open_page: OpenPage
) -> None:
    page = await open_page()
    await page.goto(f"{stack.url}/wallet?widget=1&theme=dark")
    await page.wait_for_url("**/signin?next=/wallet")


@pytest.mark.parametrize("dark", [False, True])
async def test_the_widget_is_accessible(host: Host, dark: bool) -> None:
    page, widget = await host(dark=dark)
    await expect(widget.locator("#balances")).to_be_visible()
    frame = page.frames[1]
    assert await serious_findings(frame) == []


async def test_an_openid_token_gives_any_program_a_session(stack: WebStack, alice: MatrixUser) -> None:
    token = await openid_token(alice)
    answer = await stack.http.post(stack.url + "/_weft/sessions/openid", json=token)
    assert answer.status_code == 200
    assert answer.json()["user_id"] == alice.user_id
    headers = {"Authorization": f"Bearer {answer.json()['token']}"}
    balance = await stack.http.get(stack.url + "/_weft/wallet/v1/balance", headers=headers)
    assert balance.json()["balances"][0]["available_minor"] == "10000"


async def test_what_is_no_token_of_ours_gives_no_session(stack: WebStack, alice: MatrixUser) -> None:
    token = await openid_token(alice)
    wrong: list[tuple[Any, int]] = [
        ({**token, "access_token": "x"}, 403),
        ({**token, "access_token": alice.access_token}, 403),
        ({**token, "matrix_server_name": "evil.example"}, 403),
        ({**token, "access_token": ""}, 400),
        ({**token, "access_token": "x" * 5000}, 400),
        ({**token, "access_token": "\ud800"}, 400),
        ({**token, "access_token": "x&user_id=@bob:localhost\r\n"}, 403),
        ({**token, "token_type": "MAC"}, 400),
        ({"access_token": token["access_token"]}, 400),
        ([], 400),
        ("x", 400),
    ]
    for body, status in wrong:
        answer = await stack.http.post(
            stack.url + "/_weft/sessions/openid",
            content=json.dumps(body),
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code == status, (body, answer.text)
        assert set(answer.json()) == {"errcode", "error"}


async def test_when_the_homeserver_is_away_signing_in_can_be_tried_again(tmp_path: Path) -> None:
    async with running_web(web_config(tmp_path)) as stack:
        body = {"access_token": "x", "matrix_server_name": "weft.example", "token_type": "Bearer"}
        answer = await stack.http.post(stack.url + "/_weft/sessions/openid", json=body)
        assert answer.status_code == 503
        assert "try again" in answer.json()["error"]
