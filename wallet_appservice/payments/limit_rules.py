"""Limits as rules: what is in force for whom, and whether a payment needs its payer's confirmation. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from appservices.vocabulary.money import Currency
from wallet_appservice.payments.records import Authority

ALWAYS_ASK: Final = "pin.always"
"""The setting that asks for PIN or passkey for every payment in pages and by programs."""
_DAY_MS: Final = 24 * 3600 * 1000


class LimitKind(StrEnum):
    """What a limit bounds."""

    PAYMENT = "payment"
    """One payment."""
    DAY = "day"
    """All that one user pays in one currency on one day, by UTC."""
    CHAT = "chat"
    """One payment by chat; above it the payer confirms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorLimits:
    """The operator's limits, in whole units of each currency. The defaults are the config's."""

    payment_max: int = 10_000
    day_max: int = 20_000
    chat_max: int = 200
    no_pin_max: int = 50
    """The most that a payment code may charge without PIN or passkey."""

    def minor(self, kind: LimitKind, currency: Currency) -> int:
        whole: int = {
            LimitKind.PAYMENT: self.payment_max,
            LimitKind.DAY: self.day_max,
            LimitKind.CHAT: self.chat_max,
        }[kind]
        return whole * minor_of(currency)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is in force for one user in one currency, in minor units."""

    payment_minor: int
    day_minor: int
    chat_minor: int
    no_pin_minor: int
    always_asks: bool = False

    def of(self, kind: LimitKind) -> int:
        return {
            LimitKind.PAYMENT: self.payment_minor,
            LimitKind.DAY: self.day_minor,
            LimitKind.CHAT: self.chat_minor,
        }[kind]


def setting_name(kind: LimitKind, currency: str) -> str:
    """Under which name a user's own limit is kept."""
    return f"limit.{kind.value}.{currency}"


def own_limit(settings: Mapping[str, str], kind: LimitKind, currency: str) -> int | None:
    """The user's own limit in minor units; None when they have none."""
    text = settings.get(setting_name(kind, currency), "")
    return int(text) if text.isascii() and text.isdigit() else None


def limits_in_force(operator: OperatorLimits, settings: Mapping[str, str], currency: Currency) -> Limits:
    """The lower of the operator's limits and the user's own."""

    def lower(kind: LimitKind) -> int:
        highest, own = operator.minor(kind, currency), own_limit(settings, kind, currency.code)
        return highest if own is None else min(own, highest)

    no_pin_minor = operator.no_pin_max * minor_of(currency)
    own_chat = own_limit(settings, LimitKind.CHAT, currency.code)
    return Limits(
        payment_minor=lower(LimitKind.PAYMENT),
        day_minor=lower(LimitKind.DAY),
        chat_minor=lower(LimitKind.CHAT),
        # Who trusts chat with less trusts a code on a screen with no more.
        no_pin_minor=no_pin_minor if own_chat is None else min(no_pin_minor, own_chat),
        always_asks=settings.get(ALWAYS_ASK) == "1",
    )


def needs_confirmation(amount_minor: int, limits: Limits, authority: Authority, *, has_proof: bool) -> bool:
    """Whether more is needed than what the payer has shown. `has_proof`: they have a PIN or a passkey.

    Who has neither confirms by a page in a signed-in session, which has asked them before it pays.
    """
    if authority is Authority.CHAT:
        return amount_minor > limits.chat_minor
    if authority is Authority.CODE:
        return amount_minor > limits.no_pin_minor
    if authority is Authority.SESSION:
        return has_proof and (limits.always_asks or amount_minor > limits.chat_minor)
    return False


def minor_of(currency: Currency) -> int:
    """How many minor units one whole unit has."""
    return int(10**currency.exponent)


def day_of(at_ms: int) -> int:
    """The day, by UTC, as days since 1970-01-01."""
    return at_ms // _DAY_MS
