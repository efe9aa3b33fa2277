"""Payments that wait until their payee accepts them, and go back when they don't.

Whether a payment waits is decided when it is made (actions.py). How it ends is the ledger's to say: of those
who accept, decline and expire at one moment, one is first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import select

from appservices.chassis.clock import Clock
from appservices.vocabulary.ids import TransferId, UserId
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.records import Ending, PaymentState
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.payments.sweeper import each
from wallet_appservice.payments.till import Outcome, Tell, record_of, tell_nothing
from wallet_appservice.storage.payment_tables import payments as payment_rows

SWEEP_PAGE: Final = 200


class Acceptance:
    """What waits for its payee in one wallet."""

    def __init__(self, payments: Payments, *, clock: Clock, on_change: Callable[[], None]) -> None:
        """`on_change` wakes whoever calls `sweep`."""
        self._till = payments.till
        self._database = payments.till.database
        self._clock = clock
        self._on_change = on_change

    async def accept(self, user: UserId, id: TransferId, *, tell: Tell = tell_nothing) -> Outcome:
        """Takes what was sent to the user. Raises LedgerUnavailable; accepting again is safe."""
        return await self._end(user, id, Ending.ACCEPTED, tell)

    async def decline(self, user: UserId, id: TransferId, *, tell: Tell = tell_nothing) -> Outcome:
        """Lets go back what was sent to the user. Raises LedgerUnavailable; declining again is safe."""
        return await self._end(user, id, Ending.DECLINED, tell)

    async def sweep(self, *, is_first: bool = False) -> None:
        """Gives back what nobody has accepted in time, and what else the ledger holds past its time."""
        async with self._database.read() as work:
            rows = await work.execute(
                select(payment_rows)
                .where(
                    payment_rows.c.state == PaymentState.PENDING.value,
                    payment_rows.c.expires_at_ms <= self._clock(),
                )
                .order_by(payment_rows.c.expires_at_ms)
                .limit(SWEEP_PAGE)
            )
            over = [record_of(row) for row in rows]
        went_well = await each(self._till.end(record, Ending.EXPIRED) for record in over)
        await self._till.ledger.expire_pending()
        if went_well and len(over) == SWEEP_PAGE:
            self._on_change()

    async def _end(self, user: UserId, id: TransferId, ending: Ending, tell: Tell) -> Outcome:
        record = await self._till.record(id)
        # What goes to another server is accepted there, by its wallet.
        if record is None or record.payee != user or record.crosses_servers:
            return await self._till.tell_alone(PaymentRefused.because(PaymentRefusal.PAYMENT_UNKNOWN), tell)
        if record.state is not PaymentState.PENDING:
            wanted = PaymentState.POSTED if ending is Ending.ACCEPTED else PaymentState.RETURNED
            # Asked again after it was done, or of a payment that never had to wait.
            is_done = record.state is wanted and record.end_receipt is not None
            outcome: Outcome = record if is_done else PaymentRefused.because(PaymentRefusal.HOLD_OVER)
            return await self._till.tell_alone(outcome, tell)
        return await self._till.end(record, ending, tell=tell)
