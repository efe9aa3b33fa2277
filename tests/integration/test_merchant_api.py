"""The merchant's HTTP API and the payer's order page over real HTTP, ledger and databases."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.merchant_client import V1, ShopClient, open_shop, pay_order
from tests.synapse import WAIT_SECONDS_MAX
from tests.web_stack import WebStack, running_web, web_config


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[WebStack]:
    async with running_web(web_config(tmp_path)) as stack:
        yield stack


@pytest.fixture
async def shop(stack: WebStack) -> ShopClient:
    return await open_shop(stack)


@pytest.fixture
async def alice(stack: WebStack) -> dict[str, str]:
    user = stack.user("alice")
    await stack.deposit(user, 10_000)
    return await stack.bearer(user)


async def test_a_program_makes_an_order_that_a_payer_pays_and_both_see_it(
    stack: WebStack, shop: ShopClient, alice: dict[str, str]
) -> None:
    order = await shop.order(description="2 breads")
    assert order["state"] == "open"
    assert order["pay_url"] == f"{stack.url}/wallet/order/{order['id']}"
    seen = (await stack.http.get(f"{stack.url}{V1}/orders/{order['id']}", headers=alice)).json()
    assert (seen["merchant_name"], seen["amount_minor"], seen["description"]) == (
        "Bakery",
        "1250",
        "2 breads",
    )
    paid = await pay_order(stack, order["id"], alice)
    assert (paid.status_code, paid.json()["state"]) == (200, "paid")
    assert (await pay_order(stack, order["id"], alice)).json() == paid.json()
    asked = (await shop.get(f"orders/{order['id']}")).json()
    assert (asked["state"], asked["payer"]) == ("paid", "@alice:weft.example")
    assert asked["payment_id"] == paid.json()["payment_id"]
    one = await stack.http.get(f"{stack.url}{V1}/payments/{asked['payment_id']}", headers=alice)
    assert (one.json()["kind"], one.json()["receipt"]["merchant"]["name"]) == ("purchase", "Bakery")
    balance = (await shop.get("balance")).json()["balances"]
    assert [(item["currency"], item["available_minor"]) for item in balance] == [("EUR", "1250")]


async def test_the_qr_code_is_a_picture_of_the_orders_link_for_anybody(
    stack: WebStack, shop: ShopClient
) -> None:
    order = await shop.order()
    svg = await stack.http.get(order["qr_url"])
    assert (svg.status_code, svg.headers["content-type"]) == (200, "image/svg+xml")
    assert svg.text.startswith("<svg") and "style" not in svg.text
    png = await stack.http.get(order["qr_url"].replace(".svg", ".png"))
    assert png.content.startswith(b"\x89PNG")
    assert (await stack.http.get(order["qr_url"].replace(order["id"], "0" * 32))).status_code == 404


async def test_the_order_page_pays_without_script(stack: WebStack, shop: ShopClient) -> None:
    user = stack.user("alice")
    await stack.deposit(user, 10_000)
    order = await shop.order(description="2 <breads>")
    page = f"/wallet/order/{order['id']}"
    async with httpx.AsyncClient(base_url=stack.url, timeout=WAIT_SECONDS_MAX) as browser:
        away = await browser.get(page)
        assert (away.status_code, away.headers["location"]) == (303, f"/signin?next={page}")
        token = (await stack.session(user)).token
        port = stack.config.web.port
        browser.cookies.set(f"weft_session_{port}", token, domain="127.0.0.1")
        shown = await browser.get(page)
        assert shown.status_code == 200
        for words in ("Bakery", "€12.50", "2 &lt;breads&gt;", "1001", "@owner:weft.example"):
            assert words in shown.text
        csrf = re.findall(r'name="csrf" value="([0-9a-f]+)"', shown.text)[-1]
        foreign = await browser.post(f"{page}/pay", data={"csrf": "0"}, headers={"Origin": stack.url})
        assert foreign.status_code == 403
        paid = await browser.post(f"{page}/pay", data={"csrf": csrf}, headers={"Origin": stack.url})
        assert (paid.status_code, paid.headers["location"]) == (303, page)
        shown = await browser.get(page)
        assert "Paid" in shown.text and "Pay €12.50" not in shown.text
        assert (await browser.get("/wallet")).text.count("Bakery") >= 1
        assert (await browser.get("/wallet/order/nonsense")).status_code == 404


async def test_the_order_page_says_why_nothing_can_be_paid(stack: WebStack, shop: ShopClient) -> None:
    poor = stack.user("poor")
    order = await shop.order()
    page = f"/wallet/order/{order['id']}"
    async with httpx.AsyncClient(base_url=stack.url, timeout=WAIT_SECONDS_MAX) as browser:
        port = stack.config.web.port
        browser.cookies.set(f"weft_session_{port}", (await stack.session(poor)).token, domain="127.0.0.1")
        csrf = re.findall(r'name="csrf" value="([0-9a-f]+)"', (await browser.get(page)).text)[-1]
        refused = await browser.post(f"{page}/pay", data={"csrf": csrf}, headers={"Origin": stack.url})
        assert refused.status_code == 402
        assert "you can pay €0.00 at most" in refused.text and "Pay €12.50" in refused.text
        await shop.post(f"orders/{order['id']}/cancel")
        shown = await browser.get(page)
        assert "The merchant has cancelled this order." in shown.text
        assert "Pay €12.50" not in shown.text


async def test_a_till_charges_a_payment_code_once(
    stack: WebStack, shop: ShopClient, alice: dict[str, str]
) -> None:
    issued = (await stack.http.post(f"{stack.url}{V1}/payment-code", headers=alice)).json()
    assert re.fullmatch("1[0-5][0-9]{16}", issued["code"])
    assert issued["qr_svg"].startswith("<svg") and issued["code128_svg"].startswith("<svg")
    body = {"code": issued["code"], "reference": "till-1", "amount_minor": "450", "currency": "EUR"}
    charged = await shop.post("charges", body)
    assert (charged.status_code, charged.json()["state"]) == (200, "paid")
    assert (await shop.post("charges", body)).json() == charged.json()
    again = await shop.post("charges", {**body, "reference": "till-2"})
    assert (again.status_code, again.json()["errcode"]) == (404, "DEV_WEFT_CODE_UNKNOWN")
    above = await shop.post("charges", {**body, "reference": "till-3", "amount_minor": "5001"})
    assert (above.status_code, above.json()["errcode"]) == (403, "DEV_WEFT_ABOVE_CODE_LIMIT")
    assert "€50.00" in above.json()["error"]


async def test_the_page_of_a_payment_code_shows_a_new_one_each_time(
    stack: WebStack, shop: ShopClient
) -> None:
    user = stack.user("alice")
    await stack.deposit(user, 10_000)
    async with httpx.AsyncClient(base_url=stack.url, timeout=WAIT_SECONDS_MAX) as browser:
        assert (await browser.get("/wallet/code")).status_code == 303
        port = stack.config.web.port
        browser.cookies.set(f"weft_session_{port}", (await stack.session(user)).token, domain="127.0.0.1")
        pages = [await browser.get("/wallet/code") for _ in range(2)]
    codes = [re.findall(r'class="pay-digits" dir="ltr">([0-9\s]+)<', page.text)[0] for page in pages]
    codes = ["".join(code.split()) for code in codes]
    assert codes[0] != codes[1]
    assert all("<svg" in page.text and "style=" not in page.text for page in pages)
    body = {"code": codes[0], "reference": "till-1", "amount_minor": "450", "currency": "EUR"}
    assert (await shop.post("charges", body)).status_code == 200


async def test_refunds_never_exceed_the_payment(
    stack: WebStack, shop: ShopClient, alice: dict[str, str]
) -> None:
    order = await shop.order()
    await pay_order(stack, order["id"], alice)
    body = {"order_id": order["id"], "refund_number": "r1", "amount_minor": "1000", "reason": "stale"}
    made = await shop.post("refunds", body)
    assert (made.status_code, made.json()["state"]) == (200, "made")
    assert (await shop.post("refunds", body)).json() == made.json()
    assert (await shop.get("refunds/r1")).json() == made.json()
    above = await shop.post("refunds", {**body, "refund_number": "r2", "amount_minor": "251"})
    assert (above.status_code, above.json()["errcode"]) == (409, "DEV_WEFT_REFUND_TOO_MUCH")
    assert "€2.50" in above.json()["error"]
    rest = {"payment_id": made.json()["payment_id"], "refund_number": "r2", "amount_minor": "250"}
    assert (await shop.post("refunds", rest)).status_code == 200
    listed = (await shop.get(f"orders/{order['id']}/refunds")).json()["refunds"]
    assert [item["refund_number"] for item in listed] == ["r1", "r2"]
    assert (await stack.http.get(f"{stack.url}{V1}/balance", headers=alice)).json()["balances"][0][
        "available_minor"
    ] == "10000"


async def test_the_reconciliation_file_adds_up(
    stack: WebStack, shop: ShopClient, alice: dict[str, str]
) -> None:
    order = await shop.order("=1+1")
    await pay_order(stack, order["id"], alice)
    await shop.post("refunds", {"order_id": order["id"], "refund_number": "r1", "amount_minor": "50"})
    payout = {"id": stack.new_id(), "amount_minor": "1000", "currency": "EUR"}
    assert (await shop.of_owner("POST", "/payouts", payout)).status_code == 200
    day = datetime.now(UTC).date().isoformat()
    answer = await shop.get(f"reconciliation/{day}.csv", currency="EUR")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["kind"], row["amount"]) for row in rows] == [
        ("opening_balance", ""),
        ("purchase", "12.50"),
        ("refund", "-0.50"),
        ("payout", "-10.00"),
        ("total_purchase", "12.50"),
        ("total_refund", "-0.50"),
        ("total_payout", "-10.00"),
        ("closing_balance", ""),
    ]
    assert rows[1]["reference"] == rows[2]["reference"] == "'=1+1"
    assert rows[2]["refund_number"] == "r1"
    assert Decimal(rows[-1]["balance"]) == Decimal("2.00")
    assert (await shop.of_owner("GET", f"/reconciliation/{day}.csv?currency=EUR")).text == answer.text
    for wrong in (
        f"{day}.csv?currency=USD",
        "2026-02-30.csv?currency=EUR",
        f"{day}.csv?currency=EUR&zone=No/Where",
    ):
        refused = await stack.http.get(f"{stack.url}{V1}/merchant/reconciliation/{wrong}", headers=shop.key)
        assert refused.status_code == 400, wrong


async def test_a_key_does_what_its_scopes_say_until_it_is_revoked(stack: WebStack, shop: ShopClient) -> None:
    orders_only = await shop.new_key("orders")
    body = {"reference": "1", "amount_minor": "1", "currency": "EUR"}
    assert (await shop.post("orders", body, key=orders_only)).status_code == 200
    refund = {"order_id": "0" * 32, "refund_number": "1", "amount_minor": "1"}
    refused = await shop.post("refunds", refund, key=orders_only)
    assert (refused.status_code, refused.json()["errcode"]) == (403, "M_FORBIDDEN")
    (key_id,) = [
        key["id"]
        for key in (await shop.of_owner("GET", "/keys")).json()["keys"]
        if key["scopes"] == ["orders"] and key["last_used_at_ms"]
    ]
    assert (await shop.of_owner("DELETE", f"/keys/{key_id}")).json() == {"done": True}
    assert (await shop.of_owner("DELETE", f"/keys/{key_id}")).json() == {"done": False}
    revoked = await shop.post("orders", body, key=orders_only)
    assert (revoked.status_code, revoked.json()["errcode"]) == (401, "M_UNKNOWN_TOKEN")
    wrong = {"Authorization": shop.key["Authorization"][:-1] + "x"}
    assert (await shop.post("orders", body, key=wrong)).status_code == 401
    assert (await shop.post("orders", body, key={"Authorization": "Basic x"})).status_code == 401


async def test_nobody_reaches_the_merchant_of_somebody_else(
    stack: WebStack, shop: ShopClient, alice: dict[str, str]
) -> None:
    order = await shop.order()
    other = await open_shop(stack, name="Florist", owner="other")
    for path in ("", "/keys", "/endpoints", "/orders", "/deliveries"):
        seen = await stack.http.get(f"{stack.url}{V1}/merchants/{shop.id}{path}", headers=alice)
        assert (seen.status_code, seen.json()["errcode"]) == (404, "M_NOT_FOUND")
    assert (await other.get(f"orders/{order['id']}")).status_code == 404
    assert (await other.post(f"orders/{order['id']}/cancel")).status_code == 404
    assert (await shop.get("orders")).json()["orders"][0]["state"] == "open"


async def test_orders_are_listed_in_pages_and_found_by_reference(shop: ShopClient) -> None:
    for number in range(5):
        await shop.order(str(number))
    seen: list[str] = []
    before: dict[str, Any] = {}
    while True:
        page = (await shop.get("orders", limit=2, **before)).json()
        seen += [order["reference"] for order in page["orders"]]
        if page["next_before"] is None:
            break
        before = {"before": page["next_before"]}
    assert sorted(seen) == ["0", "1", "2", "3", "4"] and len(seen) == 5
    assert [order["reference"] for order in (await shop.get("orders", reference="3")).json()["orders"]] == [
        "3"
    ]
    assert (await shop.get("orders", reference="none")).json()["orders"] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"reference": ""},
        {"reference": "x" * 65},
        {"reference": "two\nlines"},
        {"amount_minor": 1250},
        {"amount_minor": "0"},
        {"amount_minor": "9007199254740992"},
        {"currency": "euro"},
        {"expires_in_seconds": 1},
        {"expires_in_seconds": "3600"},
        {"unknown": 1},
        {"description": "\ud800"},
    ],
)
async def test_a_bad_order_is_one_clear_refusal(
    stack: WebStack, shop: ShopClient, changes: dict[str, Any]
) -> None:
    body = {"reference": "1", "amount_minor": "1250", "currency": "EUR", **changes}
    answer = await stack.http.post(
        f"{stack.url}{V1}/merchant/orders",
        content=json.dumps(body),
        headers={**shop.key, "Content-Type": "application/json"},
    )
    assert answer.status_code == 400
    assert set(answer.json()) == {"errcode", "error"}


async def test_the_operator_says_who_opens_merchants(tmp_path: Path) -> None:
    config = web_config(tmp_path)
    strict = config.model_copy(
        update={"wallet": config.wallet.model_copy(update={"merchants": "by_operator"})}
    )
    async with running_web(strict) as stack:
        user = stack.user("owner")
        headers = await stack.bearer(user)
        body = {"id": stack.new_id(), "name": "Bakery"}
        refused = await stack.http.post(f"{stack.url}{V1}/merchants", json=body, headers=headers)
        assert (refused.status_code, refused.json()["errcode"]) == (403, "M_FORBIDDEN")
        await stack.desk.merchants.open(owner=user, name="Bakery", by_operator=True)
        mine = await stack.http.get(f"{stack.url}{V1}/merchants", headers=headers)
        assert [merchant["name"] for merchant in mine.json()["merchants"]] == ["Bakery"]
