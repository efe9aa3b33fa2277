"""The Security page, what must be confirmed, and the operator's page, over HTTP without script."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from appservices.chassis.web_sessions import SignInWay
from appservices.vocabulary.ids import UserId
from tests.protected_wallet import OTHER_PIN, PIN, an_order
from tests.synapse import WAIT_SECONDS_MAX
from tests.web_stack import SERVER_NAME, WebStack, running_web, web_config
from wallet_appservice.payments.records import PaymentOrder

_HIDDEN = re.compile(r'<input type="hidden" name="([a-z_]+)" value="([^"]*)">')
SECURITY = "/wallet/security"
API = "/_weft/wallet/v1"
ADMIN = f"@admin:{SERVER_NAME}"


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[WebStack]:
    async with running_web(web_config(tmp_path, operators=[ADMIN])) as stack:
        yield stack


class Shopper:
    """A browser without script, signed in."""

    def __init__(self, stack: WebStack, user: UserId, browser: httpx.AsyncClient) -> None:
        self.stack = stack
        self.user = user
        self.browser = browser

    async def post(self, page: str, path: str, **fields: str) -> httpx.Response:
        """Sends the form of a page, with its hidden fields."""
        text = (await self.browser.get(page)).text
        form = text[text.index(f'action="{path}"') :]
        hidden = dict(_HIDDEN.findall(form[: form.index("</form>")]))
        return await self.browser.post(path, data={**hidden, **fields})

    async def set_pin(self, new: str = PIN, **fields: str) -> httpx.Response:
        return await self.post(SECURITY, f"{SECURITY}/pin", new_pin=new, new_pin_again=new, **fields)


async def signed_in(stack: WebStack, name: str, way: SignInWay = SignInWay.CODE) -> Shopper:
    user = stack.user(name)
    headers = {"Sec-Fetch-Site": "same-origin", "User-Agent": "Mozilla/5.0 (X11; Linux) Firefox/140.0"}
    browser = httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=WAIT_SECONDS_MAX)
    began = await stack.sessions.begin(user, way, "")
    browser.cookies.set(f"weft_session_{stack.config.web.port}", began.token)
    return Shopper(stack, user, browser)


@pytest.fixture
async def alice(stack: WebStack) -> AsyncIterator[Shopper]:
    shopper = await signed_in(stack, "alice")
    await stack.deposit(shopper.user, 100_000)
    stack.user("bob")
    yield shopper
    await shopper.browser.aclose()


async def test_a_pin_is_set_changed_and_removed_on_the_security_page(alice: Shopper) -> None:
    assert (await alice.set_pin("123456")).status_code == 422
    different = await alice.post(SECURITY, f"{SECURITY}/pin", new_pin=PIN, new_pin_again=OTHER_PIN)
    assert different.status_code == 422 and "not the same" in different.text
    done = await alice.set_pin()
    assert (done.status_code, done.headers["location"]) == (303, f"{SECURITY}?done=pin")
    assert "Your PIN is set." in (await alice.browser.get(done.headers["location"])).text
    refused = await alice.set_pin(OTHER_PIN)
    assert refused.status_code == 422 and "needs your PIN" in refused.text
    assert (await alice.set_pin(OTHER_PIN, pin="111222")).status_code == 422
    assert (await alice.set_pin(OTHER_PIN, pin=PIN)).status_code == 303
    removed = await alice.post(SECURITY, f"{SECURITY}/pin/remove", pin=OTHER_PIN)
    assert removed.status_code == 303
    assert "Set PIN" in (await alice.browser.get(SECURITY)).text


async def test_a_session_by_openid_is_sent_to_the_browser(stack: WebStack) -> None:
    widget = await signed_in(stack, "carol", SignInWay.OPENID)
    assert "Sign in with a code or a link" in (await widget.browser.get(SECURITY)).text
    answer = await widget.set_pin()
    assert answer.status_code == 422 and "Open the Wallet in your browser" in answer.text
    await widget.browser.aclose()


async def test_limits_of_ones_own_are_kept_and_a_wrong_one_is_told(alice: Shopper) -> None:
    save = f"{SECURITY}/limits"
    saved = await alice.post(SECURITY, save, currency="EUR", payment="500", day="800,50", chat="0")
    assert saved.status_code == 303
    page = (await alice.browser.get(SECURITY)).text
    assert 'value="500.00"' in page and 'value="800.50"' in page and 'value="0"' in page
    wrong = await alice.post(SECURITY, save, currency="EUR", payment="-5")
    assert wrong.status_code == 422 and "negative" in wrong.text
    raised = await alice.post(SECURITY, save, currency="EUR", payment="600", day="800.50", chat="0")
    assert raised.status_code == 422 and "set one up first" in raised.text
    assert (await alice.post(SECURITY, save, currency="XXX", payment="1")).status_code == 422


async def review(alice: Shopper, amount: str) -> dict[str, str]:
    answer = await alice.post("/wallet/send", "/wallet/pay/review", payee="bob", amount=amount)
    form = answer.text[answer.text.index('action="/wallet/pay"') :]
    assert ('name="pin"' in form) == (float(amount) > 100)
    assert "never paid @bob:weft.example before" in form
    return {name: html.unescape(value) for name, value in _HIDDEN.findall(form[: form.index("</form>")])}


async def test_above_the_chat_limit_a_page_asks_for_the_pin_and_pays_once(
    stack: WebStack, alice: Shopper
) -> None:
    await alice.set_pin()
    await review(alice, "50")
    fields = await review(alice, "150")
    for pin, sentence in (("", "needs your PIN"), ("111222", "PIN is not right")):
        refused = await alice.browser.post("/wallet/pay", data={**fields, "pin": pin})
        assert refused.status_code == 422 and sentence in refused.text
        assert f'value="{fields["id"]}"' in refused.text, "nothing was spent, so the id stays"
    for _ in range(2):
        paid = await alice.browser.post("/wallet/pay", data={**fields, "pin": PIN})
        assert (paid.status_code, paid.headers["location"]) == (303, f"/wallet/send?paid={fields['id']}")
    assert await stack.balance_minor(UserId("@bob:weft.example")) == 15_000


async def waiting_order(
    stack: WebStack, payer: UserId, name: str, amount_minor: int = 15_000
) -> PaymentOrder:
    order = an_order(name, amount_minor, payer=payer, payee=stack.user("bob"), memo="bike")
    confirmations = stack.protection.confirmations
    await stack.payments.pay(order, tell=lambda _outcome: [confirmations.asked(order)])
    return order


@pytest.mark.parametrize("has_pin", [False, True])
async def test_what_was_asked_for_by_chat_is_confirmed_on_its_page(
    stack: WebStack, alice: Shopper, has_pin: bool
) -> None:
    if has_pin:
        await alice.set_pin()
    order = await waiting_order(stack, alice.user, "bike")
    path = f"/wallet/confirm/{order.id}"
    page = (await alice.browser.get(path)).text
    assert "€150.00" in page and "bike" in page and "never paid" in page
    assert ("set one up" in page) != has_pin
    if has_pin:
        assert (await alice.post(path, path)).status_code == 422
        assert await stack.balance_minor(order.payee) == 0
    paid = await alice.post(path, path, pin=PIN if has_pin else "")
    assert paid.headers["location"] == f"/wallet/send?paid={order.id}"
    assert "This payment has been made." in (await alice.browser.get(path)).text
    assert await stack.balance_minor(order.payee) == 15_000


async def test_what_waits_is_its_payers_alone_and_may_be_left(stack: WebStack, alice: Shopper) -> None:
    order = await waiting_order(stack, alice.user, "bike")
    path = f"/wallet/confirm/{order.id}"
    eve = await signed_in(stack, "eve")
    assert (await eve.browser.get(path)).status_code == 404
    assert (await eve.browser.get("/wallet/confirm/nonsense")).status_code == 404
    await eve.browser.aclose()
    async with httpx.AsyncClient(base_url=stack.url, timeout=WAIT_SECONDS_MAX) as nobody:
        assert (await nobody.get(path)).headers["location"] == f"/signin?next={path}"
    text = (await alice.browser.get(path)).text
    csrf = dict(_HIDDEN.findall(text))["csrf"]
    assert (await alice.browser.post(f"{path}/leave", data={"csrf": "0"})).status_code == 403
    await alice.browser.post(f"{path}/leave", data={"csrf": csrf})
    assert "You left this payment" in (await alice.browser.get(path)).text
    assert await stack.balance_minor(order.payee) == 0


async def test_a_program_pays_above_the_limit_with_its_users_pin(stack: WebStack, alice: Shopper) -> None:
    headers = await stack.bearer(alice.user)

    async def ask(method: str, path: str, **body: object) -> tuple[int, dict[str, object]]:
        answer = await stack.http.request(method, stack.url + API + path, json=body, headers=headers)
        return answer.status_code, answer.json()

    payment = {
        "id": an_order("api", 1).id, "payee": "@bob:weft.example", "amount_minor": "15000", "currency": "EUR"
    }  # fmt: skip
    status, answer = await ask("PUT", "/pin", new_pin="111111")
    assert (status, answer["errcode"]) == (400, "DEV_WEFT_PIN_UNFIT")
    assert (await ask("PUT", "/pin", new_pin=PIN))[0] == 200
    status, answer = await ask("POST", "/payments", **payment)
    assert (status, answer["errcode"]) == (403, "DEV_WEFT_CONFIRMATION_NEEDED")
    status, answer = await ask("POST", "/payments", **payment, pin="271828")
    assert (status, answer["errcode"]) == (403, "DEV_WEFT_PIN_WRONG")
    status, answer = await ask("POST", "/payments", **payment, passkey={"id": "x"})
    assert (status, answer["errcode"]) == (403, "DEV_WEFT_PASSKEY_WRONG")
    for _ in range(2):
        assert (await ask("POST", "/payments", **payment, pin=PIN))[0] == 200
    assert await stack.balance_minor(UserId("@bob:weft.example")) == 15_000
    order = await waiting_order(stack, alice.user, "chat", 10_500)
    waiting = f"/confirmations/{order.id}"
    status, answer = await ask("GET", waiting)
    assert (answer["state"], answer["needs_proof"], answer["amount_minor"]) == ("open", True, "10500")
    assert (await ask("POST", waiting))[1]["errcode"] == "DEV_WEFT_CONFIRMATION_NEEDED"
    for _ in range(2):
        assert (await ask("POST", waiting, pin=PIN))[1]["state"] == "paid"
    status, answer = await ask("PUT", "/limits", currency="EUR", day_minor="26000")
    assert answer["limits"][0]["own"] == {"day": "26000"}  # type: ignore[index]
    assert answer["limits"][0]["spent_today_minor"] == "25500"  # type: ignore[index]
    second = {**payment, "id": an_order("api 2", 1).id, "amount_minor": "1001"}
    status, answer = await ask("POST", "/payments", **second)
    assert (status, answer["errcode"]) == (403, "DEV_WEFT_DAY_LIMIT")
    status, answer = await ask("PUT", "/budget", currency="EUR", budget_minor="50000")
    assert answer["budgets"][0] == {"currency": "EUR", "budget_minor": "50000", "spent_minor": "25500"}  # type: ignore[index]
    status, answer = await ask("POST", "/passkeys/options")
    assert (status, answer["errcode"]) == (400, "DEV_WEFT_PASSKEYS_UNSUPPORTED")
    assert "IP address" in str(answer["error"])
    assert (await ask("DELETE", "/pin", pin=PIN))[0] == 200


async def test_the_operators_page_is_the_operators(stack: WebStack, alice: Shopper) -> None:
    assert (await alice.browser.get("/operator")).status_code == 404
    admin = await signed_in(stack, "admin")
    await alice.set_pin()
    await waiting_order(stack, alice.user, "bike")
    for number in range(25):
        await stack.deposit(stack.user(f"user{number}"), 100)
    page = (await admin.browser.get("/operator")).text
    assert "€1,025.00" in page and "Accounts: 26" in page
    assert "Deposit of €1.00 to @user24:weft.example" in page and "PIN set" not in page
    older = re.search(r'href="(/operator\?before=\d+)"', page)
    assert older is not None
    assert "PIN set by @alice:weft.example" in (await admin.browser.get(older.group(1))).text
    await admin.browser.aclose()
