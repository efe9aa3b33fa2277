"""A page as a widget: it comes empty, signs in through the Matrix client, and then loads its content.

Any page's address with `?widget=1` answers with such a frame; without, with the page itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

from appservices.chassis.page_language import QUERY
from appservices.chassis.pages import Pages

_FRAME_PARAMETERS: Final = frozenset(
    {"widget", "user_id", "widget_id", "widgetId", "parentUrl", "theme", "client_id", QUERY}
)

Page = Callable[[Request], Awaitable[Response]]


class WidgetFrames:
    """The frames of one service's pages."""

    def __init__(self, pages: Pages, *, service_name: Callable[[], str], camera: bool = False) -> None:
        """`service_name` is asked for each request, in its language. `camera`: one of the pages that a frame
        will show, which are known only later, wants the camera."""
        self._pages = pages
        self._service_name = service_name
        self._camera = camera

    def show_at(self, router: APIRouter, path: str, page: Page) -> None:
        """Serves a page there, and to a Matrix client the frame that loads it once it has signed in."""

        async def answer(request: Request) -> Response:
            return self._frame(request) if request.query_params.get("widget") else await page(request)

        router.get(path)(answer)

    def _frame(self, request: Request) -> Response:
        asked = [
            (name, value)
            for name, value in request.query_params.multi_items()
            if name not in _FRAME_PARAMETERS
        ]
        path = request.url.path
        return self._pages.render(
            request,
            "widget_frame.html",
            widget=True,
            service_name=self._service_name(),
            camera=self._camera,
            content_path=f"{path}?{urlencode(asked)}" if asked else path,
        )
