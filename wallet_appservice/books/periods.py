"""Periods that people ask about: a month, a year, or days from one to another. All days are days in UTC."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from babel.dates import format_date, format_skeleton

from appservices.vocabulary.languages import _, language

_MONTH: Final = re.compile(r"(\d{4})-(\d{2})", re.ASCII)
_YEAR: Final = re.compile(r"\d{4}", re.ASCII)
_DAYS: Final = re.compile(r"(\d{4}-\d{2}-\d{2})\.\.(\d{4}-\d{2}-\d{2})", re.ASCII)
# Dates beyond these can't be told from typing errors, and some can't be told as times at all.
_YEARS: Final = range(1971, 2200)


@dataclass(frozen=True, slots=True)
class Period:
    """Whole days, the last one included."""

    first: date
    last: date

    @property
    def from_ms(self) -> int:
        return _midnight_ms(self.first)

    @property
    def until_ms(self) -> int:
        """The first moment after it."""
        return _midnight_ms(self.last + timedelta(days=1))

    @property
    def key(self) -> str:
        """As `read_period` reads it: `2026-11`, `2026`, `2026-11-01..2026-11-15`."""
        if self == month_of(self.first):
            return f"{self.first:%Y-%m}"
        if self == _year(self.first.year):
            return f"{self.first:%Y}"
        return f"{self.first}..{self.last}"

    @property
    def name(self) -> str:
        """For people, in the language that is spoken."""
        if self == month_of(self.first):
            return month_name(self.first)
        if self == _year(self.first.year):
            return f"{self.first:%Y}"
        return _("{first} to {last}").format(first=day_name(self.first), last=day_name(self.last))


def read_period(text: str) -> Period | None:
    """The period that a key names; None for anything else."""
    try:
        if match := _MONTH.fullmatch(text):
            return _kept(month_of(date(int(match[1]), int(match[2]), 1)))
        if _YEAR.fullmatch(text):
            return _kept(_year(int(text)))
        if match := _DAYS.fullmatch(text):
            return _kept(Period(date.fromisoformat(match[1]), date.fromisoformat(match[2])))
    except ValueError:
        return None
    return None


def this_month(now_ms: int) -> Period:
    return month_of(_day(now_ms))


def latest_months(now_ms: int, count: int) -> list[Period]:
    """This month and those before it, the latest first."""
    months = [this_month(now_ms)]
    while len(months) < count:
        months.append(month_of(months[-1].first - timedelta(days=1)))
    return months


def month_of(day: date) -> Period:
    first = day.replace(day=1)
    following = (first + timedelta(days=32)).replace(day=1)
    return Period(first, following - timedelta(days=1))


def month_name(day: date, *, short: bool = False) -> str:
    """`November 2026`, or `Nov` when short."""
    if short:
        return str(format_date(day, "LLL", locale=language()))
    return str(format_skeleton("yMMMM", _noon(day), locale=language()))


def day_name(day: date) -> str:
    return str(format_date(day, "medium", locale=language()))


def day_of(at_ms: int) -> str:
    """The day of a moment, for people."""
    return day_name(_day(at_ms))


def _year(year: int) -> Period:
    return Period(date(year, 1, 1), date(year, 12, 31))


def _kept(period: Period) -> Period | None:
    sane = period.first <= period.last and {period.first.year, period.last.year} <= set(_YEARS)
    return period if sane else None


def _day(at_ms: int) -> date:
    return datetime.fromtimestamp(at_ms / 1000, UTC).date()


def _noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC)


def _midnight_ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000
