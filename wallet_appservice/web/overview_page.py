"""The first page of the wallet: what is there, what can be done, what happened lately."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

from appservices.chassis.pages import by_htmx, see_other
from appservices.vocabulary.languages import _, known
from wallet_appservice.web.pending_page import PendingPage
from wallet_appservice.web.scanned_text import PAYMENT_FIELDS
from wallet_appservice.web.wallet_shell import PATH, WalletShell, asked_id, position
from wallet_appservice.web.wallet_view import payments_view, wallet_view


@dataclass(frozen=True, slots=True)
class QuickAction:
    """A round button."""

    name: str
    icon: str
    path: str


ACTIONS: Final = (
    QuickAction(known("Send"), "send", "/wallet/send"),
    QuickAction(known("Request"), "request", "/wallet/request"),
    QuickAction(known("Receive"), "receive", "/wallet/receive"),
    QuickAction(known("Scan"), "scan", "/wallet/scan"),
    QuickAction(known("Red packet"), "gift", "/wallet/red-packet"),
    QuickAction(known("Split"), "split", "/wallet/split"),
)


class OverviewPage:
    def __init__(self, shell: WalletShell, pending: PendingPage) -> None:
        self._shell = shell
        self._pending = pending

    def add_to(self, router: APIRouter) -> None:
        self._shell.show_at(router, "", self._whole)
        router.get("/content")(self._whole)
        router.get("/news")(self._news)
        router.get("/payments")(self._more_payments)

    async def _whole(self, request: Request) -> Response:
        asked = request.query_params
        # Addresses that were given out when the wallet was a single page.
        if asked.get("payee"):
            kept = {name: asked[name] for name in PAYMENT_FIELDS if name in asked}
            return see_other(f"{PATH}/send?{urlencode(kept)}")
        if paid := asked_id(request, "paid"):
            return see_other(f"{PATH}/send?paid={paid}")
        signed_in = await self._shell.guard.require_page(request)
        before = position(asked.get("before"))
        return await self._shell.page(
            request,
            signed_in,
            "overview.html",
            title=_("Wallet"),
            tab="overview",
            actions=ACTIONS,
            older=before is not None,
            view=await wallet_view(self._shell.payments, signed_in.user_id, before=before),
            pending=await self._pending.cards_for(signed_in.user_id),
            polls_on="overview",
        )

    async def _news(self, request: Request) -> Response:
        """What has changed since an open page was last told; nothing when nothing has."""
        signed_in = await self._shell.guard.require_page(request)
        if not by_htmx(request):
            return see_other(PATH)
        view = await wallet_view(self._shell.payments, signed_in.user_id)
        if view.fingerprint == request.query_params.get("seen", ""):
            return Response(status_code=204)
        on_overview = request.query_params.get("on") == "overview"
        return self._shell.part(
            request,
            signed_in,
            "wallet_news_fragment.html",
            announcement=_("Your wallet has changed."),
            view=view,
            pending=await self._pending.cards_for(signed_in.user_id) if on_overview else None,
            polls_on="overview" if on_overview else "send",
        )

    async def _more_payments(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        before = position(request.query_params.get("before"))
        if not by_htmx(request):
            return see_other(f"{PATH}?before={before or ''}")
        shown = await payments_view(self._shell.payments, signed_in.user_id, before=before)
        return self._shell.part(request, signed_in, "payment_rows.html", payments=shown)
