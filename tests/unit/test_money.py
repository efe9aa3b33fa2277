"""Money is read without guessing and never loses a minor unit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appservices.vocabulary.money import (
    AMOUNT_MINOR_MAX,
    AmountUnreadable,
    Currencies,
    Currency,
    CurrencyCode,
    Money,
    decimal_text,
    format_minor,
    iso_currency,
)


def iso(code: str) -> Currency:
    currency = iso_currency(code)
    assert currency is not None
    return currency


EUR, JPY, KWD = iso("EUR"), iso("JPY"), iso("KWD")
HOUR = Currency(CurrencyCode("HOUR"), 2, "HOUR")
CURRENCIES = Currencies([EUR, JPY, KWD, HOUR])


@pytest.mark.parametrize(
    ("text", "amount_minor", "code"),
    [
        ("12.50 EUR", 1250, "EUR"),
        ("EUR 12.50", 1250, "EUR"),
        ("€12,50", 1250, "EUR"),
        ("€ 12,5", 1250, "EUR"),
        ("12", 1200, "EUR"),
        ("12.50eur", 1250, "EUR"),
        ("١٢٫٥٠ EUR", 1250, "EUR"),
        ("१२.५० EUR", 1250, "EUR"),
        ("１２．５０ EUR", 1250, "EUR"),
        ("1,250.00", 125000, "EUR"),
        ("1.250,00 EUR", 125000, "EUR"),
        ("1'000 EUR", 100000, "EUR"),
        ("1.234.567,89", 123456789, "EUR"),
        ("500 JPY", 500, "JPY"),
        ("1.250 KWD", 1250, "KWD"),
        ("1.5 HOUR", 150, "HOUR"),
        ("0.01", 1, "EUR"),
    ],
)
def test_an_amount_is_read_as_people_write_it(text: str, amount_minor: int, code: str) -> None:
    assert CURRENCIES.parse(text) == Money(amount_minor, CurrencyCode(code))


@pytest.mark.parametrize(
    "text",
    [
        "", "EUR", "lunch", "0", "0.00 EUR", "-5 EUR", "−5", "€-5", "12.505 EUR", "5.5 JPY", "1e5",
        "NaN", "inf", "1,250", "1.250 EUR", "12..5", "1,2,3", "12 XXX", "12 $", "9" * 30, "9" * 300,
        "1/2", "0x10", "5 EUR EUR", "12.50 EUR lunch", ".", "1.", "½ EUR", "12,50,00", "1 000 EUR",
    ],
)  # fmt: skip
def test_what_could_mean_something_else_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(AmountUnreadable) as refusal:
        CURRENCIES.parse(text)
    assert str(refusal.value).endswith(".")
    assert "\n" not in str(refusal.value)


@given(st.integers(1, AMOUNT_MINOR_MAX), st.sampled_from([EUR, JPY, KWD, HOUR]))
def test_what_is_written_out_is_read_back(amount_minor: int, currency: Currency) -> None:
    money = Money(amount_minor, currency.code)
    assert CURRENCIES.parse(f"{decimal_text(money, currency)} {currency.code}") == money


@given(st.text(max_size=60))
def test_any_text_is_an_amount_or_a_sentence(text: str) -> None:
    try:
        money = CURRENCIES.parse(text)
    except AmountUnreadable:
        return
    assert 0 < money.amount_minor <= AMOUNT_MINOR_MAX


@pytest.mark.parametrize("amount", [0, -1, AMOUNT_MINOR_MAX + 1])
def test_no_money_is_zero_negative_or_beyond_what_json_carries(amount: int) -> None:
    with pytest.raises(ValueError):
        Money(amount, EUR.code)


@pytest.mark.parametrize("amount", [1.0, True, "1"])
def test_money_is_a_whole_number(amount: object) -> None:
    with pytest.raises(TypeError):
        Money(amount, EUR.code)  # type: ignore[arg-type]


def test_amounts_are_shown_with_symbol_or_code() -> None:
    assert format_minor(1250, EUR) == "€12.50"
    assert format_minor(-1250, EUR) == "-€12.50"
    assert format_minor(150, HOUR).replace("\u00a0", " ") == "1.50 HOUR"
    assert format_minor(500, JPY) == "¥500"
