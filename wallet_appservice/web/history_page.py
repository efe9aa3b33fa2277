"""All payments of one's own: looked through by words, kind and time, a page at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

from appservices.chassis.pages import by_htmx, see_other
from appservices.vocabulary.ids import UserId
from appservices.vocabulary.languages import _, known
from wallet_appservice.books.periods import Period, latest_months, read_period
from wallet_appservice.payments.search import WORDS_LENGTH_MAX, PaymentSearch, Sort, Sought
from wallet_appservice.web.wallet_shell import PATH, WalletShell, position
from wallet_appservice.web.wallet_view import ShownPayments, payments_page

MONTHS_SHOWN: Final = 12
HISTORY_PAGE_SIZE: Final = 20
SORT_NAMES: Final = {
    Sort.ALL: known("All kinds"),
    Sort.SENT: known("Sent"),
    Sort.RECEIVED: known("Received"),
    Sort.RED_PACKETS: known("Red packets"),
    Sort.REFUNDS: known("Refunds and returns"),
    Sort.OUTSIDE: known("Deposits and withdrawals"),
}


@dataclass(frozen=True, slots=True)
class HistoryForm:
    """What is looked for, as the address has it."""

    words: str
    sort: Sort
    period: Period | None

    @property
    def query(self) -> str:
        """The address's part for it, to which a page's place is added."""
        chosen = {"words": self.words, "kind": self.sort.value, "period": self.period_key}
        return urlencode({name: value for name, value in chosen.items() if value})

    @property
    def period_key(self) -> str:
        return self.period.key if self.period else ""

    @property
    def sought(self) -> Sought:
        return Sought(
            words=self.words,
            sort=self.sort,
            from_ms=self.period.from_ms if self.period else None,
            until_ms=self.period.until_ms if self.period else None,
        )


class HistoryPage:
    def __init__(self, shell: WalletShell) -> None:
        self._shell = shell
        self._search = PaymentSearch(shell.payments.till.database, shell.payments.currencies)

    def add_to(self, router: APIRouter) -> None:
        self._shell.show_at(router, "/history", self._whole)
        router.get("/history-rows")(self._rows)

    async def _whole(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        form = _read(request)
        before = position(request.query_params.get("before"))
        months = latest_months(self._shell.clock(), MONTHS_SHOWN)
        periods = [(month.key, month.name) for month in months]
        if form.period is not None and form.period not in months:
            periods.append((form.period.key, form.period.name))
        return await self._shell.page(
            request,
            signed_in,
            "history.html",
            title=_("History"),
            tab="history",
            form=form,
            older=before is not None,
            sorts=[(sort.value, _(name)) for sort, name in SORT_NAMES.items()],
            periods=periods,
            words_length_max=WORDS_LENGTH_MAX,
            payments=await self._found(request, signed_in.user_id),
        )

    async def _rows(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        if not by_htmx(request):
            return see_other(f"{PATH}/history?{request.url.query}")
        return self._shell.part(
            request,
            signed_in,
            "payment_rows.html",
            payments=await self._found(request, signed_in.user_id),
        )

    async def _found(self, request: Request, user: UserId) -> ShownPayments:
        form = _read(request)
        before = position(request.query_params.get("before"))
        records = await self._search.find(user, form.sought, limit=HISTORY_PAGE_SIZE + 1, before=before)
        return payments_page(
            records,
            user,
            self._shell.payments.currencies,
            size=HISTORY_PAGE_SIZE,
            more_path=f"{PATH}/history?{form.query}",
            rows_path=f"{PATH}/history-rows?{form.query}",
        )


def _read(request: Request) -> HistoryForm:
    asked = request.query_params
    kind = asked.get("kind", "")
    return HistoryForm(
        words=" ".join(asked.get("words", "")[:WORDS_LENGTH_MAX].split()),
        sort=Sort(kind) if kind in set(Sort) else Sort.ALL,
        period=read_period(asked.get("period", "")),
    )
