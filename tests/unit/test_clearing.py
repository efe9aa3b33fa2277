"""What payments between wallets promise, on real ledgers: held, asked, answered once, never lost or twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from appservices.chassis.clock import system_clock
from appservices.chassis.links.protocol import Message, StopReason, signed_content
from appservices.chassis.links.storage import item_write
from appservices.chassis.tables import outbox
from appservices.vocabulary.ids import ServerName, TransferId, UserId, derived_id
from appservices.vocabulary.money import Money
from appservices.vocabulary.schemas import check_block
from appservices.vocabulary.signing import verify_json
from tests.clearing_wallets import EUR, OPERATOR, Wallet, wallets
from tests.link_channel import Weather, shorten_pauses
from wallet_appservice.clearing import paying as paying_module
from wallet_appservice.clearing.items import Settle
from wallet_appservice.clearing.overview import peers_overview
from wallet_appservice.clearing.settling import record_settlement
from wallet_appservice.clearing.statements import WAITING_MAX, Statements
from wallet_appservice.payments.acceptance import Acceptance
from wallet_appservice.payments.records import Authority, PaymentKind, PaymentRecord, PaymentState
from wallet_appservice.payments.refunds import RefundOrder, Refunds
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.payments.till import Outcome


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_pauses(monkeypatch)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[list[Wallet]]:
    async with wallets(tmp_path, "a", "b") as both:
        yield both


async def until(so: Callable[[], Awaitable[bool]], *, seconds_max: float = 60.0) -> None:
    async with asyncio.timeout(seconds_max):
        while not await so():
            await asyncio.sleep(0.01)


async def ended(wallet: Wallet, outcome: object) -> PaymentRecord:
    assert isinstance(outcome, PaymentRecord), outcome
    record = await wallet.paying.ended(outcome, seconds_max=60)
    assert record.state is not PaymentState.PENDING
    return record


async def link_of(wallet: Wallet, other: Wallet) -> Any:
    link = wallet.switchboard.known(other.user_id)
    assert link is not None
    return link


async def inject(sender: Wallet, receiver: Wallet, *items: dict[str, Any]) -> None:
    """A hostile wallet says something, well signed and numbered."""
    await sender.switchboard.link(receiver.user_id)
    await sender.switchboard.storage.write([item_write(receiver.user_id, item) for item in items])
    sender.switchboard.wake(receiver.user_id)


def prepare(name: str = "1", **changes: Any) -> dict[str, Any]:
    return {
        "kind": "prepare",
        "id": derived_id("hostile", name),
        "payer": "@alice:a",
        "payee": "@bob:b",
        "amount_minor": "100",
        "currency": "EUR",
        "expires_at_ms": 2**52,
        **changes,
    }


async def test_a_payment_to_another_server_moves_money_in_both_books_alike(pair: list[Wallet]) -> None:
    a, b = pair
    record = await ended(a, await a.pay("alice", b.user("bob"), 1250, "1", memo="lunch"))
    assert record.state is PaymentState.POSTED
    assert await a.balance("alice") == (8_750, 0)
    assert await b.balance("bob") == (1_250, 0)
    assert await b.owed_minor("a") == 1_250 == -await a.owed_minor("b")
    verify_json(record.receipt, signer=a.user_id, keys=a.payments.keys())
    check_block("receipt", record.receipt)
    (received,) = await b.payments.history(b.user("bob"), limit=5)
    assert (received.payer, received.payee, received.money, received.memo) == (
        a.user("alice"), b.user("bob"), Money(1250, EUR), "lunch",
    )  # fmt: skip
    verify_json(received.receipt, signer=b.user_id, keys=b.payments.keys())


async def test_the_same_order_again_is_answered_again_and_pays_once(pair: list[Wallet]) -> None:
    a, b = pair
    outcomes = await asyncio.gather(*(a.pay("alice", b.user("bob"), 1250, "1") for _ in range(20)))
    first = await ended(a, outcomes[0])
    again = await ended(a, await a.pay("alice", b.user("bob"), 1250, "1"))
    assert (again.id, again.receipt) == (first.id, first.receipt)
    assert await b.balance("bob") == (1_250, 0)


async def test_many_payments_travel_in_few_messages(pair: list[Wallet]) -> None:
    a, b = pair
    await ended(a, await a.pay("alice", b.user("bob"), 1, "first"))
    before = len(a.network.carried)
    outcomes = await asyncio.gather(*(a.pay("alice", b.user("bob"), 1, str(n)) for n in range(300)))
    for outcome in outcomes:
        assert (await ended(a, outcome)).state is PaymentState.POSTED
    assert await b.balance("bob") == (301, 0)
    assert len(a.network.carried) - before < 60


async def test_money_that_is_not_there_is_neither_held_nor_asked_about(pair: list[Wallet]) -> None:
    a, b = pair
    refused = await a.pay("alice", b.user("bob"), 10_001, "1")
    assert isinstance(refused, PaymentRefused) and refused.refusal is PaymentRefusal.BALANCE_TOO_LOW
    assert not any(content.get("items") for _from, _to, content in a.network.carried)


async def test_a_server_that_is_no_peer_is_not_paid(pair: list[Wallet]) -> None:
    a, _ = pair
    refused = await a.pay("alice", UserId("@bob:elsewhere"), 1, "1")
    assert isinstance(refused, PaymentRefused) and refused.refusal is PaymentRefusal.PAYEE_ELSEWHERE


@pytest.mark.parametrize(
    ("payee", "amount_minor"), [("@nobody:b", 100), ("@wallet:b", 100), ("@bob:b", 60_000)]
)
async def test_what_the_other_wallet_rejects_comes_back(
    tmp_path: Path, payee: str, amount_minor: int
) -> None:
    async with wallets(tmp_path, "a", "b", limit_minor=500) as (a, b):
        money = Money(100_000, EUR)
        await a.payments.deposit(user=a.user("alice"), money=money, id=TransferId("0" * 32))
        record = await ended(a, await a.pay("alice", UserId(payee), amount_minor, "1"))
        assert record.state is PaymentState.RETURNED
        assert await a.balance("alice") == (110_000, 0)
        assert await b.owed_minor("a") == 0 == await a.owed_minor("b")


async def test_a_credit_limit_holds_however_many_come_at_once(tmp_path: Path) -> None:
    async with wallets(tmp_path, "a", "b", limit_minor=1_000) as (a, b):
        outcomes = await asyncio.gather(*(a.pay("alice", b.user("bob"), 300, str(n)) for n in range(8)))
        records = [await ended(a, outcome) for outcome in outcomes]
        assert [record.state for record in records].count(PaymentState.POSTED) == 3
        assert await b.owed_minor("a") == 900
        # What comes back makes room.
        assert (await ended(b, await b.pay("bob", a.user("carol"), 500, "back"))).state is PaymentState.POSTED
        again = await ended(a, await a.pay("alice", b.user("bob"), 600, "again"))
        assert again.state is PaymentState.POSTED and await b.owed_minor("a") == 1_000


async def test_a_limit_is_raised_lowered_and_taken_away_while_people_pay(pair: list[Wallet]) -> None:
    a, b = pair
    await ended(a, await a.pay("alice", b.user("bob"), 1_000, "1"))
    await b.peers.add(ServerName("a"), {EUR: 1_200})
    assert await b.peer_available_minor("a") == 200
    await b.peers.add(ServerName("a"), {EUR: 100})
    assert await b.peer_available_minor("a") == 0 and await b.owed_minor("a") == 1_000
    await ended(b, await b.pay("bob", a.user("carol"), 950, "back"))
    await b.peers.adjust()
    assert await b.peer_available_minor("a") == 50
    await b.peers.remove(ServerName("a"))
    assert await b.peer_available_minor("a") == 0
    record = await ended(a, await a.pay("alice", b.user("bob"), 10, "2"))
    assert record.state is PaymentState.RETURNED and await b.owed_minor("a") == 50


async def test_without_an_answer_money_stays_held_and_is_never_given_back_on_a_guess(
    pair: list[Wallet],
) -> None:
    a, b = pair
    await ended(a, await a.pay("alice", b.user("bob"), 1, "first"))
    a.network.weather.is_cut = True
    outcome = await a.pay("alice", b.user("bob"), 1_000, "1")
    assert isinstance(outcome, PaymentRecord) and outcome.state is PaymentState.PENDING
    await asyncio.sleep(0.3)
    await a.upkeep.inquire()
    assert await a.balance("alice") == (8_999, 1_000)
    a.network.weather.is_cut = False
    assert (await ended(a, outcome)).state is PaymentState.POSTED
    assert await b.balance("bob") == (1_001, 0)


async def test_what_comes_after_its_time_is_rejected_and_comes_back(pair: list[Wallet]) -> None:
    a, b = pair
    await ended(a, await a.pay("alice", b.user("bob"), 1, "first"))
    await b.stop()
    outcome = await a.pay("alice", b.user("bob"), 1_000, "1")
    b.clock = lambda: system_clock() + 400_000
    await b.start()
    assert (await ended(a, outcome)).state is PaymentState.RETURNED
    assert await a.balance("alice") == (9_999, 0) and await b.balance("bob") == (1, 0)


@pytest.mark.parametrize("seed", range(3))
async def test_with_kills_and_a_bad_network_nothing_is_left_pending_and_both_books_mirror_each_other(
    tmp_path: Path, seed: int
) -> None:
    weather = Weather(seed=seed, lost=0.2, repeated=0.2, delay_seconds_max=0.02)
    async with wallets(tmp_path, "a", "b", "c", weather=weather, limit_minor=3_000) as made:
        chance = weather.chance
        orders: list[tuple[Wallet, Wallet, int, str]] = []
        for number in range(40):
            payer, payee = chance.sample(made, 2)
            orders.append((payer, payee, chance.randint(1, 900), str(number)))
        waiting = []
        for number, (payer, payee, amount, name) in enumerate(orders):
            waiting.append(asyncio.create_task(payer.pay("alice", payee.user("alice"), amount, name)))
            if number % 12 == 11:
                await asyncio.gather(*waiting, return_exceptions=True)
                victim = chance.choice(made)
                await victim.stop()
                await asyncio.sleep(chance.random() * 0.05)
                await victim.start()
            await asyncio.sleep(chance.random() * 0.01)
        await asyncio.gather(*waiting, return_exceptions=True)

        async def nothing_pending() -> bool:
            return not any([await wallet.held_minor() for wallet in made])

        await until(nothing_pending)
        # An order whose first answer got lost is made again and answered as it was.
        await assert_mirrored(made)
        assert sum([await wallet.people_minor() for wallet in made]) == 30_000


async def assert_mirrored(made: list[Wallet]) -> None:
    for one in made:
        for other in made:
            if one is not other:
                assert await one.owed_minor(other.server) == -await other.owed_minor(one.server)


# What holds for every payment, wherever it goes.


async def test_a_payment_to_another_server_passes_the_same_gate_as_any_other(pair: list[Wallet]) -> None:
    a, b = pair
    await a.payments.deposit(user=a.user("alice"), money=Money(100_000, EUR), id=TransferId("0" * 32))
    asked = await a.pay("alice", b.user("bob"), 20_001, "chat", authority=Authority.CHAT)
    assert isinstance(asked, PaymentRefused) and asked.refusal is PaymentRefusal.CONFIRMATION_NEEDED
    assert not a.network.carried, "nobody is asked about what is not confirmed"
    confirmed = await ended(a, await a.pay("alice", b.user("bob"), 20_001, "chat"))
    assert confirmed.state is PaymentState.POSTED
    _limits, spent_minor = await a.payments.gate.limits_of(a.user("alice"), EUR)
    assert spent_minor == 20_001


async def test_what_another_wallet_rejects_has_passed_the_gate_and_counts_for_the_day(
    pair: list[Wallet],
) -> None:
    a, _b = pair
    record = await ended(a, await a.pay("alice", UserId("@nobody:b"), 500, "1"))
    assert record.state is PaymentState.RETURNED
    _limits, spent_minor = await a.payments.gate.limits_of(a.user("alice"), EUR)
    assert spent_minor == 500


async def test_a_payment_that_a_silent_peer_prevents_takes_no_place_in_the_days_limit(
    pair: list[Wallet], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    monkeypatch.setattr(paying_module, "OPENING_SECONDS_MAX", 0.05)
    await a.switchboard.link(b.user_id)
    link = await link_of(a, b)
    await link.stop(StopReason.STOPPED_BY_OPERATOR, "")
    for number in range(3):
        refused = await a.pay("alice", b.user("bob"), 500, str(number))
        assert isinstance(refused, PaymentRefused) and refused.refusal is PaymentRefusal.PEER_SILENT
    assert not a.payments.gate._under_way
    _limits, spent_minor = await a.payments.gate.limits_of(a.user("alice"), EUR)
    assert spent_minor == 0 and await a.balance("alice") == (10_000, 0)


async def test_each_step_of_a_payment_has_a_receipt_and_none_is_edited(pair: list[Wallet]) -> None:
    a, b = pair
    held = await a.pay("alice", b.user("bob"), 700, "1")
    assert isinstance(held, PaymentRecord) and held.state is PaymentState.PENDING
    assert held.receipt["state"] == "pending" and held.expires_at_ms is None
    record = await ended(a, held)
    assert record.receipt == held.receipt and record.end_receipt is not None
    assert record.end_receipt["of"] == held.id and record.end_receipt["state"] == "posted"
    check_block("receipt", record.end_receipt)
    verify_json(dict(record.end_receipt), signer=a.user_id, keys=a.payments.keys())


async def test_nobody_here_can_accept_or_decline_what_waits_for_another_wallet(pair: list[Wallet]) -> None:
    a, b = pair
    await ended(a, await a.pay("alice", b.user("bob"), 1, "first"))
    a.network.weather.is_cut = True
    held = await a.pay("alice", b.user("bob"), 700, "1")
    assert isinstance(held, PaymentRecord)
    acceptance = Acceptance(a.payments, clock=system_clock, on_change=lambda: None)
    for user in (b.user("bob"), a.user("alice")):
        refused = await acceptance.decline(user, held.id)
        assert isinstance(refused, PaymentRefused) and refused.refusal is PaymentRefusal.PAYMENT_UNKNOWN
    await acceptance.sweep()
    assert await a.balance("alice") == (9_299, 700)
    a.network.weather.is_cut = False
    assert (await ended(a, held)).state is PaymentState.POSTED


async def test_what_came_from_another_server_is_given_back_in_parts_and_never_more(
    pair: list[Wallet],
) -> None:
    a, b = pair
    paid = await ended(a, await a.pay("alice", b.user("bob"), 1_000, "1"))
    (came,) = await b.payments.history(b.user("bob"), limit=5)
    refunds = Refunds(b.payments, clock=system_clock, on_change=lambda: None)

    async def give_back(name: str, minor: int) -> Outcome:
        order = RefundOrder(
            id=TransferId(derived_id("refund", name)),
            payment_id=came.id,
            by=b.user("bob"),
            money=Money(minor, EUR),
        )
        return await refunds.refund(order)

    first = await ended(b, await give_back("1", 400))
    assert (first.state, first.kind, first.of) == (PaymentState.POSTED, PaymentKind.REFUND, came.id)
    assert await give_back("1", 400) == first
    assert await a.balance("alice") == (9_400, 0) and await b.balance("bob") == (600, 0)
    refund, *_ = await a.payments.history(a.user("alice"), limit=1)
    assert (refund.kind, refund.of, refund.payer) == (PaymentKind.REFUND, paid.id, b.user("bob"))
    too_much = await give_back("2", 601)
    assert isinstance(too_much, PaymentRefused) and too_much.refusal is PaymentRefusal.REFUND_TOO_LARGE
    await a.peers.remove(ServerName("b"))
    rejected = await ended(b, await give_back("3", 600))
    assert rejected.state is PaymentState.RETURNED and await b.balance("bob") == (600, 0)
    assert await give_back("3", 600) == rejected and await refunds.left_minor(came) == 600
    await a.peers.add(ServerName("b"), {EUR: 50_000})
    assert (await ended(b, await give_back("4", 600))).state is PaymentState.POSTED
    over = await give_back("5", 1)
    assert isinstance(over, PaymentRefused) and over.refusal is PaymentRefusal.REFUND_TOO_LARGE
    assert await a.balance("alice") == (10_000, 0) and await b.owed_minor("a") == 0


async def test_a_refund_that_a_silent_peer_prevented_claims_nothing_until_it_is_made(
    pair: list[Wallet],
) -> None:
    a, b = pair
    await ended(a, await a.pay("alice", b.user("bob"), 1_000, "1"))
    (came,) = await b.payments.history(b.user("bob"), limit=5)
    refunds = Refunds(b.payments, clock=system_clock, on_change=lambda: None)
    order = RefundOrder(id=TransferId(derived_id("refund", "1")), payment_id=came.id, by=b.user("bob"))
    elsewhere, b.payments.elsewhere = b.payments.elsewhere, None
    refused = await refunds.refund(order)
    assert isinstance(refused, PaymentRefused) and refused.refusal is PaymentRefusal.PAYEE_ELSEWHERE
    assert await refunds.left_minor(came) == 1_000
    b.payments.elsewhere = elsewhere
    assert (await ended(b, await refunds.refund(order))).state is PaymentState.POSTED
    assert await refunds.left_minor(came) == 0 and await a.balance("alice") == (10_000, 0)


async def test_operators_are_told_of_a_link_that_has_stopped(pair: list[Wallet]) -> None:
    a, b = pair
    await inject(a, b, {"kind": "gift", "id": "0" * 32})

    async def told() -> bool:
        async with b.database.read() as work:
            rows = (await work.execute(select(outbox).where(outbox.c.to_user == OPERATOR))).all()
        return any("The link with @wallet:a has stopped (unreadable" in row.content for row in rows)

    await until(told)


# Hostile peers: what they sign and number is well formed as far as links go.


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"payee": "@nobody:b"}, "payee_unknown"),
        ({"payee": "@wallet:b"}, "payee_unknown"),
        ({"payee": "@bob:c"}, "payee_elsewhere"),
        ({"payer": "@alice:b"}, "payer_elsewhere"),
        ({"payer": "@alice:c"}, "payer_elsewhere"),
        ({"currency": "USD"}, "currency_unknown"),
        ({"amount_minor": "100001"}, "amount_too_large"),
        ({"amount_minor": "60000"}, "over_limit"),
        ({"currency": "JPY"}, "over_limit"),
        ({"memo": "x" * 201}, "memo_too_long"),
        ({"memo": "one\ntwo"}, "memo_too_long"),
        ({"expires_at_ms": 1}, "expired"),
        ({"condition": "0" * 64}, "unsupported"),
        ({"fee": {"amount_minor": "1"}}, "unsupported"),
    ],
)
async def test_a_prepare_that_may_not_be_is_rejected_and_counted_while_the_link_goes_on(
    pair: list[Wallet], changes: dict[str, Any], reason: str
) -> None:
    a, b = pair
    seen: list[dict[str, Any]] = []
    original = a.network.carry

    def carry(sender: UserId, to: UserId, content: dict[str, Any]) -> None:
        seen.extend(content.get("items", []) if sender == b.user_id else [])
        if sender == a.user_id:
            original(sender, to, content)

    a.network.carry = carry  # type: ignore[method-assign]
    await inject(a, b, prepare(**changes))
    await until(lambda: asyncio.sleep(0, bool(seen)))
    assert seen[0] == {"kind": "reject", "id": prepare()["id"], "reason": reason}
    assert await b.balance("bob") == (0, 0) and await b.owed_minor("a") == 0
    assert (await link_of(b, a)).state.state == "open"
    (shown,) = await peers_overview(b.database, b.peers)
    assert shown["rejected"] == {reason: 1}


@pytest.mark.parametrize(
    "item",
    [
        {"kind": "gift", "id": "0" * 32},
        prepare(id="1"),
        prepare(amount_minor=100),
        prepare(amount_minor="-1"),
        prepare(amount_minor="0"),
        prepare(amount_minor="1e3"),
        prepare(amount_minor="9" * 40),
        prepare(amount_minor="٣"),
        prepare(expires_at_ms="soon"),
        prepare(payer="alice"),
        prepare(payer="@\u202eecila:a"),
        prepare(payee=["@bob:b"]),
        prepare(currency="euro"),
        prepare(memo="\x00"),
        prepare(payment_kind="deposit"),
        {"kind": "fulfill", "id": "0" * 32},
        {"kind": "reject", "id": "0" * 32, "reason": "over_limit"},
        {"kind": "statement", "currency": "EUR"},
        {"kind": "settle", "id": "0" * 32, "amount_minor": "1", "currency": "EUR", "reference": "\x1b[2J"},
    ],
)
async def test_what_is_no_item_or_answers_nothing_stops_the_link_and_changes_nothing(
    pair: list[Wallet], item: dict[str, Any]
) -> None:
    a, b = pair
    await inject(a, b, prepare("honest"), item)

    async def stopped() -> bool:
        link = b.switchboard.known(a.user_id)
        return link is not None and link.state.state == "stopped"

    await until(stopped)
    assert await b.balance("bob") == (0, 0) and await b.owed_minor("a") == 0
    assert await b.people_minor() == 10_000


async def test_one_id_with_two_contents_stops_the_link(pair: list[Wallet]) -> None:
    a, b = pair
    await inject(a, b, prepare("1"))

    async def credited() -> bool:
        return await b.balance("bob") == (100, 0)

    await until(credited)
    # The hostile wallet never prepared this itself, so b's answer stops its own link; b goes on.
    message = await next_message(a, [prepare("1", amount_minor="200")])
    await b.hear(a.user_id, signed_content(message, a.key))
    assert (await link_of(b, a)).state.reason == StopReason.ANSWERED_TWICE
    assert await b.balance("bob") == (100, 0)


async def test_a_prepare_that_is_replayed_credits_once(pair: list[Wallet]) -> None:
    a, b = pair
    await ended(a, await a.pay("alice", b.user("bob"), 100, "1"))
    for sender, to, content in list(a.network.carried):
        if to == b.user_id:
            await b.hear(sender, content)
    assert await b.balance("bob") == (100, 0)


async def test_two_different_answers_for_one_id_stop_the_link_and_the_first_one_counts(
    pair: list[Wallet],
) -> None:
    a, b = pair
    record = await ended(a, await a.pay("alice", b.user("bob"), 100, "1"))
    await inject(b, a, {"kind": "reject", "id": record.id, "reason": "over_limit"})

    async def stopped() -> bool:
        return bool((await link_of(a, b)).state.reason == StopReason.ANSWERED_TWICE)

    await until(stopped)
    assert await a.balance("alice") == (9_900, 0)
    refused = await a.pay("alice", b.user("bob"), 100, "2")
    assert isinstance(refused, PaymentRefused) and refused.refusal is PaymentRefusal.PEER_SILENT


async def test_an_inquiry_about_what_never_came_is_final(pair: list[Wallet]) -> None:
    a, b = pair
    seen: list[dict[str, Any]] = []
    original = a.network.carry

    def carry(sender: UserId, to: UserId, content: dict[str, Any]) -> None:
        seen.extend(content.get("items", []) if sender == b.user_id else [])
        if sender == a.user_id:
            original(sender, to, content)

    a.network.carry = carry  # type: ignore[method-assign]
    await inject(a, b, {"kind": "inquire", "id": prepare()["id"]}, prepare())
    await until(lambda: asyncio.sleep(0, len(seen) == 2))
    assert seen == [{"kind": "reject", "id": prepare()["id"], "reason": "unknown"}] * 2
    assert await b.balance("bob") == (0, 0)


async def test_a_settlement_lessens_what_is_owed_in_both_books(pair: list[Wallet]) -> None:
    a, b = pair
    await ended(a, await a.pay("alice", b.user("bob"), 1_000, "1"))
    item = Settle(id=TransferId("1" * 32), money=Money(700, EUR), reference="bank 7")
    for _ in range(2):
        assert await record_settlement(b.payments.till, b.peers, ServerName("a"), item)
    b.switchboard.wake(a.user_id)

    async def settled() -> bool:
        return await b.owed_minor("a") == 300 == -await a.owed_minor("b")

    await until(settled)


async def test_statements_agree_where_books_do_and_a_difference_stops_the_link(pair: list[Wallet]) -> None:
    a, b = pair
    await ended(a, await a.pay("alice", b.user("bob"), 1_000, "1"))
    sent = await Statements(a.database).send(b.user_id, ServerName("b"), EUR, from_ms=0, to_ms=2**52, at_ms=1)
    assert sent is not None
    a.switchboard.wake(b.user_id)

    async def states(*expected: str) -> bool:
        await b.upkeep.state_and_compare()
        shown = await Statements(b.database).last(ServerName("a"))
        return [item.state for item in shown if item.side == "theirs"] == list(expected)

    await until(lambda: states("agreed"))
    await inject(a, b, {**sent.item(), "paid": {**sent.paid.item(), "sum_minor": "999"}})
    await until(lambda: states("differs", "agreed"))
    assert (await link_of(b, a)).state.reason == StopReason.BALANCES_DIFFER
    refused = await b.pay("bob", a.user("alice"), 1, "back")
    assert isinstance(refused, PaymentRefused) and refused.refusal is PaymentRefusal.PEER_SILENT


async def test_of_many_statements_the_last_ones_are_compared_one_at_a_time(pair: list[Wallet]) -> None:
    a, b = pair
    await ended(a, await a.pay("alice", b.user("bob"), 1_000, "1"))
    statements = Statements(a.database)
    for number in range(WAITING_MAX + 5):
        sent = await statements.send(
            b.user_id, ServerName("b"), EUR, from_ms=0, to_ms=2**52 + number, at_ms=1
        )
        assert sent is not None
    a.switchboard.wake(b.user_id)

    async def theirs() -> list[str]:
        shown = await Statements(b.database).last(ServerName("a"), limit=100)
        return [item.state for item in shown if item.side == "theirs"]

    async def all_came() -> bool:
        return len(await theirs()) == WAITING_MAX + 5

    await until(all_came)
    assert await Statements(b.database).compare() == []
    assert await theirs() == ["waiting"] * (WAITING_MAX - 1) + ["agreed"]


async def test_a_peer_that_answers_nothing_gets_no_new_payments_until_it_does(
    pair: list[Wallet], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    await ended(a, await a.pay("alice", b.user("bob"), 1, "first"))
    monkeypatch.setattr(paying_module, "UNANSWERED_MS_MAX", -400_000)
    a.network.weather.is_cut = True
    held = await a.pay("alice", b.user("bob"), 1_000, "1")
    refused = await a.pay("alice", b.user("bob"), 1, "2")
    assert isinstance(refused, PaymentRefused) and refused.refusal is PaymentRefusal.PEER_SILENT
    a.network.weather.is_cut = False
    await ended(a, held)
    assert (await ended(a, await a.pay("alice", b.user("bob"), 1, "2"))).state is PaymentState.POSTED


async def test_a_statement_waits_while_something_of_its_period_is_under_way(pair: list[Wallet]) -> None:
    a, b = pair
    await ended(a, await a.pay("alice", b.user("bob"), 1, "first"))
    a.network.weather.is_cut = True
    outcome = await a.pay("alice", b.user("bob"), 1_000, "1")
    assert await Statements(a.database).of(ServerName("b"), EUR, from_ms=0, to_ms=2**52) is None
    a.network.weather.is_cut = False
    await ended(a, outcome)
    statement = await Statements(a.database).of(ServerName("b"), EUR, from_ms=0, to_ms=2**52)
    assert statement is not None and statement.paid.sum_minor == 1_001


async def next_message(sender: Wallet, items: list[dict[str, Any]]) -> Message:
    (receiver,) = [wallet for wallet in sender.network.wallets.values() if wallet is not sender]
    link = await link_of(sender, receiver)
    outgoing = link.state.outgoing
    return Message(
        sender=sender.user_id,
        to=receiver.user_id,
        epoch=outgoing.epoch,
        at_ms=outgoing.epoch,
        ack_epoch=0,
        ack=0,
        seq=outgoing.seq + 1,
        prev=outgoing.chain,
        items=tuple(items),
        sent=outgoing.seq + 1,
    )
