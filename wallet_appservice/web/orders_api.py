"""What payers do with orders: look, pay, and show a payment code. At /_weft/wallet/v1/."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from appservices.chassis.signed_in import SessionGuard
from appservices.chassis.web_errors import ApiRoute
from wallet_appservice.ledger.submissions import LedgerUnavailable
from wallet_appservice.payments.code_pictures import code128_svg, qr_png, qr_svg
from wallet_appservice.payments.merchants.desk import MerchantDesk
from wallet_appservice.payments.merchants.records import Merchant, Order, OrderId, OrderWay
from wallet_appservice.payments.merchants.refusals import MerchantRefusal, MerchantRefused
from wallet_appservice.web.api import PREFIX
from wallet_appservice.web.api_values import LedgerId
from wallet_appservice.web.merchant_bodies import (
    PayersOrderBody,
    PaymentCodeBody,
    error_of,
    errors,
    unavailable,
)
from wallet_appservice.web.merchant_views import pay_url, payers_order_body

OrderPlace = Annotated[LedgerId, Path(description="The order's id.")]


def orders_api(desk: MerchantDesk, guard: SessionGuard, *, public_url: str) -> APIRouter:
    router = APIRouter(prefix=f"{PREFIX}/v1", route_class=ApiRoute)

    @router.post(
        "/orders/{id}/pay",
        summary="Pay an order",
        responses=errors(400, 401, 402, 403, 404, 409, 503),
        tags=["paying orders"],
    )
    async def pay(request: Request, id: OrderPlace) -> PayersOrderBody:
        user = (await guard.require_api(request)).user_id
        try:
            answer = await desk.orders.pay(OrderId(id), payer=user)
        except LedgerUnavailable as error:
            raise unavailable(error) from error
        if not isinstance(answer, Order):
            raise error_of(answer)
        merchant = await desk.merchants.find(answer.merchant_id)
        assert merchant is not None, "an order that was paid has a merchant"
        return payers_order_body(answer, merchant, payer=user)

    @router.get(
        "/orders/{id}", summary="An order to be paid", responses=errors(400, 401, 404), tags=["paying orders"]
    )
    async def one(request: Request, id: OrderPlace) -> PayersOrderBody:
        user = (await guard.require_api(request)).user_id
        order, merchant = await payable_order(desk, id)
        return payers_order_body(order, merchant, payer=user)

    # Public, since a shop's page shows it to whoever is to pay; it says nothing but the order's link.
    @router.get(
        "/orders/{id}/qr.svg",
        summary="An order's link as a QR code",
        response_class=Response,
        responses={200: {"content": {"image/svg+xml": {}}, "description": "A picture."}, **errors(400, 404)},
        tags=["public"],
    )
    async def qr_as_svg(id: OrderPlace) -> Response:
        await payable_order(desk, id)
        return Response(qr_svg(pay_url(public_url, OrderId(id))), media_type="image/svg+xml")

    @router.get(
        "/orders/{id}/qr.png",
        summary="An order's link as a QR code, in pixels",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}, "description": "A picture."}, **errors(400, 404)},
        tags=["public"],
    )
    async def qr_as_png(id: OrderPlace) -> Response:
        await payable_order(desk, id)
        picture, _side_pixels = qr_png(pay_url(public_url, OrderId(id)))
        return Response(picture, media_type="image/png")

    @router.post(
        "/payment-code",
        summary="A payment code for a till to scan",
        responses=errors(401, 403),
        tags=["paying orders"],
    )
    async def payment_code(request: Request) -> PaymentCodeBody:
        user = (await guard.require_api(request)).user_id
        issued = await desk.codes.issue(user)
        return PaymentCodeBody(
            code=issued.code,
            expires_at_ms=issued.expires_at_ms,
            qr_svg=qr_svg(issued.code),
            code128_svg=code128_svg(issued.code),
        )

    return router


async def payable_order(desk: MerchantDesk, id: str) -> tuple[Order, Merchant]:
    """An order that has a link, and whose it is. Raises ApiError."""
    order = await desk.orders.find(OrderId(id))
    merchant = None if order is None else await desk.merchants.find(order.merchant_id)
    if order is None or merchant is None or order.way is OrderWay.CODE:
        raise error_of(MerchantRefused.because(MerchantRefusal.ORDER_UNKNOWN))
    return order, merchant
