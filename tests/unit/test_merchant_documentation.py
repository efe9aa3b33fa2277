"""What docs/ says of merchants is what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from wallet_appservice.books.reconciliation import RECONCILIATION_COLUMNS
from wallet_appservice.payments.merchants import (
    api_keys,
    charges,
    endpoints,
    merchants,
    notifications,
    orders,
    payment_codes,
    refunds,
    remembered,
)
from wallet_appservice.payments.merchants.events import EventType
from wallet_appservice.payments.merchants.records import OrderState, OrderWay, Scope
from wallet_appservice.payments.merchants.refusals import MERCHANT_REFUSALS, MerchantRefusal
from wallet_appservice.web.merchant_bodies import ChargeBody, NewOrderBody, NewRefundBody, PaymentCodeBody

DOCS = Path(__file__).parents[2] / "docs"
API = (DOCS / "protocol" / "merchant-api.md").read_text(encoding="utf-8")
GUIDE = (DOCS / "merchants" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("refusal", MerchantRefusal)
def test_every_refusal_is_documented_with_its_status(refusal: MerchantRefusal) -> None:
    outside = MERCHANT_REFUSALS[refusal]
    lines = [line for line in API.splitlines() if line.startswith(f"| {outside.http_status} |")]
    assert any(f"`{outside.errcode}`" in line for line in lines)


@pytest.mark.parametrize("word", [*Scope, *OrderState, *OrderWay, *refunds.RefundState, *EventType])
def test_every_word_on_the_wire_is_documented(word: str) -> None:
    assert f"`{word}`" in API


@pytest.mark.parametrize("event", EventType)
def test_every_event_is_explained_to_merchants(event: str) -> None:
    assert f"`{event}`" in GUIDE


@pytest.mark.parametrize("body", [NewOrderBody, ChargeBody, NewRefundBody, PaymentCodeBody])
def test_every_field_is_documented(body: type[NewOrderBody]) -> None:
    for name in body.model_fields:
        assert f"`{name}`" in API, name


def test_every_column_of_the_days_file_is_documented() -> None:
    for name in RECONCILIATION_COLUMNS:
        assert f"`{name}`" in GUIDE, name


def test_limits_are_documented_as_they_are() -> None:
    expiry = (orders.EXPIRY_SECONDS_MIN, orders.EXPIRY_SECONDS_MAX, orders.EXPIRY_SECONDS_DEFAULT)
    assert "({} to {}, default {})".format(*expiry) in API
    assert f"at most\n{merchants.OWNED_MAX} merchants" in API
    assert f"at most {api_keys.KEYS_MAX} keys and {endpoints.ENDPOINTS_MAX} endpoints" in API
    assert f"elsewhere within {remembered.REMEMBERED_SECONDS} seconds" in API
    assert f"works for {payment_codes.CODE_SECONDS} seconds and {payment_codes.GRACE_SECONDS}" in API
    assert f"the newest {payment_codes.CODES_PER_USER_MAX} work" in API
    assert f"{charges.WRONG_CODES_MAX} wrong payment codes within a minute" in API
    assert f"Within {refunds.DAYS_MAX} days, in up to {refunds.PARTS_MAX} parts" in GUIDE
    assert f"within {notifications.TIMEOUT_SECONDS:g} seconds" in GUIDE
    assert f"kept for {notifications.KEPT_DAYS} days" in GUIDE
    assert notifications.PAUSES_SECONDS == (5, 30, 120, 600, 1800, 3600, 7200, 14_400, 21_600, 36_000)
    assert "5 s, 30 s, 2 min, 10 min, 30 min, 1 h,\n  2 h, 4 h, 6 h and 10 h" in GUIDE
