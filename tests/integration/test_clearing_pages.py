"""What pages and API show of payments to another homeserver: under way, taken, or given back.

The other wallet is played by the test; the till, the ledger and HTTP are real.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import insert

from appservices.chassis.clock import system_clock
from appservices.vocabulary.ids import ServerName, UserId
from appservices.vocabulary.money import Money
from tests.synapse import WAIT_SECONDS_MAX
from tests.web_stack import EUR, WebStack, running_web, web_config
from wallet_appservice.clearing.peers import Peers
from wallet_appservice.payments.accounts import peer_account, user_account
from wallet_appservice.payments.limits import Admission
from wallet_appservice.payments.records import Ending, Movement, PaymentKind, PaymentRecord, PaymentState
from wallet_appservice.payments.till import Outcome, Tell, Till
from wallet_appservice.storage.clearing_tables import peer_positions

_HIDDEN = re.compile(r'<input type="hidden" name="([a-z_]+)" value="([^"]*)">')
BOB = UserId("@bob:elsewhere.example")


class OtherWallet:
    """Answers each payment as the test says; None is silence."""

    def __init__(self, till: Till) -> None:
        self._till = till
        self.answer: Ending | None = Ending.ACCEPTED

    async def serves(self, server: ServerName) -> bool:
        return server == "elsewhere.example"

    async def move(self, movement: Movement, *, tell: Tell, admission: Admission | None = None) -> Outcome:
        assert movement.waits_for_peer
        return await self._till.move(movement, tell=tell, admission=admission)

    async def ended(self, record: PaymentRecord, *, seconds_max: float) -> PaymentRecord:
        if self.answer is None:
            return record
        ended = await self._till.end(record, self.answer)
        assert isinstance(ended, PaymentRecord)
        return ended


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[WebStack]:
    async with running_web(web_config(tmp_path, operators=["@admin:weft.example"])) as stack:
        stack.payments.elsewhere = OtherWallet(stack.payments.till)
        await stack.deposit(stack.user("alice"), 50_000)
        yield stack


@pytest.fixture
async def browser(stack: WebStack) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Sec-Fetch-Site": "same-origin", "User-Agent": "Mozilla/5.0 (X11; Linux) Firefox/140.0"}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=WAIT_SECONDS_MAX) as browser:
        began = await stack.session(stack.user("alice"))
        browser.cookies.set(f"weft_session_{stack.config.web.port}", began.token)
        yield browser


def answers(stack: WebStack, answer: Ending | None) -> None:
    assert isinstance(stack.payments.elsewhere, OtherWallet)
    stack.payments.elsewhere.answer = answer


async def pay_by_page(browser: httpx.AsyncClient, *, script: bool = False) -> httpx.Response:
    page = (await browser.get("/wallet/send")).text
    form = page[page.index('action="/wallet/pay/review"') :]
    fields = dict(_HIDDEN.findall(form[: form.index("</form>")]))
    fields |= {"payee": BOB, "amount": "12.50", "currency": "EUR", "memo": "lunch"}
    reviewed = await browser.post("/wallet/pay/review", data=fields)
    assert reviewed.status_code == 200 and BOB in reviewed.text
    headers = {"HX-Request": "true"} if script else {}
    return await browser.post("/wallet/pay", data=fields, headers=headers, follow_redirects=True)


async def pay_by_api(stack: WebStack, **changes: Any) -> httpx.Response:
    body = {"id": stack.new_id(), "payee": BOB, "amount_minor": "1250", "currency": "EUR", **changes}
    headers = await stack.bearer(stack.user("alice"))
    return await stack.http.post(f"{stack.url}/_weft/wallet/v1/payments", json=body, headers=headers)


@pytest.mark.parametrize(
    ("answer", "heading"),
    [(Ending.ACCEPTED, "Paid"), (None, "On its way"), (Ending.DECLINED, "Not taken: it is yours again")],
)
async def test_the_page_says_whether_the_other_wallet_has_taken_it(
    stack: WebStack, browser: httpx.AsyncClient, answer: Ending | None, heading: str
) -> None:
    answers(stack, answer)
    for script in (False, True):
        paid = await pay_by_page(browser, script=script)
        assert paid.status_code == 200
        assert re.search(rf'id="paid-heading"[^>]*>{re.escape(heading)}<', paid.text)
    pending = (await browser.get("/wallet/pending")).text
    assert ("has to answer" in pending) is (answer is None) and "Accept" not in pending


async def test_the_api_answers_with_the_end_and_its_receipt(stack: WebStack) -> None:
    taken = (await pay_by_api(stack)).json()
    assert (taken["state"], taken["receipt"]["state"]) == ("posted", "pending")
    assert taken["end_receipt"]["state"] == "posted" and taken["end_receipt"]["of"] == taken["id"]
    answers(stack, None)
    waits = (await pay_by_api(stack)).json()
    assert (waits["state"], waits["end_receipt"], waits["expires_at_ms"]) == ("pending", None, None)
    answers(stack, Ending.DECLINED)
    again = (await pay_by_api(stack, id=waits["id"])).json()
    assert (again["id"], again["state"]) == (waits["id"], "returned")


async def test_the_api_asks_for_what_any_payment_needs(stack: WebStack) -> None:
    above = await pay_by_api(stack, amount_minor="100001")
    assert (above.status_code, above.json()["errcode"]) == (400, "DEV_WEFT_AMOUNT_TOO_LARGE")
    stranger = await pay_by_api(stack, payee="@bob:stranger.example")
    assert (stranger.status_code, stranger.json()["errcode"]) == (400, "DEV_WEFT_PAYEE_ELSEWHERE")
    headers = await stack.bearer(stack.user("alice"))
    set_pin = await stack.http.put(
        f"{stack.url}/_weft/wallet/v1/pin", json={"new_pin": "483920"}, headers=headers
    )
    assert set_pin.status_code < 300, set_pin.text
    unproven = await pay_by_api(stack, amount_minor="20000")
    assert (unproven.status_code, unproven.json()["errcode"]) == (403, "DEV_WEFT_CONFIRMATION_NEEDED")
    proven = await pay_by_api(stack, amount_minor="20000", pin="483920")
    assert (proven.status_code, proven.json()["state"]) == (200, "posted")


async def test_the_page_of_a_payment_shows_the_receipt_of_its_end(
    stack: WebStack, browser: httpx.AsyncClient
) -> None:
    taken = (await pay_by_api(stack)).json()
    page = await browser.get(f"/wallet/history/{taken['id']}")
    assert "the signature is right" in page.text
    receipt = (await browser.get(f"/wallet/history/{taken['id']}/receipt.json")).json()
    assert receipt == taken["end_receipt"]


async def test_what_came_from_elsewhere_is_given_back_by_the_api_and_the_page(
    stack: WebStack, browser: httpx.AsyncClient
) -> None:
    alice = stack.user("alice")
    peers = Peers(database=stack.payments.till.database, ledger=stack.ledger, clock=stack.clock)
    await peers.add(ServerName("elsewhere.example"), {EUR: 1_000})
    # As clearing/applying.py books what another wallet has asked for.
    movement = Movement(
        id=stack.new_id(),
        kind=PaymentKind.PAYMENT,
        payer=BOB,
        payee=alice,
        money=Money(1_000, EUR),
        debit=peer_account(ServerName("elsewhere.example"), EUR),
        credit=user_account(alice, EUR),
        peer=ServerName("elsewhere.example"),
    )
    came = await stack.payments.till.move(movement)
    assert isinstance(came, PaymentRecord) and came.state is PaymentState.POSTED
    body = {"id": stack.new_id(), "payment": came.id, "amount_minor": "400"}
    url = f"{stack.url}/_weft/wallet/v1/refunds"
    given = (await stack.http.post(url, json=body, headers=await stack.bearer(alice))).json()
    assert (given["kind"], given["state"], given["payee"]) == ("refund", "posted", BOB)
    path = f"/wallet/history/{came.id}"
    form = (await browser.get(path)).text
    form = form[form.index(f'action="{path}/refund"') :]
    fields = dict(_HIDDEN.findall(form[: form.index("</form>")]))
    done = await browser.post(f"{path}/refund", data={**fields, "amount": "6.00"}, follow_redirects=True)
    assert done.status_code == 200 and "under way" not in done.text
    assert await stack.balance_minor(alice) == 50_000


async def owing(stack: WebStack) -> None:
    """A peer whom we owe €12.50, as it went over two days."""
    till = stack.payments.till
    till = stack.payments.till
    peers = Peers(database=till.database, ledger=till.ledger, clock=system_clock)
    await peers.add(ServerName("elsewhere.example"), {EUR: 100_000})
    await peers.adjust()
    assert (await pay_by_api(stack)).json()["state"] == "posted"
    hour_ms = 3_600_000
    now_ms = system_clock()
    async with till.database.begin() as work:
        for number, owed_minor in enumerate((0, 40_000, 82_000, 81_000, -20_000, 3_000)):
            row = {
                "server": "elsewhere.example",
                "currency": EUR,
                "hour_ms": now_ms - (48 - 8 * number) * hour_ms,
                "owed_minor": owed_minor,
            }
            await work.execute(insert(peer_positions), row)
        await work.commit()


async def test_the_operator_sees_how_it_stands_with_other_homeservers(
    stack: WebStack, browser: httpx.AsyncClient
) -> None:
    assert (await browser.get("/operator/peers")).status_code == 404
    began = await stack.session(stack.user("admin"))
    browser.cookies.clear()
    browser.cookies.set(f"weft_session_{stack.config.web.port}", began.token)
    assert "There are no peers yet" in (await browser.get("/operator/peers")).text
    assert "/operator/peers" not in (await browser.get("/operator")).text
    await owing(stack)
    assert "/operator/peers" in (await browser.get("/operator")).text
    page = (await browser.get("/operator/peers")).text
    assert "elsewhere.example" in page and "We owe them €12.50" in page
    assert "€1,000.00" in page and "no payment yet" in page
    assert re.search(r'class="chart-path" d="M0 [\d.]+H[\d.]+V', page) and "€820.00" in page
