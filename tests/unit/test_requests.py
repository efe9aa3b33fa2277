"""What requests and splits promise, on a real ledger of either kind of database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appservices.vocabulary.ids import RoomId, UserId
from appservices.vocabulary.money import CurrencyCode, Money
from tests.people_wallet import (
    ALICE,
    BOB,
    CAROL,
    DAVE,
    EUR,
    LUNCH,
    PeopleWallet,
    new_id,
    people_wallet,
)
from wallet_appservice.payments import requests as requests_module
from wallet_appservice.payments.records import Authority, PaymentRecord
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.payments.request_records import (
    OPEN_REQUESTS_MAX,
    SPLIT_PEOPLE_MAX,
    Request,
    RequestOrder,
    ShareState,
    equal_shares,
)
from wallet_appservice.payments.till import Outcome

pytest_plugins = ["tests.database_fixtures"]


@pytest.fixture
async def wallet(database_url: str, tmp_path: Path) -> AsyncIterator[PeopleWallet]:
    async with people_wallet(database_url, tmp_path) as wallet:
        await wallet.deposit(BOB, 10_000)
        await wallet.deposit(CAROL, 100)
        yield wallet


def order(name: str = "1", amount_minor: int = 1250, **changes: Any) -> RequestOrder:
    made = RequestOrder(
        id=new_id(name),
        requester=ALICE,
        people=(BOB,),
        money=Money(amount_minor, EUR),
        memo="lunch",
        room_id=LUNCH,
    )
    return replace(made, **changes)


def split(name: str = "1", amount_minor: int = 1000, *people: UserId, **changes: Any) -> RequestOrder:
    return order(name, amount_minor, people=people or (BOB, CAROL, DAVE), is_split=True, **changes)


async def asked(wallet: PeopleWallet, wanted: RequestOrder) -> Request:
    request = await wallet.people.requests.ask(wanted)
    assert isinstance(request, Request), request
    return request


async def pay(wallet: PeopleWallet, user: UserId, request: Request) -> Outcome:
    return await wallet.people.requests.pay(user, request.id, authority=Authority.CHAT)


async def states(wallet: PeopleWallet, request: Request) -> dict[UserId, ShareState]:
    now = await wallet.people.requests.request(ALICE, request.id)
    assert now is not None
    return {share.asked: share.state for share in now.shares}


async def test_a_request_is_paid_once_by_whom_it_asks(wallet: PeopleWallet) -> None:
    request = await asked(wallet, order())
    assert (await wallet.told(to=LUNCH))[0].startswith("Alice asks Bob for €12.50 · lunch\n")
    assert (await wallet.contents(to=LUNCH))[0]["m.mentions"] == {"user_ids": [BOB]}
    outcomes = await asyncio.gather(*(pay(wallet, BOB, request) for _ in range(10)))
    assert all(outcome == outcomes[0] for outcome in outcomes)
    assert isinstance(outcomes[0], PaymentRecord)
    assert outcomes[0].subject == f"request:{request.id}"
    assert (await wallet.balance(ALICE), await wallet.balance(BOB)) == (1_250, 8_750)
    await wallet.people.sweep()
    assert await states(wallet, request) == {BOB: ShareState.PAID}
    told = await wallet.told(to=LUNCH)
    assert told[1] == "Bob paid Alice €12.50 · lunch"
    assert told[-1] == "✅ Bob paid Alice the €12.50 that was asked for · lunch"
    before = len(await wallet.told())
    await wallet.people.sweep()
    assert len(await wallet.told()) == before


async def test_what_is_too_dear_stays_open_and_can_be_paid_later(wallet: PeopleWallet) -> None:
    request = await asked(wallet, order("1", 500, people=(CAROL,)))
    refused = await pay(wallet, CAROL, request)
    assert isinstance(refused, PaymentRefused) and refused.refusal is PaymentRefusal.BALANCE_TOO_LOW
    assert await states(wallet, request) == {CAROL: ShareState.OPEN}
    await wallet.deposit(CAROL, 1_000)
    assert isinstance(await pay(wallet, CAROL, request), PaymentRecord)
    assert await wallet.balance(CAROL) == 600


async def test_nobody_else_pays_declines_or_takes_back(wallet: PeopleWallet) -> None:
    request = await asked(wallet, order())
    use_cases = wallet.people.requests
    for outcome in (
        await pay(wallet, CAROL, request),
        await pay(wallet, ALICE, request),
        await use_cases.decline(CAROL, request.id),
        await use_cases.cancel(BOB, request.id),
    ):
        assert isinstance(outcome, PaymentRefused) and outcome.refusal is PaymentRefusal.REQUEST_UNKNOWN
    assert await use_cases.request(CAROL, request.id) is None
    assert await states(wallet, request) == {BOB: ShareState.OPEN}


@pytest.mark.parametrize(
    ("ending", "state", "told", "to"),
    [
        ("decline", ShareState.DECLINED, "Bob declined to pay the €12.50 that you asked for · lunch", ALICE),
        ("cancel", ShareState.CANCELLED, "Alice does not ask you for €12.50 any more · lunch", BOB),
    ],
)
async def test_a_request_that_was_ended_is_told_and_can_not_be_paid(
    wallet: PeopleWallet, ending: str, state: ShareState, told: str, to: UserId
) -> None:
    request = await asked(wallet, order())
    end = getattr(wallet.people.requests, ending)
    by = BOB if ending == "decline" else ALICE
    assert isinstance(await end(by, request.id), Request)
    assert isinstance(await end(by, request.id), Request)
    assert await wallet.told(to=to) == [told]
    late = await pay(wallet, BOB, request)
    assert isinstance(late, PaymentRefused) and late.refusal is PaymentRefusal.REQUEST_OVER
    assert await states(wallet, request) == {BOB: state}
    assert await wallet.balance(BOB) == 10_000


async def test_paying_and_taking_back_at_once_has_one_outcome(wallet: PeopleWallet) -> None:
    for number in range(8):
        request = await asked(wallet, order(str(number), 100))
        before = await wallet.balance(BOB)
        paid, cancelled = await asyncio.gather(
            pay(wallet, BOB, request), wallet.people.requests.cancel(ALICE, request.id)
        )
        assert isinstance(paid, PaymentRecord) is not isinstance(cancelled, Request)
        assert await wallet.balance(BOB) == before - (100 if isinstance(paid, PaymentRecord) else 0)


async def test_a_request_ends_after_its_time_and_both_are_told(wallet: PeopleWallet) -> None:
    request = await asked(wallet, order())
    wallet.clock.forward(hours=25)
    await wallet.people.sweep()
    await wallet.people.sweep()
    (reminder,) = await wallet.told(to=BOB)
    assert reminder.startswith("A reminder: Alice asks you for €12.50 · lunch")
    wallet.clock.forward(days=7)
    late = await pay(wallet, BOB, request)
    assert isinstance(late, PaymentRefused) and late.refusal is PaymentRefusal.REQUEST_OVER
    await wallet.people.sweep()
    await wallet.people.sweep()
    assert await states(wallet, request) == {BOB: ShareState.EXPIRED}
    assert (await wallet.told(to=BOB))[1:] == [
        "The time to pay Alice €12.50 is over, and nothing was paid · lunch"
    ]
    assert await wallet.told(to=ALICE) == ["Bob did not pay the €12.50 that you asked for in time · lunch"]
    assert (await wallet.told(to=LUNCH))[-1] == "⌛ Bob did not pay Alice €12.50 in time · lunch"


async def test_a_process_that_died_before_the_money_moved_is_finished_by_the_sweep(
    wallet: PeopleWallet, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await asked(wallet, order())

    async def dies(*_arguments: object, **_more: object) -> Outcome:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(wallet.payments, "pay", dies)
        with pytest.raises(RuntimeError):
            await pay(wallet, BOB, request)
    assert await states(wallet, request) == {BOB: ShareState.PAYING}
    cancelled = await wallet.people.requests.cancel(ALICE, request.id)
    assert isinstance(cancelled, PaymentRefused)
    # As long as the step may still be under way it is left alone, but for the sweep of a start.
    await wallet.people.requests.sweep()
    assert await states(wallet, request) == {BOB: ShareState.PAYING}
    await wallet.people.requests.sweep(is_first=True)
    await wallet.people.requests.sweep(is_first=True)
    assert await states(wallet, request) == {BOB: ShareState.PAID}
    assert await wallet.balance(BOB) == 8_750


async def test_a_split_asks_each_for_an_equal_share_and_shows_who_has_paid(wallet: PeopleWallet) -> None:
    await wallet.deposit(CAROL, 1_000)
    request = await asked(wallet, split("1", 1000, BOB, CAROL, DAVE))
    assert [share.money.amount_minor for share in request.shares] == [334, 333, 333]
    assert [share.has_copy for share in request.shares] == [False, False, True]
    assert len(await wallet.told(to=LUNCH)) == len(await wallet.told(to=DAVE)) == 1
    assert isinstance(await pay(wallet, BOB, request), PaymentRecord)
    await wallet.people.requests.decline(DAVE, request.id)
    await wallet.people.sweep()
    for place in (LUNCH, DAVE):
        assert (await wallet.told(to=place))[-1].splitlines()[:4] == [
            "Alice splits €10.00 · lunch",
            "✅ Bob: €3.34 paid",
            "⏳ Carol: €3.33",
            "❌ Dave: €3.33 declined",
        ]
    assert isinstance(await pay(wallet, CAROL, request), PaymentRecord)
    assert await wallet.balance(ALICE) == 667
    page = await wallet.people.pending.of(ALICE)
    assert page.items == ()


async def test_who_names_themself_bears_a_share_that_nobody_pays(wallet: PeopleWallet) -> None:
    request = await asked(wallet, split("1", 900, ALICE, BOB, CAROL))
    assert await states(wallet, request) == {
        ALICE: ShareState.OWN,
        BOB: ShareState.OPEN,
        CAROL: ShareState.OPEN,
    }
    assert isinstance(await pay(wallet, BOB, request), PaymentRecord)
    assert await wallet.balance(ALICE) == 300


@pytest.mark.parametrize(("total", "heads"), [(1, 1), (10, 3), (100, 7), (7, 7), (12345, 50)])
def test_equal_shares_add_up_and_differ_by_the_least_unit(total: int, heads: int) -> None:
    shares = equal_shares(total, heads)
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"people": (ALICE,)}, PaymentRefusal.ASKED_IS_ASKER),
        ({"people": (UserId("@nobody:a"),)}, PaymentRefusal.ASKED_UNKNOWN),
        ({"people": (UserId("@wallet:a"),)}, PaymentRefusal.ASKED_UNKNOWN),
        ({"people": (UserId("@bob:b"),)}, PaymentRefusal.ASKED_ELSEWHERE),
        ({"people": (UserId("bob"),)}, PaymentRefusal.ASKED_INVALID),
        ({"people": (BOB, CAROL)}, PaymentRefusal.PEOPLE_TOO_MANY),
        ({"people": (BOB, BOB), "is_split": True}, PaymentRefusal.ASKED_TWICE),
        (
            {"people": tuple(UserId(f"@p{n}:a") for n in range(SPLIT_PEOPLE_MAX + 1)), "is_split": True},
            PaymentRefusal.PEOPLE_TOO_MANY,
        ),
        (
            {"people": (BOB, CAROL), "is_split": True, "money": Money(1, EUR)},
            PaymentRefusal.SHARE_TOO_SMALL,
        ),
        ({"money": Money(100_001, EUR)}, PaymentRefusal.AMOUNT_TOO_LARGE),
        ({"money": Money(1, CurrencyCode("USD"))}, PaymentRefusal.CURRENCY_UNKNOWN),
        ({"memo": "x" * 201}, PaymentRefusal.MEMO_TOO_LONG),
        ({"requester": UserId("@alice:b")}, PaymentRefusal.PAYER_ELSEWHERE),
        ({"room_id": RoomId("!elsewhere")}, PaymentRefusal.ROOM_UNKNOWN),
        ({"requester": DAVE}, PaymentRefusal.ROOM_UNKNOWN),
        ({"id": "1"}, PaymentRefusal.ID_INVALID),
    ],
)
async def test_a_refused_request_says_why_and_tells_nobody(
    wallet: PeopleWallet, changes: dict[str, Any], refusal: PaymentRefusal
) -> None:
    before = await wallet.told()
    refused = await wallet.people.requests.ask(order(**changes))
    assert isinstance(refused, PaymentRefused)
    assert refused.refusal is refusal
    assert refused.sentence.endswith(".") and "{" not in refused.sentence
    assert await wallet.told() == before


async def test_the_same_request_again_asks_once_and_another_of_its_id_is_refused(
    wallet: PeopleWallet,
) -> None:
    made = await asyncio.gather(*(wallet.people.requests.ask(order()) for _ in range(5)))
    assert {request.id for request in made if isinstance(request, Request)} == {order().id}
    assert all(isinstance(request, Request) for request in made)
    assert len(await wallet.told(to=LUNCH)) == 1
    other = await wallet.people.requests.ask(order(memo="dinner"))
    assert isinstance(other, PaymentRefused) and other.refusal is PaymentRefusal.ID_TAKEN


async def test_nobody_has_more_open_requests_than_the_limit(
    wallet: PeopleWallet, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert OPEN_REQUESTS_MAX == 100
    monkeypatch.setattr(requests_module, "OPEN_REQUESTS_MAX", 2)
    first = await asked(wallet, order("1"))
    await asked(wallet, order("2"))
    refused = await wallet.people.requests.ask(order("3"))
    assert isinstance(refused, PaymentRefused) and refused.refusal is PaymentRefusal.OPEN_TOO_MANY
    await wallet.people.requests.cancel(ALICE, first.id)
    await asked(wallet, order("4"))


async def test_a_request_of_a_page_is_told_to_both_directly(wallet: PeopleWallet) -> None:
    request = await asked(wallet, order(room_id=None))
    assert len(await wallet.told(to=ALICE)) == len(await wallet.told(to=BOB)) == 1
    paid = await pay(wallet, BOB, request)
    assert isinstance(paid, PaymentRecord) and paid.room_id is None


async def test_a_request_is_paid_also_when_its_room_is_gone(wallet: PeopleWallet) -> None:
    request = await asked(wallet, order())
    async with people_wallet(
        str(wallet.database.engine.url.render_as_string(hide_password=False)),
        Path("/"),
        members={},
        clock=wallet.clock,
    ) as later:
        assert isinstance(await pay(later, BOB, request), PaymentRecord)
        assert (await later.told(to=ALICE))[-1] == "Bob paid Alice €12.50 · lunch"
