"""The portal at `/`: who you are, your services, where you are signed in."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
from fastapi import APIRouter, Request, Response

from appservices.chassis.chosen_languages import ChosenLanguages
from appservices.chassis.config import WeftConfig
from appservices.chassis.page_language import QUERY
from appservices.chassis.page_words import browser_name
from appservices.chassis.pages import PageRoute, Pages, see_other
from appservices.chassis.signed_in import FormNotOurs, SessionGuard, SignedIn
from appservices.chassis.web_security import LANGUAGE_COOKIE_SECONDS, from_own_page, own_path
from appservices.chassis.web_sessions import Session, SignInWay
from appservices.vocabulary.languages import LANGUAGES, _, known
from appservices.vocabulary.money import Currency, format_minor, iso_currency
from appservices.wallet_client.client import Balance, WalletClient, WalletRefused, WalletUnreachable

log = logging.getLogger(__name__)

TEMPLATES: Final = Path(__file__).parent / "templates"
CARD_TIMEOUT_SECONDS: Final = 3.0
_WAYS: Final = {
    SignInWay.CODE: known("By a code"),
    SignInWay.LINK: known("By a link"),
    SignInWay.OPENID: known("By your Matrix client"),
}


@dataclass(frozen=True, slots=True)
class WalletCard:
    """What the portal says of the wallet: balances, or why it can't."""

    balances: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Browser:
    """A session as its user knows it."""

    session_id: str
    name: str
    way: str
    since_ms: int
    current: bool


def portal_pages(
    guard: SessionGuard,
    pages: Pages,
    config: WeftConfig,
    *,
    chosen: ChosenLanguages,
    http: httpx.AsyncClient,
    wallet_url: str,
) -> APIRouter:
    """The routes. `wallet_url` is where the wallet listens, as reached from this process."""
    router = APIRouter(route_class=PageRoute, include_in_schema=False)
    store = guard.store

    @router.get("/")
    async def home(request: Request) -> Response:
        signed_in = await guard.require_page(request)
        wallet = WalletClient(
            http, wallet_url, token=signed_in.token, timeout_seconds=CARD_TIMEOUT_SECONDS, tries_max=1
        )
        sessions = await store.of_user(signed_in.user_id)
        return pages.render(
            request,
            "home.html",
            signed_in=signed_in,
            wallet=await _wallet_card(wallet, config),
            browsers=[_browser(session, signed_in) for session in sessions],
        )

    @router.post("/browsers/signout")
    async def sign_out_browser(request: Request) -> Response:
        signed_in, form = await guard.require_form(request)
        session_id = form.get("session_id")
        if isinstance(session_id, str):
            await store.sign_out_one(signed_in.user_id, session_id)
        return see_other("/")

    @router.post("/browsers/signout-all")
    async def sign_out_all(request: Request) -> Response:
        signed_in, _form = await guard.require_form(request)
        await store.sign_out_everywhere(signed_in.user_id)
        answer = see_other("/signed-out")
        guard.cookies.clear(answer, name=guard.cookies.session)
        return answer

    @router.post("/language")
    async def choose_language(request: Request) -> Response:
        """The user's own choice; of who is not signed in, this browser's."""
        signed_in = await guard.of_request(request)
        if signed_in is not None:
            signed_in, form = await guard.require_form(request)
        elif from_own_page(request, guard.web):
            form = await request.form(max_files=0, max_fields=8)
        else:
            raise FormNotOurs
        tag, where = form.get("language"), form.get("next")
        answer = see_other(_without_language(own_path(where)) if isinstance(where, str) else "/")
        if isinstance(tag, str) and tag in LANGUAGES:
            if signed_in is not None:
                await chosen.choose(signed_in.user_id, tag)
            # Also for the pages that this browser sees before it is signed in again.
            guard.cookies.set(answer, name=guard.cookies.language, value=tag, seconds=LANGUAGE_COOKIE_SECONDS)
        return answer

    return router


def _without_language(path: str) -> str:
    """The address without the language that it names, which would outweigh the one chosen now."""
    parts = urlsplit(path)
    query = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != QUERY]
    return f"{parts.path}?{urlencode(query, safe='/')}" if query else parts.path


async def _wallet_card(wallet: WalletClient, config: WeftConfig) -> WalletCard:
    try:
        balances = await wallet.balances()
    except (WalletRefused, WalletUnreachable) as error:
        log.warning("the portal can't show the wallet: %s", error)
        return WalletCard(problem=_("Can't be reached right now"))
    return WalletCard(balances=tuple(_amount(balance, config) for balance in balances))


def _amount(balance: Balance, config: WeftConfig) -> str:
    kept = config.wallet.kept_currencies.get(balance.currency)
    currency = kept or iso_currency(balance.currency)
    if currency is None or currency.exponent != balance.exponent:
        currency = Currency(balance.currency, balance.exponent, balance.currency)
    return format_minor(balance.available_minor, currency)


def _browser(session: Session, signed_in: SignedIn) -> Browser:
    return Browser(
        session_id=session.session_id,
        name=browser_name(session.user_agent),
        way=_(_WAYS[session.signed_in_by]),
        since_ms=session.created_at_ms,
        current=session.session_id == signed_in.session.session_id,
    )
