"""Pages in everybody's own language, over real HTTP without script."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path

import httpx
import pytest

from appservices.vocabulary.ids import UserId
from tests.synapse import WAIT_SECONDS_MAX
from tests.web_stack import WebStack, running_web, web_config

_TITLE = re.compile(r"<title>([^<]+)</title>")
_CSRF = re.compile(r'name="csrf" value="([0-9a-f]+)"')
_OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[WebStack]:
    async with running_web(web_config(tmp_path)) as stack:
        yield stack


@pytest.fixture
async def browser(stack: WebStack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.url, headers=_OWN_PAGE, timeout=WAIT_SECONDS_MAX) as browser:
        yield browser


async def signed_in(stack: WebStack, browser: httpx.AsyncClient) -> UserId:
    user = stack.user("alice")
    began = await stack.session(user)
    browser.cookies.set(f"weft_session_{stack.config.web.port}", began.token)
    return user


def spoken(page: httpx.Response) -> tuple[str, str, str]:
    """Language, direction and title of a page."""
    html = page.text.lstrip()
    shown = re.search(r'<html lang="([a-z]+)" dir="([a-z]+)"', html)
    title = _TITLE.search(html)
    assert shown and title
    assert page.headers["content-language"] == shown[1]
    return shown[1], shown[2], unescape(title[1])


SIGN_IN = {
    "en": ("en", "ltr", "Sign in · Weft"),
    "de": ("de", "ltr", "Anmelden · Weft"),
    "ar": ("ar", "rtl", "تسجيل الدخول · Weft"),
}


@pytest.mark.parametrize(
    ("accepted", "tag"),
    [("de-AT,en;q=0.5", "de"), ("ar", "ar"), ("fr", "en"), ("", "en"), ("\u00ff;;q", "en")],
)
async def test_before_anybody_signs_in_the_browser_is_asked(
    browser: httpx.AsyncClient, accepted: str, tag: str
) -> None:
    page = await browser.get("/signin", headers=[(b"accept-language", accepted.encode())])
    assert spoken(page) == SIGN_IN[tag]


async def test_the_operators_language_is_spoken_with_who_asks_for_none(tmp_path: Path) -> None:
    config = web_config(tmp_path).model_copy(update={"language": "ar"})
    async with running_web(config) as stack:
        assert spoken(await stack.http.get(stack.url + "/signin")) == SIGN_IN["ar"]


async def test_a_language_chosen_before_signing_in_stays_in_the_browser(browser: httpx.AsyncClient) -> None:
    page = await browser.get("/signin?next=/wallet&lang=ar")
    assert spoken(page) == SIGN_IN["ar"]
    answer = await browser.post("/language", data={"language": "de", "next": "/signin?next=/wallet&lang=ar"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/signin?next=/wallet")
    assert spoken(await browser.get(answer.headers["location"])) == SIGN_IN["de"]


async def test_a_users_choice_counts_in_every_browser(stack: WebStack, browser: httpx.AsyncClient) -> None:
    user = await signed_in(stack, browser)
    home = await browser.get("/", headers={"Accept-Language": "de"})
    assert "Wo du angemeldet bist" in home.text
    csrf = _CSRF.search(home.text)
    assert csrf
    fields = {"language": "ar", "next": "/wallet", "csrf": csrf[1]}
    assert (await browser.post("/language", data=fields)).headers["location"] == "/wallet"
    assert await stack.languages.chosen_by(user) == "ar"
    async with httpx.AsyncClient(
        base_url=stack.url, headers=await stack.bearer(user), timeout=WAIT_SECONDS_MAX
    ) as elsewhere:
        page = await elsewhere.get("/wallet?lang=de", headers={"Accept-Language": "de"})
    assert spoken(page) == ("ar", "rtl", "المحفظة · Weft")


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"language": "de"}, _OWN_PAGE),
        ({"language": "de", "csrf": "0" * 64}, _OWN_PAGE),
        ({"language": "de"}, {"Sec-Fetch-Site": "cross-site"}),
    ],
)
async def test_nobody_elses_page_changes_a_users_language(
    stack: WebStack, browser: httpx.AsyncClient, fields: dict[str, str], headers: dict[str, str]
) -> None:
    user = await signed_in(stack, browser)
    assert (await browser.post("/language", data=fields, headers=headers)).status_code == 403
    browser.cookies.clear()
    if headers != _OWN_PAGE:
        assert (await browser.post("/language", data=fields, headers=headers)).status_code == 403
    assert await stack.languages.chosen_by(user) is None


@pytest.mark.parametrize("tag", ["", "xx", "../de", "de\n", "d" * 5000])
async def test_a_language_that_is_none_of_ours_changes_nothing(
    stack: WebStack, browser: httpx.AsyncClient, tag: str
) -> None:
    answer = await browser.post("/language", data={"language": tag, "next": "//evil.example/"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "set-cookie" not in answer.headers
    browser.cookies.set(f"weft_language_{stack.config.web.port}", "xx")
    assert spoken(await browser.get("/signin")) == SIGN_IN["en"]


async def test_a_payment_is_made_and_refused_in_german(stack: WebStack, browser: httpx.AsyncClient) -> None:
    user = await signed_in(stack, browser)
    await stack.deposit(user, 10_000)
    await stack.languages.choose(user, "de")
    page = await browser.get("/wallet/send")
    csrf = _CSRF.search(page.text)
    assert csrf and "Jemandem zahlen" in page.text and "100,00" in page.text
    fields = {"csrf": csrf[1], "id": stack.new_id(), "payee": "bob", "amount": "1,250"}
    refused = await browser.post("/wallet/pay/review", data=fields)
    assert refused.status_code == 422
    assert "„1,250“ könnte 1250 oder 1.250 heißen" in refused.text
    unknown = await browser.post("/wallet/pay/review", data={**fields, "amount": "5"})
    assert "gibt es hier nicht" in unknown.text
    stack.user("bob")
    review = await browser.post("/wallet/pay/review", data={**fields, "amount": "12,50"})
    assert "Du zahlst gleich" in review.text and "12,50\u00a0€ zahlen" in review.text


async def test_errors_are_pages_in_the_language_and_answers_to_programs_are_english(
    stack: WebStack, browser: httpx.AsyncClient
) -> None:
    user = await signed_in(stack, browser)
    await stack.languages.choose(user, "de")
    missing = await browser.get("/nowhere")
    assert missing.status_code == 404 and "Hier ist nichts" in missing.text
    not_ours = await browser.post("/signout", data={})
    assert not_ours.status_code == 403 and "Nichts wurde geändert" in not_ours.text
    bearer = await stack.bearer(user)
    body = {"id": stack.new_id(), "payee": user, "amount_minor": "100", "currency": "EUR"}
    refused = await browser.post(
        "/_weft/wallet/v1/payments", json=body, headers={**bearer, "Accept-Language": "de"}
    )
    assert refused.json()["error"] == "You can't pay yourself."


async def test_a_widgets_frame_is_in_the_clients_language_and_its_content_in_the_users(
    stack: WebStack, browser: httpx.AsyncClient
) -> None:
    frame = await browser.get("/wallet?widget=1&lang=de-DE&user_id=@alice:weft.example")
    assert spoken(frame)[0] == "de" and "Anmeldung" in frame.text
    assert "lang=de" not in frame.text.split("hx-get=")[1].split(">")[0]
    unfilled = await browser.get("/wallet?widget=1&lang=$org.matrix.msc2873.client_language")
    assert spoken(unfilled)[0] == "en"
    user = stack.user("alice")
    headers = {**await stack.bearer(user), "HX-Request": "true", "Accept-Language": "de"}
    content = await browser.get("/wallet", headers=headers)
    assert '<div id="wallet" lang="de" dir="ltr">' in content.text
    await stack.languages.choose(user, "ar")
    content = await browser.get("/wallet", headers=headers)
    assert '<div id="wallet" lang="ar" dir="rtl">' in content.text and "رصيدك" in content.text
