"""Tells payees what came from other servers and no room has told them: at once, or many payments together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
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
LOOK_SECONDS: Final = 30.0

logger = logging.getLogger(__name__)


class PayeeNews:
    """Runs beside the wallet's service. A payee is told once: message and mark are one transaction."""

    def __init__(
        self, *, database: Database, announcer: ClearingAnnouncer, on_commit: Callable[[], None]
    ) -> None:
        """`on_commit` wakes the outbox."""
        self._database = database
        self._announcer = announcer
        self._on_commit = on_commit
        self._wake = asyncio.Event()

    def wake(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        """Runs until cancelled. What goes wrong is logged and tried again."""
        while True:
            self._wake.clear()
            try:
                while await self.tell() == TOLD_AT_ONCE_MAX:
                    pass
            except Exception:
                logger.exception("payees could not be told; that is tried again")
            await asyncio.sleep(PAUSE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._wake.wait()

    async def tell(self) -> int:
        """Tells of what came and is not told yet; of how many payments."""
        columns = clearing_in.c
        query = (
            select(payments)
            .join(clearing_in, columns.untold_payment_id == payments.c.id)
            .order_by(payments.c.position)
            .limit(TOLD_AT_ONCE_MAX)
        )
        async with self._database.begin() as work:
            records = [record_of(row) for row in await work.execute(query)]
            if not records:
                return 0
            by_payee: dict[UserId, list[PaymentRecord]] = {}
            for record in records:
                by_payee.setdefault(record.payee, []).append(record)
            told: list[TransferId] = [record.id for record in records]
            await work.execute(
                update(clearing_in).where(columns.untold_payment_id.in_(told)).values(untold_payment_id=None)
            )
            for payee, came in by_payee.items():
                await work.apply(self._announcer.incoming(payee, came))
            work.after_commit(self._on_commit)
            await work.commit()
        return len(records)
