"""PINs, changes of security, confirmations, budgets and the audit log, on either database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import delete, text, update
from sqlalchemy.exc import DBAPIError

from appservices.chassis.database import open_database
from appservices.vocabulary.ids import UserId
from tests.protected_wallet import (
    ALICE,
    BOB,
    EUR,
    OTHER_PIN,
    PIN,
    ProtectedWallet,
    an_id,
    an_order,
    protected_wallet,
)
from tests.web_stack import SettableClock
from wallet_appservice.payments.audit import AuditAction
from wallet_appservice.payments.confirmations import OPEN_SECONDS, ConfirmationState
from wallet_appservice.payments.limit_rules import LimitKind
from wallet_appservice.payments.pins import LOCKS_SECONDS, PinUnfit, digits_of, fit_pin
from wallet_appservice.payments.proofs import Proof
from wallet_appservice.payments.records import Authority, PaymentRecord
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.payments.security import NotAllowed, Requester
from wallet_appservice.storage.audit_tables import audit_chain, audit_log

pytest_plugins = ("tests.database_fixtures",)

BROWSER = Requester(user=ALICE, is_strong=True, where="Firefox on Linux")
WIDGET = replace(BROWSER, is_strong=False)
WRONG = "999123"


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
async def wallet(database_url: str, tmp_path: Path, clock: SettableClock) -> AsyncIterator[ProtectedWallet]:
    database = open_database(database_url, folder=tmp_path)
    async with protected_wallet(database, clock=clock) as wallet:
        await wallet.deposit(ALICE, 100_000)
        yield wallet
    await database.close()


def refusal_of(outcome: object) -> PaymentRefusal | None:
    return outcome.refusal if isinstance(outcome, PaymentRefused) else None


def with_pin(pin: str, by: Requester = BROWSER) -> Requester:
    return replace(by, proof=Proof(pin=pin))


# PINs.


@pytest.mark.parametrize(
    "pin", ["", "12345", "1234567", "12345a", "000000", "123456", "654321", "890123", "112112", "123123",
            "123321", "121212"],
)  # fmt: skip
def test_a_pin_is_six_digits_and_not_the_first_that_a_thief_tries(pin: str) -> None:
    with pytest.raises(PinUnfit):
        fit_pin(pin)


def test_a_pin_is_read_in_any_script() -> None:
    assert fit_pin(" ٤٩٣٨١٧ ") == PIN == digits_of("４９３８１７")


async def test_the_right_pin_is_right_and_a_wrong_one_is_counted(wallet: ProtectedWallet) -> None:
    pins = wallet.protection.proofs.pins
    assert refusal_of(await pins.check(ALICE, PIN)) is PaymentRefusal.PIN_NOT_SET
    assert await wallet.protection.security.set_pin(BROWSER, PIN) is None
    assert await pins.check(ALICE, PIN) is None
    assert refusal_of(await pins.check(ALICE, WRONG)) is PaymentRefusal.PIN_WRONG
    assert refusal_of(await pins.check(BOB, PIN)) is PaymentRefusal.PIN_NOT_SET
    assert any("You have a PIN now" in content for content in await wallet.told(ALICE))


async def test_wrong_pins_lock_for_longer_and_longer_and_a_right_one_forgets_them(
    wallet: ProtectedWallet, clock: SettableClock
) -> None:
    pins = wallet.protection.proofs.pins
    await wallet.protection.security.set_pin(BROWSER, PIN)
    for seconds in LOCKS_SECONDS:
        refused = await pins.check(ALICE, WRONG)
        if not seconds:
            assert refusal_of(refused) is PaymentRefusal.PIN_WRONG
            continue
        assert refusal_of(refused) is PaymentRefusal.PIN_LOCKED
        clock.ahead_ms += (seconds - 5) * 1000
        assert refusal_of(await pins.check(ALICE, PIN)) is PaymentRefusal.PIN_LOCKED, "also the right one"
        clock.ahead_ms += 6_000
    assert await pins.check(ALICE, PIN) is None
    assert refusal_of(await pins.check(ALICE, WRONG)) is PaymentRefusal.PIN_WRONG
    locked = [content for content in await wallet.told(ALICE) if "is locked until" in content]
    assert len(locked) == sum(seconds > 0 for seconds in LOCKS_SECONDS)


async def test_many_guesses_at_once_are_three_tries(wallet: ProtectedWallet) -> None:
    pins = wallet.protection.proofs.pins
    await wallet.protection.security.set_pin(BROWSER, PIN)
    guesses = [f"{number:06}" for number in range(493_810, 493_830)]
    outcomes = await asyncio.gather(*(pins.check(ALICE, guess) for guess in guesses if guess != PIN))
    refusals = [refusal_of(outcome) for outcome in outcomes]
    assert refusals.count(PaymentRefusal.PIN_WRONG) == 2
    assert refusals.count(PaymentRefusal.PIN_LOCKED) == len(outcomes) - 2
    assert refusal_of(await pins.check(ALICE, PIN)) is PaymentRefusal.PIN_LOCKED


# Who may change what.


async def test_a_session_by_openid_alone_sets_up_and_changes_nothing(wallet: ProtectedWallet) -> None:
    security = wallet.protection.security
    for change in (
        security.set_pin(WIDGET, PIN),
        security.set_limits(WIDGET, EUR, {LimitKind.CHAT: 100}),
        security.set_always_ask(WIDGET, True),
    ):
        with pytest.raises(NotAllowed):
            await change
    await security.set_pin(BROWSER, PIN)
    refused = await security.set_limits(WIDGET, EUR, {LimitKind.CHAT: 100})
    assert refusal_of(refused) is PaymentRefusal.CONFIRMATION_NEEDED
    assert await security.set_limits(with_pin(PIN, WIDGET), EUR, {LimitKind.CHAT: 100}) is None


async def test_changing_the_pin_needs_the_old_one(wallet: ProtectedWallet) -> None:
    security = wallet.protection.security
    await security.set_pin(BROWSER, PIN)
    assert refusal_of(await security.set_pin(BROWSER, OTHER_PIN)) is PaymentRefusal.CONFIRMATION_NEEDED
    assert refusal_of(await security.set_pin(with_pin(WRONG), OTHER_PIN)) is PaymentRefusal.PIN_WRONG
    assert refusal_of(await security.remove_pin(BROWSER)) is PaymentRefusal.CONFIRMATION_NEEDED
    assert await security.set_pin(with_pin(PIN), OTHER_PIN) is None
    assert await wallet.protection.proofs.pins.check(ALICE, OTHER_PIN) is None
    assert await security.remove_pin(with_pin(OTHER_PIN)) is None
    assert not await wallet.protection.proofs.has_any(ALICE)


async def test_a_limit_is_lowered_at_once_and_raised_with_a_proof(wallet: ProtectedWallet) -> None:
    security, gate = wallet.protection.security, wallet.payments.gate
    assert await security.set_limits(BROWSER, EUR, {LimitKind.PAYMENT: 5_000, LimitKind.DAY: 6_000}) is None
    assert refusal_of(await wallet.payments.pay(an_order("own", 5_001))) is PaymentRefusal.OWN_LIMIT
    assert isinstance(await wallet.payments.pay(an_order("1", 5_000)), PaymentRecord)
    assert refusal_of(await wallet.payments.pay(an_order("2", 1_001))) is PaymentRefusal.DAY_LIMIT
    for raised in ({LimitKind.DAY: 7_000}, {LimitKind.DAY: None}):
        with pytest.raises(NotAllowed):
            await security.set_limits(BROWSER, EUR, raised)
    await security.set_pin(BROWSER, PIN)
    refused = await security.set_limits(BROWSER, EUR, {LimitKind.DAY: None})
    assert refusal_of(refused) is PaymentRefusal.CONFIRMATION_NEEDED
    assert await security.set_limits(with_pin(PIN), EUR, {LimitKind.DAY: None}) is None
    assert (await gate.limits_of(ALICE, EUR))[0].day_minor == 2_000_000


# Payments above the chat limit.


async def test_by_session_a_payment_needs_the_proof_that_its_payer_has(wallet: ProtectedWallet) -> None:
    pay = wallet.payments.pay
    assert isinstance(await pay(an_order("1", 10_001, authority=Authority.SESSION)), PaymentRecord)
    await wallet.protection.security.set_pin(BROWSER, PIN)
    refused = await pay(an_order("2", 10_001, authority=Authority.SESSION))
    assert refusal_of(refused) is PaymentRefusal.CONFIRMATION_NEEDED
    assert isinstance(await pay(an_order("2", 10_001, authority=Authority.CONFIRMED)), PaymentRecord)
    assert isinstance(await pay(an_order("3", 10_000, authority=Authority.SESSION)), PaymentRecord)
    await wallet.protection.security.set_always_ask(BROWSER, True)
    refused = await pay(an_order("4", 1, authority=Authority.SESSION))
    assert refusal_of(refused) is PaymentRefusal.CONFIRMATION_NEEDED


async def asked_by_chat(wallet: ProtectedWallet, name: str, amount_minor: int = 20_000) -> None:
    """As the chat command does."""
    order = an_order(name, amount_minor, memo="bike")
    confirmations = wallet.protection.confirmations
    refused = await wallet.payments.pay(order, tell=lambda _outcome: [confirmations.asked(order)])
    assert refusal_of(refused) is PaymentRefusal.CONFIRMATION_NEEDED


async def state_of(wallet: ProtectedWallet, name: str) -> ConfirmationState:
    found = await wallet.protection.confirmations.find(ALICE, an_id(name))
    assert found is not None
    return found.state


async def test_what_waits_is_paid_once_however_often_it_is_confirmed(wallet: ProtectedWallet) -> None:
    confirmations = wallet.protection.confirmations
    await asked_by_chat(wallet, "bike")
    await asked_by_chat(wallet, "bike")
    assert await wallet.balance(BOB) == 0
    assert await confirmations.find(BOB, an_id("bike")) is None
    outcomes = await asyncio.gather(
        *(confirmations.confirm(ALICE, an_id("bike"), Authority.SESSION) for _ in range(10))
    )
    assert all(isinstance(outcome, PaymentRecord) for outcome in outcomes)
    assert await wallet.balance(BOB) == 20_000
    assert await state_of(wallet, "bike") is ConfirmationState.PAID


async def test_who_has_a_pin_confirms_with_it(wallet: ProtectedWallet) -> None:
    confirmations = wallet.protection.confirmations
    await wallet.protection.security.set_pin(BROWSER, PIN)
    await asked_by_chat(wallet, "bike")
    refused = await confirmations.confirm(ALICE, an_id("bike"), Authority.SESSION)
    assert refusal_of(refused) is PaymentRefusal.CONFIRMATION_NEEDED
    assert await state_of(wallet, "bike") is ConfirmationState.OPEN
    paid = await confirmations.confirm(ALICE, an_id("bike"), Authority.CONFIRMED)
    assert isinstance(paid, PaymentRecord)


async def test_what_nobody_confirms_ends_and_is_told(wallet: ProtectedWallet, clock: SettableClock) -> None:
    confirmations = wallet.protection.confirmations
    await asked_by_chat(wallet, "bike")
    clock.ahead_ms = OPEN_SECONDS * 1000 - 5_000
    await confirmations.sweep()
    assert await state_of(wallet, "bike") is ConfirmationState.OPEN
    clock.ahead_ms += 6_000
    late = await confirmations.confirm(ALICE, an_id("bike"), Authority.CONFIRMED)
    assert late is ConfirmationState.EXPIRED
    await confirmations.sweep()
    assert sum("did not confirm" in content for content in await wallet.told(ALICE)) == 1
    assert await wallet.balance(BOB) == 0


async def test_what_was_left_is_not_paid_later(wallet: ProtectedWallet) -> None:
    confirmations = wallet.protection.confirmations
    await asked_by_chat(wallet, "bike")
    assert await confirmations.cancel(ALICE, an_id("bike")) is ConfirmationState.CANCELLED
    late = await confirmations.confirm(ALICE, an_id("bike"), Authority.CONFIRMED)
    assert late is ConfirmationState.CANCELLED
    assert await wallet.balance(BOB) == 0


async def test_what_a_dead_process_had_claimed_is_paid_by_the_sweeper(
    wallet: ProtectedWallet, clock: SettableClock
) -> None:
    confirmations = wallet.protection.confirmations
    await asked_by_chat(wallet, "bike")
    # It died right after the claim.
    assert await confirmations._claim(an_id("bike"), Authority.CONFIRMED)
    await confirmations.sweep()
    assert await wallet.balance(BOB) == 0
    clock.ahead_ms = 61_000
    for _ in range(2):
        await confirmations.sweep()
    assert await wallet.balance(BOB) == 20_000
    assert await state_of(wallet, "bike") is ConfirmationState.PAID


async def test_nobody_is_asked_to_confirm_what_they_do_not_have(wallet: ProtectedWallet) -> None:
    refused = await wallet.payments.pay(an_order("rich", 100_001))
    assert refusal_of(refused) is PaymentRefusal.BALANCE_TOO_LOW


# Budgets.


async def test_a_budget_warns_at_most_of_it_and_at_all_of_it_once(wallet: ProtectedWallet) -> None:
    budgets = wallet.protection.budgets
    await budgets.set(ALICE, EUR, 10_000)
    for number in range(6):
        assert isinstance(await wallet.payments.pay(an_order(str(number), 2_000)), PaymentRecord)
    warnings = [content for content in await wallet.told(ALICE) if "budget" in content]
    assert ["used up" in content for content in warnings] == [False, True]
    (state,) = await budgets.of(ALICE)
    assert (state.budget_minor, state.spent_minor) == (10_000, 12_000)


async def test_one_large_payment_over_the_budget_is_one_warning(wallet: ProtectedWallet) -> None:
    await wallet.protection.budgets.set(ALICE, EUR, 1_000)
    await wallet.payments.pay(an_order("1", 5_000))
    await wallet.payments.pay(an_order("2", 5_000))
    assert sum("budget" in content for content in await wallet.told(ALICE)) == 1


# The audit log.


async def test_the_audit_log_says_who_did_what(wallet: ProtectedWallet) -> None:
    await wallet.protection.security.set_pin(BROWSER, PIN)
    for _ in range(2):
        await wallet.payments.deposit(
            user=BOB, money=an_order("", 700).money, id=an_id("again"), by="root", reference="cash"
        )
    newest, pin, deposit = await wallet.protection.audit.entries(limit=10)
    assert (newest.actor, newest.action, newest.subject) == ("root", AuditAction.DEPOSIT, BOB)
    assert newest.details["amount_minor"] == "700" and newest.details["reference"] == "cash"
    assert (pin.actor, pin.action) == (ALICE, AuditAction.PIN_SET)
    assert deposit.action == AuditAction.DEPOSIT
    assert [
        entry.position for entry in await wallet.protection.audit.entries(limit=10, before=pin.position)
    ] == [deposit.position]


async def test_the_chain_holds_and_is_made_once_by_many(wallet: ProtectedWallet) -> None:
    audit = wallet.protection.audit
    for number in range(20):
        await wallet.deposit(UserId(f"@user{number}:a"), 100)
    await asyncio.gather(*(audit.chain() for _ in range(4)))
    await audit.chain()
    finding = await audit.verify()
    assert (finding.links, finding.not_linked, finding.problem) == (21, 0, "")
    assert await audit.chain() == 0


async def test_the_database_refuses_to_change_the_audit_log(wallet: ProtectedWallet) -> None:
    await wallet.protection.audit.chain()
    for statement in (
        update(audit_log).values(actor="nobody"),
        delete(audit_log),
        update(audit_chain).values(hash="0"),
        delete(audit_chain),
    ):
        with pytest.raises(DBAPIError, match="only ever added"):
            async with wallet.database.begin() as work:
                await work.execute(statement)
                await work.commit()


async def test_who_changes_the_log_behind_the_databases_back_is_found(wallet: ProtectedWallet) -> None:
    audit = wallet.protection.audit
    await wallet.deposit(BOB, 300)
    await audit.chain()
    async with wallet.database.begin() as work:
        if wallet.database.is_sqlite:
            await work.execute(text("DROP TRIGGER audit_log_no_update"))
        else:
            await work.execute(text("DROP TRIGGER audit_log_only_added_row ON audit_log"))
        await work.execute(update(audit_log).where(audit_log.c.subject == BOB).values(actor="nobody"))
        await work.commit()
    assert (await audit.verify()).problem == "Row 2 of the audit log is not what was linked as number 2."


async def test_who_asks_again_without_a_proof_does_not_disturb_what_was_claimed_with_one(
    wallet: ProtectedWallet,
) -> None:
    confirmations = wallet.protection.confirmations
    await wallet.protection.security.set_pin(BROWSER, PIN)
    await asked_by_chat(wallet, "bike")
    assert await confirmations._claim(an_id("bike"), Authority.CONFIRMED)
    paid = await confirmations.confirm(ALICE, an_id("bike"), Authority.SESSION)
    assert isinstance(paid, PaymentRecord)
    assert await state_of(wallet, "bike") is ConfirmationState.PAID


async def test_limits_changed_at_one_moment_raise_none_without_a_proof(wallet: ProtectedWallet) -> None:
    async def change(user: UserId, minor: int) -> str:
        by = Requester(user=user, is_strong=True, where="a browser")
        try:
            await wallet.protection.security.set_limits(by, EUR, {LimitKind.DAY: minor})
        except NotAllowed:
            return "refused"
        return str(minor)

    for number in range(10):
        user = UserId(f"@user{number}:a")
        outcomes = await asyncio.gather(*(change(user, minor) for minor in (1_000, 2_000, 3_000)))
        made = [int(outcome) for outcome in outcomes if outcome != "refused"]
        limits, _spent = await wallet.payments.gate.limits_of(user, EUR)
        # None was raised, since there is no proof here.
        assert limits.day_minor == min(made)
