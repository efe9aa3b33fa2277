"""One payment: what it was, its signed receipt, and what its payer says it was for."""

from __future__ import annotations

import json
from typing import Final

from fastapi import APIRouter, Request, Response

from appservices.chassis.pages import see_other
from appservices.vocabulary.languages import _
from appservices.vocabulary.signing import SignatureInvalid, verify_json
from wallet_appservice.books.spending import Category, Spending, guessed_category
from wallet_appservice.payments.records import PaymentKind, PaymentRecord
from wallet_appservice.web.wallet_shell import PATH, WalletShell, asked_id
from wallet_appservice.web.wallet_view import shown_payment

_SPENT: Final = (PaymentKind.PAYMENT, PaymentKind.PURCHASE, PaymentKind.RED_PACKET)


class PaymentPage:
    def __init__(self, shell: WalletShell) -> None:
        self._shell = shell
        self._spending = Spending(shell.payments.till.database)

    def add_to(self, router: APIRouter) -> None:
        self._shell.show_at(router, "/history/{id}", self._whole)
        router.get("/history/{id}/receipt.json")(self._receipt)
        router.post("/history/{id}/category")(self._choose)

    async def _whole(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        record = await self._record(request)
        if record is None:
            return await self._shell.missing(request, signed_in, _("There is no such payment of yours."))
        user = signed_in.user_id
        is_spent = record.payer == user and record.kind in _SPENT
        chosen = await self._spending.category(user, record.id) if is_spent else None
        return await self._shell.page(
            request,
            signed_in,
            "payment.html",
            title=_("Payment"),
            tab="history",
            record=record,
            shown=shown_payment(record, user, self._shell.payments.currencies),
            is_verified=self._is_verified(record),
            receipt=_text(record),
            is_spent=is_spent,
            categories=list(Category),
            category=chosen or guessed_category(record.kind.value),
            is_guessed=chosen is None,
            saved="saved" in request.query_params,
        )

    async def _receipt(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        record = await self._record(request)
        if record is None:
            return await self._shell.missing(request, signed_in, _("There is no such payment of yours."))
        headers = {"Content-Disposition": f'attachment; filename="receipt-{record.id}.json"'}
        return Response(_text(record), media_type="application/json", headers=headers)

    async def _choose(self, request: Request) -> Response:
        signed_in, fields = await self._shell.guard.require_form(request)
        record = await self._record(request)
        name = fields.get("category")
        chosen = Category(name) if isinstance(name, str) and name in set(Category) else None
        if record is None or not await self._spending.choose(signed_in.user_id, record.id, chosen):
            return await self._shell.missing(request, signed_in, _("There is no such payment of yours."))
        return see_other(f"{PATH}/history/{record.id}?saved=1")

    async def _record(self, request: Request) -> PaymentRecord | None:
        signed_in = await self._shell.guard.require_page(request)
        id = asked_id(request, "id")
        return await self._shell.payments.payment(signed_in.user_id, id) if id else None

    def _is_verified(self, record: PaymentRecord) -> bool:
        payments = self._shell.payments
        try:
            verify_json(dict(record.receipt), signer=payments.wallet_user, keys=payments.keys())
        except SignatureInvalid:
            return False
        return True


def _text(record: PaymentRecord) -> str:
    return json.dumps(record.receipt, indent=2, ensure_ascii=False, sort_keys=True)
