"""A merchant's own pages: all of one's merchants, and one of them with its takings, orders and money."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.datastructures import FormData

from appservices.chassis.pages import see_other
from appservices.chassis.signed_in import SignedIn
from appservices.vocabulary.languages import _
from appservices.vocabulary.money import CurrencyCode
from wallet_appservice.books.periods import Period
from wallet_appservice.books.takings import takings_of
from wallet_appservice.ledger.submissions import LedgerUnavailable
from wallet_appservice.payments.merchants.desk import MerchantDesk
from wallet_appservice.payments.merchants.records import NAME_LENGTH_MAX, Merchant, Order
from wallet_appservice.payments.merchants.refusals import MerchantRefused
from wallet_appservice.payments.refusals import PaymentRefused
from wallet_appservice.web.bar_picture import Bar, BarPicture, bar_picture
from wallet_appservice.web.owned_merchants import OwnedMerchants, status_of, text_of
from wallet_appservice.web.wallet_shell import PATH, WalletShell

ORDERS_SHOWN: Final = 15
_NAMED_HOURS: Final = 6


class MerchantPage:
    def __init__(self, shell: WalletShell, desk: MerchantDesk) -> None:
        self._shell = shell
        self._desk = desk
        self._owned = OwnedMerchants(shell, desk)

    def add_to(self, router: APIRouter) -> None:
        owned = self._owned
        self._shell.show_at(router, "/merchant", self._all)
        router.post("/merchant")(self._open)
        self._shell.show_at(router, "/merchant/{merchant}", owned.shown_by(self._one))
        router.post("/merchant/{merchant}/payout")(owned.changed_by(self._pay_out))
        router.post("/merchant/{merchant}/close")(owned.changed_by(self._close))

    async def _all(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        return await self._list(request, signed_in)

    async def _open(self, request: Request) -> Response:
        signed_in, fields = await self._shell.guard.require_form(request)
        name = text_of(fields, "name")
        opened = await self._desk.merchants.open(
            owner=signed_in.user_id, name=name, id=text_of(fields, "id") or None
        )
        if isinstance(opened, MerchantRefused):
            return await self._list(request, signed_in, name=name, refused=opened)
        return see_other(f"{PATH}/merchant/{opened.id}")

    async def _list(
        self, request: Request, signed_in: SignedIn, *, name: str = "", refused: MerchantRefused | None = None
    ) -> Response:
        merchants = await self._desk.merchants.of_owner(signed_in.user_id)
        problem = refused.sentence if refused else ""
        return await self._shell.page(
            request,
            signed_in,
            "merchants.html",
            title=_("Merchants"),
            tab="more",
            status=status_of(refused) if refused else 200,
            announcement=problem,
            merchants=merchants,
            name=name,
            problem=problem,
            new_id=self._shell.new_id(),
            name_length_max=NAME_LENGTH_MAX,
        )

    async def _one(
        self,
        request: Request,
        signed_in: SignedIn,
        merchant: Merchant,
        *,
        problem: str = "",
        status: int = 200,
    ) -> Response:
        asked = CurrencyCode(request.query_params.get("currency", ""))
        currencies = self._shell.payments.currencies
        currency = asked if asked in currencies else currencies.default.code
        day = datetime.fromtimestamp(self._shell.clock() / 1000, UTC).date()
        takings = await takings_of(
            self._shell.payments.till.database, merchant.id, currency, Period(day, day)
        )
        before = read_place(request.query_params.get("before", ""))
        orders = await self._desk.orders.page(merchant, limit=ORDERS_SHOWN + 1, before=before)
        accounts = await self._desk.merchants.accounts(merchant)
        return await self._shell.page(
            request,
            signed_in,
            "merchant.html",
            title=merchant.name,
            tab="more",
            status=status,
            announcement=problem,
            problem=problem,
            merchant=merchant,
            balances=[
                (account.currency, self._shell.amount_of(account.available_minor, account.currency))
                for account in accounts
                if account.available_minor
            ],
            takings=takings,
            picture=self._picture(takings.by_hour, currency),
            currency=currency,
            orders=orders[:ORDERS_SHOWN],
            older=before is not None,
            next_before=place_of(orders[ORDERS_SHOWN - 1]) if len(orders) > ORDERS_SHOWN else "",
            new_id=self._shell.new_id(),
            minor=lambda amount_minor: self._shell.amount_of(amount_minor, currency),
        )

    def _picture(self, by_hour: list[int], currency: CurrencyCode) -> BarPicture:
        return bar_picture(
            [
                Bar(
                    name=f"{hour:02}" if hour % _NAMED_HOURS == 0 else "",
                    parts=(("takings", amount_minor),),
                    spoken="",
                )
                for hour, amount_minor in enumerate(by_hour)
            ],
            amount=lambda amount_minor: self._shell.amount_of(amount_minor, currency),
        )

    async def _pay_out(
        self, request: Request, signed_in: SignedIn, merchant: Merchant, fields: FormData
    ) -> Response:
        money = self._owned.money(fields)
        if isinstance(money, str):
            return await self._one(request, signed_in, merchant, problem=money, status=422)
        try:
            outcome = await self._desk.merchants.pay_out(merchant, money=money, id=text_of(fields, "id"))
        except LedgerUnavailable:
            sentence = _("The wallet can't answer now; try again in a moment.")
            return await self._one(request, signed_in, merchant, problem=sentence, status=409)
        if isinstance(outcome, PaymentRefused):
            return await self._one(
                request, signed_in, merchant, problem=outcome.sentence, status=status_of(outcome)
            )
        return see_other(f"{PATH}/history/{outcome.id}")

    async def _close(
        self, _request: Request, _signed_in: SignedIn, merchant: Merchant, _fields: FormData
    ) -> Response:
        await self._desk.merchants.close(merchant.id)
        return see_other(f"{PATH}/merchant/{merchant.id}")


def place_of(order: Order) -> str:
    """Where a page of orders ends, for the address of the next one."""
    return f"{order.created_at_ms}-{order.id}"


def read_place(text: str) -> tuple[int, str] | None:
    at_ms, _, id = text.partition("-")
    is_one = at_ms.isascii() and at_ms.isdigit() and len(at_ms) <= 15 and len(id) == 32 and id.isalnum()
    return (int(at_ms), id) if is_one and set(id) <= set("0123456789abcdef") else None
