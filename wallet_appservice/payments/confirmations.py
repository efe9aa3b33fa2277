"""Payments asked for by chat above the chat limit: they wait for a page where their payer confirms them.

    open → paying → paid
                  → refused        (the ledger would not)
         → cancelled               (the payer changed their mind)
         → expired                 (nobody came in time)

The order is kept as it was asked for, and paid under its own id: confirming it twice, in two tabs or by the
sweeper after a crash, is one payment. Each step out of `open` is claimed by an UPDATE (docs/decisions/0007).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Protocol

from sqlalchemy import Row, bindparam, delete, exists, insert, select, update

from appservices.chassis.chosen_languages import LanguageOf, english_for_all
from appservices.chassis.clock import Clock
from appservices.chassis.database import Database, Write
from appservices.vocabulary.ids import EventId, RoomId, TransferId, UserId
from appservices.vocabulary.languages import _, isolated, speaking
from appservices.vocabulary.money import Currencies, CurrencyCode, Money
from wallet_appservice.ledger.submissions import LedgerUnavailable
from wallet_appservice.payments.limits import Gate, Spending
from wallet_appservice.payments.pins import told_privately
from wallet_appservice.payments.records import Authority, PaymentOrder, PaymentRecord
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.payments.till import Outcome, Tell
from wallet_appservice.storage.limit_tables import confirmations

OPEN_SECONDS: Final = 15 * 60
STEP_SECONDS_MAX: Final = 60
"""After so long a claimed one is taken up by the sweeper."""
KEPT_DAYS: Final = 30
SWEEP_MAX: Final = 100
PAGE_PATH: Final = "/wallet/confirm/"
# Refusals by which the ledger has spent the order's id.
_FINAL: Final = frozenset(
    {PaymentRefusal.BALANCE_TOO_LOW, PaymentRefusal.ACCOUNT_FULL, PaymentRefusal.ID_TAKEN}
)

logger = logging.getLogger(__name__)


class ConfirmationState(StrEnum):
    """Where it stands. All but the first two are final."""

    OPEN = "open"
    PAYING = "paying"
    PAID = "paid"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Confirmation:
    """An order that waits, or has waited, for its payer."""

    order: PaymentOrder
    state: ConfirmationState
    authority: Authority | None
    """How it was claimed; None while it is open."""
    created_at_ms: int
    expires_at_ms: int


class Pay(Protocol):
    """How a confirmed order is paid; as `Payments.pay`."""

    async def __call__(self, order: PaymentOrder, *, tell: Tell) -> Outcome: ...


_c = confirmations.c
_NAMES: Final = [column.name for column in confirmations.columns]
# The same order asked for again is there already.
_INSERT: Final = insert(confirmations).from_select(
    _NAMES,
    select(*(bindparam(f"new_{column.name}", type_=column.type) for column in confirmations.columns)).where(
        ~exists().where(_c.id == bindparam("new_id", type_=_c.id.type))
    ),
)
_MOVE: Final = (
    update(confirmations)
    .where(_c.id == bindparam("of_id"), _c.state == bindparam("old_state"))
    .values(state=bindparam("new_state"), changed_at_ms=bindparam("now_ms"))
)
# Whatever somebody else has made of it meanwhile: the money has moved.
_PAID: Final = (
    update(confirmations)
    .where(_c.id == bindparam("of_id"))
    .values(state=ConfirmationState.PAID.value, changed_at_ms=bindparam("now_ms"))
)


class Confirmations:
    """All that waits in one wallet's database."""

    def __init__(
        self,
        database: Database,
        *,
        pay: Pay,
        gate: Gate,
        currencies: Currencies,
        clock: Clock,
        public_url: str,
        on_commit: Callable[[], None],
        language_of: LanguageOf = english_for_all,
    ) -> None:
        """`on_commit` wakes the outbox."""
        self._language_of = language_of
        self._database = database
        self._pay = pay
        self._gate = gate
        self._currencies = currencies
        self._clock = clock
        self._public_url = public_url.rstrip("/")
        self._on_commit = on_commit

    def link(self, id: TransferId) -> str:
        """Where the payer confirms it."""
        return f"{self._public_url}{PAGE_PATH}{id}"

    def asked(self, order: PaymentOrder) -> Write:
        """Keeps the order until its payer confirms it; to be committed with what tells them of it."""
        now_ms = self._clock()
        row = {
            "id": order.id,
            "payer": order.payer,
            "payee": order.payee,
            "amount_minor": order.money.amount_minor,
            "currency": order.money.currency,
            "memo": order.memo,
            "room_id": order.room_id,
            "in_reply_to": order.in_reply_to,
            "subject": order.subject,
            "state": ConfirmationState.OPEN.value,
            "authority": "",
            "created_at_ms": now_ms,
            "expires_at_ms": now_ms + OPEN_SECONDS * 1000,
            "changed_at_ms": now_ms,
        }
        return Write(_INSERT, {f"new_{name}": value for name, value in row.items()})

    async def find(self, user: UserId, id: TransferId) -> Confirmation | None:
        """What the user is, or was, asked to confirm; None for anybody else's."""
        async with self._database.read() as work:
            row = (await work.execute(select(confirmations).where(_c.id == id, _c.payer == user))).first()
        return None if row is None else _confirmation(row)

    async def needs_proof(self, waiting: Confirmation) -> bool:
        """Whether PIN or passkey is asked for besides the page."""
        if waiting.order.money.currency not in self._currencies:
            return False
        refused = await self._gate.refusal(_spending(waiting.order, Authority.SESSION))
        return refused is not None and refused.refusal is PaymentRefusal.CONFIRMATION_NEEDED

    async def confirm(
        self, user: UserId, id: TransferId, authority: Authority
    ) -> Outcome | ConfirmationState:
        """Pays, or says why not; a state is answered when it was too late. Raises LedgerUnavailable."""
        waiting = await self.find(user, id)
        if waiting is None:
            return ConfirmationState.EXPIRED
        if waiting.state is ConfirmationState.OPEN:
            if authority is not Authority.CONFIRMED and await self.needs_proof(waiting):
                return PaymentRefused.because(PaymentRefusal.CONFIRMATION_NEEDED, chat_max="")
            await self._claim(id, authority)
            waiting = await self.find(user, id) or waiting
        if waiting.state in (
            ConfirmationState.CANCELLED,
            ConfirmationState.EXPIRED,
            ConfirmationState.REFUSED,
        ):
            return waiting.state
        # Whoever asks again goes on with what was claimed, and with the proof that was given for it.
        return await self._carry_out(replace(waiting.order, authority=waiting.authority or authority))

    async def cancel(self, user: UserId, id: TransferId) -> ConfirmationState:
        """The payer does not want it; the state that it has then."""
        if await self.find(user, id) is None:
            return ConfirmationState.EXPIRED
        await self._step(id, ConfirmationState.OPEN, ConfirmationState.CANCELLED)
        found = await self.find(user, id)
        return ConfirmationState.EXPIRED if found is None else found.state

    async def sweep(self) -> None:
        """Ends what nobody came for, goes on with what a process left behind, forgets what is old."""
        now_ms = self._clock()
        for row in await self._rows(
            _c.state == ConfirmationState.OPEN.value, _c.expires_at_ms <= now_ms, limit=SWEEP_MAX
        ):
            await self._expire(_confirmation(row))
        for row in await self._rows(
            _c.state == ConfirmationState.PAYING.value,
            _c.changed_at_ms <= now_ms - STEP_SECONDS_MAX * 1000,
            limit=SWEEP_MAX,
        ):
            try:
                left = _confirmation(row)
                await self._carry_out(replace(left.order, authority=left.authority or Authority.SESSION))
            except LedgerUnavailable:
                logger.warning("confirmed payment %s is still to be made", row.id)
        old = (
            _c.changed_at_ms < now_ms - KEPT_DAYS * 24 * 3_600_000,
            _c.state.not_in([ConfirmationState.OPEN.value, ConfirmationState.PAYING.value]),
        )
        if await self._rows(*old, limit=1):
            async with self._database.begin() as work:
                await work.execute(delete(confirmations).where(*old))
                await work.commit()

    async def _carry_out(self, order: PaymentOrder) -> Outcome:
        def tell(outcome: Outcome) -> Sequence[Write]:
            if isinstance(outcome, PaymentRecord):
                return [Write(_PAID, {"of_id": order.id, "now_ms": self._clock()})]
            # After another refusal, such as by the day's limit, the same order may pass later.
            state = ConfirmationState.REFUSED if outcome.refusal in _FINAL else ConfirmationState.OPEN
            return [
                Write(
                    _MOVE,
                    {
                        "of_id": order.id,
                        "old_state": ConfirmationState.PAYING.value,
                        "new_state": state.value,
                        "now_ms": self._clock(),
                    },
                )
            ]

        return await self._pay(order, tell=tell)

    async def _claim(self, id: TransferId, authority: Authority) -> bool:
        now_ms = self._clock()
        async with self._database.begin() as work:
            claimed = await work.execute(
                update(confirmations)
                .where(_c.id == id, _c.state == ConfirmationState.OPEN.value, _c.expires_at_ms > now_ms)
                .values(state=ConfirmationState.PAYING.value, authority=authority.value, changed_at_ms=now_ms)
            )
            if claimed.rowcount:
                await work.commit()
                return True
        await self.sweep_one(id)
        return False

    async def sweep_one(self, id: TransferId) -> None:
        """Ends this one if its time is over."""
        for row in await self._rows(
            _c.id == id,
            _c.state == ConfirmationState.OPEN.value,
            _c.expires_at_ms <= self._clock(),
            limit=1,
        ):
            await self._expire(_confirmation(row))

    async def _step(self, id: TransferId, old: ConfirmationState, new: ConfirmationState) -> bool:
        parameters = {
            "of_id": id,
            "old_state": old.value,
            "new_state": new.value,
            "now_ms": self._clock(),
        }
        async with self._database.begin() as work:
            moved = await work.execute(_MOVE, parameters)
            await work.commit()
        return moved.rowcount == 1

    async def _expire(self, waiting: Confirmation) -> None:
        order, now_ms = waiting.order, self._clock()
        with speaking(await self._language_of(order.payer)):
            text = _(
                "You did not confirm the payment of {amount} to {payee} in time, so nothing was paid."
            ).format(amount=self._amount(order.money), payee=isolated(order.payee))
        parameters = {
            "of_id": order.id,
            "old_state": ConfirmationState.OPEN.value,
            "new_state": ConfirmationState.EXPIRED.value,
            "now_ms": now_ms,
        }
        async with self._database.begin() as work:
            if not (await work.execute(_MOVE, parameters)).rowcount:
                return
            await work.apply(
                [told_privately(order.payer, text, now_ms=now_ms, cause=("unconfirmed", order.id))]
            )
            work.after_commit(self._on_commit)
            await work.commit()

    def _amount(self, money: Money) -> str:
        # The operator may have stopped keeping the currency meanwhile.
        if money.currency in self._currencies:
            return self._currencies.format(money)
        return f"{money.amount_minor} {money.currency}"

    async def _rows(self, *conditions: Any, limit: int) -> Sequence[Row[Any]]:
        async with self._database.read() as work:
            query = select(confirmations).where(*conditions).order_by(_c.expires_at_ms).limit(limit)
            return (await work.execute(query)).all()


def _spending(order: PaymentOrder, authority: Authority) -> Spending:
    return Spending(id=order.id, payer=order.payer, money=order.money, authority=authority)


def _confirmation(row: Row[Any]) -> Confirmation:
    return Confirmation(
        order=PaymentOrder(
            id=TransferId(row.id),
            payer=UserId(row.payer),
            payee=UserId(row.payee),
            money=Money(row.amount_minor, CurrencyCode(row.currency)),
            memo=row.memo,
            room_id=RoomId(row.room_id) if row.room_id else None,
            in_reply_to=EventId(row.in_reply_to) if row.in_reply_to else None,
            authority=Authority.SESSION,
            subject=row.subject,
        ),
        state=ConfirmationState(row.state),
        authority=Authority(row.authority) if row.authority else None,
        created_at_ms=row.created_at_ms,
        expires_at_ms=row.expires_at_ms,
    )
