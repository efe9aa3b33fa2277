"""Paying somebody: a form, a look at what it would do, and the receipt. Each step works without script."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.datastructures import FormData

from appservices.chassis.pages import by_htmx, see_other
from appservices.chassis.signed_in import SignedIn
from appservices.vocabulary.languages import _
from wallet_appservice.ledger.submissions import LedgerUnavailable
from wallet_appservice.payments.protection import Protection
from wallet_appservice.payments.records import PaymentOrder, PaymentRecord, PaymentState
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.web.payment_form import PaymentForm, asked_form, order_of, read_form
from wallet_appservice.web.proof_fields import PROOF_REFUSALS, Asked, PaymentReview, page_status, proof_in
from wallet_appservice.web.wallet_shell import ELSEWHERE_SECONDS_MAX, PATH, WalletShell, asked_id
from wallet_appservice.web.wallet_view import wallet_view


class SendPage:
    def __init__(self, shell: WalletShell, protection: Protection) -> None:
        self._shell = shell
        self._proving = PaymentReview(shell.payments, protection.proofs)
        self._payments = shell.payments

    def add_to(self, router: APIRouter) -> None:
        self._shell.show_at(router, "/send", self._whole)
        router.get("/pay")(self._fresh_form)
        router.post("/pay/review")(self._review)
        router.post("/pay/change")(self._change)
        router.post("/pay")(self._pay)

    async def _whole(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        record = None
        if paid := asked_id(request, "paid"):
            record = await self._payments.payment(signed_in.user_id, paid)
        form = asked_form(request.query_params, new_id=self._shell.new_id())
        return await self._page(request, signed_in, form=form, paid=record)

    async def _fresh_form(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        form = asked_form(request.query_params, new_id=self._shell.new_id())
        return await self._answer(request, signed_in, "send_form.html", form=form)

    async def _review(self, request: Request) -> Response:
        signed_in, fields = await self._shell.guard.require_form(request)
        form, order = self._order(signed_in, fields)
        if order is None:
            return await self._answer(request, signed_in, "send_form.html", status=422, form=form)
        refused = await self._payments.check(order)
        needs_proof = refused is not None and refused.refusal is PaymentRefusal.CONFIRMATION_NEEDED
        if refused is not None and not needs_proof:
            return await self._refused(request, signed_in, form, refused)
        announcement = _("Please check: {amount} to {payee}.").format(
            amount=self._shell.amount(order.money), payee=order.payee
        )
        return await self._answer(
            request,
            signed_in,
            "send_review.html",
            form=form,
            order=order,
            asked=await self._proving.asked(order, needs_proof=needs_proof),
            announcement=announcement,
        )

    async def _change(self, request: Request) -> Response:
        signed_in, fields = await self._shell.guard.require_form(request)
        form = read_form(fields, new_id=self._shell.new_id())
        return await self._answer(request, signed_in, "send_form.html", form=form)

    async def _pay(self, request: Request) -> Response:
        signed_in, fields = await self._shell.guard.require_form(request)
        form, order = self._order(signed_in, fields)
        if order is None:
            return await self._answer(request, signed_in, "send_form.html", status=422, form=form)
        try:
            proven = await self._proving.proven(order, fields)
            outcome = proven if isinstance(proven, PaymentRefused) else await self._payments.pay(proven)
            outcome = await self._payments.answered(outcome, seconds_max=ELSEWHERE_SECONDS_MAX)
        except LedgerUnavailable:
            sentence = _("The wallet can't answer now. Pay again in a moment: it will not pay twice.")
            return await self._answer(
                request,
                signed_in,
                "send_review.html",
                status=503 if not by_htmx(request) else 200,
                form=form.failed(sentence),
                order=order,
                asked=await self._proving.asked(order, needs_proof=proof_in(fields).is_given),
                announcement=sentence,
            )
        if isinstance(outcome, PaymentRefused) and outcome.refusal in PROOF_REFUSALS:
            # Nothing was spent but the proof: the same form again, with the same id.
            return await self._answer(
                request,
                signed_in,
                "send_review.html",
                status=page_status(outcome),
                form=form,
                order=order,
                asked=await self._proving.asked(order, needs_proof=True, problem=outcome.sentence),
                announcement=outcome.sentence,
            )
        if isinstance(outcome, PaymentRefused):
            return await self._refused(request, signed_in, form, outcome)
        if not by_htmx(request):
            return see_other(f"{PATH}/send?paid={outcome.id}")
        return self._shell.part(
            request,
            signed_in,
            "send_paid_fragment.html",
            paid=outcome,
            announcement=_announcement(outcome).format(
                amount=self._shell.amount(outcome.money), payee=outcome.payee
            ),
            view=await wallet_view(self._payments, signed_in.user_id),
            polls_on="send",
        )

    async def _refused(
        self, request: Request, signed_in: SignedIn, form: PaymentForm, refused: PaymentRefused
    ) -> Response:
        return await self._answer(
            request,
            signed_in,
            "send_form.html",
            status=page_status(refused),
            form=form.refused(refused, new_id=self._shell.new_id()),
            announcement=_("Nothing was paid. {reason}").format(reason=refused.sentence),
        )

    def _order(self, signed_in: SignedIn, fields: FormData) -> tuple[PaymentForm, PaymentOrder | None]:
        form = read_form(fields, new_id=self._shell.new_id())
        order = order_of(
            form,
            payer=signed_in.user_id,
            server=self._shell.server,
            currencies=self._payments.currencies,
        )
        return (order, None) if isinstance(order, PaymentForm) else (form, order)

    async def _answer(
        self,
        request: Request,
        signed_in: SignedIn,
        template: str,
        *,
        form: PaymentForm,
        order: PaymentOrder | None = None,
        asked: Asked | None = None,
        status: int = 200,
        announcement: str = "",
    ) -> Response:
        """The part of the page that changed, or without script the whole page with that part in place."""
        if not by_htmx(request):
            return await self._page(request, signed_in, form=form, order=order, asked=asked, status=status)
        return self._shell.part(
            request,
            signed_in,
            template,
            status=status,
            form=form,
            order=order,
            asked=asked,
            announcement=announcement or " ".join(form.problems.values()),
            view=await wallet_view(self._payments, signed_in.user_id),
        )

    async def _page(
        self,
        request: Request,
        signed_in: SignedIn,
        *,
        form: PaymentForm,
        order: PaymentOrder | None = None,
        asked: Asked | None = None,
        paid: PaymentRecord | None = None,
        status: int = 200,
    ) -> Response:
        return await self._shell.page(
            request,
            signed_in,
            "send.html",
            title=_("Send"),
            status=status,
            form=form,
            order=order,
            asked=asked,
            paid=paid,
            view=await wallet_view(self._payments, signed_in.user_id),
            polls_on="send",
        )


def _announcement(paid: PaymentRecord) -> str:
    """What a screen reader is told, its places still open."""
    if paid.crosses_servers and paid.state is PaymentState.PENDING:
        return _("{amount} to {payee} is on its way.")
    if paid.crosses_servers and paid.state is PaymentState.RETURNED:
        return _("{amount} to {payee} was not taken, and is yours again.")
    return _("Paid {amount} to {payee}.")
