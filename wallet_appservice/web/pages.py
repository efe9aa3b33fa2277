"""The wallet page, in the portal and as a widget: the same fragments, two ways of being signed in.

In the portal a cookie signs in, and every form works without script. As a widget the page comes empty, signs
in through the Matrix client and loads its content with a bearer token.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from starlette.datastructures import FormData

from appservices.chassis.clock import Tokens
from appservices.chassis.config import WeftConfig
from appservices.chassis.pages import PageRoute, Pages, by_htmx, see_other
from appservices.chassis.signed_in import SessionGuard, SignedIn
from appservices.vocabulary.ids import ServerName, TransferId, is_ledger_id
from wallet_appservice.ledger.engine import LedgerUnavailable
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.records import PaymentOrder, PaymentRecord
from wallet_appservice.payments.refusals import REFUSALS, PaymentRefused
from wallet_appservice.web.payment_form import PaymentForm, order_of, read_form
from wallet_appservice.web.wallet_view import amount_text, payments_view, wallet_view

TEMPLATES: Final = Path(__file__).parent / "templates"
PATH: Final = "/wallet"
ELSEWHERE_SECONDS_MAX: Final = 5.0


def wallet_pages(
    payments: Payments, guard: SessionGuard, pages: Pages, config: WeftConfig, tokens: Tokens
) -> APIRouter:
    router = APIRouter(prefix=PATH, route_class=PageRoute, include_in_schema=False)
    page = _WalletPage(payments, guard, pages, ServerName(config.server_name), tokens)
    router.get("")(page.whole)
    router.get("/content")(page.content)
    router.get("/news")(page.news)
    router.get("/payments")(page.more_payments)
    router.get("/pay")(page.fresh_form)
    router.post("/pay/review")(page.review)
    router.post("/pay/change")(page.change)
    router.post("/pay")(page.pay)
    return router


class _WalletPage:
    def __init__(
        self, payments: Payments, guard: SessionGuard, pages: Pages, server: ServerName, tokens: Tokens
    ) -> None:
        self._payments = payments
        self._guard = guard
        self._pages = pages
        self._server = server
        self._tokens = tokens

    async def whole(
        self, request: Request, widget: str = "", before: str = "", paid: str = "", payee: str = ""
    ) -> Response:
        if widget:
            return self._pages.render(request, "wallet_widget.html", widget=True)
        signed_in = await self._guard.require_page(request)
        record = None
        if is_ledger_id(paid):
            record = await self._payments.payment(signed_in.user_id, TransferId(paid))
        return await self._page(
            request,
            signed_in,
            form=PaymentForm(id=self._new_id(), payee=payee[:255]),
            before=_position(before),
            paid=record,
        )

    async def content(self, request: Request) -> Response:
        signed_in = await self._guard.require_page(request)
        return self._pages.render(
            request,
            "wallet_content.html",
            signed_in=signed_in,
            widget=not signed_in.by_cookie,
            form=PaymentForm(id=self._new_id()),
            view=await wallet_view(self._payments, signed_in.user_id),
            **self._common(),
        )

    async def news(self, request: Request, seen: str = "") -> Response:
        """What has changed since an open page was last told; nothing when nothing has."""
        signed_in = await self._guard.require_page(request)
        if not by_htmx(request):
            return see_other(PATH)
        view = await wallet_view(self._payments, signed_in.user_id)
        if view.fingerprint == seen:
            return Response(status_code=204)
        return self._pages.render(
            request,
            "wallet_news_fragment.html",
            signed_in=signed_in,
            widget=not signed_in.by_cookie,
            announcement="Your wallet has changed.",
            view=view,
            **self._common(),
        )

    async def more_payments(self, request: Request, before: str = "") -> Response:
        signed_in = await self._guard.require_page(request)
        if not by_htmx(request):
            return see_other(f"{PATH}?before={_position(before) or ''}")
        shown = await payments_view(self._payments, signed_in.user_id, before=_position(before))
        return self._pages.render(request, "wallet_more.html", payments=shown)

    async def fresh_form(self, request: Request, payee: str = "") -> Response:
        signed_in = await self._guard.require_page(request)
        form = PaymentForm(id=self._new_id(), payee=payee[:255])
        return await self._answer(request, signed_in, "wallet_pay.html", form=form)

    async def review(self, request: Request) -> Response:
        signed_in, fields = await self._guard.require_form(request)
        form, order = self._order(signed_in, fields)
        if order is None:
            return await self._answer(request, signed_in, "wallet_pay.html", status=422, form=form)
        refused = await self._payments.check(order)
        if refused is not None:
            return await self._refused(request, signed_in, form, refused)
        return await self._answer(
            request,
            signed_in,
            "wallet_review.html",
            form=form,
            order=order,
            announcement=f"Please check: {self._amount(order)} to {order.payee}.",
        )

    async def change(self, request: Request) -> Response:
        signed_in, fields = await self._guard.require_form(request)
        form = read_form(fields, new_id=self._new_id())
        return await self._answer(request, signed_in, "wallet_pay.html", form=form)

    async def pay(self, request: Request) -> Response:
        signed_in, fields = await self._guard.require_form(request)
        form, order = self._order(signed_in, fields)
        if order is None:
            return await self._answer(request, signed_in, "wallet_pay.html", status=422, form=form)
        try:
            outcome = await self._payments.pay_and_wait(order, seconds_max=ELSEWHERE_SECONDS_MAX)
        except LedgerUnavailable:
            sentence = "The wallet can't answer now. Pay again in a moment: it will not pay twice."
            return await self._answer(
                request,
                signed_in,
                "wallet_review.html",
                status=503 if not by_htmx(request) else 200,
                form=form.failed(sentence),
                order=order,
                announcement=sentence,
            )
        if isinstance(outcome, PaymentRefused):
            return await self._refused(request, signed_in, form, outcome)
        if not by_htmx(request):
            return see_other(f"{PATH}?paid={outcome.id}")
        return self._pages.render(
            request,
            "wallet_paid_fragment.html",
            signed_in=signed_in,
            widget=not signed_in.by_cookie,
            paid=outcome,
            announcement=f"Paid {self._amount(outcome)} to {outcome.payee}.",
            view=await wallet_view(self._payments, signed_in.user_id),
            **self._common(),
        )

    async def _refused(
        self, request: Request, signed_in: SignedIn, form: PaymentForm, refused: PaymentRefused
    ) -> Response:
        return await self._answer(
            request,
            signed_in,
            "wallet_pay.html",
            status=REFUSALS[refused.refusal].http_status,
            form=form.refused(refused, new_id=self._new_id()),
            announcement=f"Nothing was paid. {refused.sentence}",
        )

    def _order(self, signed_in: SignedIn, fields: FormData) -> tuple[PaymentForm, PaymentOrder | None]:
        form = read_form(fields, new_id=self._new_id())
        order = order_of(
            form, payer=signed_in.user_id, server=self._server, currencies=self._payments.currencies
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
        status: int = 200,
        announcement: str = "",
    ) -> Response:
        """The part of the page that changed, or without script the whole page with that part in place."""
        if not by_htmx(request):
            return await self._page(request, signed_in, form=form, order=order, status=status)
        return self._pages.render(
            request,
            template,
            status=status,
            signed_in=signed_in,
            widget=not signed_in.by_cookie,
            form=form,
            order=order,
            announcement=announcement or " ".join(form.problems.values()),
            view=await wallet_view(self._payments, signed_in.user_id),
            **self._common(),
        )

    async def _page(
        self,
        request: Request,
        signed_in: SignedIn,
        *,
        form: PaymentForm,
        order: PaymentOrder | None = None,
        before: int | None = None,
        paid: PaymentRecord | None = None,
        status: int = 200,
    ) -> Response:
        return self._pages.render(
            request,
            "wallet.html",
            status=status,
            signed_in=signed_in,
            form=form,
            order=order,
            paid=paid,
            older=before is not None,
            view=await wallet_view(self._payments, signed_in.user_id, before=before),
            **self._common(),
        )

    def _common(self) -> dict[str, Any]:
        return {
            "currencies": list(self._payments.currencies.values()),
            "amount_text": lambda money: amount_text(
                money.amount_minor, money.currency, self._payments.currencies
            ),
            "server": self._server,
        }

    def _amount(self, item: PaymentOrder | PaymentRecord) -> str:
        return amount_text(item.money.amount_minor, item.money.currency, self._payments.currencies)

    def _new_id(self) -> TransferId:
        return TransferId(self._tokens.hex())


def _position(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
