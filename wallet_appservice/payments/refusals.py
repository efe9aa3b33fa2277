"""Why the wallet refuses a payment: a closed, ordered list, and one table of what each means outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from appservices.vocabulary.languages import _, isolated, known


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
    OWN_LIMIT = "own_limit"
    DAY_LIMIT = "day_limit"
    PEER_SILENT = "peer_silent"
    ROOM_UNKNOWN = "room_unknown"
    ACCOUNT_FULL = "account_full"
    BALANCE_TOO_LOW = "balance_too_low"
    CONFIRMATION_NEEDED = "confirmation_needed"
    PIN_NOT_SET = "pin_not_set"
    PIN_LOCKED = "pin_locked"
    PIN_WRONG = "pin_wrong"
    PASSKEY_WRONG = "passkey_wrong"
    TOO_BUSY = "too_busy"
    # Of payments that wait for acceptance, and of refunds.
    HOLD_OVER = "hold_over"
    PAYMENT_UNKNOWN = "payment_unknown"
    REFUND_IMPOSSIBLE = "refund_impossible"
    REFUND_CURRENCY = "refund_currency"
    REFUND_TOO_LARGE = "refund_too_large"
    # Of requests.
    ASKED_INVALID = "asked_invalid"
    ASKED_IS_ASKER = "asked_is_asker"
    ASKED_TWICE = "asked_twice"
    PEOPLE_TOO_MANY = "people_too_many"
    ASKED_ELSEWHERE = "asked_elsewhere"
    ASKED_UNKNOWN = "asked_unknown"
    SHARE_TOO_SMALL = "share_too_small"
    OPEN_TOO_MANY = "open_too_many"
    REQUEST_UNKNOWN = "request_unknown"
    REQUEST_OVER = "request_over"
    # Of red packets.
    PACKET_COUNT_INVALID = "packet_count_invalid"
    PACKET_TOO_LARGE = "packet_too_large"
    PACKET_TOO_SMALL = "packet_too_small"
    PACKET_UNKNOWN = "packet_unknown"
    PACKET_EMPTY = "packet_empty"
    PACKET_OVER = "packet_over"


@dataclass(frozen=True, slots=True)
class Outside:
    """How a refusal is told: HTTP status, Matrix error code, and a known sentence for people."""

    http_status: int
    errcode: str
    sentence: str


REFUSALS = {
    PaymentRefusal.ID_INVALID: Outside(
        400, "M_INVALID_PARAM", known("A payment's id is 32 lower-case hex digits.")
    ),
    PaymentRefusal.ID_TAKEN: Outside(
        409, "DEV_WEFT_ID_TAKEN", known("This id was used for another payment already; nothing was paid.")
    ),
    PaymentRefusal.PAYER_ELSEWHERE: Outside(
        403, "M_FORBIDDEN", known("This wallet keeps accounts for the people of {server} only.")
    ),
    PaymentRefusal.PAYER_UNKNOWN: Outside(
        404, "DEV_WEFT_PAYER_UNKNOWN", known("{payer} has no account in this wallet.")
    ),
    PaymentRefusal.CURRENCY_UNKNOWN: Outside(
        400, "DEV_WEFT_CURRENCY_UNKNOWN", known("This wallet keeps {currencies}.")
    ),
    PaymentRefusal.AMOUNT_INVALID: Outside(
        400, "DEV_WEFT_AMOUNT_INVALID", known("An amount is more than zero, in whole minor units.")
    ),
    PaymentRefusal.AMOUNT_TOO_LARGE: Outside(
        400, "DEV_WEFT_AMOUNT_TOO_LARGE", known("One payment can move {payment_max} at most.")
    ),
    PaymentRefusal.MEMO_TOO_LONG: Outside(
        400, "DEV_WEFT_MEMO_TOO_LONG", known("A memo has {memo_length_max} characters at most.")
    ),
    PaymentRefusal.PAYEE_INVALID: Outside(
        400, "DEV_WEFT_PAYEE_UNKNOWN", known("A payee is a Matrix user, such as @bob:{server}.")
    ),
    PaymentRefusal.PAYEE_IS_PAYER: Outside(400, "DEV_WEFT_PAYEE_IS_PAYER", known("You can't pay yourself.")),
    PaymentRefusal.PAYEE_ELSEWHERE: Outside(
        400,
        "DEV_WEFT_PAYEE_ELSEWHERE",
        known("{payee} has an account on another server, which this wallet has no agreement with."),
    ),
    PaymentRefusal.PAYEE_UNKNOWN: Outside(
        404, "DEV_WEFT_PAYEE_UNKNOWN", known("There is no user {payee} here to pay.")
    ),
    PaymentRefusal.OWN_LIMIT: Outside(
        403,
        "DEV_WEFT_OWN_LIMIT",
        known(
            "Your own limit for one payment is {own_max}; you can change it in the Wallet, under Security."
        ),
    ),
    PaymentRefusal.DAY_LIMIT: Outside(
        403,
        "DEV_WEFT_DAY_LIMIT",
        known("You can pay {day_max} a day, and {day_left} of it is left for today."),
    ),
    PaymentRefusal.PEER_SILENT: Outside(
        503,
        "DEV_WEFT_PEER_SILENT",
        known("The wallet of {payee_server} can't be reached now. Nothing was paid; try again later."),
    ),
    PaymentRefusal.ROOM_UNKNOWN: Outside(
        403, "M_FORBIDDEN", known("You and the wallet must both be in the room that a receipt goes to.")
    ),
    PaymentRefusal.ACCOUNT_FULL: Outside(
        400, "DEV_WEFT_AMOUNT_TOO_LARGE", known("That is more than an account can hold.")
    ),
    PaymentRefusal.BALANCE_TOO_LOW: Outside(
        402, "DEV_WEFT_BALANCE_TOO_LOW", known("That is more than you have: you can pay {available} at most.")
    ),
    PaymentRefusal.CONFIRMATION_NEEDED: Outside(
        403, "DEV_WEFT_CONFIRMATION_NEEDED", known("This needs your PIN or a passkey.")
    ),
    PaymentRefusal.PIN_NOT_SET: Outside(
        403, "DEV_WEFT_PIN_NOT_SET", known("You have no PIN; set one in the Wallet, under Security.")
    ),
    PaymentRefusal.PIN_LOCKED: Outside(
        429, "DEV_WEFT_PIN_LOCKED", known("After several wrong PINs yours is locked until {until}.")
    ),
    PaymentRefusal.PIN_WRONG: Outside(403, "DEV_WEFT_PIN_WRONG", known("That PIN is not right.")),
    PaymentRefusal.PASSKEY_WRONG: Outside(
        403,
        "DEV_WEFT_PASSKEY_WRONG",
        known("This passkey could not be checked; try again, or take your PIN."),
    ),
    PaymentRefusal.TOO_BUSY: Outside(
        429, "M_LIMIT_EXCEEDED", known("Too many PINs are being checked at this moment; try again.")
    ),
    PaymentRefusal.HOLD_OVER: Outside(
        409, "DEV_WEFT_NOT_PENDING", known("This payment does not wait to be accepted any more.")
    ),
    PaymentRefusal.PAYMENT_UNKNOWN: Outside(404, "M_NOT_FOUND", known("There is no such payment to you.")),
    PaymentRefusal.REFUND_IMPOSSIBLE: Outside(
        409,
        "DEV_WEFT_REFUND_IMPOSSIBLE",
        known("Only what somebody has paid you can be given back, and only once you have it."),
    ),
    PaymentRefusal.REFUND_CURRENCY: Outside(
        400, "DEV_WEFT_REFUND_CURRENCY", known("A refund is in the currency of its payment, {currency}.")
    ),
    PaymentRefusal.REFUND_TOO_LARGE: Outside(
        400, "DEV_WEFT_REFUND_TOO_LARGE", known("Of this payment {left} can still be given back.")
    ),
    PaymentRefusal.ASKED_INVALID: Outside(
        400, "DEV_WEFT_ASKED_UNKNOWN", known("Whom you ask is a Matrix user, such as @bob:{server}.")
    ),
    PaymentRefusal.ASKED_IS_ASKER: Outside(
        400, "DEV_WEFT_ASKED_IS_ASKER", known("You can't ask yourself for money.")
    ),
    PaymentRefusal.ASKED_TWICE: Outside(400, "DEV_WEFT_ASKED_TWICE", known("{asked} is named twice.")),
    PaymentRefusal.PEOPLE_TOO_MANY: Outside(
        400, "DEV_WEFT_PEOPLE_TOO_MANY", known("One request can be split among {people_max} people at most.")
    ),
    PaymentRefusal.ASKED_ELSEWHERE: Outside(
        400,
        "DEV_WEFT_ASKED_ELSEWHERE",
        known("{asked} has an account on another server, which this wallet has no agreement with."),
    ),
    PaymentRefusal.ASKED_UNKNOWN: Outside(
        404, "DEV_WEFT_ASKED_UNKNOWN", known("There is no user {asked} here to ask.")
    ),
    PaymentRefusal.SHARE_TOO_SMALL: Outside(
        400, "DEV_WEFT_SHARE_TOO_SMALL", known("That is too little to be split among so many.")
    ),
    PaymentRefusal.OPEN_TOO_MANY: Outside(
        409,
        "DEV_WEFT_OPEN_TOO_MANY",
        known("You have {open_max} of these open already: wait until some of them have ended."),
    ),
    PaymentRefusal.REQUEST_UNKNOWN: Outside(404, "M_NOT_FOUND", known("There is no such request of yours.")),
    PaymentRefusal.REQUEST_OVER: Outside(
        409, "DEV_WEFT_REQUEST_OVER", known("There is nothing to pay here any more: this request has ended.")
    ),
    PaymentRefusal.PACKET_COUNT_INVALID: Outside(
        400, "DEV_WEFT_PACKET_COUNT_INVALID", known("A red packet is for 1 to {count_max} people.")
    ),
    PaymentRefusal.PACKET_TOO_LARGE: Outside(
        400, "DEV_WEFT_AMOUNT_TOO_LARGE", known("One red packet can hold {packet_max} at most.")
    ),
    PaymentRefusal.PACKET_TOO_SMALL: Outside(
        400,
        "DEV_WEFT_PACKET_TOO_SMALL",
        known("That is too little for so many people: each must find something."),
    ),
    PaymentRefusal.PACKET_UNKNOWN: Outside(404, "M_NOT_FOUND", known("There is no such red packet for you.")),
    PaymentRefusal.PACKET_EMPTY: Outside(
        409, "DEV_WEFT_PACKET_EMPTY", known("This red packet is empty: others were faster.")
    ),
    PaymentRefusal.PACKET_OVER: Outside(
        409, "DEV_WEFT_PACKET_OVER", known("This red packet's time is over: what was left in it went back.")
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
        places = {name: isolated(word) for name, word in self.words.items()}
        return _(REFUSALS[self.refusal].sentence).format_map(places)

    @property
    def is_private(self) -> bool:
        """Whether the sentence tells what others in the room may not learn."""
        return self.refusal in _PRIVATE

    @classmethod
    def because(cls, refusal: PaymentRefusal, **words: str) -> PaymentRefused:
        return cls(refusal, words)


_PRIVATE = frozenset(
    {
        PaymentRefusal.BALANCE_TOO_LOW,
        PaymentRefusal.OWN_LIMIT,
        PaymentRefusal.DAY_LIMIT,
        PaymentRefusal.CONFIRMATION_NEEDED,
        PaymentRefusal.PIN_NOT_SET,
        PaymentRefusal.PIN_LOCKED,
        PaymentRefusal.PIN_WRONG,
        PaymentRefusal.REFUND_TOO_LARGE,
    }
)
