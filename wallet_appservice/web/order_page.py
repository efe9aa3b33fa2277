"""The page of one order: who asks for how much, and a button that pays. It works without script.

It shows what there is before it asks to sign in for nothing: who is not signed in is sent to sign in and
comes back here.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response

from appservices.chassis.pages import PageRoute, Pages, by_htmx, see_other
from appservices.chassis.signed_in import SessionGuard, SignedIn
from appservices.vocabulary.ids import is_ledger_id
from appservices.vocabulary.languages import _
from wallet_appservice.ledger.engine import LedgerUnavailable
from wallet_appservice.payments.merchants.desk import MerchantDesk
from wallet_appservice.payments.merchants.records import Merchant, Order, OrderId, OrderState, OrderWay
from wallet_appservice.payments.merchants.refusals import MERCHANT_REFUSALS, MerchantRefusal, MerchantRefused
from wallet_appservice.payments.refusals import REFUSALS
from wallet_appservice.web.wallet_view import amount_text

PATH: Final = "/wallet/order"


def order_page(desk: MerchantDesk, guard: SessionGuard, pages: Pages) -> APIRouter:
    router = APIRouter(prefix=PATH, route_class=PageRoute, include_in_schema=False)
    page = _OrderPage(desk, guard, pages)
    router.get("/{id}")(page.show)
    router.post("/{id}/pay")(page.pay)
    return router


class _OrderPage:
    def __init__(self, desk: MerchantDesk, guard: SessionGuard, pages: Pages) -> None:
        self._desk = desk
        self._guard = guard
        self._pages = pages

    async def show(self, request: Request, id: str) -> Response:
        signed_in = await self._guard.require_page(request)
        return await self._page(request, signed_in, id)

    async def pay(self, request: Request, id: str) -> Response:
        signed_in, _fields = await self._guard.require_form(request)
        if not is_ledger_id(id):
            return await self._page(request, signed_in, id)
        try:
            answer = await self._desk.orders.pay(OrderId(id), payer=signed_in.user_id)
        except LedgerUnavailable:
            sentence = _("The wallet can't answer now. Pay again in a moment: it will not pay twice.")
            status = 200 if by_htmx(request) else 503
            return await self._page(request, signed_in, id, problem=sentence, status=status)
        if isinstance(answer, Order):
            return see_other(f"{PATH}/{id}")
        if isinstance(answer, MerchantRefused):
            status = MERCHANT_REFUSALS[answer.refusal].http_status
        else:
            status = REFUSALS[answer.refusal].http_status
        return await self._page(request, signed_in, id, problem=answer.sentence, status=status)

    async def _page(
        self, request: Request, signed_in: SignedIn, id: str, *, problem: str = "", status: int = 200
    ) -> Response:
        order, merchant = await self._find(id)
        if order is None or merchant is None:
            return self._pages.render(
                request,
                "error.html",
                status=404,
                title=_("No such order"),
                sentence=_("This link leads to no order. Ask the merchant for a new one."),
                signed_in=signed_in,
            )
        refusal = _REFUSAL_OF_STATE.get(order.state)
        is_theirs = order.state is OrderState.PAID and order.payer == signed_in.user_id
        ended = ""
        if refusal is not None and not is_theirs:
            # The page says what is so now; what went wrong a moment ago was the same.
            ended, problem = MerchantRefused.because(refusal).sentence, ""
        elif merchant.closed_at_ms is not None and not is_theirs:
            closed = MerchantRefused.because(MerchantRefusal.MERCHANT_CLOSED, merchant=merchant.name)
            ended, problem = closed.sentence, ""
        return self._pages.render(
            request,
            "order.html",
            status=status,
            signed_in=signed_in,
            order=order,
            merchant=merchant,
            amount=amount_text(order.amount_minor, order.currency, self._desk.payments.currencies),
            is_theirs=is_theirs,
            ended=ended,
            problem_sentence=problem,
        )

    async def _find(self, id: str) -> tuple[Order | None, Merchant | None]:
        order = await self._desk.orders.find(OrderId(id)) if is_ledger_id(id) else None
        if order is None or order.way is OrderWay.CODE:
            return None, None
        return order, await self._desk.merchants.find(order.merchant_id)


_REFUSAL_OF_STATE: Final = {
    OrderState.PAID: MerchantRefusal.ORDER_PAID,
    OrderState.CANCELLED: MerchantRefusal.ORDER_CANCELLED,
    OrderState.EXPIRED: MerchantRefusal.ORDER_EXPIRED,
}
