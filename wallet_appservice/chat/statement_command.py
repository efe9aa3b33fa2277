"""`!statement 2026-11`: a short statement in private, and where the whole of it is."""

from __future__ import annotations

import html
from collections.abc import Sequence
from urllib.parse import urlencode

from appservices.chassis.commands import Command, CommandCall
from appservices.chassis.database import Write
from appservices.vocabulary.languages import _, isolated, known
from appservices.vocabulary.money import CurrencyCode, format_change, format_minor
from wallet_appservice.books.periods import Period, read_period, this_month
from wallet_appservice.books.user_statements import UserStatement, open_statement
from wallet_appservice.payments.actions import Payments


class StatementCommand:
    """Answers with the sums of each of the sender's currencies."""

    def __init__(self, payments: Payments, *, public_url: str) -> None:
        self._payments = payments
        self._public_url = public_url.rstrip("/")

    def commands(self) -> tuple[Command, ...]:
        return (
            Command(
                "statement",
                known("!statement [month]"),
                known("shows a month's statement"),
                "!statement 2026-11",
                self._answer,
            ),
        )

    async def _answer(self, call: CommandCall) -> Sequence[Write]:
        period = read_period(call.arguments) if call.arguments else this_month(call.now_ms)
        if period is None:
            return [
                call.reply(
                    _("{command} takes a month or a year, for example: {example}").format(
                        command=isolated("!statement"), example=isolated("!statement 2026-11")
                    )
                )
            ]
        lines = [
            await self._line(call, period, code=balance.currency)
            for balance in await self._payments.balances(call.sender)
        ]
        address = f"{self._public_url}/wallet/statement?{urlencode({'period': period.key})}"
        heading = _("Statement of {period}").format(period=period.name)
        all_of_it = _("Every line of it, as PDF and CSV: {address}").format(address=address)
        rows = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
        return call.answer_privately(
            "\n".join([heading, *lines, all_of_it]),
            formatted=f"<strong>{html.escape(heading)}</strong><ul>{rows}</ul>{html.escape(all_of_it)}",
        )

    async def _line(self, call: CommandCall, period: Period, *, code: CurrencyCode) -> str:
        async with open_statement(self._payments.till.database, call.sender, code, period) as opened:
            return self._sums(opened.statement)

    def _sums(self, statement: UserStatement) -> str:
        currency = self._payments.currencies[statement.currency]
        return _("{before} before, {came} in, {went} out, {after} after").format(
            before=format_minor(statement.opening_minor, currency),
            came=format_change(statement.in_minor, currency),
            went=format_change(-statement.out_minor, currency),
            after=format_minor(statement.closing_minor, currency),
        )
