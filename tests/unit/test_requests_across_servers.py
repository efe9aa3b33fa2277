"""Requests between people of two homeservers: asked by the one wallet, paid by the other, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from appservices.chassis.clock import system_clock
from appservices.chassis.links.protocol import StopReason
from appservices.chassis.links.storage import item_write
from appservices.vocabulary.ids import RoomId, TransferId, UserId, derived_id
from appservices.vocabulary.money import Money
from appservices.vocabulary.signing import verify_json
from tests.clearing_wallets import EUR, Wallet, wallets
from tests.link_channel import Weather, shorten_pauses
from wallet_appservice.clearing.asking import OPEN_FROM_SERVER_MAX
from wallet_appservice.payments.pending import PendingKind
from wallet_appservice.payments.records import Authority, PaymentRecord, PaymentState
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.payments.request_records import Request, RequestOrder, ShareState
from wallet_appservice.payments.requests import Asked

DINNER = RoomId("!dinner")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_pauses(monkeypatch)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[list[Wallet]]:
    """Bob of b asks Alice of a, who has 100 euros."""
    async with wallets(tmp_path, "a", "b") as both:
        yield both


async def ask(asker: Wallet, *people: UserId, minor: int = 500, name: str = "1", **changes: Any) -> Asked:
    order = RequestOrder(
        id=TransferId(derived_id("request", name)),
        requester=asker.user("bob"),
        people=people,
        money=Money(minor, EUR),
        memo="dinner",
        **changes,
    )
    return await asker.people.requests.ask(order)


async def until(so: Callable[[], Awaitable[Any]], *, seconds_max: float = 15.0) -> Any:
    async with asyncio.timeout(seconds_max):
        while not (found := await so()):
            await asyncio.sleep(0.01)
        return found


async def waiting(wallet: Wallet, name: str = "alice") -> list[TransferId]:
    """What is asked of somebody and waits for them, the oldest first."""
    page = await wallet.people.pending.of(wallet.user(name))
    return [item.id for item in page.items if item.kind is PendingKind.REQUEST and item.waits_for_me]


async def state(wallet: Wallet, user: UserId, id: TransferId, of: UserId) -> ShareState | None:
    request = await wallet.people.requests.request(user, id)
    share = request.share_of(of) if request is not None else None
    return share.state if share is not None else None


async def asked_and_come(a: Wallet, b: Wallet, **changes: Any) -> tuple[Request, TransferId]:
    """Bob's request, and what Alice's wallet calls it."""
    asked = await ask(b, a.user("alice"), **changes)
    assert isinstance(asked, Request), asked
    (id,) = await until(lambda: waiting(a))
    return asked, id


async def pay(wallet: Wallet, id: TransferId, *, authority: Authority = Authority.SESSION) -> object:
    return await wallet.people.requests.pay(wallet.user("alice"), id, authority=authority)


async def become(wallet: Wallet, user: UserId, id: TransferId, of: UserId, wanted: ShareState) -> None:
    async def is_so() -> bool:
        return await state(wallet, user, id, of) is wanted

    await until(is_so)


async def test_who_is_asked_is_told_by_their_own_wallet_pays_and_both_see_it(pair: list[Wallet]) -> None:
    a, b = pair
    b.network.rooms[DINNER] = {b.user_id, b.user("bob"), a.user("alice")}
    request, id = await asked_and_come(a, b, room_id=DINNER)
    (told,) = await a.told("alice")
    assert "@bob:b asks Alice for €5.00 · dinner" in told.replace("\u2068", "").replace("\u2069", "")
    assert "React with ✅" in told
    outcome = await pay(a, id)
    assert isinstance(outcome, PaymentRecord)
    record = await a.paying.ended(outcome, seconds_max=10)
    assert record.state is PaymentState.POSTED and record.end_receipt is not None
    verify_json(record.end_receipt, signer=a.user_id, keys=a.payments.keys())
    assert await state(a, a.user("alice"), id, a.user("alice")) is ShareState.PAID
    assert await state(b, b.user("bob"), request.id, a.user("alice")) is ShareState.PAID
    assert (await a.balance("alice"), await b.balance("bob")) == ((9_500, 0), (500, 0))
    (got,) = await b.payments.history(b.user("bob"), limit=5)
    assert (got.payer, got.memo) == (a.user("alice"), "dinner")
    verify_json(got.receipt, signer=b.user_id, keys=b.payments.keys())
    for wallet in pair:
        await wallet.people.requests.sweep()
    assert await waiting(a) == []
    again = await pay(a, id)
    assert isinstance(again, PaymentRecord) and again.id == record.id
    assert await b.balance("bob") == (500, 0)


async def test_many_taps_at_once_pay_once(pair: list[Wallet]) -> None:
    a, b = pair
    _request, id = await asked_and_come(a, b)
    outcomes = await asyncio.gather(*(pay(a, id) for _ in range(10)))
    assert all(isinstance(outcome, PaymentRecord) for outcome in outcomes)
    await become(a, a.user("alice"), id, a.user("alice"), ShareState.PAID)
    assert await b.balance("bob") == (500, 0)


async def test_a_split_asks_people_of_both_servers(pair: list[Wallet]) -> None:
    a, b = pair
    people = (b.user("bob"), b.user("carol"), a.user("alice"))
    asked = await ask(b, *people, minor=1_000, is_split=True)
    assert isinstance(asked, Request)
    (id,) = await until(lambda: waiting(a))
    mine = await a.people.requests.request(a.user("alice"), id)
    assert mine is not None and mine.money == Money(333, EUR)
    assert await pay(a, id)
    await become(b, b.user("bob"), asked.id, a.user("alice"), ShareState.PAID)
    assert await state(b, b.user("bob"), asked.id, b.user("carol")) is ShareState.OPEN


async def test_declining_and_taking_back_are_told_to_the_other_side(pair: list[Wallet]) -> None:
    a, b = pair
    request, id = await asked_and_come(a, b)
    await a.people.requests.decline(a.user("alice"), id)
    await become(b, b.user("bob"), request.id, a.user("alice"), ShareState.DECLINED)
    assert any("declined to pay" in body for body in await b.told("bob"))
    request, id = await asked_and_come(a, b, name="2")
    await b.people.requests.cancel(b.user("bob"), request.id)
    await become(a, a.user("alice"), id, a.user("alice"), ShareState.CANCELLED)
    assert any("does not ask you" in body for body in await a.told("alice"))
    refused = await pay(a, id)
    assert isinstance(refused, PaymentRefused) and refused.refusal is PaymentRefusal.REQUEST_OVER


async def test_what_was_taken_back_while_its_payment_was_on_the_way_is_not_paid(
    pair: list[Wallet],
) -> None:
    a, b = pair
    request, id = await asked_and_come(a, b)
    a.network.weather.is_cut = True
    outcome = await pay(a, id)
    assert isinstance(outcome, PaymentRecord) and outcome.state is PaymentState.PENDING
    await b.people.requests.cancel(b.user("bob"), request.id)
    # Whoever looks after what was left leaves a payment alone that the other wallet has to answer.
    await a.people.requests.sweep(is_first=True)
    a.network.weather.is_cut = False
    await become(a, a.user("alice"), id, a.user("alice"), ShareState.CANCELLED)
    assert (await a.balance("alice"), await b.balance("bob")) == ((10_000, 0), (0, 0))


async def test_a_payment_that_is_rejected_leaves_the_request_to_be_paid_again(tmp_path: Path) -> None:
    async with wallets(tmp_path, "a", "b", limit_minor=100) as (a, b):
        request, id = await asked_and_come(a, b)
        outcome = await pay(a, id)
        assert isinstance(outcome, PaymentRecord)
        assert (await a.paying.ended(outcome, seconds_max=10)).state is PaymentState.RETURNED
        assert await state(a, a.user("alice"), id, a.user("alice")) is ShareState.OPEN
        assert await state(b, b.user("bob"), request.id, a.user("alice")) is ShareState.OPEN
        await b.peers.add(a.server, {EUR: 50_000})
        assert await pay(a, id)
        await become(b, b.user("bob"), request.id, a.user("alice"), ShareState.PAID)


async def test_limits_and_confirmations_hold_as_for_any_payment(pair: list[Wallet]) -> None:
    a, b = pair
    request, id = await asked_and_come(a, b, minor=30_000)
    refused = await pay(a, id, authority=Authority.CHAT)
    assert isinstance(refused, PaymentRefused) and refused.refusal is PaymentRefusal.BALANCE_TOO_LOW
    deposit = TransferId(derived_id("another deposit"))
    await a.payments.deposit(user=a.user("alice"), money=Money(50_000, EUR), id=deposit)
    refused = await pay(a, id, authority=Authority.CHAT)
    assert isinstance(refused, PaymentRefused) and refused.refusal is PaymentRefusal.CONFIRMATION_NEEDED
    assert await state(a, a.user("alice"), id, a.user("alice")) is ShareState.OPEN
    assert await pay(a, id)
    await become(b, b.user("bob"), request.id, a.user("alice"), ShareState.PAID)


@pytest.mark.parametrize("stopped", ["a", "b"])
async def test_a_wallet_that_dies_between_asking_and_being_paid_loses_nothing_and_pays_once(
    tmp_path: Path, stopped: str
) -> None:
    weather = Weather(seed=3, lost=0.2, repeated=0.3, delay_seconds_max=0.02)
    async with wallets(tmp_path, "a", "b", weather=weather) as (a, b):
        victim = a if stopped == "a" else b
        request = await ask(b, a.user("alice"))
        assert isinstance(request, Request)
        await victim.stop()
        await victim.start()
        (id,) = await until(lambda: waiting(a))
        paying = asyncio.create_task(pay(a, id))
        await asyncio.sleep(0.03)
        await victim.stop()
        await asyncio.gather(paying, return_exceptions=True)
        await victim.start()
        for wallet in (a, b):
            await wallet.people.requests.sweep(is_first=True)
        if await state(a, a.user("alice"), id, a.user("alice")) is not ShareState.PAID:
            await pay(a, id)
        await become(a, a.user("alice"), id, a.user("alice"), ShareState.PAID)
        await become(b, b.user("bob"), request.id, a.user("alice"), ShareState.PAID)
        assert (await a.balance("alice"), await b.balance("bob")) == ((9_500, 0), (500, 0))


# A wallet that lies.


async def said(sender: Wallet, receiver: Wallet, *items: dict[str, Any]) -> None:
    await sender.switchboard.link(receiver.user_id)
    await sender.switchboard.storage.write([item_write(receiver.user_id, item) for item in items])
    sender.switchboard.wake(receiver.user_id)

    async def heard() -> bool:
        link = sender.switchboard.known(receiver.user_id)
        assert link is not None
        state = link.state
        return state.state == "stopped" or state.outgoing.acked >= state.outgoing.seq > 0

    await until(heard)


def asking(name: str = "1", **changes: Any) -> dict[str, Any]:
    return {
        "kind": "request",
        "id": derived_id("lies", name),
        "requester": "@bob:b",
        "asked": "@alice:a",
        "amount_minor": "500",
        "currency": "EUR",
        "expires_at_ms": system_clock() + 3_600_000,
        **changes,
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"requester": "@carol:a"}, {"requester": "@bob:c"}, {"asked": "@nobody:a"}, {"asked": "@wallet:a"},
        {"asked": "@alice:c"}, {"currency": "USD"}, {"amount_minor": "100001"}, {"memo": "two\nlines"},
        {"expires_at_ms": 1},
    ],
)  # fmt: skip
async def test_a_request_that_may_not_be_made_is_answered_so_and_told_to_nobody(
    pair: list[Wallet], changes: dict[str, Any]
) -> None:
    a, b = pair
    await said(b, a, asking(**changes))
    assert await waiting(a) == [] and await a.told("alice") == []


async def test_nobody_is_pestered_by_more_requests_of_one_server_than_so_many(pair: list[Wallet]) -> None:
    a, b = pair
    await said(b, a, *(asking(str(number)) for number in range(OPEN_FROM_SERVER_MAX + 5)))
    await until(lambda: waiting(a))
    assert len(await waiting(a)) == OPEN_FROM_SERVER_MAX
    await said(b, a, asking("one more"))
    assert len(await waiting(a)) == OPEN_FROM_SERVER_MAX


async def test_the_same_request_again_is_one_and_with_other_content_it_stops_the_link(
    pair: list[Wallet],
) -> None:
    a, b = pair
    await said(b, a, asking(), asking())
    await said(b, a, asking())
    assert len(await waiting(a)) == 1 and len(await a.told("alice")) == 1
    await said(b, a, asking(amount_minor="501"))
    link = a.switchboard.known(b.user_id)
    assert link is not None
    await until(lambda: _is_stopped(a, b))
    assert link.state.reason == StopReason.ANSWERED_TWICE.value


async def _is_stopped(wallet: Wallet, other: Wallet) -> bool:
    link = wallet.switchboard.known(other.user_id)
    return link is not None and link.state.state == "stopped"


async def test_a_request_that_is_taken_back_in_the_same_message_is_over(pair: list[Wallet]) -> None:
    a, b = pair
    end = {"kind": "request_end", "id": derived_id("lies", "1"), "end": "cancelled"}
    await said(b, a, asking(), end)
    await until(lambda: a.told("alice"))
    assert await waiting(a) == []


async def test_nobody_but_the_wallet_of_who_is_asked_ends_or_pays_a_request(tmp_path: Path) -> None:
    async with wallets(tmp_path, "a", "b", "c") as (a, b, c):
        request, _id = await asked_and_come(a, b)
        shared = derived_id("asked elsewhere", request.id, "@alice:a")
        await said(c, b, {"kind": "request_end", "id": shared, "end": "declined"})
        prepare = {
            "kind": "prepare", "id": derived_id("c", "1"), "payer": "@alice:c", "payee": "@bob:b",
            "amount_minor": "500", "currency": "EUR", "expires_at_ms": 2**52, "request": shared,
        }  # fmt: skip
        # The one pays as somebody else there, the other has nothing to do with it.
        await said(c, b, prepare)
        await said(a, b, {**prepare, "id": derived_id("a", "1"), "payer": "@carol:a"})
        assert await state(b, b.user("bob"), request.id, a.user("alice")) is ShareState.OPEN
        assert await b.balance("bob") == (0, 0)


async def test_two_payments_for_one_request_in_one_message_are_booked_once(pair: list[Wallet]) -> None:
    a, b = pair
    request, _id = await asked_and_come(a, b)
    shared = derived_id("asked elsewhere", request.id, "@alice:a")
    prepares = [
        {
            "kind": "prepare", "id": derived_id("twice", str(number)), "payer": "@alice:a", "payee": "@bob:b",
            "amount_minor": "500", "currency": "EUR", "expires_at_ms": 2**52, "request": shared,
        }
        for number in range(3)
    ]  # fmt: skip
    await a.switchboard.storage.write([item_write(b.user_id, item) for item in prepares])
    await become(b, b.user("bob"), request.id, a.user("alice"), ShareState.PAID)
    assert await b.balance("bob") == (500, 0)


async def test_people_of_a_server_without_an_agreement_are_not_asked(pair: list[Wallet]) -> None:
    _a, b = pair
    refused = await ask(b, UserId("@dave:stranger.example"))
    assert isinstance(refused, PaymentRefused) and refused.refusal is PaymentRefusal.ASKED_ELSEWHERE


async def test_the_requester_learns_that_somebody_could_not_be_asked(pair: list[Wallet]) -> None:
    a, b = pair
    asked = await ask(b, a.user("nobody"))
    assert isinstance(asked, Request)
    await become(b, b.user("bob"), asked.id, a.user("nobody"), ShareState.UNREACHED)
    assert any("could not be asked" in body for body in await b.told("bob"))
