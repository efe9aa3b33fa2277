"""What goes over the wire between the wallet and merchants' programs, and its checks."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from appservices.chassis.web_errors import ApiError, ErrorBody
from appservices.vocabulary.money import CurrencyCode, Money
from wallet_appservice.ledger.submissions import LedgerUnavailable
from wallet_appservice.payments.merchants.addresses import URL_LENGTH_MAX
from wallet_appservice.payments.merchants.orders import (
    EXPIRY_SECONDS_DEFAULT,
    EXPIRY_SECONDS_MAX,
    EXPIRY_SECONDS_MIN,
)
from wallet_appservice.payments.merchants.records import (
    DESCRIPTION_LENGTH_MAX,
    NAME_LENGTH_MAX,
    REFERENCE_LENGTH_MAX,
    OrderState,
    OrderWay,
    Scope,
)
from wallet_appservice.payments.merchants.refunds import RefundState
from wallet_appservice.payments.merchants.refusals import MERCHANT_REFUSALS, MerchantRefused
from wallet_appservice.payments.refusals import REFUSALS, PaymentRefused
from wallet_appservice.web.api import BalanceBody
from wallet_appservice.web.api_values import LedgerId, amount_of, one_line

Amount = Annotated[str, Field(pattern="^[1-9][0-9]{0,15}$"), AfterValidator(amount_of)]
Currency = Annotated[str, Field(pattern="^[A-Z]{3,8}$", examples=["EUR"])]
Reference = Annotated[
    str, Field(min_length=1, max_length=REFERENCE_LENGTH_MAX, examples=["1001"]), AfterValidator(one_line)
]
Description = Annotated[str, Field(max_length=DESCRIPTION_LENGTH_MAX), AfterValidator(one_line)]
RefundNumber = Annotated[
    str, Field(pattern=f"^[A-Za-z0-9._-]{{1,{REFERENCE_LENGTH_MAX}}}$", examples=["1001-1"])
]
Name = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH_MAX), AfterValidator(one_line)]


class Asked(BaseModel):
    """A body that is sent to us: every key known, every type as declared."""

    model_config = ConfigDict(extra="forbid", strict=True)


class NewMerchantBody(Asked):
    id: LedgerId = Field(description="Yours to choose, at random. The same id again is the same merchant.")
    name: Name = Field(description="As payers see it.", examples=["Bakery"])


class NewKeyBody(Asked):
    name: Name = Field(description="For you, to tell your keys apart.", examples=["web shop"])
    scopes: list[Annotated[Scope, Field(strict=False)]] = Field(min_length=1, max_length=len(Scope))


class NewEndpointBody(Asked):
    url: Annotated[str, Field(min_length=1, max_length=URL_LENGTH_MAX)] = Field(
        examples=["https://shop.example/weft"]
    )


class PayoutBody(Asked):
    id: LedgerId = Field(description="Yours to choose, at random. The same id again pays out once.")
    amount_minor: Amount
    currency: Currency


class NewOrderBody(Asked):
    reference: Reference = Field(description="Your own number. The same again is the same order.")
    amount_minor: Amount = Field(description="In minor units, as a string.", examples=["1250"])
    currency: Currency
    description: Description = Field(default="", description="The payer reads it.", examples=["2 breads"])
    expires_in_seconds: int = Field(
        default=EXPIRY_SECONDS_DEFAULT, ge=EXPIRY_SECONDS_MIN, le=EXPIRY_SECONDS_MAX
    )


class ChargeBody(Asked):
    code: str = Field(
        pattern="^[0-9]{18}$", description="As the customer showed it.", examples=["134567890123456789"]
    )
    reference: Reference = Field(description="Your own number. The same again charges once.")
    amount_minor: Amount
    currency: Currency
    description: Description = ""


class NewRefundBody(Asked):
    """One of order_id and payment_id."""

    order_id: LedgerId | None = None
    payment_id: LedgerId | None = None
    refund_number: RefundNumber = Field(description="Your own number. The same again refunds once.")
    amount_minor: Amount = Field(description="All of the payment or a part of it.")
    reason: Description = Field(default="", description="The payer reads it.")


class MerchantBody(BaseModel):
    id: str
    name: str
    owner: str
    created_at_ms: int
    closed_at_ms: int | None


class MerchantsBody(BaseModel):
    merchants: list[MerchantBody]


class MerchantBalancesBody(BaseModel):
    merchant: MerchantBody
    balances: list[BalanceBody]


class KeyBody(BaseModel):
    id: str
    name: str
    scopes: list[Scope]
    created_at_ms: int
    revoked_at_ms: int | None
    last_used_at_ms: int | None = Field(description="To the minute.")


class KeysOfMerchantBody(BaseModel):
    keys: list[KeyBody]


class ShownKeyBody(KeyBody):
    key: str = Field(description="Send it as `Authorization: Bearer …`. It is shown this once.")


class EndpointBody(BaseModel):
    id: str
    url: str
    created_at_ms: int
    disabled_at_ms: int | None


class EndpointsBody(BaseModel):
    endpoints: list[EndpointBody]


class ShownEndpointBody(EndpointBody):
    secret: str = Field(description="Its notifications are signed with this. It is shown this once.")


class DoneBody(BaseModel):
    done: bool = Field(description="False when there was nothing to do.")


class OrderBody(BaseModel):
    """An order as its merchant sees it."""

    id: str
    reference: str
    way: OrderWay
    description: str
    amount_minor: str
    currency: str
    state: OrderState
    created_at_ms: int
    expires_at_ms: int
    ended_at_ms: int | None
    payer: str | None
    payment_id: str | None
    pay_url: str | None = Field(description="Where it is paid; for a charge there is nothing to open.")
    qr_url: str | None = Field(description="A picture of that link as a QR code; .png instead of .svg too.")


class OrdersBody(BaseModel):
    orders: list[OrderBody] = Field(description="Newest first.")
    next_before: str | None = Field(description="Send it as `before` for the next page; null on the last.")


class PayersOrderBody(BaseModel):
    """An order as whoever opens its link sees it."""

    id: str
    merchant_id: str
    merchant_name: str
    merchant_owner: str
    reference: str
    description: str
    amount_minor: str
    currency: str
    state: OrderState
    expires_at_ms: int
    payment_id: str | None = Field(description="When it was you who paid it.")


class RefundBody(BaseModel):
    refund_number: str
    order_id: str
    payment_id: str
    amount_minor: str
    currency: str
    reason: str
    state: RefundState
    created_at_ms: int
    refund_payment_id: str | None


class RefundsBody(BaseModel):
    refunds: list[RefundBody] = Field(description="Oldest first.")


class DeliveryBody(BaseModel):
    id: str
    webhook_id: str
    endpoint_id: str
    event: str
    state: str = Field(description="waiting, delivered or failed.")
    attempts: int
    created_at_ms: int
    next_at_ms: int | None = Field(description="When it is tried next, while it waits.")
    problem: str = Field(description="Why the last try failed.")
    payload: str


class DeliveriesBody(BaseModel):
    deliveries: list[DeliveryBody] = Field(description="Newest first.")
    next_before: str | None


class PaymentCodeBody(BaseModel):
    code: str = Field(description="18 digits for a till to scan, once.")
    expires_at_ms: int
    qr_svg: str = Field(description="The code as a QR code.")
    code128_svg: str = Field(description="The code as a bar code.")


def money_of(amount_minor: str, currency: str) -> Money:
    return Money(int(amount_minor), CurrencyCode(currency))


def error_of(refused: MerchantRefused | PaymentRefused) -> ApiError:
    """A refusal as an HTTP answer."""
    if isinstance(refused, MerchantRefused):
        outside = MERCHANT_REFUSALS[refused.refusal]
    else:
        outside = REFUSALS[refused.refusal]
    return ApiError(outside.http_status, outside.errcode, refused.sentence)


def unavailable(_error: LedgerUnavailable) -> ApiError:
    return ApiError(503, "M_UNKNOWN", "The wallet can't answer now; ask again, with the same content.")


DESCRIBED: Final = {
    400: "The request is not what it should be.",
    401: "No key or session, or one that has ended.",
    402: "There is too little money.",
    403: "Not allowed.",
    404: "There is no such thing of yours.",
    409: "It does not fit what is there already; the error code says how.",
    413: "The body is too large.",
    429: "Too many tries.",
    503: "The wallet can't answer now; nothing was lost, ask again.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorBody, "description": DESCRIBED[status]} for status in statuses}
