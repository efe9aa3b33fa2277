"""What docs/protocol/ says of signing in and of the wallet's API is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from appservices.chassis.session_api import OpenIdBody
from appservices.chassis.web_errors import BODY_BYTES_MAX
from appservices.chassis.web_security import CSRF_FIELD, CSRF_HEADER
from appservices.chassis.web_sessions import (
    CODE_MINUTES,
    CODES_PER_ADDRESS_MAX,
    LINK_MINUTES,
    LINKS_PER_USER_MAX,
    SESSIONS_PER_USER_MAX,
)
from wallet_appservice.payments.actions import HISTORY_MAX
from wallet_appservice.payments.confirmations import OPEN_SECONDS, ConfirmationState
from wallet_appservice.payments.limits import DAYS_KEPT
from wallet_appservice.payments.passkeys import CHALLENGE_SECONDS
from wallet_appservice.payments.pins import LOCKS_SECONDS, PIN_LENGTH
from wallet_appservice.payments.records import MEMO_LENGTH_MAX, PaymentKind
from wallet_appservice.payments.refusals import REFUSALS
from wallet_appservice.web.api import PAGE_DEFAULT, BalanceBody, NewPaymentBody
from wallet_appservice.web.api_values import PaymentBody
from wallet_appservice.web.security_api import (
    BudgetBody,
    BudgetsBody,
    ChallengeBody,
    ChallengedPaymentBody,
    ConfirmationBody,
    LimitsBody,
    LimitsOfCurrencyBody,
    NewLimitsBody,
    NewPasskeyBody,
    NewPinBody,
    PasskeyBody,
    PasskeysBody,
)

DOCS = Path(__file__).parents[2] / "docs" / "protocol"
API = (DOCS / "wallet-api.md").read_text(encoding="utf-8")
SIGN_IN = (DOCS / "sign-in.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("refusal", REFUSALS)
def test_every_refusal_is_documented_with_its_status(refusal: str) -> None:
    outside = next(outside for name, outside in REFUSALS.items() if name == refusal)
    lines = [line for line in API.splitlines() if f"`{outside.errcode}`" in line]
    assert any(line.startswith("| ") for line in lines)
    statuses = {line.split("|")[1].strip() for line in lines}
    # A payee of the wrong form and one who isn't there are the same to a program.
    assert str(outside.http_status) in statuses or outside.errcode == "DEV_WEFT_PAYEE_UNKNOWN"


@pytest.mark.parametrize(
    "body",
    [
        BalanceBody,
        NewPaymentBody,
        PaymentBody,
        LimitsOfCurrencyBody,
        LimitsBody,
        NewLimitsBody,
        NewPinBody,
        PasskeyBody,
        PasskeysBody,
        NewPasskeyBody,
        ChallengedPaymentBody,
        ChallengeBody,
        ConfirmationBody,
        BudgetBody,
        BudgetsBody,
    ],
)
def test_every_field_of_the_api_is_documented(body: type[BalanceBody]) -> None:
    for name in body.model_fields:
        assert f'"{name}"' in API or f"`{name}`" in API, name


@pytest.mark.parametrize("kind", PaymentKind)
def test_every_kind_of_payment_is_documented(kind: PaymentKind) -> None:
    assert f"`{kind.value}`" in API


def test_limits_are_documented_as_they_are() -> None:
    assert f"at most {BODY_BYTES_MAX // 1024} KiB" in API
    assert f"1 to {HISTORY_MAX}, default {PAGE_DEFAULT}" in API
    assert f"at most {MEMO_LENGTH_MAX} characters" in API
    assert f"At most {CODES_PER_ADDRESS_MAX} codes wait" in SIGN_IN
    assert f"{SESSIONS_PER_USER_MAX} sessions" in " ".join(SIGN_IN.split())
    assert (CODE_MINUTES, LINK_MINUTES, LINKS_PER_USER_MAX) == (10, 5, 5)
    assert "for ten minutes" in SIGN_IN and "for five minutes" in SIGN_IN and "five such links" in SIGN_IN


def test_names_on_the_wire_are_documented() -> None:
    for name in (*OpenIdBody.model_fields, CSRF_FIELD, CSRF_HEADER):
        assert f"`{name}`" in SIGN_IN, name


@pytest.mark.parametrize("state", ConfirmationState)
def test_every_state_of_a_confirmation_is_documented(state: ConfirmationState) -> None:
    assert f"`{state.value}`" in API


def test_locks_and_times_of_proofs_are_documented_as_they_are() -> None:
    page = (DOCS.parent / "operators" / "limits.md").read_text(encoding="utf-8")
    locked = re.findall(r"^\| ([3-7])(?: and more)? \| (\d+) (minute|hour)s? \|$", page, re.M)
    seconds = {int(tries): int(count) * {"minute": 60, "hour": 3600}[unit] for tries, count, unit in locked}
    assert seconds == {tries: lock for tries, lock in enumerate(LOCKS_SECONDS, start=1) if lock}
    assert (PIN_LENGTH, CHALLENGE_SECONDS, OPEN_SECONDS, DAYS_KEPT) == (6, 300, 900, 40)
    assert "Six digits" in page and "within 15 minutes" in page and "for 40 days" in page
    assert "within five minutes" in API
