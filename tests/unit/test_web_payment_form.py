"""What people type into the payment form, and what it is taken for."""

from __future__ import annotations

from string import Formatter

import pytest

from appservices.vocabulary.ids import ServerName, TransferId, UserId
from appservices.vocabulary.money import Currencies, Currency, CurrencyCode, Money, iso_currency
from wallet_appservice.payments.records import PaymentOrder
from wallet_appservice.payments.refusals import REFUSALS, PaymentRefusal, PaymentRefused
from wallet_appservice.web.payment_form import PaymentForm, order_of, read_form

ALICE = UserId("@alice:weft.example:8448")
SERVER = ServerName("weft.example:8448")
ID = TransferId("a" * 32)
OTHER_ID = TransferId("b" * 32)
EUR = iso_currency("EUR")
assert EUR is not None
CURRENCIES = Currencies((EUR, Currency(CurrencyCode("HOUR"), 1, "HOUR")))

ANY_WORDS = {
    name: "x"
    for outside in REFUSALS.values()
    for _text, name, _format, _conversion in Formatter().parse(outside.sentence)
    if name
}


def judged(**typed: str) -> PaymentOrder | PaymentForm:
    form = read_form({"id": ID, "payee": "bob", "amount": "1", **typed}, new_id=OTHER_ID)
    return order_of(form, payer=ALICE, server=SERVER, currencies=CURRENCIES)


@pytest.mark.parametrize(
    "typed",
    [
        "bob",
        " Bob ",
        "@bob",
        "@bob:weft.example:8448",
        "bob:weft.example:8448",
        "https://matrix.to/#/@bob:weft.example:8448",
        "https://matrix.to/#/%40bob%3Aweft.example%3A8448?via=x",
    ],
)
def test_a_payee_may_be_written_in_all_the_ways_people_have_one(typed: str) -> None:
    order = judged(payee=typed)
    assert isinstance(order, PaymentOrder)
    assert order.payee == "@bob:weft.example:8448"


@pytest.mark.parametrize("typed", ["", "@", "b b:c d", "@bob:", "bob\x00", "@" + "b" * 290, "@alice"])
def test_a_payee_who_can_not_be_one_is_refused_beside_the_field(typed: str) -> None:
    form = judged(payee=typed)
    assert isinstance(form, PaymentForm)
    assert list(form.problems) == ["payee"]
    assert form.payee == typed.strip()


@pytest.mark.parametrize(
    ("amount", "currency", "money"),
    [
        ("12.50", "", Money(1250, EUR.code)),
        ("12,50", "EUR", Money(1250, EUR.code)),
        ("€3", "EUR", Money(300, EUR.code)),
        ("1.5", "HOUR", Money(15, CurrencyCode("HOUR"))),
        ("1.5 HOUR", "EUR", Money(15, CurrencyCode("HOUR"))),
    ],
)
def test_the_chosen_currency_counts_unless_one_is_typed(amount: str, currency: str, money: Money) -> None:
    order = judged(amount=amount, currency=currency)
    assert isinstance(order, PaymentOrder)
    assert order.money == money


@pytest.mark.parametrize("amount", ["", "0", "-1", "1.234567", "abc", "1 USD", "NaN", "1e9", "9" * 40])
def test_an_amount_that_is_none_is_refused_beside_the_field_and_kept(amount: str) -> None:
    form = judged(amount=amount, memo="lunch")
    assert isinstance(form, PaymentForm)
    assert list(form.problems) == ["amount"]
    assert (form.amount, form.memo, form.first_wrong) == (amount, "lunch", "amount")


def test_every_wrong_field_is_told_at_once() -> None:
    form = judged(payee="", amount="", memo="m" * 201)
    assert isinstance(form, PaymentForm)
    assert set(form.problems) == {"payee", "amount", "memo"}
    assert form.first_wrong == "payee"


def test_the_id_stays_with_the_form_and_a_forged_one_is_replaced() -> None:
    assert read_form({"id": ID}, new_id=OTHER_ID).id == ID
    assert read_form({"id": "x"}, new_id=OTHER_ID).id == OTHER_ID
    assert read_form({}, new_id=OTHER_ID).id == OTHER_ID


def test_after_a_refusal_the_next_try_has_a_new_id_and_after_no_answer_the_same() -> None:
    form = PaymentForm(id=ID, payee="bob", amount="1")
    refused = form.refused(
        PaymentRefused.because(PaymentRefusal.BALANCE_TOO_LOW, available="€1.00"), new_id=OTHER_ID
    )
    assert (refused.id, dict(refused.problems)) == (
        OTHER_ID,
        {"amount": "That is more than you have: you can pay €1.00 at most."},
    )
    failed = form.failed("No answer.")
    assert (failed.id, dict(failed.problems)) == (ID, {"": "No answer."})


def test_every_refusal_stands_somewhere_on_the_form() -> None:
    for refusal in PaymentRefusal:
        refused = PaymentRefused(refusal, ANY_WORDS)
        form = PaymentForm(id=ID).refused(refused, new_id=OTHER_ID)
        assert set(form.problems) <= {"", "payee", "amount", "memo"} and len(form.problems) == 1
