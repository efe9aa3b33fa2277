"""What every page of the wallet has in common: who is signed in, what is around it, two ways of being shown.

In the portal a cookie signs in; links and forms are the browser's own, and work without script. As a widget
(any of the addresses with `?widget=1`) a page comes empty, signs in through the Matrix client and loads its
content with a bearer token; from then on links and forms load contents into the same frame (htmx's hx-boost).
Either way a page is one template; only what is around it differs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from appservices.chassis.clock import Clock, Tokens
from appservices.chassis.config import WeftConfig
from appservices.chassis.pages import Pages, by_htmx
from appservices.chassis.signed_in import SessionGuard, SignedIn
from appservices.chassis.widget_frames import Page, WidgetFrames
from appservices.vocabulary.ids import ServerName, TransferId, is_ledger_id
from appservices.vocabulary.languages import _
from appservices.vocabulary.money import CurrencyCode, Money
from wallet_appservice.payments.actions import Payments
from wallet_appservice.web.wallet_view import amount_text

TEMPLATES: Final = Path(__file__).parent / "templates"
PATH: Final = "/wallet"
ELSEWHERE_SECONDS_MAX: Final = 5.0
"""How long a page waits for another homeserver's wallet before it shows a payment as under way."""


class WalletShell:
    """What a page of the wallet is made with."""

    def __init__(
        self,
        *,
        payments: Payments,
        guard: SessionGuard,
        pages: Pages,
        config: WeftConfig,
        tokens: Tokens,
        clock: Clock,
    ) -> None:
        self.payments = payments
        self.guard = guard
        self.pages = pages
        self._frames = WidgetFrames(pages, service_name=lambda: _("Wallet"), camera=True)
        self.server = ServerName(config.server_name)
        self.public_url = config.web.public_url.rstrip("/")
        self.clock = clock
        self._tokens = tokens

    def show_at(self, router: APIRouter, path: str, page: Page) -> None:
        """Serves a page there, also as a widget."""
        self._frames.show_at(router, path, page)

    async def page(
        self,
        request: Request,
        signed_in: SignedIn,
        template: str,
        *,
        title: str,
        tab: str = "",
        status: int = 200,
        announcement: str = "",
        camera: bool = False,
        **context: object,
    ) -> Response:
        """The page, or its content alone for a frame that is there already."""
        return self.pages.render(
            request,
            "wallet_fragment.html" if by_htmx(request) else "wallet.html",
            status=status,
            camera=camera,
            signed_in=signed_in,
            widget=not signed_in.by_cookie,
            content=template,
            title=title,
            tab=tab,
            announcement=announcement,
            **self._with_common(context),
        )

    def part(
        self,
        request: Request,
        signed_in: SignedIn,
        template: str,
        *,
        status: int = 200,
        announcement: str = "",
        **context: object,
    ) -> Response:
        """A part of a page, for a script that puts it into place."""
        return self.pages.render(
            request,
            template,
            status=status,
            signed_in=signed_in,
            widget=not signed_in.by_cookie,
            announcement=announcement,
            **self._with_common(context),
        )

    async def missing(self, request: Request, signed_in: SignedIn, sentence: str) -> Response:
        """For what isn't there, or is somebody else's: the two look the same."""
        return await self.page(
            request, signed_in, "missing.html", title=_("Nothing here"), status=404, sentence=sentence
        )

    def amount(self, money: Money) -> str:
        return self.amount_of(money.amount_minor, money.currency)

    def amount_of(self, amount_minor: int, currency: CurrencyCode) -> str:
        return amount_text(amount_minor, currency, self.payments.currencies)

    def new_id(self) -> TransferId:
        return TransferId(self._tokens.hex())

    def _with_common(self, context: dict[str, object]) -> dict[str, Any]:
        return {
            **context,
            "currencies": list(self.payments.currencies.values()),
            "amount_text": self.amount,
            "server": self.server,
        }


def position(text: str | None) -> int | None:
    """A record's position as an address names it."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 18 else None


def asked_id(request: Request, name: str) -> TransferId | None:
    """The id of a payment in an address; None for what is none."""
    text = request.path_params.get(name) or request.query_params.get(name, "")
    return TransferId(text) if is_ledger_id(text) else None
