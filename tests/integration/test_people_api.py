"""Requests, red packets, refunds, acceptance and being paid over real HTTP, ledger and databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from appservices.vocabulary.ids import RoomId, UserId
from tests.web_stack import WebStack, payment_id, running_web, web_config

ROOM = RoomId("!lunch")
PROTOCOL = Path(__file__).parents[2] / "docs" / "protocol"
DOCS = "".join((PROTOCOL / name).read_text(encoding="utf-8") for name in ("wallet-api.md", "people-api.md"))


class Caller:
    """Somebody with a session, and the wallet's API."""

    def __init__(self, stack: WebStack, user: UserId, headers: dict[str, str]) -> None:
        self.user = user
        self._stack = stack
        self._headers = headers

    async def post(self, path: str, **body: Any) -> httpx.Response:
        return await self._stack.http.post(self._address(path), json=body, headers=self._headers)

    async def put(self, path: str, **body: Any) -> httpx.Response:
        return await self._stack.http.put(self._address(path), json=body, headers=self._headers)

    async def get(self, path: str, **parameters: Any) -> httpx.Response:
        return await self._stack.http.get(self._address(path), params=parameters, headers=self._headers)

    def _address(self, path: str) -> str:
        return f"{self._stack.url}/_weft/wallet/v1/{path}"


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[WebStack]:
    async with running_web(web_config(tmp_path)) as stack:
        yield stack


@pytest.fixture
async def people(stack: WebStack) -> list[Caller]:
    """Alice, who has €100, Bob and Carol, in one room."""
    callers = []
    for name in ("alice", "bob", "carol"):
        user = stack.user(name)
        callers.append(Caller(stack, user, await stack.bearer(user)))
    await stack.deposit(callers[0].user, 10_000)
    stack.members[ROOM] = {caller.user for caller in callers}
    return callers


def an_amount(amount_minor: int = 1250) -> dict[str, str]:
    return {"amount_minor": str(amount_minor), "currency": "EUR"}


async def test_a_request_is_asked_seen_and_paid(stack: WebStack, people: list[Caller]) -> None:
    alice, bob, carol = people
    id = payment_id("request")
    asked = await bob.post("requests", id=id, asked=alice.user, memo="lunch", **an_amount())
    assert asked.status_code == 200, asked.text
    assert asked.json()["shares"] == [{"asked": alice.user, "amount_minor": "1250", "state": "open"}]
    assert (await carol.get(f"requests/{id}")).status_code == 404
    pending = (await alice.get("pending")).json()
    assert [(item["kind"], item["id"], item["waits_for_me"]) for item in pending["pending"]] == [
        ("request", id, True)
    ]
    assert (await carol.post(f"requests/{id}/pay")).status_code == 404
    paid = await alice.post(f"requests/{id}/pay")
    assert paid.status_code == 200, paid.text
    assert (await alice.post(f"requests/{id}/pay")).json() == paid.json()
    assert await stack.balance_minor(bob.user) == 1250
    assert (await alice.get(f"requests/{id}")).json()["is_open"] is False
    late = await alice.post(f"requests/{id}/decline")
    assert (late.status_code, late.json()["errcode"]) == (409, "DEV_WEFT_REQUEST_OVER")


async def test_a_split_is_declined_and_taken_back(people: list[Caller]) -> None:
    alice, bob, carol = people
    id = payment_id("split")
    asked = await alice.post("splits", id=id, people=[bob.user, carol.user], room_id=ROOM, **an_amount(1001))
    assert [share["amount_minor"] for share in asked.json()["shares"]] == ["501", "500"]
    assert (await bob.post(f"requests/{id}/decline")).status_code == 200
    taken_back = (await alice.post(f"requests/{id}/cancel")).json()
    assert [share["state"] for share in taken_back["shares"]] == ["declined", "cancelled"]


async def test_a_red_packet_is_opened_by_members_of_its_room(stack: WebStack, people: list[Caller]) -> None:
    alice, bob, carol = people
    id = payment_id("packet")
    put = await alice.post("red-packets", id=id, room_id=ROOM, count=2, words="for tea", **an_amount(1000))
    assert put.status_code == 200, put.text
    found = (await bob.post(f"red-packets/{id}/open")).json()
    assert found["found_minor"] == str(await stack.balance_minor(bob.user))
    assert (await bob.post(f"red-packets/{id}/open")).json()["found_minor"] == found["found_minor"]
    stack.members[RoomId("!away")] = {carol.user}
    over = (await carol.post(f"red-packets/{id}/open")).json()
    assert over["state"] == "emptied"
    assert over["luckiest"] in (bob.user, carol.user)
    assert sum(int(item["amount_minor"]) for item in over["opened"]) == 1000
    late = await alice.post(f"red-packets/{id}/open")
    assert (late.status_code, late.json()["errcode"]) == (409, "DEV_WEFT_PACKET_EMPTY")
    dear = await alice.post("red-packets", id=payment_id("dear"), room_id=ROOM, count=2, **an_amount(20_001))
    assert dear.status_code == 400


async def test_a_payment_is_accepted_and_given_back(stack: WebStack, people: list[Caller]) -> None:
    alice, bob, _carol = people
    assert (await bob.get("settings/acceptance")).json() == {"on": False}
    assert (await bob.put("settings/acceptance", on=True)).json() == {"on": True}
    id = payment_id("held")
    held = (await alice.post("payments", id=id, payee=bob.user, **an_amount())).json()
    assert held["state"] == "pending" and held["expires_at_ms"] is not None
    assert (await alice.post("acceptances", payment=id, accept=True)).status_code == 404
    accepted = (await bob.post("acceptances", payment=id, accept=True)).json()
    assert accepted["state"] == "posted" and accepted["end_receipt"]["of"] == id
    part = await bob.post("refunds", id=payment_id("part"), payment=id, amount_minor="250")
    assert part.status_code == 200, part.text
    assert part.json()["of"] == id
    assert await stack.balance_minor(alice.user) == 9_000
    too_much = await bob.post("refunds", id=payment_id("more"), payment=id, amount_minor="1001")
    assert (too_much.status_code, too_much.json()["errcode"]) == (400, "DEV_WEFT_REFUND_TOO_LARGE")


async def test_what_is_shown_to_be_paid_by_opens_the_page_with_its_fields(
    stack: WebStack, people: list[Caller]
) -> None:
    alice, bob, _carol = people
    way = (await bob.get("receive", memo="tea & cake", **an_amount())).json()
    assert way["command"] == f"!pay {bob.user} 12.50 EUR tea & cake"
    assert way["qr_svg"].startswith("<svg")
    session = await stack.session(alice.user)
    headers = {"Authorization": f"Bearer {session.token}"}
    page = await stack.http.get(way["link"], headers=headers, follow_redirects=True)
    assert page.status_code == 200
    for value in (bob.user, "12.50", "tea &amp; cake"):
        assert f'value="{value}"' in page.text


async def test_every_path_is_documented(stack: WebStack) -> None:
    schema = (await stack.http.get(stack.url + "/_weft/wallet/openapi.json")).json()
    for path, operations in schema["paths"].items():
        for method in operations:
            assert f"`{method.upper()} {path}`" in DOCS, path


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("requests", {"asked": "bob", **an_amount()}),
        ("requests", {"asked": "@bob:weft.example", **an_amount(), "amount_minor": "1.5"}),
        ("splits", {"people": [], **an_amount()}),
        ("splits", {"people": ["@bob:weft.example"] * 51, **an_amount()}),
        ("red-packets", {"room_id": ROOM, "count": 0, **an_amount()}),
        ("red-packets", {"room_id": ROOM, "count": True, **an_amount()}),
        ("refunds", {"payment": "1"}),
        ("acceptances", {"payment": "9" * 32}),
        ("requests/nonsense/pay", {}),
        ("receive", {}),
    ],
)
async def test_bad_input_is_refused_with_a_sentence(
    people: list[Caller], path: str, body: dict[str, Any]
) -> None:
    answer = await people[0].post(path, id=payment_id("bad"), **body)
    assert 400 <= answer.status_code < 500
    if answer.status_code != 405:
        assert answer.json()["error"]
