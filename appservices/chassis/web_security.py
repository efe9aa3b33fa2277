"""What keeps pages and sessions safe in a browser: headers, cookies, and proof that a form is our own page's.

A cookie travels with requests that other sites cause, so a cookie session is believed in a changing request
only with its CSRF token and from our own origin. A bearer session is sent by our own script alone.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final
from urllib.parse import urlsplit

from fastapi import Request, Response
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from appservices.chassis.config import WebSection

CSRF_HEADER: Final = "X-Weft-CSRF"
CSRF_FIELD: Final = "csrf"
SIGN_IN_COOKIE_SECONDS: Final = 600
LANGUAGE_COOKIE_SECONDS: Final = 365 * 24 * 3600

NOT_FRAMED: Final = ("'none'",)
"""frame-ancestors of pages that no other page may show: sign-in and the portal."""


def permissions_policy(*, camera: bool = False) -> str:
    """What a page may use of the device: nothing, or the camera for one that scans codes."""
    return f"camera=({'self' if camera else ''}), geolocation=(), microphone=(), payment=(), usb=()"


_STRICT_HEADERS: Final = {
    # Scripts, styles and pictures come from this server alone, and nothing inline runs.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    # Other sites learn nothing of our addresses. Not no-referrer: with that, browsers send `Origin: null`
    # with forms, and the origin of a form could not be checked.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Permissions-Policy": permissions_policy(),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class StrictHeaders:
    """Puts the strictest headers on every answer that has not set its own, errors included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _STRICT_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def page_policy(frame_ancestors: tuple[str, ...]) -> str:
    """The content security policy of a page of ours."""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "media-src 'self'",
            "font-src 'self'",
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            f"frame-ancestors {' '.join(frame_ancestors)}",
        )
    )


class Cookies:
    """The cookies of this server, named so that neighbours on one machine don't overwrite each other.

    Over https their names begin with __Host-, which a browser accepts only for this very host, from https and
    for the whole site. Browsers don't tell ports apart in cookies, so without https the port is in the name.
    """

    def __init__(self, web: WebSection) -> None:
        public = urlsplit(web.public_url)
        self._secure = public.scheme == "https"
        prefix, suffix = ("__Host-", "") if self._secure else ("", f"_{public.port or 80}")
        self.session = f"{prefix}weft_session{suffix}"
        self.sign_in = f"{prefix}weft_sign_in{suffix}"
        self.language = f"{prefix}weft_language{suffix}"

    def set(self, response: Response, *, name: str, value: str, seconds: int) -> None:
        response.set_cookie(
            name, value, max_age=seconds, path="/", secure=self._secure, httponly=True, samesite="lax"
        )

    def clear(self, response: Response, *, name: str) -> None:
        response.delete_cookie(name, path="/", secure=self._secure, httponly=True, samesite="lax")


def csrf_token(session_token: str) -> str:
    """The CSRF token of a session: only who holds the session's secret can make it, so none is stored."""
    return hmac.new(session_token.encode(), b"weft csrf", hashlib.sha256).hexdigest()


def csrf_fits(session_token: str, given: str) -> bool:
    return hmac.compare_digest(csrf_token(session_token).encode(), given.encode("utf-8", "replace"))


def from_own_page(request: Request, web: WebSection) -> bool:
    """Whether a browser says that one of our own pages made this request.

    Sec-Fetch-Site tells most; it is sent to https and to loopback only, so elsewhere Origin decides. Without
    either, the request is not from a browser that could prove it, and is refused.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    return origin is not None and origin in (_origin(web.public_url), _origin(str(request.base_url)))


def own_path(path: str) -> str:
    """The path if it leads to a page of ours, otherwise `/`.

    Where to go after signing in is part of an address, and anybody can write an address.
    """
    begins_well = path.startswith("/") and not path.startswith(("//", "/\\"))
    plain = path.isascii() and path.isprintable() and "\\" not in path
    return path if begins_well and plain and len(path) <= 500 else "/"


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
