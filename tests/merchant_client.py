"""A merchant over HTTP, for tests: opened by its owner, with a key of every scope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from appservices.vocabulary.ids import UserId
from tests.web_stack import WebStack

V1 = "/_weft/wallet/v1"
ALL_SCOPES = ["orders", "charges", "refunds", "reports"]


@dataclass
class ShopClient:
    """What the merchant's own program can do (`key`), and its owner in the browser (`session`)."""

    stack: WebStack
    id: str
    owner: UserId
    session: dict[str, str]
    key: dict[str, str]

    async def get(self, path: str, **parameters: Any) -> httpx.Response:
        return await self.stack.http.get(
            f"{self.stack.url}{V1}/merchant/{path}", params=parameters, headers=self.key
        )

    async def post(self, path: str, body: Any = None, *, key: dict[str, str] | None = None) -> httpx.Response:
        return await self.stack.http.post(
            f"{self.stack.url}{V1}/merchant/{path}", json=body, headers=key or self.key
        )

    async def of_owner(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return await self.stack.http.request(
            method,
            f"{self.stack.url}{V1}/merchants/{self.id}{path}",
            json=body,
            headers=self.session,
        )

    async def order(self, reference: str = "1001", amount_minor: int = 1250, **more: Any) -> dict[str, Any]:
        body = {"reference": reference, "amount_minor": str(amount_minor), "currency": "EUR", **more}
        answer = await self.post("orders", body)
        assert answer.status_code == 200, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def new_key(self, *scopes: str) -> dict[str, str]:
        answer = await self.of_owner("POST", "/keys", {"name": "till", "scopes": list(scopes)})
        assert answer.status_code == 200, answer.text
        return {"Authorization": f"Bearer {answer.json()['key']}"}


async def open_shop(stack: WebStack, *, name: str = "Bakery", owner: str = "owner") -> ShopClient:
    user = stack.user(owner)
    session = await stack.bearer(user)
    opened = await stack.http.post(
        f"{stack.url}{V1}/merchants", json={"id": stack.new_id(), "name": name}, headers=session
    )
    assert opened.status_code == 200, opened.text
    shop = ShopClient(stack, opened.json()["id"], user, session, {})
    shop.key = await shop.new_key(*ALL_SCOPES)
    return shop


async def pay_order(stack: WebStack, id: str, headers: dict[str, str]) -> httpx.Response:
    return await stack.http.post(f"{stack.url}{V1}/orders/{id}/pay", headers=headers)
