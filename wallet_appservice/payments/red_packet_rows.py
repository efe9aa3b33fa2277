"""Red packets between their rows and their values."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from appservices.vocabulary.ids import RoomId, TransferId, UserId
from appservices.vocabulary.money import CurrencyCode, Money
from wallet_appservice.payments.red_packet_records import FoundShare, FoundState, PacketState, RedPacket


def packet_of(row: Row[Any]) -> RedPacket:
    return RedPacket(
        id=TransferId(row.id),
        sender=UserId(row.sender),
        room_id=RoomId(row.room_id),
        money=Money(row.total_minor, CurrencyCode(row.currency)),
        count=row.shares_count,
        is_equal=bool(row.is_equal),
        words=row.words,
        language=row.language,
        created_at_ms=row.created_at_ms,
        expires_at_ms=row.expires_at_ms,
        state=PacketState(row.state),
        remaining_minor=row.remaining_minor,
        remaining_count=row.remaining_count,
        version=row.version,
    )


def share_of(row: Row[Any], currency: CurrencyCode) -> FoundShare:
    return FoundShare(
        opener=UserId(row.opener),
        place=row.place,
        money=Money(row.amount_minor, currency),
        state=FoundState(row.state),
        drawn_at_ms=row.drawn_at_ms,
    )


def packet_row(packet: RedPacket) -> dict[str, Any]:
    return {
        "id": packet.id,
        "sender": packet.sender,
        "room_id": packet.room_id,
        "total_minor": packet.money.amount_minor,
        "currency": packet.money.currency,
        "shares_count": packet.count,
        "is_equal": int(packet.is_equal),
        "words": packet.words,
        "language": packet.language,
        "created_at_ms": packet.created_at_ms,
        "expires_at_ms": packet.expires_at_ms,
        "state": packet.state.value,
        "remaining_minor": packet.remaining_minor,
        "remaining_count": packet.remaining_count,
        "changed_at_ms": packet.created_at_ms,
        "version": packet.version,
        "shown_version": packet.version,
    }


def share_row(packet_id: TransferId, share: FoundShare) -> dict[str, Any]:
    return {
        "packet_id": packet_id,
        "opener": share.opener,
        "place": share.place,
        "amount_minor": share.money.amount_minor,
        "state": share.state.value,
        "drawn_at_ms": share.drawn_at_ms,
    }
