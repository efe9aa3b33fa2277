"""A merchant's pages over real HTTP without script, by a shop's owner and by who should see nothing of it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.test_people_pages import visitor
from tests.web_stack import WebStack, running_web, web_config

_KEY = re.compile(r'value="(weft_sk_[0-9a-f_]+)"')


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[WebStack]:
    async with running_web(web_config(tmp_path)) as stack:
        yield stack


async def test_a_shop_makes_an_order_is_paid_gives_back_and_takes_its_money_out(stack: WebStack) -> None:
    owner, customer = await visitor(stack, "alice", has_minor=0), await visitor(stack, "bob")
    opened = await owner.send("/wallet/merchant", "/wallet/merchant", name="The Corner Café")
    shop = opened.url.path
    assert "The Corner Café" in opened.text and "Nothing yet today." in opened.text
    wrong = await owner.send(f"{shop}/orders/new", f"{shop}/orders", amount="0", reference="R")
    assert wrong.status_code == 422 and "more than zero" in wrong.text
    order = await owner.send(
        f"{shop}/orders/new", f"{shop}/orders", amount="24", reference="T-1", description="Cake"
    )
    assert order.url.path.startswith(f"{shop}/orders/") and "<svg" in order.text
    link = re.search(r'value="http[^"]*(/wallet/order/[0-9a-f]{32})"', order.text)
    assert link is not None
    paid = await customer.send(link.group(1), f"{link.group(1)}/pay")
    assert "Paid" in paid.text and "The Corner Café" in paid.text
    place = order.url.path
    back = await owner.send(place, f"{place}/refund", amount="4", reason="One less")
    assert "One less" in back.text and 'value="20.00"' in back.text
    too_much = await owner.send(place, f"{place}/refund", amount="20.01")
    assert too_much.status_code == 409 and await stack.balance_minor(customer.user) == 8_000
    dashboard = (await owner.browser.get(shop)).text
    assert "€24.00" in dashboard and "Given back: €4.00" in dashboard and "€20.00" in dashboard
    out = await owner.send(shop, f"{shop}/payout", amount="20", currency="EUR")
    assert out.status_code == 200 and await stack.balance_minor(owner.user) == 2_000
    none_left = await owner.send(shop, f"{shop}/payout", amount="1", currency="EUR")
    assert none_left.status_code == 402
    assert "The Corner Café" in (await customer.browser.get("/wallet/history")).text


async def test_a_key_is_shown_once_and_can_be_revoked(stack: WebStack) -> None:
    owner = await visitor(stack, "alice", has_minor=0)
    shop = (await owner.send("/wallet/merchant", "/wallet/merchant", name="Shop")).url.path
    keys = f"{shop}/keys"
    no_scope = await owner.send(keys, keys, name="The till")
    assert no_scope.status_code == 422 and "at least one thing" in no_scope.text
    made = await owner.send(keys, keys, name="The till", scope="orders")
    found = _KEY.search(made.text)
    assert found is not None and await stack.desk.keys.find(found.group(1)) is not None
    later = await owner.browser.get(keys)
    assert "The till" in later.text and not _KEY.search(later.text)
    revoked = await owner.send(keys, f"{keys}/revoke")
    assert "revoked" in revoked.text and await stack.desk.keys.find(found.group(1)) is None


async def test_where_a_shop_is_notified_is_added_refused_and_removed(stack: WebStack) -> None:
    owner = await visitor(stack, "alice", has_minor=0)
    shop = (await owner.send("/wallet/merchant", "/wallet/merchant", name="Shop")).url.path
    place = f"{shop}/notifications"
    refused = await owner.send(place, place, url="ftp://shop.example")
    assert refused.status_code == 400 and 'id="url-problem"' in refused.text
    added = await owner.send(place, place, url="https://shop.example/weft")
    assert "whsec_" in added.text
    assert "whsec_" not in (await owner.browser.get(place)).text
    removed = await owner.send(place, f"{place}/remove")
    assert "removed" in removed.text


async def test_somebody_elses_shop_is_as_one_that_is_not_there(stack: WebStack) -> None:
    owner, other = await visitor(stack, "alice", has_minor=0), await visitor(stack, "bob")
    shop = (await owner.send("/wallet/merchant", "/wallet/merchant", name="Shop")).url.path
    csrf = (await other.fields("/wallet/merchant", "/wallet/merchant"))["csrf"]
    for path in (shop, f"{shop}/keys", f"{shop}/notifications", f"{shop}/orders/new"):
        assert (await other.browser.get(path)).status_code == 404, path
    for path in ("payout", "close", "orders", "keys", "notifications", "notifications/replay"):
        answer = await other.browser.post(f"{shop}/{path}", data={"csrf": csrf, "amount": "1"})
        assert answer.status_code == 404, path
    for path in ("/wallet/merchant/x", "/wallet/merchant/%00/keys"):
        assert (await owner.browser.get(path)).status_code == 404, path


async def test_a_payment_code_is_another_one_each_time_and_charges_once(stack: WebStack) -> None:
    customer = await visitor(stack, "bob")
    pages = [(await customer.browser.get("/wallet/code")).text for _ in range(2)]
    shown = [re.search(r'class="pay-digits" dir="ltr">([0-9 ]+)<', page) for page in pages]
    codes = [found.group(1).replace(" ", "") for found in shown if found]
    assert len(set(codes)) == 2 and all(len(code) == 18 for code in codes)
    assert "Never send these digits" in pages[0]
