"""Asking for money: of one person, or of several in equal parts; one request as those concerned see it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from appservices.chassis.pages import see_other
from appservices.chassis.signed_in import SignedIn
from appservices.vocabulary.ids import TransferId, UserId
from appservices.vocabulary.languages import _, known
from appservices.vocabulary.money import AmountUnreadable, Money
from wallet_appservice.ledger.submissions import LedgerUnavailable
from wallet_appservice.payments.people import People
from wallet_appservice.payments.protection import Protection
from wallet_appservice.payments.records import MEMO_LENGTH_MAX, clean_memo
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.payments.request_records import Request as MoneyRequest
from wallet_appservice.payments.request_records import RequestOrder, ShareState
from wallet_appservice.web.owned_merchants import text_of
from wallet_appservice.web.payment_form import payee_of
from wallet_appservice.web.proof_fields import Asked, PaymentReview, page_status
from wallet_appservice.web.wallet_shell import ELSEWHERE_SECONDS_MAX, PATH, WalletShell, asked_id
from wallet_appservice.web.wallet_view import wallet_view

_BETWEEN_PEOPLE: Final = re.compile(r"[\s,;]+")
_PEOPLE_LENGTH_MAX: Final = 8_000
STATE_NAMES: Final = {
    ShareState.OPEN: known("open"),
    ShareState.PAYING: known("being paid"),
    ShareState.PAID: known("paid"),
    ShareState.DECLINED: known("declined"),
    ShareState.CANCELLED: known("taken back"),
    ShareState.EXPIRED: known("expired"),
    ShareState.UNREACHED: known("could not be asked"),
    ShareState.OWN: known("own part"),
}


class AskingPage:
    def __init__(self, shell: WalletShell, people: People, protection: Protection) -> None:
        self._shell = shell
        self._requests = people.requests
        self._proving = PaymentReview(shell.payments, protection.proofs)

    def add_to(self, router: APIRouter) -> None:
        self._shell.show_at(router, "/request", self._new_request)
        self._shell.show_at(router, "/split", self._new_split)
        router.post("/request")(self._ask)
        router.post("/split")(self._split)
        self._shell.show_at(router, "/requests/{id}", self._one)
        for name, change in (("pay", self._pay), ("decline", self._decline), ("cancel", self._cancel)):
            router.post(f"/requests/{{id}}/{name}")(change)

    async def _new_request(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        return await self._form(request, signed_in, "request.html", request.query_params)

    async def _new_split(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        return await self._form(request, signed_in, "split.html", {"own_part": "1"})

    async def _ask(self, request: Request) -> Response:
        signed_in, fields = await self._shell.guard.require_form(request)
        problems: dict[str, str] = {}
        asked = payee_of(text_of(fields, "payee"), self._shell.server)
        if asked is None:
            problems["payee"] = _("Whom do you want to ask? A Matrix user, or just their name here.")
        people = (asked,) if asked else ()
        return await self._make(request, signed_in, fields, "request.html", people, problems, is_split=False)

    async def _split(self, request: Request) -> Response:
        signed_in, fields = await self._shell.guard.require_form(request)
        problems: dict[str, str] = {}
        written = fields.get("people")
        text = written.strip()[:_PEOPLE_LENGTH_MAX] if isinstance(written, str) else ""
        people: list[UserId] = [signed_in.user_id] if text_of(fields, "own_part") else []
        for name in filter(None, _BETWEEN_PEOPLE.split(text)):
            user = payee_of(name, self._shell.server)
            if user is None:
                problems["people"] = _("“{name}” is no Matrix user.").format(name=name[:60])
            elif user not in people:
                people.append(user)
        if not [user for user in people if user != signed_in.user_id]:
            problems.setdefault("people", _("With whom? Write their names, one on each line."))
        return await self._make(
            request, signed_in, fields, "split.html", tuple(people), problems, is_split=True
        )

    async def _make(
        self,
        request: Request,
        signed_in: SignedIn,
        fields: Mapping[str, Any],
        template: str,
        people: tuple[UserId, ...],
        problems: dict[str, str],
        *,
        is_split: bool,
    ) -> Response:
        money = self._money(fields)
        if isinstance(money, str):
            problems["amount"] = money
        if problems or isinstance(money, str):
            return await self._form(request, signed_in, template, fields, problems=problems, status=422)
        asked = await self._requests.ask(
            RequestOrder(
                id=TransferId(text_of(fields, "id")),
                requester=signed_in.user_id,
                people=people,
                money=money,
                memo=clean_memo(text_of(fields, "memo")),
                is_split=is_split,
            )
        )
        if isinstance(asked, PaymentRefused):
            return await self._form(
                request,
                signed_in,
                template,
                fields,
                problems={"": asked.sentence},
                status=page_status(asked),
            )
        return see_other(f"{PATH}/requests/{asked.id}?made=1")

    async def _form(
        self,
        request: Request,
        signed_in: SignedIn,
        template: str,
        given: Mapping[str, Any],
        *,
        problems: Mapping[str, str] | None = None,
        status: int = 200,
    ) -> Response:
        written = given.get("people")
        view = await wallet_view(self._shell.payments, signed_in.user_id)
        return await self._shell.page(
            request,
            signed_in,
            template,
            title=_("Split") if template == "split.html" else _("Request"),
            status=status,
            announcement=" ".join((problems or {}).values()),
            problems=problems or {},
            # A refused id may be spent; another one costs nothing.
            id=self._shell.new_id(),
            payee=text_of(given, "payee"),
            people=written[:_PEOPLE_LENGTH_MAX] if isinstance(written, str) else "",
            own_part=bool(text_of(given, "own_part")),
            amount=text_of(given, "amount"),
            currency=text_of(given, "currency"),
            memo=text_of(given, "memo"),
            memo_length_max=MEMO_LENGTH_MAX,
            recent=view.recent_payees,
        )

    async def _one(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        return await self._show(request, signed_in)

    async def _show(
        self, request: Request, signed_in: SignedIn, *, problem: str = "", status: int = 200
    ) -> Response:
        found = await self._found(request, signed_in)
        if found is None:
            return await self._shell.missing(request, signed_in, _("There is no such request of yours."))
        share = found.share_of(signed_in.user_id)
        may_pay = share is not None and share.state is ShareState.OPEN
        asked = Asked()
        if share is not None and may_pay:
            order = found.as_payment(share)
            refused = await self._shell.payments.check(order)
            needs_proof = refused is not None and refused.refusal is PaymentRefusal.CONFIRMATION_NEEDED
            asked = await self._proving.asked(
                order, needs_proof=needs_proof, problem=problem if needs_proof else ""
            )
            problem = "" if needs_proof else problem
        return await self._shell.page(
            request,
            signed_in,
            "request_one.html",
            title=_("Split") if found.is_split else _("Request"),
            status=status,
            announcement=problem,
            problem=problem,
            asking=found,
            share=share,
            may_pay=may_pay,
            is_mine=found.requester == signed_in.user_id,
            asked=asked,
            state_names={state.value: _(name) for state, name in STATE_NAMES.items()},
            made="made" in request.query_params,
        )

    async def _pay(self, request: Request) -> Response:
        signed_in, fields = await self._shell.guard.require_form(request)
        found = await self._found(request, signed_in)
        share = found.share_of(signed_in.user_id) if found is not None else None
        if found is None or share is None:
            return await self._show(request, signed_in)
        try:
            proven = await self._proving.proven(found.as_payment(share), fields)
            if isinstance(proven, PaymentRefused):
                return await self._refused(request, signed_in, proven)
            outcome = await self._requests.pay(signed_in.user_id, found.id, authority=proven.authority)
            outcome = await self._shell.payments.answered(outcome, seconds_max=ELSEWHERE_SECONDS_MAX)
        except LedgerUnavailable:
            sentence = _("The wallet can't answer now. Pay again in a moment: it will not pay twice.")
            return await self._show(request, signed_in, problem=sentence, status=409)
        if isinstance(outcome, PaymentRefused):
            return await self._refused(request, signed_in, outcome)
        return see_other(f"{PATH}/send?paid={outcome.id}")

    async def _decline(self, request: Request) -> Response:
        return await self._close(request, own=False)

    async def _cancel(self, request: Request) -> Response:
        return await self._close(request, own=True)

    async def _close(self, request: Request, *, own: bool) -> Response:
        signed_in, _fields = await self._shell.guard.require_form(request)
        id = asked_id(request, "id")
        if id is None:
            return await self._show(request, signed_in)
        change = self._requests.cancel if own else self._requests.decline
        outcome = await change(signed_in.user_id, id)
        if isinstance(outcome, PaymentRefused):
            return await self._refused(request, signed_in, outcome)
        return see_other(f"{PATH}/requests/{id}")

    async def _refused(self, request: Request, signed_in: SignedIn, refused: PaymentRefused) -> Response:
        return await self._show(request, signed_in, problem=refused.sentence, status=page_status(refused))

    async def _found(self, request: Request, signed_in: SignedIn) -> MoneyRequest | None:
        id = asked_id(request, "id")
        return await self._requests.request(signed_in.user_id, id) if id else None

    def _money(self, fields: Mapping[str, Any]) -> Money | str:
        amount, currency = text_of(fields, "amount"), text_of(fields, "currency")
        currencies = self._shell.payments.currencies
        if not amount:
            return _("How much?")
        try:
            return currencies.parse(f"{amount} {currency}" if currency in currencies else amount)
        except AmountUnreadable as error:
            return str(error)
