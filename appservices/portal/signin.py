"""The sign-in pages: a code to send to @weft, a one-time link from @weft, signing out.

None of them may stand inside another site's page.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from appservices.chassis.config import WebSection, WeftConfig
from appservices.chassis.pages import SIGN_IN_PATH, PageRoute, Pages, by_htmx, see_other
from appservices.chassis.signed_in import FormNotOurs, SessionGuard, SignInNeeded
from appservices.chassis.web_security import SIGN_IN_COOKIE_SECONDS, from_own_page, own_path
from appservices.chassis.web_sessions import CODE_MINUTES, LINK_MINUTES, NewSession, TooManyCodes, code_of
from appservices.vocabulary.languages import _, counted, isolated

LINK_PATH: Final = "/signin/link"
_MILLISECONDS = 1000


def sign_in_link(web: WebSection, token: str) -> str:
    """The address that @weft gives to who asks for a one-time link."""
    return f"{web.public_url.rstrip('/')}{LINK_PATH}/{token}"


def sign_in_pages(guard: SessionGuard, pages: Pages, config: WeftConfig) -> APIRouter:
    router = APIRouter(route_class=PageRoute, include_in_schema=False)
    store, cookies = guard.store, guard.cookies

    def signed_in_answer(request: Request, began: NewSession, where: str) -> Response:
        if by_htmx(request):
            answer = Response(status_code=200, headers={"HX-Redirect": where})
        else:
            answer = see_other(where)
        session = began.session
        seconds = (session.expires_at_ms - session.created_at_ms) // _MILLISECONDS
        cookies.set(answer, name=cookies.session, value=began.token, seconds=seconds)
        cookies.clear(answer, name=cookies.sign_in)
        return answer

    @router.get(SIGN_IN_PATH)
    async def show_code(request: Request, next: str = "/", waiting: str = "") -> Response:
        where = own_path(next)
        if await guard.of_request(request) is not None:
            return see_other(where)
        secret = request.cookies.get(cookies.sign_in, "")
        # A page loaded again shows the same code, which may be on its way already.
        if secret and await store.code_waits(secret):
            code = code_of(secret)
        else:
            try:
                code, secret = await store.begin_code(
                    request.headers.get("user-agent", ""), address=_address(request)
                )
            except TooManyCodes:
                return pages.render(
                    request,
                    "error.html",
                    status=429,
                    title=_("Too many at once"),
                    sentence=counted(
                        "Too many people are signing in from where you are. Try again in {count} minute, "
                        "or send !login to {user}.",
                        "Too many people are signing in from where you are. Try again in {count} minutes, "
                        "or send !login to {user}.",
                        CODE_MINUTES,
                    ).format(user=isolated(config.home_user)),
                )
        answer = pages.render(
            request,
            "signin.html",
            code=code,
            home_user=config.home_user,
            minutes=CODE_MINUTES,
            next=where,
            not_yet=bool(waiting),
        )
        cookies.set(answer, name=cookies.sign_in, value=secret, seconds=SIGN_IN_COOKIE_SECONDS)
        return answer

    @router.post("/signin/check")
    async def check_code(request: Request) -> Response:
        where = await _next_of_own_form(request, guard)
        if await guard.of_request(request) is not None:
            # Another tab, or the poll before this one, was quicker.
            return Response(headers={"HX-Redirect": where}) if by_htmx(request) else see_other(where)
        secret = request.cookies.get(cookies.sign_in, "")
        began = await store.take_code_session(secret) if secret else None
        if began is not None:
            return signed_in_answer(request, began, where)
        again = f"{SIGN_IN_PATH}?next={quote(where)}"
        if not by_htmx(request):
            return see_other(f"{again}&waiting=1")
        if secret and await store.code_waits(secret):
            return Response(status_code=204)
        return Response(headers={"HX-Redirect": again})

    @router.get(LINK_PATH + "/{token}")
    async def show_link(request: Request, token: str, next: str = "/") -> Response:
        user_id = await store.user_of_link(token)
        if user_id is None:
            return _link_unknown(request, pages, config)
        return pages.render(request, "signin_link.html", user_id=user_id, next=own_path(next))

    @router.post(LINK_PATH + "/{token}")
    async def use_link(request: Request, token: str) -> Response:
        where = await _next_of_own_form(request, guard)
        began = await store.take_link_session(token, request.headers.get("user-agent", ""))
        if began is None:
            return _link_unknown(request, pages, config)
        return signed_in_answer(request, began, where)

    @router.post("/signout")
    async def sign_out(request: Request) -> Response:
        try:
            signed_in, _form = await guard.require_form(request)
        except SignInNeeded:
            # Signed out already: the wish is fulfilled.
            pass
        else:
            await store.sign_out(signed_in.session)
        answer = see_other("/signed-out")
        cookies.clear(answer, name=cookies.session)
        return answer

    @router.get("/signed-out")
    async def signed_out(request: Request) -> Response:
        return pages.render(request, "signed_out.html")

    return router


async def _next_of_own_form(request: Request, guard: SessionGuard) -> str:
    """Where to go afterwards. Raises FormNotOurs: nobody else may sign a browser in, as whomever."""
    if not from_own_page(request, guard.web):
        raise FormNotOurs
    field = (await request.form(max_files=0, max_fields=8)).get("next", "/")
    return own_path(field) if isinstance(field, str) else "/"


def _link_unknown(request: Request, pages: Pages, config: WeftConfig) -> Response:
    return pages.render(
        request,
        "error.html",
        status=404,
        title=_("This link no longer works"),
        sentence=counted(
            "It was used before, or it is older than {count} minute. Send !login to {user} for a new one.",
            "It was used before, or it is older than {count} minutes. Send !login to {user} for a new one.",
            LINK_MINUTES,
        ).format(user=isolated(config.home_user)),
    )


def _address(request: Request) -> str:
    return request.client.host if request.client else ""
