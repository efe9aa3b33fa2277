"""The merchant's HTTP API, at /_weft/wallet/v1/merchant/, for programs with an API key.

See docs/merchants/ and docs/protocol/merchant-api.md. References and refund numbers are the merchant's own
and make every call safe to repeat.
"""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from appservices.chassis.web_errors import ApiError, ApiRoute
from appservices.vocabulary.ids import TransferId
from wallet_appservice.ledger.submissions import LedgerUnavailable
from wallet_appservice.payments.merchants.desk import MerchantDesk
from wallet_appservice.payments.merchants.endpoints import LISTED_MAX as DELIVERIES_MAX
from wallet_appservice.payments.merchants.orders import LISTED_MAX as ORDERS_MAX
from wallet_appservice.payments.merchants.orders import OrderAnswer
from wallet_appservice.payments.merchants.records import Merchant, Order, OrderId, Scope
from wallet_appservice.payments.merchants.refunds import Refund
from wallet_appservice.payments.merchants.refusals import MerchantRefusal, MerchantRefused
from wallet_appservice.web.api import POSITION_MAX, PREFIX
from wallet_appservice.web.api_values import LedgerId
from wallet_appservice.web.merchant_bodies import (
    ChargeBody,
    DeliveriesBody,
    DeliveryBody,
    MerchantBalancesBody,
    NewOrderBody,
    NewRefundBody,
    OrderBody,
    OrdersBody,
    Reference,
    RefundBody,
    RefundNumber,
    RefundsBody,
    error_of,
    errors,
    money_of,
    unavailable,
)
from wallet_appservice.web.merchant_views import (
    balances_body,
    deliveries_body,
    delivery_body,
    order_body,
    order_place,
    orders_body,
    reconciliation_file,
    refund_body,
)

PAGE_DEFAULT: Final = 20
OrderPlace = Annotated[
    str | None,
    Query(pattern="^[0-9]{1,15}-[0-9a-f]{32}$", description="`next_before` of the page before."),
]
DeliveryPlace = Annotated[
    int | None, Query(ge=0, le=POSITION_MAX, description="`next_before` of the page before.")
]
DayText = Annotated[str, Path(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$", examples=["2026-11-24"])]
ZoneText = Annotated[
    str,
    Query(
        pattern="^[A-Za-z0-9_+/-]{1,50}$",
        description="Whose midnight begins and ends the day.",
        examples=["Europe/Berlin"],
    ),
]
CurrencyText = Annotated[str, Query(pattern="^[A-Z]{3,8}$", examples=["EUR"])]


class KeyGuard:
    """Finds the merchant of a request's key."""

    def __init__(self, desk: MerchantDesk) -> None:
        self._desk = desk

    async def require(self, request: Request, *scopes: Scope) -> Merchant:
        """The merchant, if the key has one of the scopes. Raises ApiError 401 or 403."""
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not text:
            raise ApiError(401, "M_MISSING_TOKEN", "Send your API key as Authorization: Bearer weft_sk_….")
        key = await self._desk.keys.find(text.strip())
        merchant = None if key is None else await self._desk.merchants.find(key.merchant_id)
        if key is None or merchant is None:
            raise ApiError(401, "M_UNKNOWN_TOKEN", "This API key is unknown or was revoked.")
        if key.scopes.isdisjoint(scopes):
            wanted = " or ".join(scopes)
            raise ApiError(403, "M_FORBIDDEN", f"This needs a key with the scope {wanted}.")
        return merchant


def merchant_api(desk: MerchantDesk, *, public_url: str) -> APIRouter:
    """The routes. `public_url` is where payers' browsers reach this server."""
    router = APIRouter(prefix=f"{PREFIX}/v1/merchant", route_class=ApiRoute)
    _add_orders(router, desk, public_url)
    _add_charges(router, desk, public_url)
    _add_refunds(router, desk)
    _add_notifications(router, desk)
    _add_reports(router, desk)
    return router


def _add_orders(router: APIRouter, desk: MerchantDesk, public_url: str) -> None:
    guard = KeyGuard(desk)

    @router.post(
        "/orders", summary="Make an order", responses=errors(400, 401, 403, 409, 413, 503), tags=["orders"]
    )
    async def create(request: Request, body: NewOrderBody) -> OrderBody:
        merchant = await guard.require(request, Scope.ORDERS)
        try:
            answer = await desk.orders.create(
                merchant,
                reference=body.reference,
                money=money_of(body.amount_minor, body.currency),
                description=body.description,
                expires_in_seconds=body.expires_in_seconds,
            )
        except LedgerUnavailable as error:
            raise unavailable(error) from error
        return _shown(answer, public_url)

    @router.get(
        "/orders",
        summary="Your orders, newest first",
        responses=errors(400, 401, 403, 503),
        tags=["orders"],
    )
    async def page(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=ORDERS_MAX)] = PAGE_DEFAULT,
        before: OrderPlace = None,
        reference: Annotated[
            Reference | None, Query(description="Only the order of this reference, if there is one.")
        ] = None,
    ) -> OrdersBody:
        merchant = await guard.require(request, Scope.ORDERS, Scope.CHARGES)
        if reference is not None:
            one = await desk.orders.by_reference(merchant, reference)
            found = [] if one is None else [one]
            return orders_body(found, limit=ORDERS_MAX, public_url=public_url)
        orders = await desk.orders.page(merchant, limit=limit, before=order_place(before))
        return orders_body(orders, limit=limit, public_url=public_url)

    @router.get(
        "/orders/{id}", summary="One order", responses=errors(400, 401, 403, 404, 503), tags=["orders"]
    )
    async def one(request: Request, id: Annotated[LedgerId, Path()]) -> OrderBody:
        merchant = await guard.require(request, Scope.ORDERS, Scope.CHARGES)
        return _shown(await _order(desk, merchant, id), public_url)

    @router.post(
        "/orders/{id}/cancel",
        summary="Cancel an open order",
        responses=errors(400, 401, 403, 404, 409, 503),
        tags=["orders"],
    )
    async def cancel(request: Request, id: Annotated[LedgerId, Path()]) -> OrderBody:
        merchant = await guard.require(request, Scope.ORDERS)
        try:
            answer = await desk.orders.cancel(merchant, OrderId(id))
        except LedgerUnavailable as error:
            raise unavailable(error) from error
        return _shown(answer, public_url)


def _add_charges(router: APIRouter, desk: MerchantDesk, public_url: str) -> None:
    guard = KeyGuard(desk)

    @router.post(
        "/charges",
        summary="Charge a payment code at once",
        responses=errors(400, 401, 402, 403, 404, 409, 413, 429, 503),
        tags=["charges"],
    )
    async def charge(request: Request, body: ChargeBody) -> OrderBody:
        merchant = await guard.require(request, Scope.CHARGES)
        try:
            answer = await desk.charges.charge(
                merchant,
                code=body.code,
                money=money_of(body.amount_minor, body.currency),
                reference=body.reference,
                description=body.description,
            )
        except LedgerUnavailable as error:
            raise unavailable(error) from error
        return _shown(answer, public_url)


def _add_refunds(router: APIRouter, desk: MerchantDesk) -> None:
    guard = KeyGuard(desk)

    @router.post(
        "/refunds",
        summary="Give back all or a part of a payment",
        responses=errors(400, 401, 402, 403, 404, 409, 413, 503),
        tags=["refunds"],
    )
    async def refund(request: Request, body: NewRefundBody) -> RefundBody:
        merchant = await guard.require(request, Scope.REFUNDS)
        if (body.order_id is None) == (body.payment_id is None):
            raise ApiError(400, "M_BAD_JSON", "Name either order_id or payment_id.")
        order_id = None if body.order_id is None else OrderId(body.order_id)
        if body.payment_id is not None:
            order_id = await desk.refunds.order_of_payment(merchant, TransferId(body.payment_id))
        if order_id is None:
            raise error_of(MerchantRefused.because(MerchantRefusal.ORDER_UNKNOWN))
        try:
            answer = await desk.refunds.refund(
                merchant,
                order_id=order_id,
                refund_number=body.refund_number,
                amount_minor=int(body.amount_minor),
                reason=body.reason,
            )
        except LedgerUnavailable as error:
            raise unavailable(error) from error
        if not isinstance(answer, Refund):
            raise error_of(answer)
        return refund_body(answer)

    @router.get(
        "/refunds/{refund_number}",
        summary="One refund",
        responses=errors(400, 401, 403, 404, 503),
        tags=["refunds"],
    )
    async def one(request: Request, refund_number: Annotated[RefundNumber, Path()]) -> RefundBody:
        merchant = await guard.require(request, Scope.REFUNDS)
        found = await desk.refunds.find(merchant, refund_number)
        if found is None:
            raise error_of(MerchantRefused.because(MerchantRefusal.REFUND_UNKNOWN))
        return refund_body(found)

    @router.get(
        "/orders/{id}/refunds",
        summary="The refunds of an order",
        responses=errors(400, 401, 403, 404, 503),
        tags=["refunds"],
    )
    async def of_order(request: Request, id: Annotated[LedgerId, Path()]) -> RefundsBody:
        merchant = await guard.require(request, Scope.REFUNDS)
        found = await desk.refunds.of_order(await _order(desk, merchant, id))
        return RefundsBody(refunds=[refund_body(item) for item in found])


def _add_notifications(router: APIRouter, desk: MerchantDesk) -> None:
    guard = KeyGuard(desk)

    @router.get(
        "/deliveries",
        summary="Your notifications, newest first",
        responses=errors(400, 401, 403, 503),
        tags=["notifications"],
    )
    async def page(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=DELIVERIES_MAX)] = PAGE_DEFAULT,
        before: DeliveryPlace = None,
        state: Annotated[str | None, Query(pattern="^(waiting|delivered|failed)$")] = None,
    ) -> DeliveriesBody:
        merchant = await guard.require(request, Scope.ORDERS)
        found = await desk.endpoints.deliveries(merchant, limit=limit, before=before, state=state)
        return deliveries_body(found, limit=limit)

    @router.post(
        "/deliveries/{id}/replay",
        summary="Send a notification again",
        responses=errors(400, 401, 403, 404, 503),
        tags=["notifications"],
    )
    async def replay(request: Request, id: Annotated[LedgerId, Path()]) -> DeliveryBody:
        merchant = await guard.require(request, Scope.ORDERS)
        replayed = await desk.endpoints.replay(merchant, id)
        if isinstance(replayed, MerchantRefused):
            raise error_of(replayed)
        desk.notifier.wake()
        return delivery_body(replayed)


def _add_reports(router: APIRouter, desk: MerchantDesk) -> None:
    guard = KeyGuard(desk)

    @router.get(
        "/balance", summary="What the merchant holds", responses=errors(401, 403, 503), tags=["reports"]
    )
    async def balance(request: Request) -> MerchantBalancesBody:
        return await balances_body(desk, await guard.require(request, Scope.REPORTS))

    @router.get(
        "/reconciliation/{day}.csv",
        summary="All that moved in a day",
        response_class=Response,
        responses={
            200: {"content": {"text/csv": {}}, "description": "See docs/merchants/README.md."},
            **errors(400, 401, 403, 503),
        },
        tags=["reports"],
    )
    async def reconciliation(
        request: Request, day: DayText, currency: CurrencyText, zone: ZoneText = "UTC"
    ) -> Response:
        merchant = await guard.require(request, Scope.REPORTS)
        return await reconciliation_file(desk, merchant, day=day, currency=currency, zone=zone)


async def _order(desk: MerchantDesk, merchant: Merchant, id: str) -> Order:
    order = await desk.orders.of_merchant(merchant, OrderId(id))
    if order is None:
        raise error_of(MerchantRefused.because(MerchantRefusal.ORDER_UNKNOWN))
    return order


def _shown(answer: OrderAnswer, public_url: str) -> OrderBody:
    if not isinstance(answer, Order):
        raise error_of(answer)
    return order_body(answer, public_url=public_url)
