"""What somebody spent, by month and category: what they paid, less what was given back of it.

The category is the payer's own word for one payment; without one it is guessed from what was paid: a person,
an order of a merchant, a red packet. A category is seen by whoever gave it and by nobody else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, FromClause, Select, and_, case, delete, func, insert, literal, select

from appservices.chassis.database import Database
from appservices.vocabulary.ids import TransferId, UserId
from appservices.vocabulary.languages import _, known
from appservices.vocabulary.money import CurrencyCode
from wallet_appservice.books.periods import Period
from wallet_appservice.storage.category_tables import payment_categories
from wallet_appservice.storage.payment_tables import payments

MONTHS_MAX: Final = 24
_SPENT: Final = ("payment", "purchase", "red_packet")
_GIVEN_BACK: Final = ("refund", "return")


class Category(StrEnum):
    """What a payment was for, in the order in which pictures stack them."""

    FOOD = "food"
    SHOPPING = "shopping"
    HOME = "home"
    TRANSPORT = "transport"
    FUN = "fun"
    HEALTH = "health"
    PEOPLE = "people"
    GIFTS = "gifts"
    OTHER = "other"

    @property
    def label(self) -> str:
        return _(_TITLES[self])


_TITLES: Final = {
    Category.FOOD: known("Food and drink"),
    Category.SHOPPING: known("Shopping"),
    Category.HOME: known("Home and bills"),
    Category.TRANSPORT: known("Travel"),
    Category.FUN: known("Fun and culture"),
    Category.HEALTH: known("Health"),
    Category.PEOPLE: known("Friends and family"),
    Category.GIFTS: known("Gifts"),
    Category.OTHER: known("Other"),
}


@dataclass(frozen=True, slots=True)
class MonthSpent:
    """One month: category → minor units, those with nothing left out."""

    month: Period
    by_category: Mapping[Category, int]

    @property
    def total_minor(self) -> int:
        return sum(self.by_category.values())


def guessed_category(kind: str) -> Category:
    """What a payment was probably for, where its payer has not said."""
    guesses = {"red_packet": Category.GIFTS, "purchase": Category.SHOPPING}
    return guesses.get(kind, Category.PEOPLE)


class Spending:
    """Sums and categories of people's own payments."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def by_month(
        self, user: UserId, currency: CurrencyCode, months: Sequence[Period]
    ) -> list[MonthSpent]:
        """For each of the months, at most MONTHS_MAX, in the given order."""
        asked = months[:MONTHS_MAX]
        sums: list[dict[Category, int]] = [{} for _month in asked]
        if not asked:
            return []
        async with self._database.read() as work:
            for query, sign in ((_paid(user, currency, asked), 1), (_given_back(user, currency, asked), -1)):
                for row in await work.execute(query):
                    if row.month is None:
                        continue
                    chosen = Category(row.category) if row.category else guessed_category(row.kind)
                    month = sums[row.month]
                    month[chosen] = month.get(chosen, 0) + sign * int(row.amount)
        return [
            MonthSpent(month, {one: found[one] for one in Category if found.get(one, 0) > 0})
            for month, found in zip(asked, sums, strict=True)
        ]

    async def currencies(self, user: UserId) -> list[CurrencyCode]:
        """Those in which the user has spent anything."""
        query = select(payments.c.currency).where(payments.c.payer == user, payments.c.kind.in_(_SPENT))
        async with self._database.read() as work:
            found = await work.execute(query.distinct().order_by(payments.c.currency))
            return [CurrencyCode(row.currency) for row in found]

    async def category(self, user: UserId, payment: TransferId) -> Category | None:
        """What the user has said of the payment."""
        query = select(payment_categories.c.category).where(
            payment_categories.c.user_id == user, payment_categories.c.payment_id == payment
        )
        async with self._database.read() as work:
            chosen = (await work.execute(query)).scalar()
            return Category(chosen) if chosen else None

    async def choose(self, user: UserId, payment: TransferId, category: Category | None) -> bool:
        """Says it anew, or takes it back. False, and nothing is kept, for what the user did not pay."""
        table = payment_categories
        async with self._database.begin() as work:
            paid = select(payments.c.id).where(
                payments.c.id == payment, payments.c.payer == user, payments.c.kind.in_(_SPENT)
            )
            if (await work.execute(paid)).first() is None:
                return False
            await work.execute(delete(table).where(table.c.user_id == user, table.c.payment_id == payment))
            if category is not None:
                await work.execute(
                    insert(table),
                    {"user_id": user, "payment_id": payment, "category": category.value},
                )
            await work.commit()
            return True


def _paid(user: UserId, currency: CurrencyCode, months: Sequence[Period]) -> Select[Any]:
    return _sums(user, currency, months, amount=payments.c.amount_minor)


def _given_back(user: UserId, currency: CurrencyCode, months: Sequence[Period]) -> Select[Any]:
    """Counted in the month and the category of what it gives back of."""
    back = payments.alias("back")
    return _sums(
        user,
        currency,
        months,
        amount=back.c.amount_minor,
        joined=(back, back.c.of_id == payments.c.id),
        conditions=(back.c.payee == user, back.c.kind.in_(_GIVEN_BACK), back.c.state == "posted"),
    )


def _sums(
    user: UserId,
    currency: CurrencyCode,
    months: Sequence[Period],
    *,
    amount: ColumnElement[int],
    joined: tuple[FromClause, ColumnElement[bool]] | None = None,
    conditions: Sequence[ColumnElement[bool]] = (),
) -> Select[Any]:
    """Sums by month (its place in `months`), kind and category."""
    table = payments.c
    in_month = [
        (and_(table.at_ms >= month.from_ms, table.at_ms < month.until_ms), literal(place))
        for place, month in enumerate(months)
    ]
    source = payments.outerjoin(
        payment_categories,
        and_(payment_categories.c.payment_id == table.id, payment_categories.c.user_id == user),
    )
    if joined is not None:
        source = source.join(*joined)
    rows = (
        select(
            case(*in_month, else_=None).label("month"),
            table.kind.label("kind"),
            payment_categories.c.category.label("category"),
            amount.label("amount"),
        )
        .select_from(source)
        .where(
            table.payer == user,
            table.currency == currency,
            table.kind.in_(_SPENT),
            table.state == "posted",
            table.at_ms >= min(month.from_ms for month in months),
            *conditions,
        )
        .subquery()
    )
    by = (rows.c.month, rows.c.kind, rows.c.category)
    return select(*by, func.sum(rows.c.amount).label("amount")).group_by(*by)
