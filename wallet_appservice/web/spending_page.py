"""Spending as a picture: a bar for each month, stacked by category, and the same as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request, Response

from appservices.chassis.pages import see_other
from appservices.chassis.signed_in import SignedIn
from appservices.vocabulary.ids import UserId
from appservices.vocabulary.languages import _
from appservices.vocabulary.money import AmountUnreadable, CurrencyCode, Money, decimal_text
from wallet_appservice.books.periods import latest_months, month_name, read_period
from wallet_appservice.books.spending import Category, MonthSpent, Spending
from wallet_appservice.payments.budgets import Budgets
from wallet_appservice.web.bar_picture import Bar, BarPicture, bar_picture
from wallet_appservice.web.owned_merchants import text_of
from wallet_appservice.web.wallet_shell import PATH, WalletShell

MONTHS_SHOWN: Final = 6


@dataclass(frozen=True, slots=True)
class ShownCategory:
    """A category of the chosen month; `percent` is whole and of that month."""

    category: Category
    amount: str
    percent: int


@dataclass(frozen=True, slots=True)
class ShownBudget:
    """This month's budget; `whole` is empty where there is none. `typed` is what its field holds."""

    typed: str
    spent: str = ""
    whole: str = ""
    percent: int = 0
    is_over: bool = False


class SpendingPage:
    def __init__(self, shell: WalletShell, budgets: Budgets) -> None:
        self._shell = shell
        self._budgets = budgets
        self._spending = Spending(shell.payments.till.database)

    def add_to(self, router: APIRouter) -> None:
        self._shell.show_at(router, "/spending", self._whole)
        router.post("/spending/budget")(self._set_budget)

    async def _whole(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        return await self._page(request, signed_in)

    async def _set_budget(self, request: Request) -> Response:
        """An amount sets the month's budget, none takes it away."""
        signed_in, fields = await self._shell.guard.require_form(request)
        currency, amount = CurrencyCode(text_of(fields, "currency")), text_of(fields, "amount")
        currencies = self._shell.payments.currencies
        if currency not in currencies:
            currency = currencies.default.code
        budget_minor = None
        if amount:
            try:
                budget_minor = currencies.parse(f"{amount} {currency}").amount_minor
            except AmountUnreadable as error:
                return await self._page(request, signed_in, budget=amount, problem=str(error))
        await self._budgets.set(signed_in.user_id, currency, budget_minor)
        return see_other(f"{PATH}/spending?currency={currency}")

    async def _page(
        self, request: Request, signed_in: SignedIn, *, budget: str = "", problem: str = ""
    ) -> Response:
        asked = CurrencyCode(request.query_params.get("currency", ""))
        currencies = self._shell.payments.currencies
        currency = asked if asked in currencies else currencies.default.code
        months = list(reversed(latest_months(self._shell.clock(), MONTHS_SHOWN)))
        spent = await self._spending.by_month(signed_in.user_id, currency, months)
        wanted = read_period(request.query_params.get("month", ""))
        chosen = next((month for month in spent if month.month == wanted), spent[-1])
        return await self._shell.page(
            request,
            signed_in,
            "spending.html",
            title=_("Spending"),
            tab="spending",
            status=422 if problem else 200,
            announcement=problem,
            problem=problem,
            budget=await self._budget(signed_in.user_id, currency, typed=budget),
            months=spent,
            chosen=chosen,
            categories=self._categories(chosen, currency),
            all_categories=[one for one in Category if any(one in month.by_category for month in spent)],
            picture=self._picture(spent, chosen, currency),
            currency=currency,
            minor=lambda amount_minor: self._shell.amount_of(amount_minor, currency),
        )

    async def _budget(self, user: UserId, currency: CurrencyCode, *, typed: str) -> ShownBudget:
        states = await self._budgets.of(user)
        state = next(state for state in states if state.currency == currency)
        if state.budget_minor is None:
            return ShownBudget(typed)
        shown = self._shell.payments.currencies[currency]
        return ShownBudget(
            typed or decimal_text(Money(state.budget_minor, currency), shown),
            spent=self._shell.amount_of(state.spent_minor, currency),
            whole=self._shell.amount_of(state.budget_minor, currency),
            percent=min(100, 100 * state.spent_minor // state.budget_minor),
            is_over=state.spent_minor >= state.budget_minor,
        )

    def _categories(self, month: MonthSpent, currency: CurrencyCode) -> list[ShownCategory]:
        """The largest first."""
        ordered = sorted(month.by_category.items(), key=lambda item: -item[1])
        return [
            ShownCategory(
                category,
                self._shell.amount_of(amount_minor, currency),
                round(100 * amount_minor / month.total_minor),
            )
            for category, amount_minor in ordered
        ]

    def _picture(self, spent: list[MonthSpent], chosen: MonthSpent, currency: CurrencyCode) -> BarPicture:
        return bar_picture(
            [
                Bar(
                    name=month_name(month.month.first, short=True),
                    parts=tuple(
                        (f"category-{category}", amount_minor)
                        for category, amount_minor in month.by_category.items()
                    ),
                    is_chosen=month is chosen,
                    path=f"/wallet/spending?month={month.month.key}&currency={currency}",
                    spoken=f"{month.month.name}: {self._shell.amount_of(month.total_minor, currency)}",
                )
                for month in spent
            ],
            amount=lambda amount_minor: self._shell.amount_of(amount_minor, currency),
        )
