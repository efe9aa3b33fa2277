"""Looking for payments of one's own: by person, memo, amount, kind and time, page by page."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy import ColumnElement, and_, false, or_, select

from appservices.chassis.database import Database
from appservices.vocabulary.ids import UserId
from appservices.vocabulary.money import AmountUnreadable, Currencies, Money
from wallet_appservice.payments.actions import in_history_of
from wallet_appservice.payments.records import PaymentKind, PaymentRecord
from wallet_appservice.payments.till import record_of
from wallet_appservice.storage.payment_tables import payments

WORDS_LENGTH_MAX: Final = 100
FOUND_MAX: Final = 100


class Sort(StrEnum):
    """What people tell payments apart by."""

    ALL = ""
    SENT = "sent"
    RECEIVED = "received"
    RED_PACKETS = "red_packets"
    REFUNDS = "refunds"
    OUTSIDE = "outside"
    """Deposits and withdrawals."""


@dataclass(frozen=True, slots=True)
class Sought:
    """What is looked for. All of it must fit; what is empty fits everything."""

    words: str = ""
    sort: Sort = Sort.ALL
    from_ms: int | None = None
    until_ms: int | None = None


class PaymentSearch:
    """Finds a user's payments."""

    def __init__(self, database: Database, currencies: Currencies) -> None:
        self._database = database
        self._currencies = currencies

    async def find(
        self, user: UserId, sought: Sought, *, limit: int, before: int | None = None
    ) -> list[PaymentRecord]:
        """Newest first, at most FOUND_MAX; `before` is the position of a record."""
        table = payments.c
        conditions = [in_history_of(user)]
        if before is not None:
            conditions.append(table.position < before)
        if sought.from_ms is not None:
            conditions.append(table.at_ms >= sought.from_ms)
        if sought.until_ms is not None:
            conditions.append(table.at_ms < sought.until_ms)
        if sought.sort is not Sort.ALL:
            conditions.append(_of_sort(sought.sort, user))
        conditions += [
            self._fits(word, user) for word in sought.words[:WORDS_LENGTH_MAX].replace("\x00", " ").split()
        ]
        query = (
            select(payments)
            .where(*conditions)
            .order_by(table.position.desc())
            .limit(max(0, min(limit, FOUND_MAX)))
        )
        async with self._database.read() as work:
            return [record_of(row) for row in await work.execute(query)]

    def _fits(self, word: str, user: UserId) -> ColumnElement[bool]:
        """Whether the word is part of the memo, of the other one's name, or is the amount."""
        table = payments.c
        amounts = [
            and_(table.amount_minor == money.amount_minor, table.currency == money.currency)
            for money in self._amounts(word)
        ]
        return or_(
            table.memo.icontains(word, autoescape=True),
            and_(table.payer != user, table.payer.icontains(word, autoescape=True)),
            and_(table.payee != user, table.payee.icontains(word, autoescape=True)),
            *(amounts or [false()]),
        )

    def _amounts(self, word: str) -> set[Money]:
        """What the word means as an amount, in any currency that is kept unless it names one."""
        found = set()
        for text in (word, *(f"{word} {code}" for code in self._currencies)):
            try:
                found.add(self._currencies.parse(text))
            except AmountUnreadable:
                continue
        return found


def _of_sort(sort: Sort, user: UserId) -> ColumnElement[bool]:
    table = payments.c
    if sort is Sort.SENT:
        return and_(table.payer == user, table.kind.in_([kind.value for kind in _KINDS[sort]]))
    if sort is Sort.RECEIVED:
        return and_(table.payee == user, table.kind == PaymentKind.PAYMENT.value)
    return table.kind.in_([kind.value for kind in _KINDS[sort]])


_KINDS: Final = {
    Sort.SENT: (PaymentKind.PAYMENT, PaymentKind.PURCHASE),
    Sort.RED_PACKETS: (PaymentKind.RED_PACKET, PaymentKind.SHARE),
    Sort.REFUNDS: (PaymentKind.REFUND, PaymentKind.RETURN),
    Sort.OUTSIDE: (PaymentKind.DEPOSIT, PaymentKind.WITHDRAWAL),
}
