"""What is not needed every day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request, Response

from appservices.vocabulary.languages import _, known
from wallet_appservice.web.wallet_shell import WalletShell


@dataclass(frozen=True, slots=True)
class Entry:
    """A line that leads to a page."""

    name: str
    about: str
    icon: str
    path: str


ENTRIES: Final = (
    Entry(known("Receive"), known("Your code and your link"), "receive", "/wallet/receive"),
    Entry(known("Statement"), known("A month or any days, as CSV and PDF"), "document", "/wallet/statement"),
    Entry(known("Spending"), known("By month and category"), "chart", "/wallet/spending"),
    Entry(known("Payment code"), known("Let a till charge you"), "barcode", "/wallet/code"),
    Entry(
        known("Security and limits"), known("PIN, passkeys, your own limits"), "shield", "/wallet/security"
    ),
    Entry(known("Settings"), known("Whether money waits for your yes"), "settings", "/wallet/settings"),
    Entry(known("What waits"), known("Requests, red packets, payments"), "clock", "/wallet/pending"),
    Entry(known("Merchant"), known("Orders, takings, refunds, keys"), "shop", "/wallet/merchant"),
)


class MorePage:
    def __init__(self, shell: WalletShell) -> None:
        self._shell = shell

    def add_to(self, router: APIRouter) -> None:
        self._shell.show_at(router, "/more", self._whole)

    async def _whole(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        return await self._shell.page(
            request, signed_in, "more.html", title=_("More"), tab="more", entries=ENTRIES
        )
