"""The statements that read and change red packets. Who draws holds the packet's row, so that nobody else
draws at that moment, whichever process they are in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Row, bindparam, func, insert, select, update

from appservices.chassis.database import UnitOfWork, Write
from wallet_appservice.storage.red_packet_tables import red_packet_shares, red_packets

_INSERT_PACKET: Final = insert(red_packets)
_INSERT_SHARE: Final = insert(red_packet_shares)
_BUMP: Final = (
    update(red_packets)
    .where(red_packets.c.id == bindparam("at_id"))
    .values(version=red_packets.c.version + 1)
)
_PAID: Final = (
    update(red_packet_shares)
    .where(
        red_packet_shares.c.packet_id == bindparam("at_id"),
        red_packet_shares.c.opener == bindparam("at_opener"),
    )
    .values(state="paid")
)
_BECOMES: Final = (
    update(red_packet_shares)
    .where(
        red_packet_shares.c.packet_id == bindparam("at_id"),
        red_packet_shares.c.opener == bindparam("at_opener"),
        red_packet_shares.c.state == bindparam("before"),
    )
    .values(state=bindparam("new_state"))
)
_RETURNED: Final = (
    update(red_packets)
    .where(red_packets.c.id == bindparam("at_id"), red_packets.c.state == "returning")
    .values(state="returned", version=red_packets.c.version + 1)
)


def insertion(packet: dict[str, Any]) -> Write:
    return Write(_INSERT_PACKET, packet)


def share_paid(packet_id: str, opener: str) -> list[Write]:
    """For the transaction in which the share's money moves."""
    return [Write(_PAID, {"at_id": packet_id, "at_opener": opener}), Write(_BUMP, {"at_id": packet_id})]


def share_becomes(packet_id: str, opener: str, *, before: str, state: str) -> list[Write]:
    """For the transaction in which the money of an opener elsewhere is sent, taken there, or comes back."""
    share = {"at_id": packet_id, "at_opener": opener, "before": before, "new_state": state}
    return [Write(_BECOMES, share), Write(_BUMP, {"at_id": packet_id})]


def returned(packet_id: str) -> list[Write]:
    """For the transaction in which what was left goes back."""
    return [Write(_RETURNED, {"at_id": packet_id})]


async def packet(work: UnitOfWork, packet_id: str) -> Row[Any] | None:
    return (await work.execute(select(red_packets).where(red_packets.c.id == packet_id))).first()


async def locked(work: UnitOfWork, packet_id: str) -> Row[Any] | None:
    """The packet's row, held until the end of the transaction; SQLite has one writer anyway."""
    query = select(red_packets).where(red_packets.c.id == packet_id).with_for_update()
    return (await work.execute(query)).first()


async def shares(work: UnitOfWork, packet_id: str, openers: Iterable[str] | None = None) -> list[Row[Any]]:
    """What was drawn, in the order of drawing, by these openers or by all."""
    query = select(red_packet_shares).where(red_packet_shares.c.packet_id == packet_id)
    if openers is not None:
        query = query.where(red_packet_shares.c.opener.in_(list(openers)))
    return list(await work.execute(query.order_by(red_packet_shares.c.place)))


async def take(
    work: UnitOfWork,
    before: Row[Any],
    drawn: Sequence[dict[str, Any]],
    *,
    remaining_minor: int,
    remaining_count: int,
    state: str,
    now_ms: int,
) -> bool:
    """Writes what was drawn from the packet as it was read; False when it is not so any more."""
    changed = await work.execute(
        update(red_packets)
        .where(
            red_packets.c.id == before.id,
            red_packets.c.state == "open",
            red_packets.c.remaining_minor == before.remaining_minor,
            red_packets.c.remaining_count == before.remaining_count,
        )
        .values(
            remaining_minor=remaining_minor,
            remaining_count=remaining_count,
            state=state,
            changed_at_ms=now_ms,
        )
    )
    if changed.rowcount != 1:
        return False
    await work.execute(_INSERT_SHARE, drawn)
    return True


async def begin_return(work: UnitOfWork, packet_id: str, *, now_ms: int) -> bool:
    changed = await work.execute(
        update(red_packets)
        .where(
            red_packets.c.id == packet_id,
            red_packets.c.state == "open",
            red_packets.c.expires_at_ms <= now_ms,
        )
        .values(state="returning", changed_at_ms=now_ms)
    )
    return changed.rowcount == 1


async def open_count(work: UnitOfWork, sender: str) -> int:
    counted = await work.execute(
        select(func.count())
        .select_from(red_packets)
        .where(red_packets.c.sender == sender, red_packets.c.state == "open")
    )
    return int(counted.scalar_one())


async def drawn(work: UnitOfWork, *, limit: int) -> list[Row[Any]]:
    """Shares whose money has not moved yet, and those whose money came back."""
    found = await work.execute(
        select(red_packet_shares)
        .where(red_packet_shares.c.state.in_(("drawn", "lapsed")))
        .order_by(red_packet_shares.c.drawn_at_ms)
        .limit(limit)
    )
    return list(found)


async def over(work: UnitOfWork, *, now_ms: int, limit: int) -> list[str]:
    """Packets past their time, and those whose rest was about to go back."""
    found = await work.execute(
        select(red_packets.c.id)
        .where(
            red_packets.c.state.in_(("open", "returning")),
            red_packets.c.expires_at_ms <= now_ms,
        )
        .order_by(red_packets.c.expires_at_ms)
        .limit(limit)
    )
    return [str(row.id) for row in found]


async def unshown(work: UnitOfWork, *, limit: int) -> list[str]:
    found = await work.execute(
        select(red_packets.c.id).where(red_packets.c.shown_version < red_packets.c.version).limit(limit)
    )
    return [str(row.id) for row in found]


async def mark_shown(work: UnitOfWork, packet_id: str, *, version: int) -> bool:
    """Whether no such version, or a later one, was shown before."""
    changed = await work.execute(
        update(red_packets)
        .where(red_packets.c.id == packet_id, red_packets.c.shown_version < version)
        .values(shown_version=version)
    )
    return changed.rowcount == 1
