"""What the OpenAPI documents promise holds for whatever their forms allow, and for much that they don't.

Schemathesis asks every documented route; no answer is a 5xx, and each has a documented status, content type
and form.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.merchant_client import ShopClient, open_shop, pay_order
from tests.web_stack import WebStack, running_web, web_config

EXAMPLES_MAX = 15
SEED = 20_261_124
RUN_SECONDS_MAX = 240
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
)
MERCHANT, WALLET = "/_weft/wallet/merchant/openapi.json", "/_weft/wallet/openapi.json"


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[WebStack]:
    async with running_web(web_config(tmp_path)) as stack:
        yield stack


@pytest.fixture
async def shop(stack: WebStack) -> ShopClient:
    """A shop that has an order and a refund already, so that there is something to find."""
    shop = await open_shop(stack)
    alice = stack.user("alice")
    await stack.deposit(alice, 10_000)
    order = await shop.order()
    await pay_order(stack, order["id"], await stack.bearer(alice))
    await shop.post("refunds", {"order_id": order["id"], "refund_number": "r1", "amount_minor": "1"})
    return shop


@dataclass(frozen=True)
class Part:
    """Some of a document's routes, and how one signs in to them."""

    document: str
    paths: str
    by_key: bool = False


@pytest.mark.parametrize(
    "part",
    [
        Part(MERCHANT, r"^/_weft/wallet/v1/merchant/", by_key=True),
        Part(MERCHANT, r"^/_weft/wallet/v1/merchants"),
        Part(MERCHANT, r"^/_weft/wallet/v1/(orders|payment-code)"),
        Part(WALLET, r"^/_weft/wallet/"),
    ],
    ids=["merchant's programs", "merchant's owner", "payers of orders", "people"],
)
async def test_no_request_breaks_the_api_or_its_document(
    stack: WebStack, shop: ShopClient, part: Part, tmp_path: Path
) -> None:
    # Half of the ids that are asked for are there, so that more than 404 is looked at.
    (order,) = (await shop.get("orders")).json()["orders"]
    there = shop.id if "merchants" in part.paths else order["id"]
    settings = f'[parameters]\n"path.id" = ["{there}", "{"0" * 32}"]\n'
    (tmp_path / "schemathesis.toml").write_text(settings if part.document == MERCHANT else "")
    authorization = (shop.key if part.by_key else shop.session)["Authorization"]
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        "run",
        stack.url + part.document,
        "--include-path-regex",
        part.paths,
        "--header",
        f"Authorization: {authorization}",
        "--checks",
        ",".join(CHECKS),
        "--phases",
        "examples,coverage,fuzzing",
        "--max-examples",
        str(EXAMPLES_MAX),
        "--seed",
        str(SEED),
        "--suppress-health-check",
        "all",
        "--generation-database",
        "none",
        "--warnings",
        "off",
        "--no-color",
    ]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONUTF8": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(RUN_SECONDS_MAX):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, output.decode()[-6000:]
