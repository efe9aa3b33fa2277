"""Drawing shares of red packets: many who open one at once are drawn for in one transaction.

A process has one who draws for a packet at a time; among processes the packet's row decides.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Final

from appservices.chassis.clock import Clock
from appservices.chassis.database import Write
from appservices.vocabulary.ids import TransferId, UserId
from appservices.vocabulary.money import CurrencyCode, Money
from wallet_appservice.payments.red_packet_records import (
    FoundShare,
    FoundState,
    PacketState,
    RedPacket,
    drawn_minor,
)
from wallet_appservice.payments.red_packet_rows import packet_of, share_of, share_row
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.payments.till import Till
from wallet_appservice.storage import red_packet_store as store

OPENINGS_AT_ONCE_MAX: Final = 200
"""Openings that are drawn for in one transaction."""


@dataclass(frozen=True, slots=True)
class Found:
    """What somebody has in a packet; `is_new` unless they had opened it before."""

    packet: RedPacket
    share: FoundShare
    is_new: bool


Opened = Found | PaymentRefused
TellOpened = Callable[[Opened], Sequence[Write]]


class Openings:
    """Who waits to open which packet, in this process."""

    def __init__(self, till: Till, *, chance: random.Random, clock: Clock) -> None:
        self._till = till
        self._database = till.database
        self._chance = chance
        self._clock = clock
        self._waiting: dict[TransferId, list[_Opening]] = {}
        self._drawing: set[asyncio.Task[None]] = set()

    async def draw(self, user: UserId, id: TransferId, *, tell: TellOpened) -> Opened:
        """What the user finds in the packet, or has found before; committed together with `tell`."""
        opening = _Opening(user, tell, copy_context(), asyncio.get_running_loop().create_future())
        waiting = self._waiting.get(id)
        if waiting is not None:
            waiting.append(opening)
        else:
            self._waiting[id] = [opening]
            task = asyncio.create_task(self._draw_for_all(id))
            self._drawing.add(task)
            task.add_done_callback(self._drawing.discard)
        return await opening.answer

    async def _draw_for_all(self, id: TransferId) -> None:
        """Draws for those who wait for this packet until nobody does."""
        while waiting := self._waiting[id]:
            batch = waiting[:OPENINGS_AT_ONCE_MAX]
            del waiting[: len(batch)]
            try:
                answers: Sequence[Opened | Exception] = await self._draw_batch(id, batch)
            except Exception as error:
                answers = [error] * len(batch)
            for opening, answer in zip(batch, answers, strict=True):
                if opening.answer.done():
                    # Its caller was cancelled; what was drawn for them stays theirs.
                    continue
                if isinstance(answer, Exception):
                    opening.answer.set_exception(answer)
                else:
                    opening.answer.set_result(answer)
        del self._waiting[id]

    async def _draw_batch(self, id: TransferId, batch: Sequence[_Opening]) -> list[Opened]:
        while True:
            async with self._database.begin() as work:
                row = await store.locked(work, id)
                assert row is not None
                known = {
                    share.opener: share_of(share, CurrencyCode(row.currency))
                    for share in await store.shares(work, id, {opening.user for opening in batch})
                }
                opened, drawn, left = self._drawn(packet_of(row), batch, known)
                if drawn and not await store.take(
                    work,
                    row,
                    [share_row(id, share) for share in drawn],
                    remaining_minor=left[0],
                    remaining_count=left[1],
                    state=(PacketState.OPEN if left[1] else PacketState.EMPTIED).value,
                    now_ms=self._clock(),
                ):
                    continue
                writes = [
                    write
                    for opening, answer in zip(batch, opened, strict=True)
                    for write in opening.context.run(opening.tell, answer)
                ]
                await work.apply(writes)
                work.after_commit(self._till.wake)
                await work.commit()
            return opened

    def _drawn(
        self, packet: RedPacket, batch: Sequence[_Opening], known: dict[UserId, FoundShare]
    ) -> tuple[list[Opened], list[FoundShare], tuple[int, int]]:
        """What each of the batch finds, which of it is new, and what remains."""
        now_ms = self._clock()
        remaining_minor, remaining_count = packet.remaining_minor, packet.remaining_count
        is_over = packet.is_over or now_ms >= packet.expires_at_ms
        opened: list[Opened] = []
        drawn: list[FoundShare] = []
        for opening in batch:
            earlier = known.get(opening.user)
            if earlier is not None:
                opened.append(Found(packet, earlier, is_new=False))
                continue
            if is_over or remaining_count == 0:
                is_empty = packet.state is PacketState.EMPTIED or remaining_count == 0
                refusal = PaymentRefusal.PACKET_EMPTY if is_empty else PaymentRefusal.PACKET_OVER
                opened.append(PaymentRefused.because(refusal))
                continue
            amount_minor = drawn_minor(
                remaining_minor=remaining_minor,
                remaining_count=remaining_count,
                total_minor=packet.money.amount_minor,
                count=packet.count,
                is_equal=packet.is_equal,
                chance=self._chance,
            )
            share = FoundShare(
                opener=opening.user,
                place=packet.count - remaining_count,
                money=Money(amount_minor, packet.money.currency),
                state=FoundState.DRAWN,
                drawn_at_ms=now_ms,
            )
            remaining_minor -= amount_minor
            remaining_count -= 1
            known[opening.user] = share
            drawn.append(share)
            opened.append(Found(packet, share, is_new=True))
        return opened, drawn, (remaining_minor, remaining_count)


@dataclass(slots=True)
class _Opening:
    user: UserId
    tell: TellOpened
    context: Context
    """In which language its opener is told."""
    answer: asyncio.Future[Opened]
