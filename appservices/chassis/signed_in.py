"""Who makes this request: the session of a cookie or of a bearer token, for APIs and for pages."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request
from starlette.datastructures import FormData

from appservices.chassis.config import WebSection
from appservices.chassis.web_errors import ApiError
from appservices.chassis.web_security import (
    CSRF_FIELD,
    CSRF_HEADER,
    Cookies,
    csrf_fits,
    csrf_token,
    from_own_page,
)
from appservices.chassis.web_sessions import Session, SessionStore
from appservices.vocabulary.ids import UserId

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_SCOPE_KEY = "weft.signed_in"


class SignInNeeded(Exception):
    """A page was asked for by nobody whom we know."""


class FormNotOurs(Exception):
    """A changing request came with a cookie but without proof that one of our own pages made it."""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who makes a request. `csrf` goes into the pages that they are answered with."""

    session: Session
    token: str
    by_cookie: bool

    @property
    def user_id(self) -> UserId:
        return self.session.user_id

    @property
    def csrf(self) -> str:
        return csrf_token(self.token) if self.by_cookie else ""


class SessionGuard:
    """Finds the session of a request and refuses what a foreign page could have caused."""

    def __init__(self, store: SessionStore, web: WebSection) -> None:
        self.store = store
        self.web = web
        self.cookies = Cookies(web)

    async def of_request(self, request: Request) -> SignedIn | None:
        """Who makes the request. A bearer token, right or wrong, is all that counts when there is one."""
        bearer = _bearer_of(request)
        token = bearer if bearer is not None else request.cookies.get(self.cookies.session, "")
        if not token:
            return None
        if _SCOPE_KEY not in request.scope:
            # One request is made by one person, however many ask who that is.
            session = await self.store.find(token)
            request.scope[_SCOPE_KEY] = (
                None if session is None else SignedIn(session, token, by_cookie=bearer is None)
            )
        signed_in: SignedIn | None = request.scope[_SCOPE_KEY]
        return signed_in

    async def require_api(self, request: Request) -> SignedIn:
        """For APIs: raises ApiError 401 without a session, 403 where a cookie lacks its CSRF token."""
        signed_in = await self.of_request(request)
        if signed_in is None:
            if _bearer_of(request) is None and self.cookies.session not in request.cookies:
                raise ApiError(401, "M_MISSING_TOKEN", "Sign in first: this needs a session's bearer token.")
            raise ApiError(401, "M_UNKNOWN_TOKEN", "This session is unknown or has ended; sign in again.")
        try:
            self.check_own_page(request, signed_in, request.headers.get(CSRF_HEADER, ""))
        except FormNotOurs as error:
            raise ApiError(
                403, "M_FORBIDDEN", f"A cookie session needs its {CSRF_HEADER} header and our own origin."
            ) from error
        return signed_in

    async def require_page(self, request: Request) -> SignedIn:
        """For pages that only show. Raises SignInNeeded."""
        signed_in = await self.of_request(request)
        if signed_in is None:
            raise SignInNeeded
        return signed_in

    async def require_form(self, request: Request) -> tuple[SignedIn, FormData]:
        """For pages that change something. Raises SignInNeeded or FormNotOurs."""
        signed_in = await self.require_page(request)
        form = await request.form(max_files=0, max_fields=32)
        field = form.get(CSRF_FIELD)
        given = request.headers.get(CSRF_HEADER) or (field if isinstance(field, str) else "")
        self.check_own_page(request, signed_in, given)
        return signed_in, form

    def check_own_page(self, request: Request, signed_in: SignedIn, given_csrf: str) -> None:
        """Raises FormNotOurs when a cookie session changes something without proof of our own page."""
        if not signed_in.by_cookie or request.method in _SAFE_METHODS:
            return
        if not (from_own_page(request, self.web) and csrf_fits(signed_in.token, given_csrf)):
            raise FormNotOurs


def _bearer_of(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
