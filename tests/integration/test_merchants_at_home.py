"""A merchant on a whole Weft with a real Synapse: opened by the operator, paid by a member, and told so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx

from appservices.vocabulary.events import RECEIPT
from appservices.vocabulary.schemas import check_block
from appservices.vocabulary.signing import verify_json
from scripts.story.homes import homes_in
from scripts.story.person import Person

ANSWER_SECONDS_MAX = 30


async def session_of(person: Person) -> dict[str, str]:
    """A session, by an OpenID token, as docs/protocol/sign-in.md says."""
    async with httpx.AsyncClient(timeout=ANSWER_SECONDS_MAX) as http:
        asked = await http.post(
            f"{person.home.url}/_matrix/client/v3/user/{person.user_id}/openid/request_token",
            headers={"Authorization": f"Bearer {person.client.access_token}"},
            json={},
        )
        begun = await http.post(f"{person.home.portal_url}/_weft/sessions/openid", json=asked.json())
    return {"Authorization": f"Bearer {begun.json()['token']}"}


async def test_a_member_pays_the_order_of_a_merchant_whom_the_operator_has_opened(tmp_path: Path) -> None:
    (home,) = homes_in(tmp_path, "Home")
    await home.start()
    alice = Person("Alice", home, tmp_path / "alice")
    try:
        await alice.sign_up()
        room_id = await alice.home_room()
        await home.weft("wallet", "deposit", alice.user_id, "20", "EUR")
        added = await home.weft("wallet", "merchant", "add", "owner", "Bakery")
        (merchant_id,) = re.findall(r"Merchant ([0-9a-f]{32})", added)
        key = {"Authorization": "Bearer " + await home.weft("wallet", "merchant", "key", merchant_id, "shop")}
        session = await session_of(alice)
        async with httpx.AsyncClient(base_url=home.portal_url, timeout=ANSWER_SECONDS_MAX) as http:
            body = {"reference": "1001", "amount_minor": "1250", "currency": "EUR", "description": "bread"}
            order = (await http.post("/_weft/wallet/v1/merchant/orders", json=body, headers=key)).json()
            assert order["pay_url"] == f"{home.portal_url}/wallet/order/{order['id']}"
            path = f"/_weft/wallet/v1/orders/{order['id']}/pay"
            paid = await http.post(path, headers=session)
            assert (paid.status_code, paid.json()["state"]) == (200, "paid")
            keys = (await http.get("/_weft/wallet/keys")).json()
        content: dict[str, Any] = dict(await alice.receipt(room_id, "bread"))
        assert content["body"] == "You paid Bakery €12.50 · bread"
        check_block("receipt", content[RECEIPT])
        verify_json(content[RECEIPT], signer=home.user("wallet"), keys=keys["keys"])
        assert "Bakery" in await home.weft("wallet", "merchant", "list")
    finally:
        await alice.sign_off()
        await home.stop()
