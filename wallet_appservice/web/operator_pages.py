"""The operator's pages: how much money there is, which limits hold, who did what, and other homeservers.

They change nothing.

Whoever is not named in `web.operators` is told what a page that doesn't exist tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from appservices.chassis.clock import system_clock
from appservices.chassis.config import WeftConfig
from appservices.chassis.database import Database
from appservices.chassis.pages import PageRoute, Pages
from appservices.chassis.signed_in import SessionGuard, SignedIn
from appservices.vocabulary.languages import _, known
from appservices.vocabulary.money import Currencies, CurrencyCode, format_minor
from wallet_appservice.clearing.peers import Peers
from wallet_appservice.payments.audit import AuditAction, AuditEntry
from wallet_appservice.payments.limit_rules import LimitKind, minor_of
from wallet_appservice.payments.overview import supply_of, waiting_in
from wallet_appservice.payments.protection import Protection
from wallet_appservice.web.operator_peers_page import shown_peers
from wallet_appservice.web.wallet_view import amount_text

PATH: Final = "/operator"
PAGE_SIZE: Final = 20
_SENTENCES: Final[Mapping[str, str]] = {
    AuditAction.DEPOSIT: known("Deposit of {amount} to {subject}"),
    AuditAction.WITHDRAWAL: known("Withdrawal of {amount} from {subject}"),
    AuditAction.LIMIT: known("Own limit changed by {subject}"),
    AuditAction.PIN_SET: known("PIN set by {subject}"),
    AuditAction.PIN_CHANGED: known("PIN changed by {subject}"),
    AuditAction.PIN_REMOVED: known("PIN removed by {subject}"),
    AuditAction.PIN_RESET: known("PIN of {subject} reset"),
    AuditAction.PIN_LOCKED: known("PIN of {subject} locked after wrong tries"),
    AuditAction.PASSKEY_ADDED: known("Passkey added by {subject}"),
    AuditAction.PASSKEY_REMOVED: known("Passkey of {subject} removed"),
    AuditAction.ALWAYS_ASK: known("When to ask was changed by {subject}"),
    AuditAction.BUDGET: known("Budget changed by {subject}"),
    AuditAction.PEER: known("Agreement with {subject} changed"),
}


@dataclass(frozen=True, slots=True)
class ShownEntry:
    """One row of the audit log, as a sentence with the rest beside it."""

    position: int
    sentence: str
    actor: str
    at_ms: int
    details: str
    is_linked: bool


def operator_pages(
    protection: Protection,
    guard: SessionGuard,
    pages: Pages,
    config: WeftConfig,
    database: Database,
    peers: Peers,
) -> APIRouter:
    router = APIRouter(prefix=PATH, route_class=PageRoute, include_in_schema=False)
    currencies = config.wallet.kept_currencies
    operators = frozenset(config.web.operators)

    async def operator(request: Request) -> SignedIn:
        signed_in = await guard.require_page(request)
        if signed_in.user_id not in operators:
            raise HTTPException(404)
        return signed_in

    @router.get("")
    async def whole(request: Request, before: str = "") -> Response:
        signed_in = await operator(request)
        position = int(before) if before.isascii() and before.isdigit() and len(before) <= 18 else None
        entries = await protection.audit.entries(limit=PAGE_SIZE + 1, before=position)
        shown = entries[:PAGE_SIZE]
        return pages.render(
            request,
            "operator.html",
            signed_in=signed_in,
            supplies=[
                {
                    "currency": item.currency,
                    "circulating": amount_text(item.circulating_minor, item.currency, currencies),
                    "held": amount_text(item.held_minor, item.currency, currencies),
                    "accounts": item.accounts,
                }
                for item in await supply_of(database)
            ],
            limits=_limits(protection, currencies),
            waiting=await waiting_in(database),
            entries=[_shown(entry, currencies) for entry in shown],
            older=shown[-1].position if len(entries) > PAGE_SIZE else None,
            peers_count=len(await peers.all()),
        )

    @router.get("/peers")
    async def elsewhere(request: Request) -> Response:
        signed_in = await operator(request)
        return pages.render(
            request,
            "operator_peers.html",
            signed_in=signed_in,
            peers=await shown_peers(database, peers, currencies, clock=system_clock),
        )

    return router


def _limits(protection: Protection, currencies: Currencies) -> list[dict[str, Any]]:
    operator = protection.gate.operator
    return [
        {
            "currency": code,
            "payment": format_minor(operator.minor(LimitKind.PAYMENT, currency), currency),
            "day": format_minor(operator.minor(LimitKind.DAY, currency), currency),
            "chat": format_minor(operator.minor(LimitKind.CHAT, currency), currency),
            "no_pin": format_minor(operator.no_pin_max * minor_of(currency), currency),
        }
        for code, currency in currencies.items()
    ]


def _shown(entry: AuditEntry, currencies: Currencies) -> ShownEntry:
    details = dict(entry.details)
    amount = ""
    if entry.action in (AuditAction.DEPOSIT, AuditAction.WITHDRAWAL):
        minor, currency = details.pop("amount_minor"), details.pop("currency")
        amount = amount_text(int(minor), CurrencyCode(currency), currencies)
    sentence = _(_SENTENCES[entry.action]) if entry.action in _SENTENCES else f"{entry.action}: {{subject}}"
    return ShownEntry(
        position=entry.position,
        sentence=sentence.format(subject=entry.subject, amount=amount),
        actor=entry.actor,
        at_ms=entry.at_ms,
        details=" · ".join(f"{name}: {value}" for name, value in details.items() if value != ""),
        is_linked=entry.number is not None,
    )
