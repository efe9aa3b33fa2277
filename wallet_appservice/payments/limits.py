"""The gate that every payment of a person passes before money moves: limits, and the need of confirmation.

What somebody spends in a day is counted by an UPDATE in the very transaction that moves the money, which
fails with it and refuses to count past the limit. So neither a crash nor another process can break the day's
limit, nothing is to be given back, and no transaction is added to a payment but to the first one of a day.
Within a process, payments under way are counted in memory too, so that the database seldom has to refuse.

    admitted = await gate.admit(Spending(id=…, payer=…, money=…, authority=…))
    if isinstance(admitted, PaymentRefused): …
    outcome = await till.move(movement, tell=tell, admission=admitted)

What counts: payments, requests paid, red packets sent, orders, charges. Money that comes in, deposits,
withdrawals, refunds, and shares of red packets don't pass here.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import bindparam, case, delete, insert, null, select, update
from sqlalchemy.exc import IntegrityError

from appservices.chassis.clock import Clock
from appservices.chassis.database import Database, Write
from appservices.chassis.shared_reads import SharedReads
from appservices.vocabulary.ids import TransferId, UserId
from appservices.vocabulary.money import Currencies, CurrencyCode, Money, format_minor
from wallet_appservice.payments.limit_rules import (
    LimitKind,
    Limits,
    OperatorLimits,
    day_of,
    limits_in_force,
    needs_confirmation,
)
from wallet_appservice.payments.proofs import with_proof
from wallet_appservice.payments.records import Authority
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.payments.settings import settings_of_all
from wallet_appservice.storage.limit_tables import day_spending

LOOKS_MAX: Final = 5
"""How often the day's sum is read again when payments of that user ended meanwhile."""
DAYS_KEPT: Final = 40

logger = logging.getLogger(__name__)

_c = day_spending.c
_SPENT: Final = select(day_spending).where(
    _c.user_id.in_(bindparam("of_users", expanding=True)),
    _c.day.between(bindparam("first_day"), bindparam("last_day")),
)
# A sum past the limit is NULL, which the column refuses: then nothing of the transaction is kept.
_COUNT: Final = (
    update(day_spending)
    .where(
        _c.user_id == bindparam("of_user"),
        _c.currency == bindparam("of_currency"),
        _c.day == bindparam("of_day"),
    )
    .values(
        spent_minor=case(
            (
                _c.spent_minor + bindparam("amount_minor", type_=_c.spent_minor.type)
                <= bindparam("day_minor", type_=_c.spent_minor.type),
                _c.spent_minor + bindparam("amount_minor", type_=_c.spent_minor.type),
            ),
            else_=null(),
        )
    )
)
_BEGIN_DAY: Final = insert(day_spending)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """Money that a person is about to part with. `id` is that of the transfer that will move it."""

    id: TransferId
    payer: UserId
    money: Money
    authority: Authority


Place = tuple[UserId, CurrencyCode, int]
"""Where is counted what somebody spends in a currency on a day."""
Spent = Callable[[UserId, CurrencyCode, Mapping[str, str]], Awaitable[None]]
"""Told after a spending, with the payer's settings."""


@dataclass(slots=True)
class _UnderWay:
    """What one user has under way in one currency on one day, in this process."""

    amounts: dict[TransferId, list[int]] = field(default_factory=dict)
    """Transfer → amount, and how many ask for it at once: a repetition is not counted twice."""
    ended: int = 0
    """How many have ended: what is read of the database meanwhile may be older than that."""
    looking: int = 0
    """How many are being judged, for whom this must stay the place to look at."""

    def sum_without(self, id: TransferId) -> int:
        return sum(amount for other, (amount, _) in self.amounts.items() if other != id)


class Gate:
    """Judges spendings of one wallet."""

    def __init__(
        self, database: Database, *, currencies: Currencies, operator: OperatorLimits, clock: Clock
    ) -> None:
        self.operator = operator
        self.currencies = currencies
        self._database = database
        self._clock = clock
        self._under_way: dict[Place, _UnderWay] = {}
        self._looks: SharedReads[Place, _Found] = SharedReads(self._find)
        self._on_spent: Spent | None = None

    def now_ms(self) -> int:
        return self._clock()

    def on_spent(self, callback: Spent) -> None:
        """Registers what to do after each spending that was made; it may be missed by a crash."""
        self._on_spent = callback

    async def admit(self, spending: Spending) -> Admission | PaymentRefused:
        """Lets a spending pass, or says why not. The currency must be one that the wallet keeps.

        An admission is handed to `Till.move`, once, which ends it; who does not get so far calls `end`.
        """
        place = (spending.payer, spending.money.currency, day_of(self._clock()))
        under_way = self._under_way.setdefault(place, _UnderWay())
        under_way.looking += 1
        try:
            for _ in range(LOOKS_MAX):
                ended = under_way.ended
                seen = await self._look(spending, place, begin=True)
                if under_way.ended == ended:
                    break
            # From here on nothing is awaited: what is judged is what is entered.
            refused = self._judge(spending, seen, under_way.sum_without(spending.id))
            if refused is not None:
                return refused
            entry = under_way.amounts.setdefault(spending.id, [spending.money.amount_minor, 0])
            entry[1] += 1
            return Admission(self, spending, place=place, seen=seen)
        finally:
            under_way.looking -= 1
            self._forget(place)

    async def refusal(self, spending: Spending) -> PaymentRefused | None:
        """What would refuse it now, without letting it pass; CONFIRMATION_NEEDED comes last."""
        place = (spending.payer, spending.money.currency, day_of(self._clock()))
        under_way = self._under_way.get(place, _UnderWay())
        seen = await self._look(spending, place, begin=False)
        return self._judge(spending, seen, under_way.sum_without(spending.id))

    async def limits_of(self, user: UserId, currency: CurrencyCode) -> tuple[Limits, int]:
        """What is in force for a user, and how much of the day's limit is spent."""
        found = await self._looks.get((user, currency, day_of(self._clock())))
        assert found is not None, "of every place there is something"
        limits = limits_in_force(self.operator, found.settings, self.currencies[currency])
        return limits, found.spent_minor or 0

    async def forget_old_days(self) -> None:
        """Deletes what was counted longer than DAYS_KEPT ago."""
        old = _c.day < day_of(self._clock()) - DAYS_KEPT
        async with self._database.begin() as work:
            await work.execute(delete(day_spending).where(old))
            await work.commit()

    async def _look(self, spending: Spending, place: Place, *, begin: bool) -> _Seen:
        found = await self._looks.get(place)
        assert found is not None, "of every place there is something"
        if found.spent_minor is None and begin:
            await self._begin_day(*place)
        return _Seen(
            limits=limits_in_force(self.operator, found.settings, self.currencies[spending.money.currency]),
            settings=found.settings,
            spent_minor=found.spent_minor or 0,
            has_proof=found.has_proof,
        )

    async def _find(self, places: Sequence[Place]) -> dict[Place, _Found]:
        users = [user for user, _currency, _day in places]
        days = [day for _user, _currency, day in places]
        parameters = {"of_users": users, "first_day": min(days), "last_day": max(days)}
        async with self._database.read() as work:
            settings = await settings_of_all(work, users)
            rows = await work.execute(_SPENT, parameters)
            spent = {(row.user_id, row.currency, row.day): row.spent_minor for row in rows}
            proven = await with_proof(work, users)
        return {place: _Found(settings[place[0]], spent.get(place), place[0] in proven) for place in places}

    async def _begin_day(self, user: UserId, currency: CurrencyCode, day: int) -> None:
        try:
            async with self._database.begin() as work:
                await work.execute(
                    _BEGIN_DAY, {"user_id": user, "currency": currency, "day": day, "spent_minor": 0}
                )
                await work.commit()
        except IntegrityError:
            # Somebody else began it at the same moment.
            return

    def _judge(self, spending: Spending, seen: _Seen, under_way_minor: int) -> PaymentRefused | None:
        amount_minor, currency = spending.money.amount_minor, self.currencies[spending.money.currency]
        limits = seen.limits
        if spending.authority is Authority.OPERATOR:
            return None
        highest_minor = self.operator.minor(LimitKind.PAYMENT, currency)
        if amount_minor > highest_minor:
            return PaymentRefused.because(
                PaymentRefusal.AMOUNT_TOO_LARGE, payment_max=format_minor(highest_minor, currency)
            )
        if amount_minor > limits.payment_minor:
            return PaymentRefused.because(
                PaymentRefusal.OWN_LIMIT, own_max=format_minor(limits.payment_minor, currency)
            )
        left_minor = max(0, limits.day_minor - seen.spent_minor - under_way_minor)
        if amount_minor > left_minor:
            return PaymentRefused.because(
                PaymentRefusal.DAY_LIMIT,
                day_max=format_minor(limits.day_minor, currency),
                day_left=format_minor(left_minor, currency),
            )
        if needs_confirmation(amount_minor, limits, spending.authority, has_proof=seen.has_proof):
            return PaymentRefused.because(
                PaymentRefusal.CONFIRMATION_NEEDED, chat_max=format_minor(limits.chat_minor, currency)
            )
        return None

    def _forget(self, place: Place) -> None:
        under_way = self._under_way[place]
        if not under_way.amounts and not under_way.looking:
            del self._under_way[place]

    def _end(self, place: Place, id: TransferId) -> None:
        under_way = self._under_way[place]
        under_way.ended += 1
        entry = under_way.amounts[id]
        entry[1] -= 1
        if not entry[1]:
            del under_way.amounts[id]
        self._forget(place)

    async def _tell_spent(self, spending: Spending, settings: Mapping[str, str]) -> None:
        if self._on_spent is None:
            return
        try:
            await self._on_spent(spending.payer, spending.money.currency, settings)
        except Exception:
            # The payment is made, whatever comes after it.
            logger.exception("after payment %s something could not be told", spending.id)


@dataclass(frozen=True, slots=True)
class _Found:
    """What the database holds of a place."""

    settings: Mapping[str, str]
    """The user's."""
    spent_minor: int | None
    """None before the day has begun."""
    has_proof: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    limits: Limits
    settings: Mapping[str, str]
    spent_minor: int
    has_proof: bool


class Admission:
    """A spending that may pass. It holds its place in the day's limit until it ends."""

    def __init__(self, gate: Gate, spending: Spending, *, place: Place, seen: _Seen) -> None:
        self._gate = gate
        self._spending = spending
        self._place = place
        self._seen = seen
        self._has_ended = False

    @property
    def writes(self) -> Sequence[Write]:
        """To be committed with the movement, in its transaction, unless it was made before."""
        if self._spending.authority is Authority.OPERATOR:
            return ()
        user, currency, day = self._place
        return [
            Write(
                _COUNT,
                {
                    "of_user": user,
                    "of_currency": currency,
                    "of_day": day,
                    "amount_minor": self._spending.money.amount_minor,
                    "day_minor": self._seen.limits.day_minor,
                },
            )
        ]

    async def overtaken(self) -> PaymentRefused | None:
        """After the database refused the transaction: whether another process has used the limit up."""
        return await self._gate.refusal(self._spending)

    async def made(self) -> None:
        """The money has moved. Never raises."""
        await self._gate._tell_spent(self._spending, self._seen.settings)

    def close(self) -> None:
        """The same as `end`, for contextlib.closing."""
        self.end()

    def end(self) -> None:
        """The movement has ended, whatever came of it. Ending again does nothing."""
        if not self._has_ended:
            self._has_ended = True
            self._gate._end(self._place, self._spending.id)
