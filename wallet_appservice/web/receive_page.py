"""Being paid: one's own code and link, with an amount and words if one likes."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from appservices.vocabulary.languages import _
from appservices.vocabulary.money import AmountUnreadable, decimal_text
from wallet_appservice.payments.code_pictures import qr_inline
from wallet_appservice.payments.receive import payment_link
from wallet_appservice.payments.records import MEMO_LENGTH_MAX, clean_memo
from wallet_appservice.web.wallet_shell import WalletShell

AMOUNT_LENGTH_MAX = 40


class ReceivePage:
    def __init__(self, shell: WalletShell) -> None:
        self._shell = shell

    def add_to(self, router: APIRouter) -> None:
        self._shell.show_at(router, "/receive", self._whole)

    async def _whole(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        asked = request.query_params
        amount = asked.get("amount", "").strip()[:AMOUNT_LENGTH_MAX]
        currency = asked.get("currency", "")
        memo = clean_memo(asked.get("memo", ""))[:MEMO_LENGTH_MAX]
        currencies = self._shell.payments.currencies
        money, problem = None, ""
        if amount:
            try:
                money = currencies.parse(amount if currency not in currencies else f"{amount} {currency}")
            except AmountUnreadable as error:
                problem = str(error)
        link = payment_link(
            self._shell.public_url,
            payee=signed_in.user_id,
            amount=decimal_text(money, currencies[money.currency]) if money else "",
            currency=money.currency if money else "",
            memo=memo,
        )
        return await self._shell.page(
            request,
            signed_in,
            "receive.html",
            title=_("Receive"),
            status=422 if problem else 200,
            announcement=problem,
            link=link,
            qr=qr_inline(link),
            money=money,
            memo=memo,
            amount=amount,
            currency=currency,
            problem=problem,
            memo_length_max=MEMO_LENGTH_MAX,
        )
