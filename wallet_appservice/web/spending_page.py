"""Spending as a picture: a bar for each month, stacked by category, and the same as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request, Response

from appservices.vocabulary.languages import _
from appservices.vocabulary.money import CurrencyCode
from wallet_appservice.books.periods import latest_months, month_name, read_period
from wallet_appservice.books.spending import Category, MonthSpent, Spending
from wallet_appservice.web.bar_picture import Bar, BarPicture, bar_picture
from wallet_appservice.web.wallet_shell import WalletShell

MONTHS_SHOWN: Final = 6


@dataclass(frozen=True, slots=True)
class ShownCategory:
    """A category of the chosen month; `percent` is whole and of that month."""

    category: Category
    amount: str
    percent: int


class SpendingPage:
    def __init__(self, shell: WalletShell) -> None:
        self._shell = shell
        self._spending = Spending(shell.payments.till.database)

    def add_to(self, router: APIRouter) -> None:
        self._shell.show_at(router, "/spending", self._whole)

    async def _whole(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
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
            months=spent,
            chosen=chosen,
            categories=self._categories(chosen, currency),
            all_categories=[one for one in Category if any(one in month.by_category for month in spent)],
            picture=self._picture(spent, chosen, currency),
            currency=currency,
            minor=lambda amount_minor: self._shell.amount_of(amount_minor, currency),
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
