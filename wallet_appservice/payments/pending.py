"""What is pending: what waits for a person and what they wait for, with when each ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Select, and_, exists, func, literal, or_, select

from appservices.chassis.database import Database
from appservices.vocabulary.ids import TransferId, UserId
from appservices.vocabulary.money import CurrencyCode, Money
from wallet_appservice.storage.payment_tables import payments
from wallet_appservice.storage.red_packet_tables import red_packets
from wallet_appservice.storage.request_store import OPEN_STATES
from wallet_appservice.storage.request_tables import request_shares, requests

PENDING_MAX: Final = 100
_NO_END_MS: Final = 2**53 - 1


class PendingKind(StrEnum):
    """What it is that waits."""

    REQUEST = "request"
    RED_PACKET = "red_packet"
    PAYMENT = "payment"


@dataclass(frozen=True, slots=True)
class PendingItem:
    """One thing that is not over. `ends_at_ms` is None for what another wallet has to answer."""

    kind: PendingKind
    id: TransferId
    waits_for_me: bool
    other: UserId | None
    """Who asked me or has to act; None where it is several people."""
    money: Money
    memo: str
    ends_at_ms: int | None


@dataclass(frozen=True, slots=True)
class PendingPage:
    """What ends soonest first; `next_after` asks for the page after it."""

    items: tuple[PendingItem, ...]
    next_after: str | None


class Pending:
    """Looks through all that can wait."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, user: UserId, *, limit: int = PENDING_MAX, after: str | None = None) -> PendingPage:
        """At most PENDING_MAX items; a cursor that is none of ours begins at the beginning."""
        limit = max(1, min(limit, PENDING_MAX))
        cursor = _cursor(after)
        found: list[PendingItem] = []
        async with self._database.read() as work:
            for query, kind, is_mine in _queries(user, cursor, limit + 1):
                found += [_item(row, kind, waits_for_me=is_mine) for row in await work.execute(query)]
        found.sort(key=_place)
        items = found[:limit]
        last = _place(items[-1]) if len(found) > limit else None
        return PendingPage(tuple(items), None if last is None else f"{last[0]}:{last[1]}")


def _queries(
    user: UserId, cursor: tuple[int, str], limit: int
) -> Sequence[tuple[Select[Any], PendingKind, bool]]:
    held_until = func.coalesce(payments.c.expires_at_ms, _NO_END_MS)
    is_held = payments.c.state == "pending"
    asked = (
        select(
            requests.c.id,
            requests.c.requester.label("other"),
            request_shares.c.amount_minor,
            requests.c.currency,
            requests.c.memo,
            requests.c.expires_at_ms.label("ends_at_ms"),
        )
        .join(request_shares, request_shares.c.request_id == requests.c.id)
        .where(request_shares.c.asked == user, request_shares.c.state.in_(OPEN_STATES))
    )
    asking = select(
        requests.c.id,
        select(func.min(request_shares.c.asked))
        .where(request_shares.c.request_id == requests.c.id)
        .having(func.count() == 1)
        .scalar_subquery()
        .label("other"),
        select(func.sum(request_shares.c.amount_minor))
        .where(request_shares.c.request_id == requests.c.id, request_shares.c.state.in_(OPEN_STATES))
        .scalar_subquery()
        .label("amount_minor"),
        requests.c.currency,
        requests.c.memo,
        requests.c.expires_at_ms.label("ends_at_ms"),
    ).where(
        requests.c.requester == user,
        requests.c.is_open == 1,
        exists().where(request_shares.c.request_id == requests.c.id, request_shares.c.state.in_(OPEN_STATES)),
    )
    packets = select(
        red_packets.c.id,
        literal(None).label("other"),
        red_packets.c.remaining_minor.label("amount_minor"),
        red_packets.c.currency,
        red_packets.c.words.label("memo"),
        red_packets.c.expires_at_ms.label("ends_at_ms"),
    ).where(red_packets.c.sender == user, red_packets.c.state == "open")

    def held(mine: ColumnElement[bool], other: Any) -> Select[Any]:
        return select(
            payments.c.id,
            other.label("other"),
            payments.c.amount_minor,
            payments.c.currency,
            payments.c.memo,
            held_until.label("ends_at_ms"),
        ).where(is_held, mine)

    return [
        (_page(asked, requests.c.expires_at_ms, requests.c.id, cursor, limit), PendingKind.REQUEST, True),
        (_page(asking, requests.c.expires_at_ms, requests.c.id, cursor, limit), PendingKind.REQUEST, False),
        (
            _page(packets, red_packets.c.expires_at_ms, red_packets.c.id, cursor, limit),
            PendingKind.RED_PACKET,
            False,
        ),
        (
            _page(held(payments.c.payee == user, payments.c.payer), held_until, payments.c.id, cursor, limit),
            PendingKind.PAYMENT,
            True,
        ),
        (
            _page(held(payments.c.payer == user, payments.c.payee), held_until, payments.c.id, cursor, limit),
            PendingKind.PAYMENT,
            False,
        ),
    ]


def _page(query: Select[Any], ends: Any, id: Any, cursor: tuple[int, str], limit: int) -> Select[Any]:
    after_ms, after_id = cursor
    is_after = or_(ends > after_ms, and_(ends == after_ms, id > after_id))
    return query.where(is_after).order_by(ends, id).limit(limit)


def _item(row: Row[Any], kind: PendingKind, *, waits_for_me: bool) -> PendingItem:
    return PendingItem(
        kind=kind,
        id=TransferId(row.id),
        waits_for_me=waits_for_me,
        other=UserId(row.other) if row.other else None,
        money=Money(int(row.amount_minor), CurrencyCode(row.currency)),
        memo=row.memo,
        ends_at_ms=None if row.ends_at_ms == _NO_END_MS else int(row.ends_at_ms),
    )


def _place(item: PendingItem) -> tuple[int, str]:
    return (_NO_END_MS if item.ends_at_ms is None else item.ends_at_ms, item.id)


def _cursor(text: str | None) -> tuple[int, str]:
    ends, _, id = (text or "").partition(":")
    return (int(ends), id) if ends.isascii() and ends.isdigit() and len(ends) <= 16 else (-1, "")
