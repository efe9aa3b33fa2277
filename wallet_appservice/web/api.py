"""The wallet's HTTP API, at /_weft/wallet/. See docs/protocol/wallet-api.md and openapi.json there.

Amounts are strings of integer minor units, ids are chosen by the caller: asking again with the same id is
harmless. Every refusal has Matrix's form.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from appservices.chassis.signed_in import SessionGuard
from appservices.chassis.web_errors import ApiError, ApiRoute
from appservices.vocabulary.ids import RoomId, TransferId, UserId
from appservices.vocabulary.money import CurrencyCode, Money
from wallet_appservice.ledger.submissions import LedgerUnavailable
from wallet_appservice.payments.actions import HISTORY_MAX, Payments
from wallet_appservice.payments.proofs import Proofs
from wallet_appservice.payments.records import Authority, PaymentOrder
from wallet_appservice.payments.refusals import REFUSALS, PaymentRefused
from wallet_appservice.web.api_values import (
    ELSEWHERE_SECONDS_MAX,
    AmountText,
    CurrencyText,
    LedgerId,
    MemoText,
    PaymentBody,
    RoomText,
    UserText,
    errors,
    payment_body,
    unavailable,
)
from wallet_appservice.web.security_api import ProofBody

PREFIX: Final = "/_weft/wallet"
PAGE_DEFAULT: Final = 20
POSITION_MAX: Final = 2**63 - 1


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


class PaymentsBody(BaseModel):
    payments: list[PaymentBody] = Field(description="Newest first.")
    next_before: str | None = Field(description="Send it as `before` for the next page; null on the last.")


class NewPaymentBody(ProofBody):
    """A payment you want to make. You are its payer."""

    id: LedgerId = Field(description="Yours to choose, at random. The same id again pays once.")
    payee: UserText
    amount_minor: AmountText
    currency: CurrencyText
    memo: MemoText = ""
    room_id: RoomText = Field(
        default=None, description="Where the receipt is to be posted; you and the wallet are both there."
    )


def wallet_api(payments: Payments, guard: SessionGuard, proofs: Proofs, *further: APIRouter) -> APIRouter:
    """The routes. `payments` decides, `guard` says who asks, `proofs` whether they have proved it.

    `further` are routes that belong to the same API, with addresses below PREFIX.
    """
    router = APIRouter(prefix=PREFIX, route_class=ApiRoute)

    @router.get("/keys", summary="The wallet's public keys", tags=["public"])
    async def keys() -> KeysBody:
        return KeysBody(service=payments.wallet_user, keys=payments.keys())

    @router.get("/v1/balance", summary="Your money", tags=["money"], responses=errors(401, 503))
    async def balance(request: Request) -> BalancesBody:
        user = (await guard.require_api(request)).user_id
        try:
            balances = await payments.balances(user)
        except LedgerUnavailable as error:
            raise unavailable() from error
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
        "/v1/payments", summary="Your payments, newest first", tags=["money"], responses=errors(400, 401)
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
            payments=[payment_body(record) for record in records],
            next_before=None if last is None else str(last),
        )

    @router.get(
        "/v1/payments/{id}", summary="One payment of yours", tags=["money"], responses=errors(400, 401, 404)
    )
    async def one(request: Request, id: Annotated[LedgerId, Path()]) -> PaymentBody:
        user = (await guard.require_api(request)).user_id
        record = await payments.payment(user, TransferId(id))
        if record is None:
            raise ApiError(404, "M_NOT_FOUND", "There is no such payment of yours.")
        return payment_body(record)

    @router.post(
        "/v1/payments",
        summary="Pay someone",
        tags=["money"],
        responses=errors(400, 401, 402, 403, 404, 409, 413, 429, 503),
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
        proven = await proofs.proven(order, body.proof())
        if isinstance(proven, PaymentRefused):
            raise _refused(proven)
        try:
            outcome = await payments.answered(await payments.pay(proven), seconds_max=ELSEWHERE_SECONDS_MAX)
        except LedgerUnavailable as error:
            raise unavailable() from error
        if isinstance(outcome, PaymentRefused):
            raise _refused(outcome)
        return payment_body(outcome)

    for routes in further:
        router.include_router(routes)

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


def _refused(refused: PaymentRefused) -> ApiError:
    outside = REFUSALS[refused.refusal]
    return ApiError(outside.http_status, outside.errcode, refused.sentence)


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
