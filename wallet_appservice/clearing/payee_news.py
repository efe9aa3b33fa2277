"""Tells payees what came from other servers and no room has told them: at once, or many payments together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from sqlalchemy import select, update

from appservices.chassis.database import Database
from appservices.vocabulary.ids import TransferId, UserId
from wallet_appservice.clearing.paying import ClearingAnnouncer
from wallet_appservice.payments.records import PaymentRecord
from wallet_appservice.payments.till import record_of
from wallet_appservice.storage.clearing_tables import clearing_in
from wallet_appservice.storage.payment_tables import payments

TOLD_AT_ONCE_MAX: Final = 500
PAUSE_SECONDS: Final = 2.0
"""Between two rounds: a payee gets no more messages than the few of each round."""


class PayeeNews:
    """A chore of the wallet's sweeper. A payee is told once: message and mark are one transaction."""

    def __init__(
        self, *, database: Database, announcer: ClearingAnnouncer, on_commit: Callable[[], None]
    ) -> None:
        """`on_commit` wakes the outbox."""
        self._database = database
        self._announcer = announcer
        self._on_commit = on_commit

    async def sweep(self, *, is_first: bool = False) -> None:
        """Tells of all that is not told yet."""
        while told := await self.tell():
            if told < TOLD_AT_ONCE_MAX:
                # What comes meanwhile is told together.
                await asyncio.sleep(PAUSE_SECONDS)

    async def tell(self) -> int:
        """Tells of what came and is not told yet; of how many payments."""
        columns = clearing_in.c
        query = (
            select(payments)
            .join(clearing_in, columns.untold_payment_id == payments.c.id)
            .order_by(payments.c.position)
            .limit(TOLD_AT_ONCE_MAX)
        )
        async with self._database.read() as work:
            records = [record_of(row) for row in await work.execute(query)]
        if not records:
            return 0
        by_payee: dict[UserId, list[PaymentRecord]] = {}
        for record in records:
            by_payee.setdefault(record.payee, []).append(record)
        news = [await self._announcer.incoming(payee, came) for payee, came in by_payee.items()]
        told: list[TransferId] = [record.id for record in records]
        async with self._database.begin() as work:
            marked = await work.execute(
                update(clearing_in).where(columns.untold_payment_id.in_(told)).values(untold_payment_id=None)
            )
            if marked.rowcount != len(told):
                # Another process has told of some of them; the others' turn is the next one.
                return 0
            for writes in news:
                await work.apply(writes)
            work.after_commit(self._on_commit)
            await work.commit()
        return len(records)
