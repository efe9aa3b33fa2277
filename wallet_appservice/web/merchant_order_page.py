"""A merchant's orders: made here for a till without a program, shown as a code, cancelled, refunded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from starlette.datastructures import FormData

from appservices.chassis.pages import see_other
from appservices.chassis.signed_in import SignedIn
from appservices.vocabulary.languages import _
from appservices.vocabulary.money import Currency, Money, decimal_text
from wallet_appservice.ledger.submissions import LedgerUnavailable
from wallet_appservice.payments.code_pictures import qr_inline
from wallet_appservice.payments.merchants.desk import MerchantDesk
from wallet_appservice.payments.merchants.records import (
    DESCRIPTION_LENGTH_MAX,
    Merchant,
    Order,
    OrderId,
    OrderState,
    OrderWay,
)
from wallet_appservice.payments.merchants.refunds import Refund, RefundState
from wallet_appservice.payments.records import clean_memo
from wallet_appservice.web.merchant_views import pay_url
from wallet_appservice.web.owned_merchants import OwnedMerchants, status_of, text_of
from wallet_appservice.web.wallet_shell import PATH, WalletShell, asked_id

_REFERENCE_DIGITS: Final = 10


class MerchantOrderPage:
    def __init__(self, shell: WalletShell, desk: MerchantDesk) -> None:
        self._shell = shell
        self._desk = desk
        self._owned = OwnedMerchants(shell, desk)

    def add_to(self, router: APIRouter) -> None:
        owned, place = self._owned, "/merchant/{merchant}/orders"
        self._shell.show_at(router, f"{place}/new", owned.shown_by(self._new))
        router.post(place)(owned.changed_by(self._make))
        self._shell.show_at(router, f"{place}/{{id}}", owned.shown_by(self._one))
        router.post(f"{place}/{{id}}/cancel")(owned.changed_by(self._cancel))
        router.post(f"{place}/{{id}}/refund")(owned.changed_by(self._refund))

    async def _new(
        self,
        request: Request,
        signed_in: SignedIn,
        merchant: Merchant,
        *,
        fields: FormData | None = None,
        problem: str = "",
        status: int = 200,
    ) -> Response:
        given: Mapping[str, Any] = fields or {}
        return await self._shell.page(
            request,
            signed_in,
            "merchant_order_new.html",
            title=_("New order"),
            tab="more",
            status=status,
            announcement=problem,
            problem=problem,
            merchant=merchant,
            back=f"{PATH}/merchant/{merchant.id}",
            amount=text_of(given, "amount"),
            currency=text_of(given, "currency"),
            description=text_of(given, "description"),
            # Chosen before the form is sent, so that sending it twice is one order.
            reference=text_of(given, "reference") or self._shell.new_id()[:_REFERENCE_DIGITS].upper(),
            description_length_max=DESCRIPTION_LENGTH_MAX,
        )

    async def _make(
        self, request: Request, signed_in: SignedIn, merchant: Merchant, fields: FormData
    ) -> Response:
        money = self._owned.money(fields)
        if isinstance(money, str):
            return await self._new(request, signed_in, merchant, fields=fields, problem=money, status=422)
        made = await self._desk.orders.create(
            merchant,
            reference=text_of(fields, "reference") or self._shell.new_id(),
            money=money,
            description=clean_memo(text_of(fields, "description"))[:DESCRIPTION_LENGTH_MAX],
        )
        if not isinstance(made, Order):
            return await self._new(
                request,
                signed_in,
                merchant,
                fields=fields,
                problem=made.sentence,
                status=status_of(made),
            )
        return see_other(f"{PATH}/merchant/{merchant.id}/orders/{made.id}")

    async def _one(
        self,
        request: Request,
        signed_in: SignedIn,
        merchant: Merchant,
        *,
        problem: str = "",
        status: int = 200,
    ) -> Response:
        order = await self._order(request, merchant)
        if order is None:
            return await self._shell.missing(request, signed_in, _("There is no such order."))
        refunds = [
            refund
            for refund in await self._desk.refunds.of_order(order)
            if refund.state is not RefundState.REFUSED
        ]
        left_minor = order.amount_minor - sum(refund.money.amount_minor for refund in refunds)
        link = pay_url(self._shell.public_url, order.id)
        is_open = order.state is OrderState.OPEN and order.way is OrderWay.LINK
        currency = self._shell.payments.currencies.get(order.currency)
        return await self._shell.page(
            request,
            signed_in,
            "merchant_order.html",
            title=_("Order"),
            tab="more",
            status=status,
            announcement=problem,
            problem=problem,
            merchant=merchant,
            back=f"{PATH}/merchant/{merchant.id}",
            order=order,
            is_open=is_open,
            link=link,
            qr=qr_inline(link) if is_open else "",
            refunds=refunds,
            left_minor=left_minor if order.state is OrderState.PAID else 0,
            left=_decimal(left_minor, order, exponent=currency.exponent if currency else 0),
            refund_number=self._shell.new_id(),
            minor=lambda amount_minor: self._shell.amount_of(amount_minor, order.currency),
        )

    async def _cancel(
        self, request: Request, signed_in: SignedIn, merchant: Merchant, _fields: FormData
    ) -> Response:
        order = await self._order(request, merchant)
        if order is None:
            return await self._shell.missing(request, signed_in, _("There is no such order."))
        answer = await self._desk.orders.cancel(merchant, order.id)
        if not isinstance(answer, Order):
            return await self._one(
                request, signed_in, merchant, problem=answer.sentence, status=status_of(answer)
            )
        return see_other(f"{PATH}/merchant/{merchant.id}/orders/{order.id}")

    async def _refund(
        self, request: Request, signed_in: SignedIn, merchant: Merchant, fields: FormData
    ) -> Response:
        order, money = await self._order(request, merchant), self._owned.money(fields)
        if order is None:
            return await self._shell.missing(request, signed_in, _("There is no such order."))
        if isinstance(money, str):
            return await self._one(request, signed_in, merchant, problem=money, status=422)
        try:
            answer = await self._desk.refunds.refund(
                merchant,
                order_id=order.id,
                refund_number=text_of(fields, "refund_number") or self._shell.new_id(),
                amount_minor=money.amount_minor,
                reason=clean_memo(text_of(fields, "reason"))[:DESCRIPTION_LENGTH_MAX],
            )
        except LedgerUnavailable:
            sentence = _("The wallet can't answer now; try again in a moment.")
            return await self._one(request, signed_in, merchant, problem=sentence, status=409)
        if not isinstance(answer, Refund):
            return await self._one(
                request, signed_in, merchant, problem=answer.sentence, status=status_of(answer)
            )
        return see_other(f"{PATH}/merchant/{merchant.id}/orders/{order.id}")

    async def _order(self, request: Request, merchant: Merchant) -> Order | None:
        id = asked_id(request, "id")
        return await self._desk.orders.of_merchant(merchant, OrderId(id)) if id else None


def _decimal(amount_minor: int, order: Order, *, exponent: int) -> str:
    """An amount as the form's field has it; "" for nothing."""
    if amount_minor <= 0:
        return ""
    return decimal_text(Money(amount_minor, order.currency), Currency(order.currency, exponent, ""))
