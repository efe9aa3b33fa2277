"""The statements that read and change requests. Whoever changes a share holds its request's row first, so
that of two who come at once the second sees what the first did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Row, and_, bindparam, case, exists, func, insert, literal, select, update

from appservices.chassis.database import UnitOfWork, Write
from wallet_appservice.storage.clearing_tables import clearing_out, clearing_requests
from wallet_appservice.storage.request_tables import request_shares, requests

OPEN_STATES: Final = ("open", "paying")
_INSERT_REQUEST: Final = insert(requests)
_INSERT_SHARE: Final = insert(request_shares)
_HOLD: Final = (
    update(requests).where(requests.c.id == bindparam("at_id")).values(version=requests.c.version + 1)
)
_REOPEN: Final = (
    update(request_shares)
    .where(
        request_shares.c.request_id == bindparam("at_id"),
        request_shares.c.asked == bindparam("at_asked"),
        request_shares.c.attempt == bindparam("at_attempt"),
        request_shares.c.state == "paying",
    )
    .values(state="open", changed_at_ms=bindparam("now_ms"))
)
_PAID: Final = (
    update(request_shares)
    .where(
        request_shares.c.request_id == bindparam("at_id"),
        request_shares.c.asked == bindparam("at_asked"),
        # Whatever has become of the row meanwhile: what has moved has moved.
        request_shares.c.attempt == bindparam("at_attempt"),
    )
    .values(state="paid", changed_at_ms=bindparam("now_ms"))
)
_IS_OPEN: Final = (
    update(requests)
    .where(requests.c.id == bindparam("at_id"))
    .values(
        is_open=case(
            (
                exists().where(
                    request_shares.c.request_id == requests.c.id, request_shares.c.state.in_(OPEN_STATES)
                ),
                1,
            ),
            else_=0,
        )
    )
)
_SHOWN: Final = (
    update(requests)
    .where(requests.c.id == bindparam("at_id"), requests.c.shown_version < bindparam("new_version"))
    .values(shown_version=bindparam("new_version"))
)


_ENDED: Final = (
    update(request_shares)
    .where(
        request_shares.c.request_id == bindparam("at_id"),
        request_shares.c.asked == bindparam("at_asked"),
        request_shares.c.state == bindparam("before"),
    )
    .values(state=bindparam("new_state"), changed_at_ms=bindparam("now_ms"))
)


def insertions(request: dict[str, Any], shares: Sequence[dict[str, Any]]) -> list[Write]:
    return [Write(_INSERT_REQUEST, request), *(Write(_INSERT_SHARE, share) for share in shares)]


def settlement(request_id: str, asked: str, *, attempt: int, is_paid: bool, now_ms: int) -> list[Write]:
    """What an attempt to pay has come to, for the transaction in which the money moves or is refused."""
    share = {"at_id": request_id, "at_asked": asked, "at_attempt": attempt}
    return [
        Write(_HOLD, {"at_id": request_id}),
        Write(_PAID if is_paid else _REOPEN, {**share, "now_ms": now_ms}),
        Write(_IS_OPEN, {"at_id": request_id}),
    ]


def ended_elsewhere(request_id: str, asked: str, *, before: str, state: str, now_ms: int) -> list[Write]:
    """What another wallet has said of a share, for the transaction in which its word is taken."""
    share = {"at_id": request_id, "at_asked": asked, "before": before, "new_state": state, "now_ms": now_ms}
    return [
        Write(_HOLD, {"at_id": request_id}),
        Write(_ENDED, share),
        Write(_IS_OPEN, {"at_id": request_id}),
    ]


async def lock(work: UnitOfWork, request_id: str) -> None:
    """Takes the request's row without a change; SQLite has one writer anyway."""
    await work.execute(select(requests.c.id).where(requests.c.id == request_id).with_for_update())


async def hold(work: UnitOfWork, request_id: str) -> None:
    """Takes the request's row, and counts a change of it."""
    await work.execute(_HOLD, {"at_id": request_id})


async def claim(work: UnitOfWork, request_id: str, asked: str, *, authority: str, now_ms: int) -> bool:
    """From open to paying, as a new attempt; whether it was open."""
    changed = await work.execute(
        update(request_shares)
        .where(
            request_shares.c.request_id == request_id,
            request_shares.c.asked == asked,
            request_shares.c.state == "open",
        )
        .values(
            state="paying",
            attempt=request_shares.c.attempt + 1,
            authority=authority,
            changed_at_ms=now_ms,
        )
    )
    return changed.rowcount == 1


async def close(
    work: UnitOfWork, request_id: str, *, state: str, now_ms: int, asked: str | None = None
) -> int:
    """Ends the share of one or of all who have neither paid nor begun to; how many it ended."""
    changes = update(request_shares).where(
        request_shares.c.request_id == request_id, request_shares.c.state == "open"
    )
    if asked is not None:
        changes = changes.where(request_shares.c.asked == asked)
    changed = await work.execute(changes.values(state=state, changed_at_ms=now_ms))
    await work.execute(_IS_OPEN, {"at_id": request_id})
    return int(changed.rowcount)


async def read(work: UnitOfWork, request_id: str) -> tuple[Row[Any], list[Row[Any]]] | None:
    request = (await work.execute(select(requests).where(requests.c.id == request_id))).first()
    if request is None:
        return None
    shares = await work.execute(
        select(request_shares)
        .where(request_shares.c.request_id == request_id)
        .order_by(request_shares.c.place)
    )
    return request, list(shares)


async def open_count(work: UnitOfWork, requester: str) -> int:
    counted = await work.execute(
        select(func.count())
        .select_from(requests)
        .where(requests.c.requester == requester, requests.c.is_open == 1)
    )
    return int(counted.scalar_one())


async def expired(work: UnitOfWork, *, now_ms: int, limit: int) -> list[str]:
    """Requests past their time with shares that nobody has begun to pay."""
    waits = exists().where(request_shares.c.request_id == requests.c.id, request_shares.c.state == "open")
    found = await work.execute(
        select(requests.c.id)
        .where(requests.c.is_open == 1, requests.c.expires_at_ms <= now_ms, waits)
        .order_by(requests.c.expires_at_ms)
        .limit(limit)
    )
    return [str(row.id) for row in found]


async def to_remind(work: UnitOfWork, *, now_ms: int, limit: int) -> list[str]:
    found = await work.execute(
        select(requests.c.id)
        .where(requests.c.is_open == 1, requests.c.remind_at_ms <= now_ms)
        .order_by(requests.c.remind_at_ms)
        .limit(limit)
    )
    return [str(row.id) for row in found]


async def take_reminder(work: UnitOfWork, request_id: str) -> bool:
    """Whether the reminder was still to be sent; it is not any more."""
    changed = await work.execute(
        update(requests)
        .where(requests.c.id == request_id, requests.c.remind_at_ms.is_not(None))
        .values(remind_at_ms=None)
    )
    return changed.rowcount == 1


async def left_paying(work: UnitOfWork, *, before_ms: int, limit: int) -> list[tuple[str, str]]:
    """Shares whose payment was begun before that time and not finished, nor is another wallet's to end."""
    waits_for_peer = exists().where(
        clearing_out.c.subject == literal("request:").concat(request_shares.c.request_id),
        clearing_out.c.payer == request_shares.c.asked,
        clearing_out.c.state == "prepared",
    )
    found = await work.execute(
        select(request_shares.c.request_id, request_shares.c.asked)
        .where(
            request_shares.c.state == "paying",
            request_shares.c.changed_at_ms < before_ms,
            ~waits_for_peer,
        )
        .order_by(request_shares.c.changed_at_ms)
        .limit(limit)
    )
    return [(str(row.request_id), str(row.asked)) for row in found]


async def unshown(work: UnitOfWork, *, limit: int) -> list[str]:
    found = await work.execute(
        select(requests.c.id).where(requests.c.shown_version < requests.c.version).limit(limit)
    )
    return [str(row.id) for row in found]


async def mark_shown(work: UnitOfWork, request_id: str, *, version: int) -> bool:
    """Whether no such version, or a later one, was shown before."""
    return (await work.execute(_SHOWN, {"at_id": request_id, "new_version": version})).rowcount == 1


async def open_count_from(work: UnitOfWork, asked: str, server: str) -> int:
    """How many requests that came from that server wait for that person."""
    counted = await work.execute(
        select(func.count())
        .select_from(clearing_requests)
        .join(
            request_shares,
            and_(
                request_shares.c.request_id == clearing_requests.c.request_id,
                request_shares.c.asked == clearing_requests.c.asked,
            ),
        )
        .where(
            clearing_requests.c.server == server,
            clearing_requests.c.direction == "in",
            clearing_requests.c.asked == asked,
            request_shares.c.state.in_(OPEN_STATES),
        )
    )
    return int(counted.scalar_one())
