"""The pages over real HTTP without script: sign-in, paying, and what a foreign page can't do."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from appservices.chassis.page_assets import Assets, AssetsMissing
from appservices.chassis.page_language import PageLanguages
from appservices.chassis.pages import Pages, install_shell
from appservices.chassis.signed_in import SessionGuard
from appservices.vocabulary.ids import UserId
from tests.synapse import WAIT_SECONDS_MAX, free_port
from tests.web_stack import WebStack, running_web, served, web_config

_HIDDEN = re.compile(r'<input type="hidden" name="([a-z_]+)" value="([^"]*)">')
_CODE = re.compile(r'id="code">([^<]+)<')


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[WebStack]:
    async with running_web(web_config(tmp_path)) as stack:
        yield stack


@pytest.fixture
async def browser(stack: WebStack) -> AsyncIterator[httpx.AsyncClient]:
    """A browser without script: it keeps cookies and says where its forms come from."""
    headers = {"Sec-Fetch-Site": "same-origin", "User-Agent": "Mozilla/5.0 (X11; Linux) Firefox/140.0"}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=WAIT_SECONDS_MAX) as browser:
        yield browser


@dataclass
class Shopper:
    """A signed-in user of the pages."""

    browser: httpx.AsyncClient
    user: UserId

    async def form(self, path: str = "/wallet/send") -> dict[str, str]:
        return hidden_fields((await self.browser.get(path)).text, after='action="/wallet/pay/review"')

    async def post(self, path: str, fields: dict[str, str]) -> httpx.Response:
        return await self.browser.post(path, data=fields)


@pytest.fixture
async def alice(stack: WebStack, browser: httpx.AsyncClient) -> Shopper:
    user = stack.user("alice")
    await stack.deposit(user, 10_000)
    began = await stack.session(user)
    browser.cookies.set(f"weft_session_{stack.config.web.port}", began.token)
    return Shopper(browser, user)


def hidden_fields(page: str, *, after: str) -> dict[str, str]:
    form = page[page.index(after) :]
    return dict(_HIDDEN.findall(form[: form.index("</form>")]))


async def test_signing_in_by_a_code_needs_no_script(stack: WebStack, browser: httpx.AsyncClient) -> None:
    turned_away = await browser.get("/wallet?before=5")
    assert turned_away.headers["location"] == "/signin?next=/wallet%3Fbefore%3D5"
    page = await browser.get(turned_away.headers["location"])
    found = _CODE.search(page.text)
    assert found is not None
    assert (await browser.get("/signin")).text.count(found.group(1)) >= 1, "a reload shows the same code"
    fields = hidden_fields(page.text, after='action="/signin/check"')
    early = await browser.post("/signin/check", data=fields)
    assert early.headers["location"] == "/signin?next=/wallet%3Fbefore%3D5&waiting=1"
    assert "has not arrived yet" in (await browser.get(early.headers["location"])).text
    assert await stack.sessions.confirm_code(found.group(1), stack.user("alice"))
    done = await browser.post("/signin/check", data=fields)
    assert (done.status_code, done.headers["location"]) == (303, "/wallet?before=5")
    assert "@alice:weft.example" in (await browser.get("/")).text
    assert (await browser.get("/signin")).headers["location"] == "/"


async def test_the_page_that_polls_is_told_when_to_go_on_and_when_the_code_is_over(
    stack: WebStack, browser: httpx.AsyncClient
) -> None:
    page = (await browser.get("/signin")).text
    polling = {"HX-Request": "true"}
    assert (await browser.post("/signin/check", data={"next": "/"}, headers=polling)).status_code == 204
    stack.clock.ahead_ms = 601_000
    over = await browser.post("/signin/check", data={"next": "/"}, headers=polling)
    assert over.headers["hx-redirect"] == "/signin?next=/"
    renewed = (await browser.get("/signin")).text
    codes = [found.group(1) for text in (page, renewed) for found in [_CODE.search(text)] if found]
    assert len(set(codes)) == 2
    await stack.sessions.confirm_code(codes[1], stack.user("alice"))
    done = await browser.post("/signin/check", data={"next": "/wallet"}, headers=polling)
    assert done.headers["hx-redirect"] == "/wallet"
    again = await browser.post("/signin/check", data={"next": "/wallet"}, headers=polling)
    assert again.headers["hx-redirect"] == "/wallet"


async def test_a_one_time_link_survives_a_preview_and_signs_in_once(
    stack: WebStack, browser: httpx.AsyncClient
) -> None:
    path = f"/signin/link/{await stack.sessions.make_link(stack.user('alice'))}"
    for _ in range(3):
        assert "Sign in as Alice?" in (await browser.get(path)).text
    assert (await browser.post(path, data={"next": "/wallet"})).headers["location"] == "/wallet"
    assert (await browser.get("/wallet")).status_code == 200
    used = await browser.get(path)
    assert used.status_code == 404 and "no longer works" in used.text
    assert (await browser.post(path)).status_code == 404


async def test_a_foreign_page_can_not_sign_a_browser_in(stack: WebStack, browser: httpx.AsyncClient) -> None:
    path = f"/signin/link/{await stack.sessions.make_link(stack.user('eve'))}"
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
        assert (await browser.post(path, headers=headers)).status_code == 403
    assert not browser.cookies
    assert (await browser.post(path)).status_code == 303


async def test_after_signing_in_nobody_is_sent_to_another_site(
    stack: WebStack, browser: httpx.AsyncClient
) -> None:
    path = f"/signin/link/{await stack.sessions.make_link(stack.user('alice'))}"
    page = await browser.get(path + "?next=//evil.example")
    assert "evil.example" not in page.text
    answer = await browser.post(path, data={"next": "https://evil.example/"})
    assert answer.headers["location"] == "/"


async def test_paying_without_script_asks_first_and_pays_once(stack: WebStack, alice: Shopper) -> None:
    bob = stack.user("bob")
    typed = {"payee": "bob", "amount": "12.50", "memo": "lunch"}
    review = await alice.post("/wallet/pay/review", {**await alice.form(), **typed})
    assert review.status_code == 200
    assert "You are about to pay" in review.text and "€12.50" in review.text
    assert "@bob:weft.example" in review.text
    assert await stack.balance_minor(bob) == 0
    fields = hidden_fields(review.text, after='action="/wallet/pay"')
    answers = await asyncio.gather(*(alice.post("/wallet/pay", fields) for _ in range(3)))
    assert {answer.status_code for answer in answers} == {303}
    places = {answer.headers["location"] for answer in answers}
    assert len(places) == 1
    assert await stack.balance_minor(bob) == 1250
    shown = await alice.browser.get(places.pop())
    assert "Paid" in shown.text and "€87.50" in shown.text and "lunch" in shown.text


async def test_changing_ones_mind_keeps_what_was_typed_and_the_forms_id(
    stack: WebStack, alice: Shopper
) -> None:
    stack.user("bob")
    typed = {"payee": "bob", "amount": "12.50", "memo": "a & b <c>"}
    review = await alice.post("/wallet/pay/review", {**await alice.form(), **typed})
    fields = hidden_fields(review.text, after='action="/wallet/pay"')
    changed = await alice.post("/wallet/pay/change", {**fields, "memo": "a & b <c>"})
    assert 'value="a &amp; b &lt;c&gt;"' in changed.text and 'value="12.50"' in changed.text
    assert f'value="{fields["id"]}"' in changed.text


@pytest.mark.parametrize(
    ("typed", "status", "field", "sentence"),
    [
        ({"payee": "nobody", "amount": "1"}, 404, "payee", "There is no user"),
        ({"payee": "bob", "amount": "100.01"}, 402, "amount", "more than you have"),
        ({"payee": "bob", "amount": "-1"}, 422, "amount", "negative"),
        ({"payee": "", "amount": "1"}, 422, "payee", "Whom"),
        ({"payee": "bob", "amount": "1", "memo": "m" * 250}, 422, "memo", "200 characters"),
    ],
)
async def test_a_refusal_stands_beside_its_field_with_what_was_typed(
    stack: WebStack, alice: Shopper, typed: dict[str, str], status: int, field: str, sentence: str
) -> None:
    stack.user("bob")
    answer = await alice.post("/wallet/pay/review", {**await alice.form(), **typed})
    assert answer.status_code == status
    problem = answer.text[answer.text.index(f'id="{field}-problem"') :]
    assert sentence in problem[: problem.index("</p>")]
    assert f'aria-describedby="{field}-problem"' in answer.text
    assert f'value="{typed["payee"]}"' in answer.text and f'value="{typed["amount"]}"' in answer.text
    assert await stack.balance_minor(alice.user) == 10_000


async def test_a_form_from_elsewhere_or_without_its_token_changes_nothing(
    stack: WebStack, alice: Shopper
) -> None:
    bob = stack.user("bob")
    fields = {**await alice.form(), "payee": "bob", "amount": "1"}
    without = {name: value for name, value in fields.items() if name != "csrf"}
    others = {**fields, "csrf": "0" * 64}
    for path in ("/wallet/pay", "/wallet/pay/review", "/signout", "/browsers/signout-all"):
        for refused in (without, others):
            assert (await alice.post(path, refused)).status_code == 403, path
        for site in ("cross-site", "same-site", "none"):
            headers = {"Sec-Fetch-Site": site}
            answer = await alice.browser.post(path, data=fields, headers=headers)
            assert answer.status_code == 403 and "Nothing was changed" in answer.text, path
    assert await stack.balance_minor(bob) == 0
    assert (await alice.browser.get("/wallet")).status_code == 200


async def test_too_large_and_broken_forms_are_refused_in_words(stack: WebStack, alice: Shopper) -> None:
    fields = await alice.form()
    large = await alice.post("/wallet/pay", {**fields, "memo": "m" * 100_000})
    assert large.status_code == 413 and "more than this form takes" in large.text
    broken = await alice.browser.post(
        "/wallet/pay", content=b"\x00", headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert 400 <= broken.status_code < 500
    nested = await alice.browser.post("/wallet/pay", files={"memo": b"x"}, data=fields)
    assert 400 <= nested.status_code < 500
    assert (await alice.browser.get("/wallet?before=x&paid=y")).status_code == 200
    assert (await alice.browser.get("/wallet/send?payee=%00&amount=%00&paid=%00")).status_code == 200


async def test_what_people_write_is_shown_as_text(stack: WebStack, alice: Shopper) -> None:
    bob = stack.user("bob")
    await stack.deposit(bob, 500)
    await stack.pay(bob, alice.user, 100, memo='<script>alert(1)</script>" onx="')
    page = (await alice.browser.get("/wallet")).text
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page


async def test_payments_page_by_page_without_script(stack: WebStack, alice: Shopper) -> None:
    bob = stack.user("bob")
    for number in range(13):
        await stack.pay(alice.user, bob, 100, memo=f"memo {number:02}")
    seen: list[str] = []
    path = "/wallet"
    for _ in range(5):
        page = (await alice.browser.get(path)).text
        seen += re.findall(r"<bdi>(memo \d\d)</bdi>", page)
        more = re.search(r'href="(/wallet\?before=\d+)"', page)
        if more is None:
            break
        path = more.group(1)
    assert seen == [f"memo {number:02}" for number in reversed(range(13))]
    by_script = await alice.browser.get("/wallet/payments?before=999", headers={"HX-Request": "true"})
    assert by_script.text.count('<a class="payment"') == 10


async def test_an_open_page_is_told_of_news_and_of_nothing_else(stack: WebStack, alice: Shopper) -> None:
    bob = stack.user("bob")
    by_script = {"HX-Request": "true"}

    async def ask(page: str) -> httpx.Response:
        found = re.search(r'hx-get="(/wallet/news\?[^"]+)"', page)
        assert found is not None
        return await alice.browser.get(found.group(1).replace("&amp;", "&"), headers=by_script)

    page = (await alice.browser.get("/wallet")).text
    assert (await ask(page)).status_code == 204
    await stack.pay(alice.user, bob, 100, memo="news")
    news = await ask(page)
    assert "€99.00" in news.text and "news" in news.text and 'id="pay"' not in news.text
    assert (await ask(news.text)).status_code == 204
    await stack.hold(alice.user, bob, 500)
    assert "€5.00 held" in (await ask(news.text)).text
    assert "/wallet/news" not in (await alice.browser.get("/wallet?before=1")).text


async def test_signing_out_here_one_elsewhere_and_everywhere(stack: WebStack, alice: Shopper) -> None:
    other = await stack.session(alice.user, user_agent="Mozilla/5.0 (Android) Chrome/140")
    home = (await alice.browser.get("/")).text
    assert "Firefox" not in home and "Chrome on Android" in home and "€100.00" in home
    fields = hidden_fields(home, after="Chrome on Android")
    await alice.post("/browsers/signout", {**fields, "session_id": other.session.session_id})
    assert await stack.sessions.find(other.token) is None
    gone = await alice.post("/signout", fields)
    assert gone.headers["location"] == "/signed-out"
    assert "You are signed out" in (await alice.browser.get("/signed-out")).text
    assert (await alice.browser.get("/")).headers["location"] == "/signin?next=/"
    assert (await alice.post("/signout", fields)).status_code == 303, "signing out twice does no harm"
    assert await stack.sessions.of_user(alice.user) == []


async def test_the_portal_stands_when_the_wallet_does_not(stack: WebStack, alice: Shopper) -> None:
    await stack.ledger.stop()
    page = await alice.browser.get("/")
    assert page.status_code == 200 and "Wallet" in page.text


async def test_when_the_ledger_is_away_the_payment_can_be_repeated_with_the_same_id(
    stack: WebStack, alice: Shopper
) -> None:
    stack.user("bob")
    fields = {**await alice.form(), "payee": "bob", "amount": "1"}
    await stack.ledger.stop()
    answer = await alice.post("/wallet/pay", fields)
    assert answer.status_code == 503
    assert "will not pay twice" in answer.text
    assert hidden_fields(answer.text, after='action="/wallet/pay"')["id"] == fields["id"]


async def test_every_page_has_strict_headers_and_only_widgets_may_be_framed(
    stack: WebStack, alice: Shopper
) -> None:
    paths = (
        "/",
        "/wallet",
        "/signed-out",
        "/nothing",
        "/signin/link/x",
        "/_weft/wallet/keys",
        "/_weft/nothing",
    )
    for path in paths:
        headers = (await alice.browser.get(path)).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"], path
        assert "unsafe" not in headers["content-security-policy"], path
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["referrer-policy"] == "same-origin", path
        assert headers["cache-control"] == "no-store", path
        assert "camera=()" in headers["permissions-policy"], path
    widget = await alice.browser.get("/wallet?widget=1&theme=dark")
    assert "frame-ancestors 'self' https://app.element.io" in widget.headers["content-security-policy"]
    assert "alice" not in widget.text, "a widget's page knows nobody before it has signed in"
    assert 'class="cpd-theme-dark"' in widget.text
    for page in ((await alice.browser.get("/wallet")).text, widget.text):
        assert (
            not re.search(r"<script(?![^>]* src=)", page) and " style=" not in page and "<style" not in page
        )
        assert not re.search(r"\son[a-z]+=", page)


async def test_assets_are_kept_for_ever_under_the_address_of_their_content(
    stack: WebStack, browser: httpx.AsyncClient
) -> None:
    page = (await browser.get("/signin")).text
    addresses = re.findall(r'(?:src|href)="(/_weft/assets/[^"]+)"', page)
    assert len(addresses) >= 4
    for address in addresses:
        answer = await browser.get(address)
        assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"], address
        plain = await browser.get(address.split("?")[0])
        assert plain.headers["cache-control"] == "no-cache"
        unchanged = await browser.get(address, headers={"If-None-Match": answer.headers["etag"]})
        assert unchanged.status_code == 304
    for path in ("/_weft/assets/../web_security.py", "/_weft/assets/%2e%2e/pages.py", "/_weft/assets/"):
        assert (await browser.get(path)).status_code == 404


async def test_a_fragment_without_a_session_sends_the_whole_page_to_sign_in(
    stack: WebStack, browser: httpx.AsyncClient
) -> None:
    by_script = {"HX-Request": "true"}
    answer = await browser.post("/wallet/pay/review", headers=by_script)
    assert (answer.status_code, answer.headers["hx-redirect"]) == (401, "/signin?next=/wallet")
    widget = await browser.get("/wallet/content", headers={**by_script, "Authorization": "Bearer x"})
    assert widget.status_code == 401 and "hx-redirect" not in widget.headers


async def test_a_fault_of_ours_is_told_in_words_and_not_in_detail(stack: WebStack) -> None:
    app = FastAPI()
    assets = Assets()
    guard = SessionGuard(stack.sessions, stack.config.web)
    install_shell(app, Pages(stack.config.web, assets), assets, PageLanguages(guard, stack.languages))

    @app.get("/broken")
    @app.get("/_weft/broken")
    async def broken() -> None:
        raise RuntimeError("a secret detail")

    port = free_port()
    async with served(app, port=port):
        page = await stack.http.get(f"http://127.0.0.1:{port}/broken")
        api = await stack.http.get(f"http://127.0.0.1:{port}/_weft/broken")
    assert page.status_code == api.status_code == 500
    assert "Something broke" in page.text and api.json()["errcode"] == "M_UNKNOWN"
    assert "secret" not in page.text + api.text
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]


def test_without_the_browser_libraries_the_start_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(AssetsMissing, match="scripts/fetch-assets"):
        Assets(tmp_path)
