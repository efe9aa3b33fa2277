"""All HTTP APIs of merchants and of those who pay them, for whoever puts an app together."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from appservices.chassis.signed_in import SessionGuard
from wallet_appservice.payments.merchants.desk import MerchantDesk
from wallet_appservice.web.merchant_api import merchant_api
from wallet_appservice.web.merchant_openapi import merchant_openapi
from wallet_appservice.web.merchants_of_mine_api import merchants_of_mine_api
from wallet_appservice.web.orders_api import orders_api


def merchant_routers(desk: MerchantDesk, guard: SessionGuard, *, public_url: str) -> Sequence[APIRouter]:
    """`public_url` is where payers' browsers reach this server."""
    # Routes are tried in their order: what is asked for most often stands first.
    apis = (
        orders_api(desk, guard, public_url=public_url),
        merchant_api(desk, public_url=public_url),
        merchants_of_mine_api(desk, guard, public_url=public_url),
    )
    return (*apis, merchant_openapi(apis))
