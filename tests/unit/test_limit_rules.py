"""The rules of limits: what is in force, and which payment needs its payer's confirmation."""

from __future__ import annotations

import pytest

from appservices.vocabulary.money import Currency, CurrencyCode
from wallet_appservice.payments.limit_rules import (
    ALWAYS_ASK,
    LimitKind,
    Limits,
    OperatorLimits,
    limits_in_force,
    needs_confirmation,
    setting_name,
)
from wallet_appservice.payments.records import Authority

EURO = Currency(CurrencyCode("EUR"), 2, "€")
YEN = Currency(CurrencyCode("JPY"), 0, "¥")
CHAT, CODE, SESSION = Authority.CHAT, Authority.CODE, Authority.SESSION


def test_the_operators_limits_are_whole_units_of_each_currency() -> None:
    assert limits_in_force(OperatorLimits(), {}, EURO).payment_minor == 1_000_000
    assert limits_in_force(OperatorLimits(), {}, YEN).payment_minor == 10_000


@pytest.mark.parametrize(("own", "in_force"), [("500", 500), ("99999999", 10_000), ("0", 0), ("?", 10_000)])
def test_a_users_own_limit_counts_where_it_is_lower(own: str, in_force: int) -> None:
    settings = {setting_name(LimitKind.CHAT, "EUR"): own}
    assert limits_in_force(OperatorLimits(chat_max=100), settings, EURO).chat_minor == in_force


def test_who_trusts_chat_with_less_trusts_a_code_with_no_more() -> None:
    settings = {setting_name(LimitKind.CHAT, "EUR"): "700"}
    assert limits_in_force(OperatorLimits(), settings, EURO).no_pin_minor == 700
    assert limits_in_force(OperatorLimits(no_pin_max=300), {}, EURO).no_pin_minor == 30_000


@pytest.mark.parametrize(
    ("authority", "amount_minor", "has_proof", "always", "needed"),
    [
        (CHAT, 10_000, True, True, False),
        (CHAT, 10_001, False, False, True),
        (CHAT, 10_001, True, False, True),
        (CODE, 5_000, True, True, False),
        (CODE, 5_001, False, False, True),
        (SESSION, 10_000, True, False, False),
        (SESSION, 10_001, True, False, True),
        (SESSION, 10_001, False, False, False),
        (SESSION, 1, True, True, True),
        (SESSION, 1, False, True, False),
        (Authority.CONFIRMED, 10**9, True, True, False),
        (Authority.OPERATOR, 10**9, True, True, False),
    ],
)
def test_which_payment_needs_confirmation(
    authority: Authority, amount_minor: int, has_proof: bool, always: bool, needed: bool
) -> None:
    limits = Limits(
        payment_minor=10**6, day_minor=10**6, chat_minor=10_000, no_pin_minor=5_000, always_asks=always
    )
    assert needs_confirmation(amount_minor, limits, authority, has_proof=has_proof) is needed


def test_the_longest_name_of_a_setting_fits_its_column() -> None:
    assert max(len(setting_name(kind, "ABCDEFGH")) for kind in LimitKind) <= 32
    assert len(ALWAYS_ASK) <= 32
