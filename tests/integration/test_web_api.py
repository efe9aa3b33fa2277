"""The wallet's HTTP API over real HTTP, ledger and databases: what programs may rely on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from appservices.vocabulary.money import CurrencyCode, Money
from appservices.vocabulary.schemas import check_block
from appservices.vocabulary.signing import verify_json
from appservices.wallet_client.client import WalletClient, WalletRefused, WalletUnreachable
from tests.web_stack import WebStack, payment_id, running_web, web_config

PAYMENTS = "/_weft/wallet/v1/payments"


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[WebStack]:
    async with running_web(web_config(tmp_path)) as stack:
        yield stack


def a_payment(**changes: Any) -> dict[str, Any]:
    return {
        "id": payment_id("one"),
        "payee": "@bob:weft.example",
        "amount_minor": "1250",
        "currency": "EUR",
        "memo": "lunch",
        **changes,
    }


async def post(stack: WebStack, body: Any, headers: dict[str, str]) -> httpx.Response:
    return await stack.http.post(stack.url + PAYMENTS, json=body, headers=headers)


async def test_a_program_pays_and_reads_it_back_with_a_receipt_that_verifies(stack: WebStack) -> None:
    alice, bob = stack.user("alice"), stack.user("bob")
    await stack.deposit(alice, 10_000)
    headers = await stack.bearer(alice)
    paid = (await post(stack, a_payment(), headers)).json()
    assert (paid["payer"], paid["payee"], paid["amount_minor"]) == (alice, bob, "1250")
    keys = (await stack.http.get(stack.url + "/_weft/wallet/keys")).json()
    check_block("keys", keys)
    check_block("receipt", paid["receipt"])
    verify_json(paid["receipt"], signer=keys["service"], keys=keys["keys"])
    balance = (await stack.http.get(stack.url + "/_weft/wallet/v1/balance", headers=headers)).json()
    assert balance["balances"] == [
        {
            "currency": "EUR",
            "exponent": 2,
            "posted_minor": "8750",
            "pending_minor": "0",
            "available_minor": "8750",
        }
    ]
    one = await stack.http.get(f"{stack.url}{PAYMENTS}/{paid['id']}", headers=headers)
    assert one.json() == paid


async def test_the_same_id_pays_once_even_at_the_same_moment(stack: WebStack) -> None:
    alice, bob = stack.user("alice"), stack.user("bob")
    await stack.deposit(alice, 10_000)
    headers = await stack.bearer(alice)
    answers = await asyncio.gather(*(post(stack, a_payment(), headers) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert await stack.balance_minor(bob) == 1250


async def test_the_same_id_with_other_content_is_a_conflict(stack: WebStack) -> None:
    alice, bob = stack.user("alice"), stack.user("bob")
    await stack.deposit(alice, 10_000)
    headers = await stack.bearer(alice)
    await post(stack, a_payment(), headers)
    for changed in ({"amount_minor": "1251"}, {"memo": "dinner"}, {"currency": "HOUR"}):
        answer = await post(stack, a_payment(**changed), headers)
        assert (answer.status_code, answer.json()["errcode"]) == (409, "DEV_WEFT_ID_TAKEN")
    assert await stack.balance_minor(bob) == 1250


_REFUSED: list[tuple[dict[str, str], int, str]] = [
    ({"amount_minor": "10001"}, 402, "DEV_WEFT_BALANCE_TOO_LOW"),
    ({"amount_minor": "100001"}, 400, "DEV_WEFT_AMOUNT_TOO_LARGE"),
    ({"payee": "@nobody:weft.example"}, 404, "DEV_WEFT_PAYEE_UNKNOWN"),
    ({"payee": "@wallet:weft.example"}, 404, "DEV_WEFT_PAYEE_UNKNOWN"),
    ({"payee": "@alice:weft.example"}, 400, "DEV_WEFT_PAYEE_IS_PAYER"),
    ({"payee": "@bob:elsewhere.example"}, 400, "DEV_WEFT_PAYEE_ELSEWHERE"),
    ({"currency": "USD"}, 400, "DEV_WEFT_CURRENCY_UNKNOWN"),
]


async def test_a_refusal_has_its_status_code_and_one_sentence(stack: WebStack) -> None:
    alice = stack.user("alice")
    stack.user("bob")
    await stack.deposit(alice, 10_000)
    headers = await stack.bearer(alice)
    for number, (changes, status, errcode) in enumerate(_REFUSED):
        body = a_payment(id=payment_id("refused", str(number)), **changes)
        answer = await post(stack, body, headers)
        assert (answer.status_code, answer.json()["errcode"]) == (status, errcode), body
        assert set(answer.json()) == {"errcode", "error"}
        assert "{" not in answer.json()["error"]
    assert await stack.balance_minor(alice) == 10_000


_BAD_BODIES: list[Any] = [
    None,
    [],
    "text",
    7,
    {},
    a_payment(amount_minor=1250),
    a_payment(amount_minor=12.5),
    a_payment(amount_minor="12.5"),
    a_payment(amount_minor="-1"),
    a_payment(amount_minor="0"),
    a_payment(amount_minor="01"),
    a_payment(amount_minor="1e3"),
    a_payment(amount_minor="١٢"),
    a_payment(amount_minor="9" * 16),
    a_payment(amount_minor="9" * 400),
    a_payment(amount_minor=None),
    a_payment(id="A" * 32),
    a_payment(id="a" * 33),
    a_payment(id="a" * 32 + "\n"),
    a_payment(id=5),
    a_payment(payee="bob"),
    a_payment(payee="@bob"),
    a_payment(payee="@bob:weft.example\n"),
    a_payment(payee="@" + "b" * 300 + ":weft.example"),
    a_payment(payee="@b\ud800b:weft.example"),
    a_payment(payee=["@bob:weft.example"]),
    a_payment(currency="eur"),
    a_payment(currency="EU"),
    a_payment(currency="€"),
    a_payment(memo="m" * 201),
    a_payment(memo="two\nlines"),
    a_payment(memo="nul\x00"),
    a_payment(memo="\ud800"),
    a_payment(memo={"a": 1}),
    a_payment(room_id="room"),
    a_payment(room_id="!" + "r" * 300),
    a_payment(payer="@bob:weft.example"),
]


async def test_bad_input_is_a_client_error_with_one_sentence(stack: WebStack) -> None:
    alice = stack.user("alice")
    stack.user("bob")
    await stack.deposit(alice, 10_000)
    headers = {**await stack.bearer(alice), "Content-Type": "application/json"}
    for body in _BAD_BODIES:
        content = json.dumps(body)
        answer = await stack.http.post(stack.url + PAYMENTS, content=content, headers=headers)
        assert answer.status_code == 400, (content, answer.text)
        assert set(answer.json()) == {"errcode", "error"}, content
        assert answer.json()["errcode"].startswith("M_") and len(answer.json()["error"]) < 400
    assert await stack.balance_minor(alice) == 10_000


_UNREADABLE = (
    (b"{", "application/json", 400),
    (b"\xff\xfe", "application/json", 400),
    (b"[" * 10_000, "application/json", 400),
    (b'{"id": NaN}', "application/json", 400),
    (b'{"amount_minor": ' + b"9" * 9_000 + b"}", "application/json", 400),
    (b"id=1", "application/x-www-form-urlencoded", 400),
    (b"", "application/json", 400),
    (b"x" * 20_000, "application/json", 413),
    (b'{"memo": "' + b"x" * 1_000_000 + b'"}', "application/json", 413),
)


async def test_a_body_that_is_no_json_object_or_too_large_is_refused(stack: WebStack) -> None:
    headers = await stack.bearer(stack.user("alice"))
    for content, content_type, status in _UNREADABLE:
        answer = await stack.http.post(
            stack.url + PAYMENTS, content=content, headers={**headers, "Content-Type": content_type}
        )
        assert answer.status_code == status, (content[:40], answer.text)
        assert set(answer.json()) == {"errcode", "error"}


async def test_a_bad_page_is_refused(stack: WebStack) -> None:
    headers = await stack.bearer(stack.user("alice"))
    for query in ("limit=0", "limit=101", "limit=x", "limit=", "before=-1", f"before={2**63}", "before=1.5"):
        answer = await stack.http.get(f"{stack.url}{PAYMENTS}?{query}", headers=headers)
        assert (answer.status_code, answer.json()["errcode"]) == (400, "M_INVALID_PARAM"), query


async def test_payments_page_from_newest_to_oldest_without_gap_or_repetition(stack: WebStack) -> None:
    alice, bob = stack.user("alice"), stack.user("bob")
    await stack.deposit(alice, 10_000)
    made = [(await stack.pay(alice, bob, 100 + number)).id for number in range(7)]
    wallet = WalletClient(stack.http, stack.url, token=(await stack.session(bob)).token)
    seen: list[str] = []
    before = None
    for _ in range(10):
        page = await wallet.payments(limit=3, before=before)
        assert len(page.payments) <= 3
        seen += [payment.id for payment in page.payments]
        before = page.next_before
        if before is None:
            break
    assert seen == made[::-1]


async def test_another_users_payment_is_as_if_it_were_not_there(stack: WebStack) -> None:
    alice, bob, eve = stack.user("alice"), stack.user("bob"), stack.user("eve")
    await stack.deposit(alice, 10_000)
    record = await stack.pay(alice, bob, 100)
    headers = await stack.bearer(eve)
    theirs = await stack.http.get(f"{stack.url}{PAYMENTS}/{record.id}", headers=headers)
    nobodys = await stack.http.get(f"{stack.url}{PAYMENTS}/{'0' * 32}", headers=headers)
    assert theirs.status_code == nobodys.status_code == 404
    assert theirs.json() == nobodys.json()


async def test_without_a_session_nothing_is_told(stack: WebStack) -> None:
    for path in ("/_weft/wallet/v1/balance", PAYMENTS, f"{PAYMENTS}/{'0' * 32}", "/_weft/sessions"):
        missing = await stack.http.get(stack.url + path)
        assert (missing.status_code, missing.json()["errcode"]) == (401, "M_MISSING_TOKEN"), path
        for token in ("x", "0" * 64, "\u00e9"):
            headers = {b"Authorization": f"Bearer {token}".encode()}
            unknown = await stack.http.get(stack.url + path, headers=headers)
            assert (unknown.status_code, unknown.json()["errcode"]) == (401, "M_UNKNOWN_TOKEN"), path


async def test_a_session_that_ended_no_longer_pays(stack: WebStack) -> None:
    alice, bob = stack.user("alice"), stack.user("bob")
    await stack.deposit(alice, 10_000)
    headers = await stack.bearer(alice)
    ended = await stack.http.post(stack.url + "/_weft/sessions/signout", headers=headers)
    assert ended.json() == {"ended": 1}
    assert (await post(stack, a_payment(), headers)).status_code == 401
    stack.clock.ahead_ms = 0
    headers = await stack.bearer(alice)
    stack.clock.ahead_ms = stack.config.web.session_hours * 3_600_000 + 1
    assert (await post(stack, a_payment(), headers)).status_code == 401
    assert await stack.balance_minor(bob) == 0


async def test_a_cookie_alone_does_not_pay_through_the_api(stack: WebStack) -> None:
    alice = stack.user("alice")
    stack.user("bob")
    await stack.deposit(alice, 10_000)
    began = await stack.session(alice)
    cookie = {"Cookie": f"weft_session_{stack.config.web.port}={began.token}"}
    assert (await stack.http.get(stack.url + PAYMENTS, headers=cookie)).status_code == 200
    for headers in (
        cookie,
        {**cookie, "Origin": stack.url},
        {**cookie, "X-Weft-CSRF": "x", "Origin": stack.url},
    ):
        answer = await post(stack, a_payment(), headers)
        assert (answer.status_code, answer.json()["errcode"]) == (403, "M_FORBIDDEN")
    assert await stack.balance_minor(alice) == 10_000


async def test_sessions_are_listed_and_all_ended_by_their_user(stack: WebStack) -> None:
    alice = stack.user("alice")
    headers = await stack.bearer(alice)
    await stack.session(alice, user_agent="Firefox")
    listed = (await stack.http.get(stack.url + "/_weft/sessions", headers=headers)).json()["sessions"]
    assert sorted(item["current"] for item in listed) == [False, True]
    assert "token" not in json.dumps(listed)
    ended = await stack.http.post(stack.url + "/_weft/sessions/signout_everywhere", headers=headers)
    assert ended.json() == {"ended": 2}
    assert (await stack.http.get(stack.url + "/_weft/sessions", headers=headers)).status_code == 401


async def test_the_openapi_description_names_every_path_and_what_each_answers(stack: WebStack) -> None:
    schema = (await stack.http.get(stack.url + "/_weft/wallet/openapi.json")).json()
    assert set(schema["paths"]) >= {
        "/_weft/wallet/keys",
        "/_weft/wallet/v1/limits",
        "/_weft/wallet/v1/pin",
        "/_weft/wallet/v1/balance",
        PAYMENTS,
        f"{PAYMENTS}/{{id}}",
    }
    pay = schema["paths"][PAYMENTS]["post"]
    assert set(pay["responses"]) == {"200", "400", "401", "402", "403", "404", "409", "413", "429", "503"}
    assert pay["security"] == [{"session": []}]
    assert "ValidationError" not in json.dumps(schema)


async def test_an_unknown_path_of_the_api_is_answered_in_matrix_form(stack: WebStack) -> None:
    for method, path, status in (("GET", "/_weft/nothing", 404), ("DELETE", PAYMENTS, 405)):
        answer = await stack.http.request(method, stack.url + path)
        assert (answer.status_code, answer.json()["errcode"]) == (status, "M_UNRECOGNIZED")


async def test_the_client_gives_typed_answers_and_typed_refusals(stack: WebStack) -> None:
    alice, bob = stack.user("alice"), stack.user("bob")
    await stack.deposit(alice, 10_000)
    wallet = WalletClient(stack.http, stack.url, token=(await stack.session(alice)).token)
    money = Money(1250, CurrencyCode("EUR"))
    paid = await wallet.pay(id=payment_id("client"), payee=bob, money=money, memo="lunch")
    assert (
        await wallet.payment(paid.id)
        == paid
        == await wallet.pay(id=payment_id("client"), payee=bob, money=money, memo="lunch")
    )
    assert (paid.money, paid.memo, paid.kind) == (money, "lunch", "payment")
    assert (await wallet.balances())[0].available_minor == 8_750
    assert (await wallet.keys()).service == stack.config.wallet_user
    assert await wallet.payment(payment_id("other")) is None
    with pytest.raises(WalletRefused) as refused:
        await wallet.pay(id=payment_id("much"), payee=bob, money=Money(90_000, CurrencyCode("EUR")))
    assert (refused.value.status, refused.value.errcode) == (402, "DEV_WEFT_BALANCE_TOO_LOW")
    assert "€87.50" in refused.value.sentence


async def test_the_client_says_when_the_wallet_does_not_answer(stack: WebStack) -> None:
    wallet = WalletClient(stack.http, "http://127.0.0.1:9", token="x", tries_max=2)
    with pytest.raises(WalletUnreachable):
        await wallet.balances()
    portal_instead = WalletClient(stack.http, stack.url + "/signin?", token="x", tries_max=1)
    with pytest.raises(WalletUnreachable):
        await portal_instead.balances()
