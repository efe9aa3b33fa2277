"""The statement of a month or of any days: to look at, as CSV and as PDF."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from appservices.chassis.page_assets import VENDOR_FOLDER
from appservices.vocabulary.ids import UserId
from appservices.vocabulary.languages import _
from appservices.vocabulary.money import CurrencyCode
from wallet_appservice.books.exports import Amounts
from wallet_appservice.books.periods import Period, latest_months, read_period, this_month
from wallet_appservice.books.statement_pdf import LINES_MAX, statement_pdf
from wallet_appservice.books.user_statements import open_statement
from wallet_appservice.web.wallet_shell import WalletShell, position
from wallet_appservice.web.wallet_view import change_text

LINES_SHOWN: Final = 20
MONTHS_SHOWN: Final = 12
PDFS_AT_ONCE_MAX: Final = 1
FONTS: Final = VENDOR_FOLDER / "fonts"


class StatementPage:
    def __init__(self, shell: WalletShell) -> None:
        self._shell = shell
        self._database = shell.payments.till.database
        # Setting one is work for the processor, which payments need, too.
        self._pdfs = asyncio.Semaphore(PDFS_AT_ONCE_MAX)

    def add_to(self, router: APIRouter) -> None:
        self._shell.show_at(router, "/statement", self._whole)
        router.get("/statement.csv")(self._csv)
        router.get("/statement.pdf")(self._pdf)

    async def _whole(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        period, problem = self._period(request)
        currency = self._currency(request)
        after = position(request.query_params.get("after")) or 0
        async with open_statement(self._database, signed_in.user_id, currency, period) as opened:
            lines = [line async for line in opened.lines(after=after, limit=LINES_SHOWN + 1)]
        statement = opened.statement
        query = urlencode({"period": period.key, "currency": currency})
        months = latest_months(self._shell.clock(), MONTHS_SHOWN)
        return await self._shell.page(
            request,
            signed_in,
            "statement.html",
            title=_("Statement"),
            status=422 if problem else 200,
            announcement=problem,
            problem=problem,
            statement=statement,
            lines=lines[:LINES_SHOWN],
            next_after=lines[LINES_SHOWN - 1].position if len(lines) > LINES_SHOWN else None,
            after=after,
            query=query,
            months=[(month.key, month.name) for month in months],
            is_month=period in months,
            period=period,
            currency=currency,
            too_long=statement.lines_count > LINES_MAX,
            minor=lambda amount_minor: self._shell.amount_of(amount_minor, currency),
            change=lambda amount_minor: change_text(amount_minor, currency, self._shell.payments.currencies),
        )

    async def _csv(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        period, problem = self._period(request)
        if problem:
            return await self._whole(request)
        currency = self._currency(request)

        async def lines(user: UserId) -> AsyncIterator[str]:
            async with open_statement(self._database, user, currency, period) as opened:
                async for line in opened.csv(Amounts(self._shell.payments.currencies)):
                    yield line

        return StreamingResponse(
            lines(signed_in.user_id),
            media_type="text/csv; charset=utf-8",
            headers=_attachment(period, currency, "csv"),
        )

    async def _pdf(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        period, problem = self._period(request)
        currency = self._currency(request)
        if problem:
            return await self._whole(request)
        async with self._pdfs:
            async with open_statement(self._database, signed_in.user_id, currency, period) as opened:
                lines = [line async for line in opened.lines(limit=LINES_MAX + 1)]
            if len(lines) > LINES_MAX:
                return await self._whole(request)
            pdf = await asyncio.to_thread(
                statement_pdf,
                opened.statement,
                lines,
                amount=lambda amount_minor: self._shell.amount_of(amount_minor, currency),
                fonts=FONTS,
                now_ms=self._shell.clock(),
            )
        return Response(pdf, media_type="application/pdf", headers=_attachment(period, currency, "pdf"))

    def _period(self, request: Request) -> tuple[Period, str]:
        """What was asked for, this month by itself; and what is wrong with it."""
        asked = request.query_params
        first, last = asked.get("first", ""), asked.get("last", "")
        key = f"{first}..{last}" if first or last else asked.get("period", "")
        read = read_period(key) if key else this_month(self._shell.clock())
        if read is None:
            sentence = _("The first day must not be after the last one, and both must be real days.")
            return this_month(self._shell.clock()), sentence
        return read, ""

    def _currency(self, request: Request) -> CurrencyCode:
        asked = CurrencyCode(request.query_params.get("currency", ""))
        currencies = self._shell.payments.currencies
        return asked if asked in currencies else currencies.default.code


def _attachment(period: Period, currency: CurrencyCode, suffix: str) -> dict[str, str]:
    name = f"statement-{period.key.replace('..', '-to-')}-{currency}.{suffix}"
    return {"Content-Disposition": f'attachment; filename="{name}"'}
