"""One's payment code, to be shown to a till: digits, bar code and QR code, a new one each minute.

Each look at the page makes a new code. Those before it work on until their minute is over, so a till that was
scanning while the page renewed itself has not scanned in vain.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response

from appservices.vocabulary.languages import _
from wallet_appservice.payments.code_pictures import code128_svg, qr_inline
from wallet_appservice.payments.merchants.desk import MerchantDesk
from wallet_appservice.payments.merchants.payment_codes import CODE_SECONDS
from wallet_appservice.web.wallet_shell import WalletShell

_GROUPS: Final = (4, 4, 5, 5)


class CodePage:
    def __init__(self, shell: WalletShell, desk: MerchantDesk) -> None:
        self._shell = shell
        self._desk = desk

    def add_to(self, router: APIRouter) -> None:
        self._shell.show_at(router, "/code", self._whole)

    async def _whole(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        issued = await self._desk.codes.issue(signed_in.user_id)
        return await self._shell.page(
            request,
            signed_in,
            "code.html",
            title=_("Payment code"),
            code=issued.code,
            grouped=_grouped(issued.code),
            qr=qr_inline(issued.code),
            bars=code128_svg(issued.code),
            seconds=CODE_SECONDS,
        )


def _grouped(code: str) -> str:
    groups, start = [], 0
    for length in _GROUPS:
        groups.append(code[start : start + length])
        start += length
    return " ".join(groups)
