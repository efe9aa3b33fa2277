"""One payment: what it was, its signed receipt, and what its payer says it was for."""

from __future__ import annotations

import json
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from appservices.chassis.pages import see_other
from appservices.chassis.signed_in import SignedIn
from appservices.vocabulary.ids import TransferId, UserId
from appservices.vocabulary.languages import _
from appservices.vocabulary.money import AmountUnreadable, Money, decimal_text
from appservices.vocabulary.signing import SignatureInvalid, verify_json
from wallet_appservice.books.spending import Category, Spending, guessed_category
from wallet_appservice.ledger.submissions import LedgerUnavailable
from wallet_appservice.payments.records import PaymentKind, PaymentRecord, PaymentState, clean_memo
from wallet_appservice.payments.refunds import RefundOrder, Refunds
from wallet_appservice.payments.refusals import PaymentRefused
from wallet_appservice.web.owned_merchants import text_of
from wallet_appservice.web.proof_fields import page_status
from wallet_appservice.web.wallet_shell import ELSEWHERE_SECONDS_MAX, PATH, WalletShell, asked_id
from wallet_appservice.web.wallet_view import shown_payment

_SPENT: Final = (PaymentKind.PAYMENT, PaymentKind.PURCHASE, PaymentKind.RED_PACKET)


class PaymentPage:
    def __init__(self, shell: WalletShell, refunds: Refunds) -> None:
        self._shell = shell
        self._refunds = refunds
        self._spending = Spending(shell.payments.till.database)

    def add_to(self, router: APIRouter) -> None:
        self._shell.show_at(router, "/history/{id}", self._whole)
        router.get("/history/{id}/receipt.json")(self._receipt)
        router.post("/history/{id}/category")(self._choose)
        router.post("/history/{id}/refund")(self._refund)

    async def _whole(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        return await self._page(request, signed_in)

    async def _refund(self, request: Request) -> Response:
        signed_in, fields = await self._shell.guard.require_form(request)
        record = await self._record(request)
        if record is None:
            return await self._page(request, signed_in)
        currencies = self._shell.payments.currencies
        amount = text_of(fields, "amount")
        try:
            money = currencies.parse(f"{amount} {record.money.currency}")
            outcome = await self._refunds.refund(
                RefundOrder(
                    id=TransferId(text_of(fields, "id")),
                    payment_id=record.id,
                    by=signed_in.user_id,
                    money=money,
                    memo=clean_memo(text_of(fields, "memo")),
                )
            )
            outcome = await self._shell.payments.answered(outcome, seconds_max=ELSEWHERE_SECONDS_MAX)
        except AmountUnreadable as error:
            return await self._page(request, signed_in, problem=str(error), status=422)
        except LedgerUnavailable:
            sentence = _("The wallet can't answer now; try again in a moment.")
            return await self._page(request, signed_in, problem=sentence, status=409)
        if isinstance(outcome, PaymentRefused):
            return await self._page(request, signed_in, problem=outcome.sentence, status=page_status(outcome))
        return see_other(f"{PATH}/history/{outcome.id}")

    async def _page(
        self, request: Request, signed_in: SignedIn, *, problem: str = "", status: int = 200
    ) -> Response:
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
            status=status,
            announcement=problem,
            problem=problem,
            left=await self._left(record, user),
            waits_for_me=record.state is PaymentState.PENDING and record.payee == user,
            new_id=self._shell.new_id(),
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

    async def _left(self, record: PaymentRecord, user: UserId) -> str:
        """What of it the user can still give back, as a field has it; "" for nothing."""
        is_theirs = record.kind is PaymentKind.PAYMENT and record.payee == user
        if not is_theirs or record.state is not PaymentState.POSTED:
            return ""
        left_minor = await self._refunds.left_minor(record)
        currency = self._shell.payments.currencies.get(record.money.currency)
        if left_minor <= 0 or currency is None:
            return ""
        return decimal_text(Money(left_minor, currency.code), currency)

    async def _record(self, request: Request) -> PaymentRecord | None:
        signed_in = await self._shell.guard.require_page(request)
        id = asked_id(request, "id")
        return await self._shell.payments.payment(signed_in.user_id, id) if id else None

    def _is_verified(self, record: PaymentRecord) -> bool:
        payments = self._shell.payments
        try:
            verify_json(_receipt_of(record), signer=payments.wallet_user, keys=payments.keys())
        except SignatureInvalid:
            return False
        return True


def _receipt_of(record: PaymentRecord) -> dict[str, Any]:
    """What goes to another server is paid once that server's wallet has answered: that receipt proves it."""
    is_answered = record.crosses_servers and record.end_receipt is not None
    return dict((record.end_receipt if is_answered else None) or record.receipt)


def _text(record: PaymentRecord) -> str:
    return json.dumps(_receipt_of(record), indent=2, ensure_ascii=False, sort_keys=True)
