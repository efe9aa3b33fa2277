"""What giving back, accepting and the list of what is pending promise, on a real ledger of either kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from appservices.vocabulary.events import RECEIPT
from appservices.vocabulary.ids import TransferId, UserId
from appservices.vocabulary.money import CurrencyCode, Money
from appservices.vocabulary.schemas import check_block
from appservices.vocabulary.signing import verify_json
from tests.people_wallet import (
    ALICE,
    BOB,
    CAROL,
    EUR,
    LUNCH,
    WALLET,
    PeopleWallet,
    new_id,
    people_wallet,
)
from wallet_appservice.ledger.submissions import Submission
from wallet_appservice.ledger.values import AccountKind, Transfer, TransferCode, account_for
from wallet_appservice.payments.accounts import user_account
from wallet_appservice.payments.pending import PendingItem, PendingKind
from wallet_appservice.payments.records import Authority, PaymentKind, PaymentRecord, PaymentState
from wallet_appservice.payments.red_packet_records import PacketOrder
from wallet_appservice.payments.refunds import RefundOrder
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.payments.request_records import RequestOrder
from wallet_appservice.payments.till import Outcome

pytest_plugins = ["tests.database_fixtures"]


@pytest.fixture
async def wallet(database_url: str, tmp_path: Path) -> AsyncIterator[PeopleWallet]:
    async with people_wallet(database_url, tmp_path) as wallet:
        await wallet.deposit(ALICE, 10_000)
        yield wallet


async def refund(
    wallet: PeopleWallet, payment: TransferId, name: str, amount_minor: int | None = None, **changes: Any
) -> Outcome:
    order: dict[str, Any] = {
        "id": new_id("refund", name),
        "payment_id": payment,
        "by": BOB,
        "money": None if amount_minor is None else Money(amount_minor, EUR),
        **changes,
    }
    return await wallet.people.refunds.refund(RefundOrder(**order))


def refusal_of(outcome: Outcome) -> PaymentRefusal:
    assert isinstance(outcome, PaymentRefused), outcome
    assert outcome.sentence.endswith(".") and "{" not in outcome.sentence
    return outcome.refusal


async def wait_for_acceptance(wallet: PeopleWallet, user: UserId) -> None:
    await wallet.payments.till.write(wallet.people.settings.acceptance_writes(user, on=True))


# Giving back.


async def test_who_was_paid_gives_back_in_parts_but_never_more_than_was_paid(wallet: PeopleWallet) -> None:
    payment = await wallet.pay("lunch", 1_000)
    part = await refund(wallet, payment.id, "1", 300, memo="too much")
    assert isinstance(part, PaymentRecord)
    assert (part.kind, part.of, part.payer, part.payee) == (PaymentKind.REFUND, payment.id, BOB, ALICE)
    check_block("receipt", part.receipt)
    assert part.receipt["of"] == payment.id
    assert refusal_of(await refund(wallet, payment.id, "2", 701)) is PaymentRefusal.REFUND_TOO_LARGE
    rest = await refund(wallet, payment.id, "3")
    assert isinstance(rest, PaymentRecord) and rest.money.amount_minor == 700
    assert refusal_of(await refund(wallet, payment.id, "4")) is PaymentRefusal.REFUND_TOO_LARGE
    assert await wallet.balance(BOB) == 0
    assert "Bob gave €3.00 back to Alice · too much" in await wallet.told(to=ALICE)


async def test_the_same_refund_again_gives_back_once(wallet: PeopleWallet) -> None:
    payment = await wallet.pay("lunch", 1_000)
    outcomes = await asyncio.gather(*(refund(wallet, payment.id, "1", 300) for _ in range(5)))
    assert all(outcome == outcomes[0] for outcome in outcomes)
    assert isinstance(outcomes[0], PaymentRecord)
    assert refusal_of(await refund(wallet, payment.id, "1", 301)) is PaymentRefusal.ID_TAKEN
    assert await wallet.balance(BOB) == 700


async def test_many_refunds_at_once_in_two_processes_never_exceed_the_payment(
    wallet: PeopleWallet, database_url: str, tmp_path: Path
) -> None:
    payment = await wallet.pay("lunch", 1_000)
    await wallet.pay("more", 5_000)
    async with people_wallet(database_url, tmp_path) as second:
        outcomes = await asyncio.gather(
            *(refund((wallet, second)[number % 2], payment.id, str(number), 300) for number in range(12))
        )
    assert sum(isinstance(outcome, PaymentRecord) for outcome in outcomes) == 3
    assert await wallet.balance(BOB) == 5_100


async def test_a_refund_that_could_not_be_paid_does_not_count(wallet: PeopleWallet) -> None:
    payment = await wallet.pay("lunch", 1_000)
    await wallet.pay("on", 900, payer=BOB, payee=CAROL)
    assert refusal_of(await refund(wallet, payment.id, "1")) is PaymentRefusal.BALANCE_TOO_LOW
    await wallet.deposit(BOB, 900)
    assert isinstance(await refund(wallet, payment.id, "2"), PaymentRecord)


async def test_a_refund_that_was_begun_and_left_is_finished_by_the_sweep(
    wallet: PeopleWallet, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = await wallet.pay("lunch", 1_000)

    async def dies(*_arguments: object, **_more: object) -> Outcome:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(wallet.payments.till, "move", dies)
        with pytest.raises(RuntimeError):
            await refund(wallet, payment.id, "1", 300)
    # What was begun is claimed, whoever else comes.
    assert refusal_of(await refund(wallet, payment.id, "2", 800)) is PaymentRefusal.REFUND_TOO_LARGE
    await wallet.people.refunds.sweep()
    assert await wallet.balance(BOB) == 1_000
    await wallet.people.refunds.sweep(is_first=True)
    await wallet.people.refunds.sweep(is_first=True)
    assert await wallet.balance(BOB) == 700


async def test_only_a_payment_to_oneself_can_be_given_back(wallet: PeopleWallet) -> None:
    payment = await wallet.pay("lunch", 1_000)
    (deposit,) = [
        record
        for record in await wallet.payments.history(ALICE, limit=10)
        if record.kind is PaymentKind.DEPOSIT
    ]
    back = await refund(wallet, payment.id, "0", 100)
    assert isinstance(back, PaymentRecord)
    for payment_id, changes, refusal in (
        (payment.id, {"by": ALICE}, PaymentRefusal.REFUND_IMPOSSIBLE),
        (payment.id, {"by": CAROL}, PaymentRefusal.PAYMENT_UNKNOWN),
        (new_id("nothing"), {}, PaymentRefusal.PAYMENT_UNKNOWN),
        (deposit.id, {"by": ALICE}, PaymentRefusal.REFUND_IMPOSSIBLE),
        (back.id, {"by": ALICE}, PaymentRefusal.REFUND_IMPOSSIBLE),
        (payment.id, {"money": Money(5, CurrencyCode("USD"))}, PaymentRefusal.REFUND_CURRENCY),
        (payment.id, {"memo": "x" * 201}, PaymentRefusal.MEMO_TOO_LONG),
        (payment.id, {"id": "1"}, PaymentRefusal.ID_INVALID),
    ):
        assert refusal_of(await refund(wallet, payment_id, "1", **changes)) is refusal
    assert await wallet.balance(BOB) == 900


async def test_another_account_can_pay_a_refund_for_whom_its_caller_has_judged(
    wallet: PeopleWallet,
) -> None:
    payment = await wallet.pay("lunch", 1_000)
    shop = account_for(AccountKind.MERCHANT, owner="shop", currency=EUR, name="till 1")
    stock = Transfer(
        id=new_id("stock"),
        debit_account_id=user_account(ALICE, EUR).id,
        credit_account_id=shop.id,
        amount_minor=400,
        currency=EUR,
        code=TransferCode.PAYMENT,
    )
    await wallet.ledger.submit(Submission(accounts=(shop,), transfers=(stock,)))
    outcome = await refund(wallet, payment.id, "1", 400, by=CAROL, account=shop)
    assert isinstance(outcome, PaymentRecord)
    assert await wallet.balance(BOB) == 1_000
    assert await wallet.balance(ALICE) == 9_000


# Accepting.


async def test_a_payment_that_waits_is_held_until_it_is_accepted(wallet: PeopleWallet) -> None:
    await wait_for_acceptance(wallet, BOB)
    payment = await wallet.pay("lunch", 1_000, room_id=LUNCH)
    assert payment.state is PaymentState.PENDING
    (balance,) = await wallet.payments.balances(ALICE)
    assert (balance.available_minor, balance.pending_minor) == (9_000, 1_000)
    assert await wallet.balance(BOB) == 0
    acceptance = wallet.people.acceptance
    outcomes = await asyncio.gather(*(acceptance.accept(BOB, payment.id) for _ in range(4)))
    assert all(outcome == outcomes[0] for outcome in outcomes)
    ended = outcomes[0]
    assert isinstance(ended, PaymentRecord) and ended.state is PaymentState.POSTED
    assert ended.receipt == payment.receipt
    assert ended.end_receipt is not None
    check_block("receipt", ended.end_receipt)
    verify_json(ended.end_receipt, signer=WALLET, keys=wallet.payments.keys())
    assert ended.end_receipt["of"] == payment.id
    assert await wallet.balance(BOB) == 1_000
    assert await wallet.told(to=LUNCH) == [
        "Alice sent Bob €10.00, which waits to be accepted · lunch\n"
        "Bob can react with ✅ to accept or with ❌ to decline; after 24 hours it goes back.",
        "Bob accepted €10.00 from Alice · lunch",
    ]
    assert refusal_of(await acceptance.decline(BOB, payment.id)) is PaymentRefusal.HOLD_OVER
    assert isinstance(await refund(wallet, payment.id, "1"), PaymentRecord)


async def test_what_is_declined_goes_back(wallet: PeopleWallet) -> None:
    await wait_for_acceptance(wallet, BOB)
    payment = await wallet.pay("lunch", 1_000)
    acceptance = wallet.people.acceptance
    for user in (ALICE, CAROL):
        assert refusal_of(await acceptance.accept(user, payment.id)) is PaymentRefusal.PAYMENT_UNKNOWN
    assert refusal_of(await refund(wallet, payment.id, "1")) is PaymentRefusal.REFUND_IMPOSSIBLE
    ended = await acceptance.decline(BOB, payment.id)
    assert isinstance(ended, PaymentRecord) and ended.state is PaymentState.RETURNED
    assert await wallet.balance(ALICE) == 10_000
    assert refusal_of(await acceptance.accept(BOB, payment.id)) is PaymentRefusal.HOLD_OVER
    (told,) = [content for content in await wallet.contents(to=ALICE) if "did not accept" in content["body"]]
    assert told["body"] == "Alice got €10.00 back, which Bob did not accept · lunch"
    assert told[RECEIPT]["state"] == "returned"


async def test_what_nobody_accepts_goes_back_after_its_time_and_both_are_told(wallet: PeopleWallet) -> None:
    await wait_for_acceptance(wallet, BOB)
    payment = await wallet.pay("lunch", 1_000)
    wallet.clock.forward(hours=23.9)
    await wallet.people.sweep()
    assert await wallet.balance(ALICE) == 9_000
    wallet.clock.forward(hours=0.2)
    assert refusal_of(await wallet.people.acceptance.accept(BOB, payment.id)) is PaymentRefusal.HOLD_OVER
    await asyncio.gather(*(wallet.people.sweep() for _ in range(3)))
    assert await wallet.balance(ALICE) == 10_000
    for user in (ALICE, BOB):
        told = await wallet.told(to=user)
        assert told.count("Alice got €10.00 back, which Bob did not accept · lunch") == 1


async def test_a_hold_that_the_ledger_released_by_itself_is_told_all_the_same(wallet: PeopleWallet) -> None:
    await wait_for_acceptance(wallet, BOB)
    payment = await wallet.pay("lunch", 1_000)
    wallet.clock.forward(hours=25)
    assert await wallet.ledger.expire_pending() == 1
    await wallet.people.sweep()
    await wallet.people.sweep()
    record = await wallet.payments.payment(BOB, payment.id)
    assert record is not None and record.state is PaymentState.RETURNED
    told = await wallet.told(to=BOB)
    assert told.count("Alice got €10.00 back, which Bob did not accept · lunch") == 1


async def test_accepting_and_declining_at_once_has_one_outcome(wallet: PeopleWallet) -> None:
    await wait_for_acceptance(wallet, BOB)
    for number in range(5):
        payment = await wallet.pay(str(number), 100)
        accepted, declined = await asyncio.gather(
            wallet.people.acceptance.accept(BOB, payment.id),
            wallet.people.acceptance.decline(BOB, payment.id),
        )
        assert isinstance(accepted, PaymentRecord) is not isinstance(declined, PaymentRecord)


async def test_what_somebody_asked_for_does_not_wait(wallet: PeopleWallet) -> None:
    await wait_for_acceptance(wallet, BOB)
    request = RequestOrder(
        id=new_id("r"), requester=BOB, people=(ALICE,), money=Money(100, EUR), room_id=LUNCH
    )
    await wallet.people.requests.ask(request)
    paid = await wallet.people.requests.pay(ALICE, request.id, authority=Authority.CHAT)
    assert isinstance(paid, PaymentRecord) and paid.state is PaymentState.POSTED


async def test_the_operator_can_let_all_payments_wait(database_url: str, tmp_path: Path) -> None:
    async with people_wallet(database_url, tmp_path, acceptance=True) as wallet:
        await wallet.deposit(ALICE, 1_000)
        assert (await wallet.pay("lunch", 100)).state is PaymentState.PENDING


# What is pending.


async def test_what_is_pending_is_listed_with_its_end_and_page_by_page(wallet: PeopleWallet) -> None:
    await wait_for_acceptance(wallet, BOB)
    await wallet.pay("held", 1_000)
    for number in range(3):
        await wallet.people.requests.ask(
            RequestOrder(
                id=new_id(str(number)),
                requester=BOB,
                people=(ALICE, CAROL),
                money=Money(100 + number, EUR),
                room_id=LUNCH,
                is_split=True,
            )
        )
    packet = PacketOrder(
        id=new_id("p"), sender=ALICE, room_id=LUNCH, money=Money(500, EUR), count=5, words="hi"
    )
    await wallet.people.red_packets.fill(packet)
    seen: list[PendingItem] = []
    after = None
    while True:
        page = await wallet.people.pending.of(ALICE, limit=2, after=after)
        seen += page.items
        after = page.next_after
        if after is None:
            break
    assert [(item.kind, item.waits_for_me, item.other) for item in seen] == [
        (PendingKind.PAYMENT, False, BOB),
        (PendingKind.RED_PACKET, False, None),
        *[(PendingKind.REQUEST, True, BOB)] * 3,
    ]
    assert [item.money.amount_minor for item in seen] == [1_000, 500, 50, 51, 51]
    ends = [item.ends_at_ms for item in seen]
    assert all(ends) and ends == sorted(ends, key=lambda end: end or 0)
    mine = await wallet.people.pending.of(BOB)
    assert [(item.kind, item.waits_for_me) for item in mine.items] == [
        (PendingKind.PAYMENT, True),
        *[(PendingKind.REQUEST, False)] * 3,
    ]
    assert (await wallet.people.pending.of(ALICE, after="nonsense")).items[0] == seen[0]
    wallet.clock.forward(days=8)
    for _ in range(2):
        await wallet.people.sweep()
    assert (await wallet.people.pending.of(ALICE)).items == ()
    assert (await wallet.people.pending.of(BOB)).items == ()
