"""Merchants of whoever is signed in, as the pages about them need them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request, Response
from starlette.datastructures import FormData

from appservices.chassis.signed_in import SignedIn
from appservices.vocabulary.languages import _
from appservices.vocabulary.money import AmountUnreadable, Money
from wallet_appservice.payments.merchants.desk import MerchantDesk
from wallet_appservice.payments.merchants.records import Merchant
from wallet_appservice.payments.merchants.refusals import MERCHANT_REFUSALS, MerchantRefused
from wallet_appservice.payments.refusals import REFUSALS, PaymentRefused
from wallet_appservice.web.wallet_shell import WalletShell

FIELD_LENGTH_MAX = 300

ShowMerchant = Callable[[Request, SignedIn, Merchant], Awaitable[Response]]
ChangeMerchant = Callable[[Request, SignedIn, Merchant, FormData], Awaitable[Response]]


class OwnedMerchants:
    """Finds a merchant for its owner; for everybody else there is none."""

    def __init__(self, shell: WalletShell, desk: MerchantDesk) -> None:
        self.shell = shell
        self.desk = desk

    def shown_by(self, show: ShowMerchant) -> Callable[[Request], Awaitable[Response]]:
        """A page about one merchant."""

        async def page(request: Request) -> Response:
            signed_in = await self.shell.guard.require_page(request)
            merchant = await self.desk.merchants.owned(signed_in.user_id, request.path_params["merchant"])
            if isinstance(merchant, MerchantRefused):
                return await self.shell.missing(request, signed_in, merchant.sentence)
            return await show(request, signed_in, merchant)

        return page

    def changed_by(self, change: ChangeMerchant) -> Callable[[Request], Awaitable[Response]]:
        """A form that changes something of one merchant."""

        async def page(request: Request) -> Response:
            signed_in, fields = await self.shell.guard.require_form(request)
            merchant = await self.desk.merchants.owned(signed_in.user_id, request.path_params["merchant"])
            if isinstance(merchant, MerchantRefused):
                return await self.shell.missing(request, signed_in, merchant.sentence)
            return await change(request, signed_in, merchant, fields)

        return page

    def money(self, fields: FormData) -> Money | str:
        """The amount in a form, or what is wrong with it."""
        amount, currency = text_of(fields, "amount"), text_of(fields, "currency")
        currencies = self.shell.payments.currencies
        if not amount:
            return _("How much?")
        try:
            return currencies.parse(f"{amount} {currency}" if currency in currencies else amount)
        except AmountUnreadable as error:
            return str(error)


def text_of(fields: Any, name: str) -> str:
    value = fields.get(name)
    return value.strip()[:FIELD_LENGTH_MAX] if isinstance(value, str) else ""


def status_of(refused: MerchantRefused | PaymentRefused) -> int:
    if isinstance(refused, MerchantRefused):
        return MERCHANT_REFUSALS[refused.refusal].http_status
    return REFUSALS[refused.refusal].http_status
