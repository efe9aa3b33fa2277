"""Requests between their rows and their values."""

from __future__ import annotations

from appservices.chassis.database import UnitOfWork, Write
from appservices.vocabulary.ids import RoomId, TransferId, UserId
from appservices.vocabulary.money import CurrencyCode, Money
from wallet_appservice.payments.records import Authority
from wallet_appservice.payments.request_records import REMINDER_SECONDS, Request, RequestShare, ShareState
from wallet_appservice.storage import request_store as store


async def read_request(work: UnitOfWork, id: TransferId) -> Request | None:
    found = await store.read(work, id)
    if found is None:
        return None
    row, shares = found
    currency = CurrencyCode(row.currency)
    return Request(
        id=TransferId(row.id),
        requester=UserId(row.requester),
        room_id=RoomId(row.room_id) if row.room_id else None,
        money=Money(row.total_minor, currency),
        memo=row.memo,
        is_split=bool(row.is_split),
        language=row.language,
        created_at_ms=row.created_at_ms,
        expires_at_ms=row.expires_at_ms,
        version=row.version,
        shares=tuple(
            RequestShare(
                asked=UserId(share.asked),
                money=Money(share.amount_minor, currency),
                state=ShareState(share.state),
                has_copy=bool(share.has_copy),
                attempt=share.attempt,
                authority=Authority(share.authority),
                changed_at_ms=share.changed_at_ms,
            )
            for share in shares
        ),
    )


def insertions(request: Request) -> list[Write]:
    return store.insertions(
        {
            "id": request.id,
            "requester": request.requester,
            "room_id": request.room_id,
            "total_minor": request.money.amount_minor,
            "currency": request.money.currency,
            "memo": request.memo,
            "is_split": int(request.is_split),
            "language": request.language,
            "created_at_ms": request.created_at_ms,
            "remind_at_ms": request.created_at_ms + REMINDER_SECONDS * 1000,
            "expires_at_ms": request.expires_at_ms,
            "is_open": 1,
            "version": request.version,
            "shown_version": request.version,
        },
        [
            {
                "request_id": request.id,
                "asked": share.asked,
                "place": place,
                "amount_minor": share.money.amount_minor,
                "state": share.state.value,
                "has_copy": int(share.has_copy),
                "attempt": share.attempt,
                "authority": share.authority.value,
                "changed_at_ms": share.changed_at_ms,
                "expires_at_ms": request.expires_at_ms,
            }
            for place, share in enumerate(request.shares)
        ],
    )
