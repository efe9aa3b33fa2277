"""The page of one order: who asks for how much, and a button that pays. It works without script.

It shows what there is before it asks to sign in for nothing: who is not signed in is sent to sign in and
comes back here.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response

from appservices.chassis.pages import by_htmx, see_other
from appservices.chassis.signed_in import SignedIn
from appservices.vocabulary.ids import TransferId, UserId, is_ledger_id
from appservices.vocabulary.languages import _
from wallet_appservice.ledger.submissions import LedgerUnavailable
from wallet_appservice.payments.merchants.desk import MerchantDesk
from wallet_appservice.payments.merchants.records import Merchant, Order, OrderId, OrderState, OrderWay
from wallet_appservice.payments.merchants.refusals import MERCHANT_REFUSALS, MerchantRefusal, MerchantRefused
from wallet_appservice.payments.protection import Protection
from wallet_appservice.payments.records import Authority, PaymentOrder
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.web.proof_fields import Asked, PaymentReview, page_status
from wallet_appservice.web.wallet_shell import WalletShell
from wallet_appservice.web.wallet_view import amount_text

PATH: Final = "/wallet/order"


class OrderPage:
    def __init__(self, shell: WalletShell, desk: MerchantDesk, protection: Protection) -> None:
        self._shell = shell
        self._desk = desk
        self._proving = PaymentReview(shell.payments, protection.proofs)

    def add_to(self, router: APIRouter) -> None:
        self._shell.show_at(router, "/order/{id}", self._show)
        router.post("/order/{id}/pay")(self._pay)

    async def _show(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        return await self._page(request, signed_in, request.path_params["id"])

    async def _pay(self, request: Request, id: str) -> Response:
        signed_in, fields = await self._shell.guard.require_form(request)
        order, merchant = await self._find(id)
        if order is None or merchant is None:
            return await self._page(request, signed_in, id)
        try:
            proven = await self._proving.proven(_as_payment(order, merchant, signed_in.user_id), fields)
            answer = (
                proven
                if isinstance(proven, PaymentRefused)
                else await self._desk.orders.pay(
                    order.id, payer=signed_in.user_id, authority=proven.authority
                )
            )
        except LedgerUnavailable:
            sentence = _("The wallet can't answer now. Pay again in a moment: it will not pay twice.")
            status = 200 if by_htmx(request) else 503
            return await self._page(request, signed_in, id, problem=sentence, status=status)
        if isinstance(answer, Order):
            return see_other(f"{PATH}/{id}")
        if isinstance(answer, MerchantRefused):
            status = MERCHANT_REFUSALS[answer.refusal].http_status
        else:
            status = page_status(answer)
        return await self._page(request, signed_in, id, problem=answer.sentence, status=status)

    async def _page(
        self, request: Request, signed_in: SignedIn, id: str, *, problem: str = "", status: int = 200
    ) -> Response:
        order, merchant = await self._find(id)
        if order is None or merchant is None:
            return await self._shell.missing(
                request, signed_in, _("This link leads to no order. Ask the merchant for a new one.")
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
        asked = Asked()
        if not ended and not is_theirs:
            payment = _as_payment(order, merchant, signed_in.user_id)
            refused = await self._shell.payments.check(payment)
            needs_proof = refused is not None and refused.refusal is PaymentRefusal.CONFIRMATION_NEEDED
            asked = await self._proving.asked(
                payment, needs_proof=needs_proof, problem=problem if needs_proof else ""
            )
            problem = "" if needs_proof else problem
        return await self._shell.page(
            request,
            signed_in,
            "order.html",
            title=_("Order"),
            status=status,
            announcement=problem or ended,
            order=order,
            merchant=merchant,
            amount=amount_text(order.amount_minor, order.currency, self._desk.payments.currencies),
            asked=asked,
            is_theirs=is_theirs,
            ended=ended,
            problem_sentence=problem,
        )

    async def _find(self, id: str) -> tuple[Order | None, Merchant | None]:
        order = await self._desk.orders.find(OrderId(id)) if is_ledger_id(id) else None
        if order is None or order.way is OrderWay.CODE:
            return None, None
        return order, await self._desk.merchants.find(order.merchant_id)


def _as_payment(order: Order, merchant: Merchant, payer: UserId) -> PaymentOrder:
    """What a payer proves that they want, when they pay the order."""
    return PaymentOrder(
        id=TransferId(order.id),
        payer=payer,
        payee=merchant.owner,
        money=order.money,
        memo=order.description,
        authority=Authority.SESSION,
        subject=f"order:{order.id}",
    )


_REFUSAL_OF_STATE: Final = {
    OrderState.PAID: MerchantRefusal.ORDER_PAID,
    OrderState.CANCELLED: MerchantRefusal.ORDER_CANCELLED,
    OrderState.EXPIRED: MerchantRefusal.ORDER_EXPIRED,
}
