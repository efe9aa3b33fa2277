"""Merchants of whoever is signed in: opened, given keys and endpoints, looked at, paid out.

At /_weft/wallet/v1/merchants/. Keys can do none of this, so a key that a till lost can't make further keys.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from appservices.chassis.signed_in import SessionGuard
from appservices.chassis.web_errors import ApiRoute
from wallet_appservice.ledger.submissions import LedgerUnavailable
from wallet_appservice.payments.merchants.desk import MerchantDesk
from wallet_appservice.payments.merchants.endpoints import LISTED_MAX as DELIVERIES_MAX
from wallet_appservice.payments.merchants.orders import LISTED_MAX as ORDERS_MAX
from wallet_appservice.payments.merchants.records import Merchant
from wallet_appservice.payments.merchants.refusals import MerchantRefused
from wallet_appservice.payments.refusals import PaymentRefused
from wallet_appservice.web.api import PREFIX
from wallet_appservice.web.api_values import LedgerId, PaymentBody, payment_body
from wallet_appservice.web.merchant_api import (
    PAGE_DEFAULT,
    CurrencyText,
    DayText,
    DeliveryPlace,
    OrderPlace,
    ZoneText,
)
from wallet_appservice.web.merchant_bodies import (
    DeliveriesBody,
    DoneBody,
    EndpointsBody,
    KeysOfMerchantBody,
    MerchantBalancesBody,
    MerchantBody,
    MerchantsBody,
    NewEndpointBody,
    NewKeyBody,
    NewMerchantBody,
    OrdersBody,
    PayoutBody,
    ShownEndpointBody,
    ShownKeyBody,
    error_of,
    errors,
    money_of,
    unavailable,
)
from wallet_appservice.web.merchant_views import (
    balances_body,
    deliveries_body,
    endpoint_body,
    key_body,
    merchant_body,
    order_place,
    orders_body,
    reconciliation_file,
)

MerchantPlace = Annotated[LedgerId, Path(description="The merchant's id.")]


class _Owners:
    """Finds a merchant for its signed-in owner."""

    def __init__(self, desk: MerchantDesk, guard: SessionGuard) -> None:
        self._desk = desk
        self._guard = guard

    async def merchant(self, request: Request, id: str) -> Merchant:
        user = (await self._guard.require_api(request)).user_id
        merchant = await self._desk.merchants.owned(user, id)
        if isinstance(merchant, MerchantRefused):
            raise error_of(merchant)
        return merchant


def merchants_of_mine_api(desk: MerchantDesk, guard: SessionGuard, *, public_url: str) -> APIRouter:
    router = APIRouter(prefix=f"{PREFIX}/v1/merchants", route_class=ApiRoute, tags=["merchants of mine"])
    owners = _Owners(desk, guard)
    _add_merchants(router, desk, guard, owners)
    _add_keys(router, desk, owners)
    _add_endpoints(router, desk, owners)
    _add_looks(router, desk, owners, public_url)
    return router


def _add_merchants(router: APIRouter, desk: MerchantDesk, guard: SessionGuard, owners: _Owners) -> None:
    @router.get("", summary="Your merchants", responses=errors(401))
    async def all_of_mine(request: Request) -> MerchantsBody:
        user = (await guard.require_api(request)).user_id
        found = await desk.merchants.of_owner(user)
        return MerchantsBody(merchants=[merchant_body(item) for item in found])

    @router.post("", summary="Open a merchant account", responses=errors(400, 401, 403, 409, 413))
    async def open_one(request: Request, body: NewMerchantBody) -> MerchantBody:
        user = (await guard.require_api(request)).user_id
        opened = await desk.merchants.open(owner=user, name=body.name, id=body.id)
        if isinstance(opened, MerchantRefused):
            raise error_of(opened)
        return merchant_body(opened)

    @router.get("/{id}", summary="One merchant and its money", responses=errors(400, 401, 404, 503))
    async def one(request: Request, id: MerchantPlace) -> MerchantBalancesBody:
        return await balances_body(desk, await owners.merchant(request, id))

    @router.post("/{id}/close", summary="Take no more money", responses=errors(400, 401, 403, 404))
    async def close(request: Request, id: MerchantPlace) -> DoneBody:
        merchant = await owners.merchant(request, id)
        return DoneBody(done=await desk.merchants.close(merchant.id))

    @router.post(
        "/{id}/payouts",
        summary="Move the merchant's money to your own",
        responses=errors(400, 401, 402, 403, 404, 409, 413, 503),
    )
    async def pay_out(request: Request, id: MerchantPlace, body: PayoutBody) -> PaymentBody:
        merchant = await owners.merchant(request, id)
        try:
            outcome = await desk.merchants.pay_out(
                merchant, money=money_of(body.amount_minor, body.currency), id=body.id
            )
        except LedgerUnavailable as error:
            raise unavailable(error) from error
        if isinstance(outcome, PaymentRefused):
            raise error_of(outcome)
        return payment_body(outcome)


def _add_keys(router: APIRouter, desk: MerchantDesk, owners: _Owners) -> None:
    @router.get("/{id}/keys", summary="Its API keys", responses=errors(400, 401, 404))
    async def keys(request: Request, id: MerchantPlace) -> KeysOfMerchantBody:
        merchant = await owners.merchant(request, id)
        found = await desk.keys.of_merchant(merchant)
        return KeysOfMerchantBody(keys=[key_body(key) for key in found])

    @router.post("/{id}/keys", summary="Make an API key", responses=errors(400, 401, 403, 404, 413))
    async def make_key(request: Request, id: MerchantPlace, body: NewKeyBody) -> ShownKeyBody:
        merchant = await owners.merchant(request, id)
        made = await desk.keys.make(merchant, name=body.name, scopes=body.scopes)
        if isinstance(made, MerchantRefused):
            raise error_of(made)
        key, text = made
        return ShownKeyBody(**key_body(key).model_dump(), key=text)

    @router.delete("/{id}/keys/{key_id}", summary="Revoke an API key", responses=errors(400, 401, 403, 404))
    async def revoke_key(
        request: Request, id: MerchantPlace, key_id: Annotated[str, Path(pattern="^[0-9a-f]{16}$")]
    ) -> DoneBody:
        merchant = await owners.merchant(request, id)
        return DoneBody(done=await desk.keys.revoke(merchant, key_id))


def _add_endpoints(router: APIRouter, desk: MerchantDesk, owners: _Owners) -> None:
    @router.get("/{id}/endpoints", summary="Where it is notified", responses=errors(400, 401, 404))
    async def endpoints(request: Request, id: MerchantPlace) -> EndpointsBody:
        merchant = await owners.merchant(request, id)
        found = await desk.endpoints.of_merchant(merchant)
        return EndpointsBody(endpoints=[endpoint_body(item) for item in found])

    @router.post("/{id}/endpoints", summary="Be notified at a URL", responses=errors(400, 401, 403, 404, 413))
    async def add_endpoint(request: Request, id: MerchantPlace, body: NewEndpointBody) -> ShownEndpointBody:
        merchant = await owners.merchant(request, id)
        added = await desk.endpoints.add(merchant, body.url)
        if isinstance(added, MerchantRefused):
            raise error_of(added)
        endpoint, secret = added
        return ShownEndpointBody(**endpoint_body(endpoint).model_dump(), secret=secret)

    @router.delete(
        "/{id}/endpoints/{endpoint_id}",
        summary="Be notified there no more",
        responses=errors(400, 401, 403, 404),
    )
    async def take_endpoint_away(
        request: Request, id: MerchantPlace, endpoint_id: Annotated[LedgerId, Path()]
    ) -> DoneBody:
        merchant = await owners.merchant(request, id)
        return DoneBody(done=await desk.endpoints.take_away(merchant, endpoint_id))


def _add_looks(router: APIRouter, desk: MerchantDesk, owners: _Owners, public_url: str) -> None:
    @router.get("/{id}/orders", summary="Its orders, newest first", responses=errors(400, 401, 404))
    async def orders(
        request: Request,
        id: MerchantPlace,
        limit: Annotated[int, Query(ge=1, le=ORDERS_MAX)] = PAGE_DEFAULT,
        before: OrderPlace = None,
    ) -> OrdersBody:
        merchant = await owners.merchant(request, id)
        found = await desk.orders.page(merchant, limit=limit, before=order_place(before))
        return orders_body(found, limit=limit, public_url=public_url)

    @router.get(
        "/{id}/deliveries", summary="Its notifications, newest first", responses=errors(400, 401, 404)
    )
    async def deliveries(
        request: Request,
        id: MerchantPlace,
        limit: Annotated[int, Query(ge=1, le=DELIVERIES_MAX)] = PAGE_DEFAULT,
        before: DeliveryPlace = None,
    ) -> DeliveriesBody:
        merchant = await owners.merchant(request, id)
        found = await desk.endpoints.deliveries(merchant, limit=limit, before=before)
        return deliveries_body(found, limit=limit)

    @router.get(
        "/{id}/reconciliation/{day}.csv",
        summary="All that moved in a day",
        response_class=Response,
        responses={
            200: {"content": {"text/csv": {}}, "description": "See docs/merchants/README.md."},
            **errors(400, 401, 404),
        },
    )
    async def reconciliation(
        request: Request, id: MerchantPlace, day: DayText, currency: CurrencyText, zone: ZoneText = "UTC"
    ) -> Response:
        merchant = await owners.merchant(request, id)
        return await reconciliation_file(desk, merchant, day=day, currency=currency, zone=zone)
