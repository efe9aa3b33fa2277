"""The example shop and till, and the quick start with curl, run as their readers would run them."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tests.merchant_client import V1, ShopClient, open_shop, pay_order
from tests.synapse import free_port
from tests.web_stack import WebStack, running_web, web_config

ROOT = Path(__file__).parents[2]
QUICK_START = ROOT / "docs" / "merchants" / "README.md"
RUN_SECONDS_MAX = 60


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[WebStack]:
    async with running_web(web_config(tmp_path)) as stack:
        yield stack


@pytest.fixture
async def merchant(stack: WebStack) -> ShopClient:
    return await open_shop(stack)


@pytest.fixture
async def alice(stack: WebStack) -> dict[str, str]:
    user = stack.user("alice")
    await stack.deposit(user, 10_000)
    return await stack.bearer(user)


@asynccontextmanager
async def example_shop(merchant: ShopClient) -> AsyncIterator[tuple[str, asyncio.StreamReader]]:
    """The running shop's address, and what it prints."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    added = (await merchant.of_owner("POST", "/endpoints", {"url": f"{url}/weft"})).json()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "examples" / "shop.py"), str(port)),
        env={**environment(merchant), "WEFT_WEBHOOK_SECRET": added["secret"]},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert (await process.stdout.readline()).decode().strip() == url
        yield url, process.stdout
    finally:
        process.kill()
        await process.wait()


def environment(merchant: ShopClient) -> dict[str, str]:
    key = merchant.key["Authorization"].removeprefix("Bearer ")
    return {**os.environ, "WEFT_URL": merchant.stack.url, "WEFT_KEY": key}


async def till(merchant: ShopClient, *arguments: str, scanned: str = "") -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "examples" / "till.py"), *arguments),
        env=environment(merchant),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(f"{scanned}\n".encode()), RUN_SECONDS_MAX)
    return process.returncode or 0, (output or errors).decode().strip().splitlines()[-1]


async def test_the_example_shop_sells_a_bread(
    stack: WebStack, merchant: ShopClient, alice: dict[str, str]
) -> None:
    async with example_shop(merchant) as (shop, printed), httpx.AsyncClient(timeout=20) as customer:
        assert "A loaf of bread" in (await customer.get(shop)).text
        bought = await customer.post(f"{shop}/buy")
        page = shop + bought.headers["location"]
        asked = (await customer.get(page)).text
        (picture,) = re.findall(r"img src='([^']+)'", asked)
        assert (await customer.get(picture)).status_code == 200
        (order_id,) = re.findall(r"/wallet/order/([0-9a-f]{32})<", asked)
        assert (await pay_order(stack, order_id, alice)).status_code == 200
        told = await asyncio.wait_for(printed.readline(), RUN_SECONDS_MAX)
        assert told.decode().startswith("order.paid ")
        assert "Thank you" in (await customer.get(page)).text
        forged = await customer.post(f"{shop}/weft", content=b"{}", headers={"webhook-id": "x"})
        assert forged.status_code == 400


async def test_the_example_till_charges_orders_and_refunds(
    stack: WebStack, merchant: ShopClient, alice: dict[str, str]
) -> None:
    code = (await stack.http.post(f"{stack.url}{V1}/payment-code", headers=alice)).json()["code"]
    status, words = await till(merchant, "charge", "4.50", scanned=code)
    assert (status, words.split(", ")[0]) == (0, "Paid 4.50 EUR by @alice:weft.example")
    reference = words.split(" ")[-1]
    assert (await till(merchant, "charge", "4.50", scanned=code))[0] == 1
    assert await till(merchant, "refund", reference, "1.00") == (0, f"Gave back 1.00 EUR of {reference}")
    status, words = await till(merchant, "refund", reference, "3.51")
    assert (status, words) == (1, "Of this payment €3.50 are left to be refunded.")
    status, words = await till(merchant, "charge", "50.01", scanned=code)
    assert (status, words.startswith("By payment code at most €50.00")) == (1, True)
    status, link = await till(merchant, "order", "50.01")
    assert (status, link.startswith(f"{stack.url}/wallet/order/")) == (0, True)
    assert (await till(merchant, "charge", "0.001", scanned=code))[0] == 1
    assert await stack.balance_minor(stack.user("alice")) == 10_000 - 350


async def test_the_quick_start_with_curl_works_as_it_is_written(
    stack: WebStack, merchant: ShopClient, alice: dict[str, str], tmp_path: Path
) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", QUICK_START.read_text(encoding="utf-8"), re.DOTALL)
    script = "\n".join(block for block in blocks if "curl" in block or "field()" in block)
    assert script.count("curl") >= 7
    variables = {
        "WEFT": stack.url,
        "KEY": merchant.key["Authorization"].removeprefix("Bearer "),
        "OWNER_TOKEN": merchant.session["Authorization"].removeprefix("Bearer "),
        "PAYER_TOKEN": alice["Authorization"].removeprefix("Bearer "),
        "MERCHANT": merchant.id,
        "DAY": datetime.now(UTC).date().isoformat(),
    }
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", script),
        cwd=tmp_path,
        env={**os.environ, **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), RUN_SECONDS_MAX)
    assert process.returncode == 0, errors.decode()
    shown = output.decode()
    for words in ('"state":"paid"', '"state":"made"', "closing_balance", "/wallet/order/", "whsec_"):
        assert words in shown, words
    assert '"errcode"' not in shown
