"""Values that the parts of the wallet's HTTP API share: amounts, users, a payment's body, and refusals."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, Field

from appservices.chassis.web_errors import ApiError, ErrorBody
from appservices.vocabulary.ids import is_user_id
from appservices.vocabulary.money import AMOUNT_MINOR_MAX
from wallet_appservice.payments.records import MEMO_LENGTH_MAX, PaymentKind, PaymentRecord

ELSEWHERE_SECONDS_MAX: Final = 10.0
"""How long a call waits for another homeserver's wallet; after that the payment is answered as pending."""
LedgerId = Annotated[str, Field(pattern="^[0-9a-f]{32}$", examples=["9f86d081884c7d659a2feaa0c55ad015"])]


def amount_of(text: str) -> str:
    if int(text) > AMOUNT_MINOR_MAX:
        raise ValueError(f"an amount is at most {AMOUNT_MINOR_MAX} minor units")
    return text


def _user(text: str) -> str:
    if not is_user_id(text):
        raise ValueError("a Matrix user id looks like @bob:example.org")
    return text


def one_line(text: str) -> str:
    """A line of text as it is. Raises ValueError for more than a line."""
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError("this is one line without control characters")
    return text


UserText = Annotated[str, Field(max_length=255, examples=["@bob:example.org"]), AfterValidator(_user)]
AmountText = Annotated[
    str,
    Field(pattern="^[1-9][0-9]{0,15}$", description="In minor units, as a string.", examples=["1250"]),
    AfterValidator(amount_of),
]
CurrencyText = Annotated[str, Field(pattern="^[A-Z]{3,8}$", examples=["EUR"])]
MemoText = Annotated[str, Field(max_length=MEMO_LENGTH_MAX), AfterValidator(one_line)]
RoomText = Annotated[str, Field(max_length=255, pattern=r"^![^\s\x00-\x1f]+$")] | None


class PaymentBody(BaseModel):
    id: str
    kind: PaymentKind
    state: str
    payer: str
    payee: str
    amount_minor: str
    currency: str
    memo: str
    at_ms: int
    room_id: str | None
    of: str | None = Field(description="The payment that this one gives back, or whose money it is.")
    expires_at_ms: int | None = Field(description="When it goes back if it is not accepted.")
    receipt: dict[str, Any] = Field(description="The signed receipt, schema dev.weft.receipt.")
    end_receipt: dict[str, Any] | None = Field(
        description="The receipt of how it ended, if it had to wait to be accepted."
    )


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, for its description."""
    described = {
        400: "The request is not what it should be.",
        401: "No session, or one that has ended.",
        402: "The payer has too little.",
        403: "Not allowed.",
        404: "There is no such thing of yours.",
        409: "The id was used for something else, or it is too late.",
        413: "The body is too large.",
        429: "Too many tries.",
        503: "The wallet can't answer now; nothing was lost, ask again.",
    }
    return {status: {"model": ErrorBody, "description": described[status]} for status in statuses}


def unavailable() -> ApiError:
    return ApiError(503, "M_UNKNOWN", "The wallet can't answer now; ask again, with the same id.")


def payment_body(record: PaymentRecord) -> PaymentBody:
    return PaymentBody(
        id=record.id,
        kind=record.kind,
        state=record.state,
        payer=record.payer,
        payee=record.payee,
        amount_minor=str(record.money.amount_minor),
        currency=record.money.currency,
        memo=record.memo,
        at_ms=record.at_ms,
        room_id=record.room_id,
        of=record.of,
        expires_at_ms=record.expires_at_ms,
        receipt=dict(record.receipt),
        end_receipt=dict(record.end_receipt) if record.end_receipt is not None else None,
    )
