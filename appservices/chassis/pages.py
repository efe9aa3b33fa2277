"""The page shell: templates, themes, headers, and errors in plain words, for every service's pages."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException

from appservices.chassis.config import WebSection
from appservices.chassis.page_assets import Assets
from appservices.chassis.page_language import PageLanguages, SpeakTheirLanguage, language_of_request
from appservices.chassis.page_words import (
    avatar_color,
    display_name,
    initial,
    iso_time,
    readable_time,
)
from appservices.chassis.signed_in import FormNotOurs, SignInNeeded
from appservices.chassis.web_errors import ApiError, BodyTooLarge, limit_body
from appservices.chassis.web_security import NOT_FRAMED, StrictHeaders, page_policy, permissions_policy
from appservices.vocabulary.languages import LANGUAGES, _, direction, form_for, language, speaking

log = logging.getLogger(__name__)

FORM_BYTES_MAX: Final = 16 * 1024
TEMPLATES: Final = Path(__file__).parent / "templates"
SIGN_IN_PATH: Final = "/signin"
_THEMES: Final = {
    "light": "cpd-theme-light",
    "dark": "cpd-theme-dark",
    "light-high-contrast": "cpd-theme-light-hc",
    "dark-high-contrast": "cpd-theme-dark-hc",
}
_HTMX_CONFIG: Final = json.dumps(
    {
        # The content security policy forbids both; asking for neither keeps the console quiet.
        "includeIndicatorStyles": False,
        "allowEval": False,
        "allowScriptTags": False,
        # Private pages are not left behind in the browser's storage.
        "historyCacheSize": 0,
        "timeout": 20_000,
        # A refused form is shown; anything else that fails is announced by weft.js.
        "responseHandling": [
            {"code": "204", "swap": False},
            {"code": "[23]..", "swap": True},
            {"code": "(402|404|409|422|429)", "swap": True},
            {"code": "...", "swap": False, "error": True},
        ],
    }
)


class Pages:
    """Renders one service's templates inside the common shell."""

    def __init__(self, web: WebSection, assets: Assets, folder: Path | None = None) -> None:
        self._web = web
        folders = [*([folder] if folder else []), TEMPLATES]
        self._environment = Environment(
            loader=ChoiceLoader([FileSystemLoader(item) for item in folders]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.i18n"],
        )
        self._environment.policies["ext.i18n.trimmed"] = True
        # What the extension adds is not in Environment's type.
        environment: Any = self._environment
        environment.install_gettext_callables(_, form_for, newstyle=True)
        self._environment.globals.update(
            asset=assets.url,
            htmx_config=_HTMX_CONFIG,
            languages=LANGUAGES,
            language=language,
            direction=direction,
        )
        self._environment.filters.update(
            avatar_color=avatar_color,
            display_name=display_name,
            initial=initial,
            iso_time=iso_time,
            readable_time=readable_time,
        )

    def render(
        self,
        request: Request,
        template: str,
        *,
        status: int = 200,
        widget: bool = False,
        camera: bool = False,
        **context: object,
    ) -> HTMLResponse:
        """A page. As a widget it may stand in the configured Matrix clients, otherwise in no other page.

        `camera` lets it ask its user for the camera.
        """
        page = self._environment.get_template(template).render(
            {
                "theme": theme_of(request),
                "here": page_of(request),
                "widget": widget,
                "signed_in": None,
                **context,
            }
        )
        framed_by = ("'self'", *self._web.client_origins) if widget else NOT_FRAMED
        headers = {
            "Content-Security-Policy": page_policy(framed_by),
            "Content-Language": language(),
            "Cache-Control": "no-store",
        }
        if camera:
            headers["Permissions-Policy"] = permissions_policy(camera=True)
        if widget:
            # Otherwise a widget that opens its page in a tab of its own would be cut off from it.
            headers["Cross-Origin-Opener-Policy"] = "unsafe-none"
        return HTMLResponse(page, status_code=status, headers=headers)


class PageRoute(APIRoute):
    """A route of a page: its form is limited in size."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            return await handle(limit_body(request, FORM_BYTES_MAX))

        return answer


def by_htmx(request: Request) -> bool:
    """Whether a fragment is asked for instead of a page."""
    return request.headers.get("hx-request") == "true"


def see_other(path: str) -> RedirectResponse:
    """After a form: go there, so that a reload does not send the form again."""
    return RedirectResponse(path, status_code=HTTPStatus.SEE_OTHER)


def theme_of(request: Request) -> str:
    """The class of the theme that the address names (Element's client_theme); "" is the browser's choice."""
    return _THEMES.get(request.query_params.get("theme", ""), "")


def page_of(request: Request) -> str:
    """The address of the page that a request is for; for a form or a fragment, of the page it is part of."""
    where = request.url.path
    if request.method not in ("GET", "HEAD") or by_htmx(request):
        return "/" + where.strip("/").split("/")[0]
    return f"{where}?{request.url.query}" if request.url.query else where


def install_shell(app: FastAPI, pages: Pages, assets: Assets, languages: PageLanguages) -> None:
    """Gives an app the assets, the strict headers, everyone's language, and errors as pages.

    Below /_, which is for programs, errors are in Matrix's form and in English.
    """
    app.include_router(assets.router())
    app.add_middleware(SpeakTheirLanguage, languages=languages)
    app.add_middleware(StrictHeaders)

    def error_answer(request: Request, status: int, title: str, sentence: str) -> Response:
        if request.url.path.startswith("/_"):
            errcode = {404: "M_UNRECOGNIZED", 405: "M_UNRECOGNIZED", 413: "M_TOO_LARGE"}.get(
                status, "M_UNKNOWN" if status >= 500 else "M_FORBIDDEN"
            )
            return JSONResponse({"errcode": errcode, "error": sentence}, status_code=status)
        return pages.render(request, "error.html", status=status, title=title, sentence=sentence)

    @app.exception_handler(SignInNeeded)
    async def sign_in_needed(request: Request, _error: Exception) -> Response:
        if "authorization" in request.headers:
            # A widget: its script signs in again.
            return Response(status_code=401)
        address = _sign_in_address(request)
        if by_htmx(request):
            return Response(status_code=401, headers={"HX-Redirect": address})
        return see_other(address)

    @app.exception_handler(FormNotOurs)
    async def form_not_ours(request: Request, _error: Exception) -> Response:
        return error_answer(
            request,
            403,
            _("Nothing was changed"),
            _("This form did not come from a current page of ours. Go back, load the page again and retry."),
        )

    @app.exception_handler(BodyTooLarge)
    async def body_too_large(request: Request, _error: Exception) -> Response:
        return error_answer(request, 413, _("Too much"), _("That is more than this form takes."))

    @app.exception_handler(ApiError)
    async def api_error(_request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return error.response()

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if isinstance(error.__cause__, BodyTooLarge):
            return await body_too_large(request, error)
        title, sentence = {
            404: (_("Nothing here"), _("There is no page at this address.")),
            405: (_("Not like this"), _("This address can't be used in that way.")),
        }.get(error.status_code, (_("That did not work"), _("The request could not be understood.")))
        answer = error_answer(request, error.status_code, title, sentence)
        for name, value in (error.headers or {}).items():
            answer.headers[name] = value
        return answer

    @app.exception_handler(Exception)
    async def failure(request: Request, error: Exception) -> Response:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        # A failure is answered after all else has ended, its language too.
        with speaking(language_of_request(request)):
            return error_answer(
                request,
                500,
                _("Something broke"),
                _("That was our fault, not yours; it is in the server's log."),
            )


def _sign_in_address(request: Request) -> str:
    return f"{SIGN_IN_PATH}?next={quote(page_of(request), safe='/')}"
