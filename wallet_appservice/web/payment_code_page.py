"""The page that shows a payer's payment code, a new one each minute, for a till to scan.

It renews itself by a header, so that it does so without script as well. Each look at it makes a code: the
newest few work, and none for longer than its minute.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response

from appservices.chassis.pages import PageRoute, Pages
from appservices.chassis.signed_in import SessionGuard
from wallet_appservice.payments.merchants.desk import MerchantDesk
from wallet_appservice.payments.merchants.payment_codes import CODE_SECONDS
from wallet_appservice.web.pictures import code128_svg, qr_svg

PATH: Final = "/wallet/code"
RENEWED_SECONDS: Final = CODE_SECONDS - 5
"""A little before the code ends, so that none is on the screen that has ended."""


def payment_code_page(desk: MerchantDesk, guard: SessionGuard, pages: Pages) -> APIRouter:
    router = APIRouter(route_class=PageRoute, include_in_schema=False)

    @router.get(PATH)
    async def show(request: Request) -> Response:
        signed_in = await guard.require_page(request)
        issued = await desk.codes.issue(signed_in.user_id)
        answer = pages.render(
            request,
            "payment_code.html",
            signed_in=signed_in,
            groups=[issued.code[place : place + 4] for place in range(0, len(issued.code), 4)],
            bar_code=code128_svg(issued.code),
            qr_code=qr_svg(issued.code),
        )
        answer.headers["Refresh"] = str(RENEWED_SECONDS)
        return answer

    return router
