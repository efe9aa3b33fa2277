"""The pages about safety, in one: Security, confirming what was asked for by chat, and the operator's."""

from __future__ import annotations

from fastapi import APIRouter

from appservices.chassis.config import WeftConfig
from appservices.chassis.pages import Pages
from appservices.chassis.signed_in import SessionGuard
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.protection import Protection
from wallet_appservice.web.confirm_pages import confirm_pages
from wallet_appservice.web.operator_pages import operator_pages
from wallet_appservice.web.security_pages import security_pages


def protection_pages(
    payments: Payments, protection: Protection, guard: SessionGuard, pages: Pages, config: WeftConfig
) -> APIRouter:
    router = APIRouter()
    router.include_router(security_pages(protection, guard, pages, payments.currencies))
    router.include_router(confirm_pages(payments, protection, guard, pages))
    router.include_router(operator_pages(protection, guard, pages, config, payments.till.database))
    return router
