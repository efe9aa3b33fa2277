"""What every page of Moments has in common: who is signed in, what is around it, how Moments are shown.

In the portal a cookie signs in, and forms are the browser's own. As a widget (`?widget=1`) a page comes
empty, signs in through the Matrix client and loads its content with a bearer token.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from appservices.chassis.clock import Clock, Tokens
from appservices.chassis.homeserver import MatrixUnavailable
from appservices.chassis.pages import Pages, by_htmx
from appservices.chassis.signed_in import SessionGuard, SignedIn
from appservices.chassis.web_errors import limit_body
from appservices.chassis.widget_frames import Page, WidgetFrames
from appservices.moments.feature import Moments
from appservices.moments.viewing import Seen
from appservices.moments.web.addresses import PictureAddresses
from appservices.moments.web.shown import ShownMoment, shown_moments
from appservices.vocabulary.languages import _

TEMPLATES: Final = Path(__file__).parent / "templates"
PATH: Final = "/moments"
FORM_BYTES_MAX: Final = 64 * 1024
"""A Moment's text may take twelve bytes a character in a form."""


class MomentsShell:
    """What a page of Moments is made with."""

    def __init__(
        self, moments: Moments, guard: SessionGuard, pages: Pages, *, clock: Clock, tokens: Tokens
    ) -> None:
        self.moments = moments
        self.guard = guard
        self.clock = clock
        self.tokens = tokens
        self.addresses = PictureAddresses(clock, secret=tokens.hex(32).encode())
        self._pages = pages
        self._frames = WidgetFrames(pages, service_name=lambda: _("Moments"))

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
        **context: Any,
    ) -> Response:
        """The page, or its content alone for a frame that is there already."""
        return self._pages.render(
            request,
            "moments_fragment.html" if by_htmx(request) else "moments.html",
            status=status,
            signed_in=signed_in,
            widget=not signed_in.by_cookie,
            content=template,
            title=title,
            tab=tab,
            news_count=await self.moments.viewing.unseen_news(signed_in.user_id) if tab != "news" else 0,
            new_id=self.tokens.hex,
            **context,
        )

    def part(
        self, request: Request, signed_in: SignedIn, template: str, *, status: int = 200, **context: Any
    ) -> Response:
        """A part of a page, for a script that puts it into place."""
        return self._pages.render(
            request,
            template,
            status=status,
            signed_in=signed_in,
            widget=not signed_in.by_cookie,
            new_id=self.tokens.hex,
            **context,
        )

    async def missing(self, request: Request, signed_in: SignedIn) -> Response:
        """For what isn't there, and for what isn't for this person: the two look the same."""
        return await self.page(
            request, signed_in, "moments_missing.html", title=_("Nothing here"), status=404
        )

    async def shown(self, signed_in: SignedIn, seen: Sequence[Seen]) -> list[ShownMoment]:
        """Moments as templates show them."""
        return await shown_moments(
            seen, signed_in.user_id, names=self.moments.names, address=self.addresses.of(signed_in)
        )


class MomentsRoute(APIRoute):
    """A route of a page: its form is limited in size, and a Synapse that can't be asked is said so."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(limit_body(request, FORM_BYTES_MAX))
            except MatrixUnavailable:
                # Who may see what can't be judged now, so nothing is shown.
                return Response(
                    _("Your homeserver does not answer right now. Nothing is lost: try again."),
                    status_code=503,
                    media_type="text/plain; charset=utf-8",
                    headers={"Retry-After": "5"},
                )

        return answer
