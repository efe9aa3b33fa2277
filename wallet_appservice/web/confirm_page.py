"""The page where a payment that was asked for by chat is confirmed, or left."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from appservices.chassis.pages import see_other
from appservices.chassis.signed_in import SignedIn
from appservices.vocabulary.ids import TransferId, is_ledger_id
from appservices.vocabulary.languages import _, known
from wallet_appservice.ledger.submissions import LedgerUnavailable
from wallet_appservice.payments.confirmations import Confirmation, ConfirmationState
from wallet_appservice.payments.protection import Protection
from wallet_appservice.payments.records import PaymentRecord
from wallet_appservice.payments.refusals import PaymentRefused
from wallet_appservice.web.proof_fields import PaymentReview, page_status
from wallet_appservice.web.wallet_shell import ELSEWHERE_SECONDS_MAX, WalletShell
from wallet_appservice.web.wallet_view import amount_text

PATH: Final = "/wallet/confirm"
_ENDED: Final = {
    ConfirmationState.PAID: known("This payment has been made."),
    ConfirmationState.REFUSED: known("This payment could not be made, and nothing was paid."),
    ConfirmationState.CANCELLED: known("You left this payment, and nothing was paid."),
    ConfirmationState.EXPIRED: known("This was not confirmed in time, and nothing was paid."),
}


class ConfirmPage:
    def __init__(self, shell: WalletShell, protection: Protection) -> None:
        self._shell = shell
        self._payments = shell.payments
        self._confirmations = protection.confirmations
        self._review = PaymentReview(shell.payments, protection.proofs)

    def add_to(self, router: APIRouter) -> None:
        self._shell.show_at(router, "/confirm/{id}", self._show)
        router.post("/confirm/{id}")(self._confirm)
        router.post("/confirm/{id}/leave")(self._leave)

    async def _show(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        return await self._page(request, signed_in, await self._found(signed_in, request.path_params["id"]))

    async def _confirm(self, request: Request, id: str) -> Response:
        signed_in, fields = await self._shell.guard.require_form(request)
        waiting = await self._found(signed_in, id)
        try:
            order = await self._review.proven(waiting.order, fields)
            if isinstance(order, PaymentRefused):
                return await self._refused(request, signed_in, waiting, order)
            outcome = await self._confirmations.confirm(signed_in.user_id, order.id, order.authority)
        except LedgerUnavailable:
            sentence = _("The wallet can't answer now. Try again in a moment: it will not pay twice.")
            return await self._page(request, signed_in, waiting, problem=sentence, status=503)
        if isinstance(outcome, PaymentRecord):
            await self._payments.answered(outcome, seconds_max=ELSEWHERE_SECONDS_MAX)
            return see_other(f"/wallet/send?paid={outcome.id}")
        if isinstance(outcome, PaymentRefused):
            return await self._refused(request, signed_in, waiting, outcome)
        return see_other(f"{PATH}/{id}")

    async def _leave(self, request: Request, id: str) -> Response:
        signed_in, _fields = await self._shell.guard.require_form(request)
        waiting = await self._found(signed_in, id)
        await self._confirmations.cancel(signed_in.user_id, waiting.order.id)
        return see_other(f"{PATH}/{id}")

    async def _found(self, signed_in: SignedIn, id: str) -> Confirmation:
        found = None
        if is_ledger_id(id):
            await self._confirmations.sweep_one(TransferId(id))
            found = await self._confirmations.find(signed_in.user_id, TransferId(id))
        if found is None:
            raise HTTPException(404)
        return found

    async def _refused(
        self, request: Request, signed_in: SignedIn, waiting: Confirmation, refused: PaymentRefused
    ) -> Response:
        again = await self._found(signed_in, waiting.order.id)
        return await self._page(
            request, signed_in, again, problem=refused.sentence, status=page_status(refused)
        )

    async def _page(
        self,
        request: Request,
        signed_in: SignedIn,
        waiting: Confirmation,
        *,
        problem: str = "",
        status: int = 200,
    ) -> Response:
        is_open = waiting.state in (ConfirmationState.OPEN, ConfirmationState.PAYING)
        needs_proof = is_open and await self._confirmations.needs_proof(waiting)
        context: dict[str, Any] = {
            "waiting": waiting,
            "order": waiting.order,
            "ended": "" if is_open else _(_ENDED[waiting.state]),
            "asked": await self._review.asked(
                waiting.order, needs_proof=needs_proof, problem=problem if needs_proof else ""
            ),
            "problem": "" if needs_proof else problem,
            "amount": amount_text(
                waiting.order.money.amount_minor, waiting.order.money.currency, self._payments.currencies
            ),
        }
        return await self._shell.page(
            request,
            signed_in,
            "confirm.html",
            title=_("Confirm a payment"),
            status=status,
            announcement=problem,
            **context,
        )
