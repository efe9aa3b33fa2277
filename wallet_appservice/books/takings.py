"""What a merchant took on one day, by the hour: paid for orders and by codes, and given back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Integer, cast, func, literal, select

from appservices.chassis.database import Database
from appservices.vocabulary.money import CurrencyCode
from wallet_appservice.books.periods import Period
from wallet_appservice.storage.payment_tables import payments

HOUR_MS: Final = 3_600_000
HOURS: Final = 24


@dataclass(frozen=True, slots=True)
class Takings:
    """A day in UTC, in minor units of one currency."""

    by_hour: list[int]
    payments_count: int
    given_back_minor: int

    @property
    def total_minor(self) -> int:
        return sum(self.by_hour)


async def takings_of(database: Database, merchant_id: str, currency: CurrencyCode, day: Period) -> Takings:
    """Of the period's first day."""
    table = payments.c
    until_ms = day.from_ms + HOURS * HOUR_MS
    hour = cast((table.at_ms - literal(day.from_ms)) // HOUR_MS, Integer).label("hour")
    rows = (
        select(table.kind, hour, table.amount_minor)
        .where(
            table.merchant_id == merchant_id,
            table.currency == currency,
            table.kind.in_(("purchase", "refund")),
            table.state == "posted",
            table.at_ms >= day.from_ms,
            table.at_ms < until_ms,
        )
        .subquery()
    )
    by = (rows.c.kind, rows.c.hour)
    amount, how_many = func.sum(rows.c.amount_minor).label("amount"), func.count().label("how_many")
    query = select(*by, amount, how_many).group_by(*by)
    by_hour = [0] * HOURS
    count = given_back = 0
    async with database.read() as work:
        for row in await work.execute(query):
            if row.kind == "purchase":
                by_hour[row.hour] += int(row.amount)
                count += int(row.how_many)
            else:
                given_back += int(row.amount)
    return Takings(by_hour, count, given_back)
