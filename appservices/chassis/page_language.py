"""The language of a page: the choice of who is signed in, else what the browser was set to or asks for.

What lies below `/_` is for programs and speaks English, whoever is signed in.
"""

from __future__ import annotations

import re
from typing import Final

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from appservices.chassis.chosen_languages import ChosenLanguages
from appservices.chassis.signed_in import SessionGuard
from appservices.vocabulary.languages import ENGLISH, LANGUAGES, speaking

QUERY: Final = "lang"
"""The parameter of an address that names a language, as a Matrix client gives its own to a widget."""
ACCEPTED_LENGTH_MAX: Final = 1_000
_SCOPE_KEY: Final = "weft.language"
_QUALITY = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


class PageLanguages:
    """Finds the language of a request."""

    def __init__(self, guard: SessionGuard, chosen: ChosenLanguages) -> None:
        self.chosen = chosen
        self._guard = guard

    def of_browser(self, request: Request) -> str:
        """The language of the address, of an earlier choice in this browser, or of its settings."""
        cookie = request.cookies.get(self._guard.cookies.language, "")
        for tag in (_known(request.query_params.get(QUERY, "")), _known(cookie)):
            if tag is not None:
                return tag
        return accepted_language(request.headers.get("accept-language", "")) or self.chosen.default

    async def of_user(self, request: Request) -> str | None:
        """The choice of who is signed in; None when nobody is or none was made."""
        signed_in = await self._guard.of_request(request)
        return None if signed_in is None else await self.chosen.chosen_by(signed_in.user_id)


class SpeakTheirLanguage:
    """Answers every request in its language."""

    def __init__(self, app: ASGIApp, languages: PageLanguages) -> None:
        self._app = app
        self._languages = languages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        scope[_SCOPE_KEY] = ENGLISH
        if not request.url.path.startswith("/_"):
            # Known before the database is asked, so that a page about its failure has it too.
            scope[_SCOPE_KEY] = self._languages.of_browser(request)
            scope[_SCOPE_KEY] = await self._languages.of_user(request) or scope[_SCOPE_KEY]
        with speaking(scope[_SCOPE_KEY]):
            await self._app(scope, receive, send)


def language_of_request(request: Request) -> str:
    """The language in which the request is answered, for who answers it from outside of that."""
    tag: str = request.scope.get(_SCOPE_KEY, ENGLISH)
    return tag


def accepted_language(header: str) -> str | None:
    """The language of ours that an Accept-Language header likes best (RFC 9110, 12.5.4); None when none."""
    wishes: list[tuple[float, str]] = []
    for item in header[:ACCEPTED_LENGTH_MAX].split(","):
        wished, _, parameter = item.partition(";")
        name, _, value = parameter.partition("=")
        quality = value.strip() if name.strip().lower() == "q" else "1"
        tag = _known(wished)
        if tag is not None and _QUALITY.fullmatch(quality) and float(quality) > 0:
            wishes.append((float(quality), tag))
    # Of those liked equally, max gives the first.
    return max(wishes, key=lambda wish: wish[0])[1] if wishes else None


def _known(tag: str) -> str | None:
    """Our tag for a tag such as `de-AT` or `de_AT`."""
    primary = tag.strip().lower().replace("_", "-").split("-")[0]
    return primary if primary in LANGUAGES else None
