"""Budgets: what somebody means to spend in a month, and a word to them when most of it, or all, is spent.

A budget forbids nothing. The sum is that of the payments made, less what came back; it is looked at after
each payment of somebody who has a budget. Each warning is given once a month.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import ScalarSelect, func, insert, select
from sqlalchemy.exc import IntegrityError

from appservices.chassis.chosen_languages import LanguageOf, english_for_all
from appservices.chassis.clock import Clock
from appservices.chassis.database import Database, Write
from appservices.vocabulary.ids import UserId
from appservices.vocabulary.languages import _, speaking
from appservices.vocabulary.money import Currencies, CurrencyCode, format_minor
from wallet_appservice.payments.audit import AuditAction, audit_write
from wallet_appservice.payments.pins import told_privately
from wallet_appservice.payments.records import PaymentKind, PaymentState
from wallet_appservice.payments.settings import change_settings, setting_writes, settings_of
from wallet_appservice.storage.limit_tables import budget_warnings
from wallet_appservice.storage.payment_tables import payments

WARNED_AT_PERCENT: Final = (80, 100)
SPENDINGS: Final = (PaymentKind.PAYMENT, PaymentKind.RED_PACKET)
GIVEN_BACK: Final = (PaymentKind.REFUND, PaymentKind.RETURN)
_INSERT: Final = insert(budget_warnings)


@dataclass(frozen=True, slots=True)
class BudgetState:
    """A month's budget in one currency, in minor units; None when the user has none."""

    currency: CurrencyCode
    budget_minor: int | None
    spent_minor: int


class Budgets:
    """Everybody's budgets in one wallet's database."""

    def __init__(
        self,
        database: Database,
        *,
        currencies: Currencies,
        clock: Clock,
        on_commit: Callable[[], None],
        language_of: LanguageOf = english_for_all,
    ) -> None:
        """`on_commit` wakes the outbox."""
        self._language_of = language_of
        self._database = database
        self._currencies = currencies
        self._clock = clock
        self._on_commit = on_commit

    async def of(self, user: UserId) -> list[BudgetState]:
        """This month's state in every currency of the wallet."""
        async with self._database.read() as work:
            settings = await settings_of(work, user)
        return [
            BudgetState(code, budget_in(settings, code), await self.spent_minor(user, code))
            for code in self._currencies
        ]

    async def set(self, user: UserId, currency: CurrencyCode, budget_minor: int | None) -> None:
        """Sets the month's budget; None takes it away."""
        text = None if budget_minor is None else str(budget_minor)
        audited = audit_write(
            at_ms=self._clock(),
            actor=user,
            action=AuditAction.BUDGET,
            subject=user,
            currency=currency,
            amount_minor=text or "none",
        )
        writes = [*setting_writes(user, setting_name(currency), text), audited]
        await change_settings(self._database, writes)

    async def spent_minor(self, user: UserId, currency: CurrencyCode) -> int:
        """What the user has spent this month, by UTC, less what came back to them."""
        begin_ms = _month_begin_ms(self._clock())

        def total(user_column: str, kinds: tuple[PaymentKind, ...]) -> ScalarSelect[int]:
            return (
                select(func.coalesce(func.sum(payments.c.amount_minor), 0))
                .where(
                    payments.c[user_column] == user,
                    payments.c.at_ms >= begin_ms,
                    payments.c.currency == currency,
                    payments.c.kind.in_([kind.value for kind in kinds]),
                    payments.c.state != PaymentState.RETURNED.value,
                )
                .scalar_subquery()
            )

        async with self._database.read() as work:
            spent = (await work.execute(select(total("payer", SPENDINGS)))).scalar_one()
            given_back = (await work.execute(select(total("payee", GIVEN_BACK)))).scalar_one()
        return max(0, int(spent) - int(given_back))

    async def look(self, user: UserId, currency: CurrencyCode, settings: Mapping[str, str]) -> None:
        """Warns the user where their budget calls for it; to be called after a payment."""
        budget_minor = budget_in(settings, currency)
        if budget_minor is None:
            return
        spent_minor = await self.spent_minor(user, currency)
        reached = [percent for percent in WARNED_AT_PERCENT if spent_minor * 100 >= budget_minor * percent]
        if reached:
            await self._warn(user, currency, reached, spent_minor=spent_minor, budget_minor=budget_minor)

    async def _warn(
        self,
        user: UserId,
        currency: CurrencyCode,
        reached: list[int],
        *,
        spent_minor: int,
        budget_minor: int,
    ) -> None:
        now_ms = self._clock()
        month = _month(now_ms)
        with speaking(await self._language_of(user)):
            text = (
                _("You have spent {spent} this month: your budget of {budget} is used up.")
                if reached[-1] >= 100
                else _("You have spent {spent} of your budget of {budget} for this month.")
            ).format(
                spent=format_minor(spent_minor, self._currencies[currency]),
                budget=format_minor(budget_minor, self._currencies[currency]),
            )
        cause = ("budget", user, currency, str(month), str(reached[-1]))
        async with self._database.read() as work:
            given = {
                row.percent
                for row in await work.execute(
                    select(budget_warnings.c.percent).where(
                        budget_warnings.c.user_id == user,
                        budget_warnings.c.currency == currency,
                        budget_warnings.c.month == month,
                    )
                )
            }
        new = [percent for percent in reached if percent not in given]
        if not new:
            return
        rows = [
            {"user_id": user, "currency": currency, "month": month, "percent": percent} for percent in new
        ]
        try:
            async with self._database.begin() as work:
                await work.apply(
                    [
                        *(Write(_INSERT, row) for row in rows),
                        told_privately(user, text, now_ms=now_ms, cause=cause),
                    ]
                )
                work.after_commit(self._on_commit)
                await work.commit()
        except IntegrityError:
            # Another payment at the same moment has told it.
            return


def setting_name(currency: str) -> str:
    """Under which name a budget is kept."""
    return f"budget.{currency}"


def budget_in(settings: Mapping[str, str], currency: str) -> int | None:
    """The budget in minor units; None when there is none."""
    text = settings.get(setting_name(currency), "")
    return int(text) if text.isascii() and text.isdigit() and int(text) else None


def _month(at_ms: int) -> int:
    day = datetime.fromtimestamp(at_ms / 1000, UTC)
    return day.year * 100 + day.month


def _month_begin_ms(at_ms: int) -> int:
    day = datetime.fromtimestamp(at_ms / 1000, UTC)
    return int(datetime(day.year, day.month, 1, tzinfo=UTC).timestamp()) * 1000
