"""Why the wallet refuses a payment: a closed, ordered list, and one table of what each means outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from appservices.vocabulary.languages import _


class PaymentRefusal(StrEnum):
    """Why a payment was refused, most fundamental reason first."""

    ID_INVALID = "id_invalid"
    ID_TAKEN = "id_taken"
    PAYER_ELSEWHERE = "payer_elsewhere"
    PAYER_UNKNOWN = "payer_unknown"
    CURRENCY_UNKNOWN = "currency_unknown"
    AMOUNT_INVALID = "amount_invalid"
    AMOUNT_TOO_LARGE = "amount_too_large"
    MEMO_TOO_LONG = "memo_too_long"
    PAYEE_INVALID = "payee_invalid"
    PAYEE_IS_PAYER = "payee_is_payer"
    PAYEE_ELSEWHERE = "payee_elsewhere"
    PAYEE_UNKNOWN = "payee_unknown"
    PEER_SILENT = "peer_silent"
    ROOM_UNKNOWN = "room_unknown"
    ACCOUNT_FULL = "account_full"
    BALANCE_TOO_LOW = "balance_too_low"


@dataclass(frozen=True, slots=True)
class Outside:
    """How a refusal is told: HTTP status, Matrix error code, and a sentence for people."""

    http_status: int
    errcode: str
    sentence: str


REFUSALS = {
    PaymentRefusal.ID_INVALID: Outside(400, "M_INVALID_PARAM", "A payment's id is 32 lower-case hex digits."),
    PaymentRefusal.ID_TAKEN: Outside(
        409, "DEV_WEFT_ID_TAKEN", "This id was used for another payment already; nothing was paid."
    ),
    PaymentRefusal.PAYER_ELSEWHERE: Outside(
        403, "M_FORBIDDEN", "This wallet keeps accounts for the people of {server} only."
    ),
    PaymentRefusal.PAYER_UNKNOWN: Outside(
        404, "DEV_WEFT_PAYER_UNKNOWN", "{payer} has no account in this wallet."
    ),
    PaymentRefusal.CURRENCY_UNKNOWN: Outside(
        400, "DEV_WEFT_CURRENCY_UNKNOWN", "This wallet keeps {currencies}."
    ),
    PaymentRefusal.AMOUNT_INVALID: Outside(
        400, "DEV_WEFT_AMOUNT_INVALID", "An amount is more than zero, in whole minor units."
    ),
    PaymentRefusal.AMOUNT_TOO_LARGE: Outside(
        400, "DEV_WEFT_AMOUNT_TOO_LARGE", "One payment can move {payment_max} at most."
    ),
    PaymentRefusal.MEMO_TOO_LONG: Outside(
        400, "DEV_WEFT_MEMO_TOO_LONG", "A memo has {memo_length_max} characters at most."
    ),
    PaymentRefusal.PAYEE_INVALID: Outside(
        400, "DEV_WEFT_PAYEE_UNKNOWN", "A payee is a Matrix user, such as @bob:{server}."
    ),
    PaymentRefusal.PAYEE_IS_PAYER: Outside(400, "DEV_WEFT_PAYEE_IS_PAYER", "You can't pay yourself."),
    PaymentRefusal.PAYEE_ELSEWHERE: Outside(
        400,
        "DEV_WEFT_PAYEE_ELSEWHERE",
        "{payee} has an account on another server, and this wallet pays people of {server} only.",
    ),
    PaymentRefusal.PAYEE_UNKNOWN: Outside(
        404, "DEV_WEFT_PAYEE_UNKNOWN", "There is no user {payee} here to pay."
    ),
    PaymentRefusal.PEER_SILENT: Outside(
        503,
        "DEV_WEFT_PEER_SILENT",
        "The wallet of {payee_server} can't be reached now. Nothing was paid; try again later.",
    ),
    PaymentRefusal.ROOM_UNKNOWN: Outside(
        403, "M_FORBIDDEN", "You and the wallet must both be in the room that a receipt goes to."
    ),
    PaymentRefusal.ACCOUNT_FULL: Outside(
        400, "DEV_WEFT_AMOUNT_TOO_LARGE", "That is more than an account can hold."
    ),
    PaymentRefusal.BALANCE_TOO_LOW: Outside(
        402, "DEV_WEFT_BALANCE_TOO_LOW", "That is more than you have: you can pay {available} at most."
    ),
}


@dataclass(frozen=True, slots=True)
class PaymentRefused:
    """A refusal, and what its sentence speaks of."""

    refusal: PaymentRefusal
    words: Mapping[str, str] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """In the language that is spoken when it is read."""
        return _(REFUSALS[self.refusal].sentence).format_map(self.words)

    @property
    def is_private(self) -> bool:
        """Whether the sentence tells what others in the room may not learn."""
        return self.refusal in _PRIVATE

    @classmethod
    def because(cls, refusal: PaymentRefusal, **words: str) -> PaymentRefused:
        return cls(refusal, words)


_PRIVATE = frozenset({PaymentRefusal.BALANCE_TOO_LOW})
