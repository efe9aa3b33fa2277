"""The wallet's HTTP API, at /_weft/wallet/. See docs/protocol/wallet-api.md and openapi.json there.

Amounts are strings of integer minor units, ids are chosen by the caller: asking again with the same id is
harmless. Every refusal has Matrix's form.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from appservices.chassis.signed_in import SessionGuard
from appservices.chassis.web_errors import ApiError, ApiRoute, ErrorBody
from appservices.vocabulary.ids import RoomId, TransferId, UserId, is_user_id
from appservices.vocabulary.money import AMOUNT_MINOR_MAX, CurrencyCode, Money
from wallet_appservice.ledger.engine import LedgerUnavailable
from wallet_appservice.payments.actions import HISTORY_MAX, Payments
from wallet_appservice.payments.records import (
    MEMO_LENGTH_MAX,
    Authority,
    PaymentKind,
    PaymentOrder,
    PaymentRecord,
)
from wallet_appservice.payments.refusals import REFUSALS, PaymentRefused

PREFIX: Final = "/_weft/wallet"
PAGE_DEFAULT: Final = 20
POSITION_MAX: Final = 2**63 - 1
ELSEWHERE_SECONDS_MAX: Final = 10.0
"""How long a call waits for another homeserver's wallet; after that the payment is answered as pending."""
LedgerId = Annotated[str, Field(pattern="^[0-9a-f]{32}$", examples=["9f86d081884c7d659a2feaa0c55ad015"])]


def _amount(text: str) -> str:
    if int(text) > AMOUNT_MINOR_MAX:
        raise ValueError(f"an amount is at most {AMOUNT_MINOR_MAX} minor units")
    return text


def _user(text: str) -> str:
    if not is_user_id(text):
        raise ValueError("a Matrix user id looks like @bob:example.org")
    return text


def _writable(text: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError("a memo is one line without control characters")
    return text


class KeysBody(BaseModel):
    """The keys that receipts are verified with; fits the schema dev.weft.keys."""

    service: str = Field(examples=["@wallet:example.org"])
    keys: dict[str, str] = Field(description="Key id → Ed25519 key, unpadded base64.")


class BalanceBody(BaseModel):
    currency: str
    exponent: int = Field(description="How many decimals the minor unit stands for.")
    posted_minor: str = Field(description="What you have, held money included.")
    pending_minor: str = Field(description="What is held for payments under way.")
    available_minor: str = Field(description="What you can pay with: posted less pending.")


class BalancesBody(BaseModel):
    user_id: str
    balances: list[BalanceBody]


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
    receipt: dict[str, Any] = Field(description="The signed receipt, schema dev.weft.receipt.")


class PaymentsBody(BaseModel):
    payments: list[PaymentBody] = Field(description="Newest first.")
    next_before: str | None = Field(description="Send it as `before` for the next page; null on the last.")


class NewPaymentBody(BaseModel):
    """A payment you want to make. You are its payer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: LedgerId = Field(description="Yours to choose, at random. The same id again pays once.")
    payee: Annotated[str, Field(max_length=255), AfterValidator(_user)] = Field(examples=["@bob:example.org"])
    amount_minor: Annotated[str, Field(pattern="^[1-9][0-9]{0,15}$"), AfterValidator(_amount)] = Field(
        description="In minor units, as a string.", examples=["1250"]
    )
    currency: str = Field(pattern="^[A-Z]{3,8}$", examples=["EUR"])
    memo: Annotated[str, Field(max_length=MEMO_LENGTH_MAX), AfterValidator(_writable)] = ""
    room_id: Annotated[str, Field(max_length=255, pattern=r"^![^\s\x00-\x1f]+$")] | None = Field(
        default=None, description="Where the receipt is to be posted; you and the wallet are both there."
    )


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    described = {
        400: "The request is not what it should be.",
        401: "No session, or one that has ended.",
        402: "The payer has too little.",
        403: "Not allowed.",
        404: "There is no such thing of yours.",
        409: "The id was used for another payment.",
        413: "The body is too large.",
        503: "The wallet can't answer now; nothing was lost, ask again.",
    }
    return {status: {"model": ErrorBody, "description": described[status]} for status in statuses}


def wallet_api(payments: Payments, guard: SessionGuard) -> APIRouter:
    """The routes. `payments` decides and `guard` says who asks."""
    router = APIRouter(prefix=PREFIX, route_class=ApiRoute)

    @router.get("/keys", summary="The wallet's public keys", tags=["public"])
    async def keys() -> KeysBody:
        return KeysBody(service=payments.wallet_user, keys=payments.keys())

    @router.get("/v1/balance", summary="Your money", tags=["money"], responses=_errors(401, 503))
    async def balance(request: Request) -> BalancesBody:
        user = (await guard.require_api(request)).user_id
        try:
            balances = await payments.balances(user)
        except LedgerUnavailable as error:
            raise _unavailable() from error
        return BalancesBody(
            user_id=user,
            balances=[
                BalanceBody(
                    currency=item.currency,
                    exponent=payments.currencies[item.currency].exponent,
                    posted_minor=str(item.posted_minor),
                    pending_minor=str(item.pending_minor),
                    available_minor=str(item.available_minor),
                )
                for item in balances
            ],
        )

    @router.get(
        "/v1/payments", summary="Your payments, newest first", tags=["money"], responses=_errors(400, 401)
    )
    async def history(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=HISTORY_MAX)] = PAGE_DEFAULT,
        before: Annotated[
            int | None, Query(ge=0, le=POSITION_MAX, description="`next_before` of the page before.")
        ] = None,
    ) -> PaymentsBody:
        user = (await guard.require_api(request)).user_id
        records = await payments.history(user, limit=limit, before=before)
        # A full page may be the last one; the next is then empty, which is simpler than to look ahead.
        last = records[-1].position if len(records) == limit else None
        return PaymentsBody(
            payments=[_shown(record) for record in records],
            next_before=None if last is None else str(last),
        )

    @router.get(
        "/v1/payments/{id}", summary="One payment of yours", tags=["money"], responses=_errors(400, 401, 404)
    )
    async def one(request: Request, id: Annotated[LedgerId, Path()]) -> PaymentBody:
        user = (await guard.require_api(request)).user_id
        record = await payments.payment(user, TransferId(id))
        if record is None:
            raise ApiError(404, "M_NOT_FOUND", "There is no such payment of yours.")
        return _shown(record)

    @router.post(
        "/v1/payments",
        summary="Pay someone",
        tags=["money"],
        responses=_errors(400, 401, 402, 403, 404, 409, 413, 503),
    )
    async def pay(request: Request, body: NewPaymentBody) -> PaymentBody:
        user = (await guard.require_api(request)).user_id
        order = PaymentOrder(
            id=TransferId(body.id),
            payer=user,
            payee=UserId(body.payee),
            money=Money(int(body.amount_minor), CurrencyCode(body.currency)),
            memo=body.memo,
            room_id=None if body.room_id is None else RoomId(body.room_id),
            authority=Authority.SESSION,
        )
        try:
            outcome = await payments.pay_and_wait(order, seconds_max=ELSEWHERE_SECONDS_MAX)
        except LedgerUnavailable as error:
            raise _unavailable() from error
        if isinstance(outcome, PaymentRefused):
            outside = REFUSALS[outcome.refusal]
            raise ApiError(outside.http_status, outside.errcode, outcome.sentence)
        return _shown(outcome)

    @router.get("/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        return JSONResponse(schema)

    schema = get_openapi(
        title="Weft wallet",
        version="1",
        summary="Balances, payments and receipts of one homeserver's wallet.",
        description=(
            "Sign in as docs/protocol/sign-in.md says and send the token as `Authorization: Bearer`. "
            "Amounts are strings of integer minor units."
        ),
        routes=router.routes,
    )
    _describe_sign_in(schema)
    return router


def _unavailable() -> ApiError:
    return ApiError(503, "M_UNKNOWN", "The wallet can't answer now; ask again, with the same id.")


def _shown(record: PaymentRecord) -> PaymentBody:
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
        receipt=dict(record.receipt),
    )


def _describe_sign_in(schema: dict[str, Any]) -> None:
    """FastAPI describes what it checks itself; the session is checked by ours, and 422 is never answered."""
    components = schema.setdefault("components", {})
    components["securitySchemes"] = {"session": {"type": "http", "scheme": "bearer"}}
    for name in ("HTTPValidationError", "ValidationError"):
        components.get("schemas", {}).pop(name, None)
    for operations in schema["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            if "public" not in operation["tags"]:
                operation["security"] = [{"session": []}]
