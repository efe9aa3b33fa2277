"""Refunds: who was paid gives back all or part of a payment, together never more than was paid.

A refund's part of the payment is claimed under the payment's row before its money moves
(docs/decisions/0007), so of several who refund at once none gives back what another has claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, bindparam, case, delete, func, insert, null, select, update
from sqlalchemy.exc import IntegrityError

from appservices.chassis.clock import Clock
from appservices.chassis.database import UnitOfWork, Write
from appservices.vocabulary.ids import (
    AccountId,
    EventId,
    RoomId,
    ServerName,
    TransferId,
    UserId,
    is_ledger_id,
    server_of,
)
from appservices.vocabulary.money import Money, format_minor
from wallet_appservice.ledger.submissions import LedgerUnavailable, SubmissionFailed
from wallet_appservice.ledger.values import AccountKind, NewAccount, account_for
from wallet_appservice.payments.accounts import peer_account, user_account
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.records import (
    MEMO_LENGTH_MAX,
    Movement,
    PaymentKind,
    PaymentRecord,
    PaymentState,
    clean_memo,
)
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.payments.sweeper import each
from wallet_appservice.payments.till import Outcome, Tell, tell_nothing
from wallet_appservice.storage.payment_tables import payments as payment_rows
from wallet_appservice.storage.refund_tables import refunds

STEP_MS_MAX: Final = 30_000
"""How long a refund may be under way before somebody else finishes it."""
SWEEP_PAGE: Final = 100
_SETTLE: Final = (
    update(refunds)
    .where(refunds.c.id == bindparam("at_id"), refunds.c.state == "moving")
    .values(state=bindparam("new_state"), changed_at_ms=bindparam("now_ms"))
)


# A part that somebody else may have claimed meanwhile becomes NULL, which the column refuses: then nothing is
# held.
_HELD: Final = (
    update(refunds)
    .where(refunds.c.id == bindparam("at_id"))
    .values(
        state=case((refunds.c.state.in_(("moving", "done")), "done"), else_=null()),
        changed_at_ms=bindparam("now_ms"),
    )
)
_NOT_TAKEN: Final = (
    update(refunds)
    .where(refunds.c.id == bindparam("at_id"))
    .values(state="refused", changed_at_ms=bindparam("now_ms"))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundOrder:
    """A refund that somebody wants to make. The id makes it safe to ask again; it is the refund's own."""

    id: TransferId
    payment_id: TransferId
    by: UserId
    money: Money | None = None
    """None for all that was not given back yet."""
    memo: str = ""
    room_id: RoomId | None = None
    in_reply_to: EventId | None = None
    account: NewAccount | None = None
    """The account that pays, where the caller has judged that `by` may use it (a merchant's); None for the
    payee's own, which only the payee may."""


class Refunds:
    """The refunds of one wallet."""

    def __init__(self, payments: Payments, *, clock: Clock, on_change: Callable[[], None]) -> None:
        """`on_change` wakes whoever calls `sweep`."""
        self._payments = payments
        self._till = payments.till
        self._database = payments.till.database
        self._clock = clock
        self._on_change = on_change

    async def refund(self, order: RefundOrder, *, tell: Tell = tell_nothing) -> Outcome:
        """Gives back what the order says, or says why not. Raises LedgerUnavailable; asking again is safe."""
        payment = await self._till.record(order.payment_id) if is_ledger_id(order.id) else None
        refused = self._judge(order, payment)
        if refused is not None or payment is None:
            return await self._till.tell_alone(
                refused or PaymentRefused.because(PaymentRefusal.PAYMENT_UNKNOWN), tell
            )
        try:
            row = await self._claim(order, payment)
        except IntegrityError:
            # The same refund at the same moment; one of the two has claimed.
            row = await self._claim(order, payment)
        if isinstance(row, PaymentRefused):
            return await self._till.tell_alone(row, tell)
        return await self._move(row, payment, in_reply_to=order.in_reply_to, tell=tell)

    async def left_minor(self, payment: PaymentRecord) -> int:
        """How much of the payment can still be given back."""
        async with self._database.read() as work:
            return payment.money.amount_minor - await _claimed_minor(work, payment.id)

    async def sweep(self, *, is_first: bool = False) -> None:
        """Finishes refunds that were begun and left."""
        now_ms = self._clock()
        before_ms = now_ms + 1 if is_first else now_ms - STEP_MS_MAX
        async with self._database.read() as work:
            rows = await work.execute(
                select(refunds)
                .where(refunds.c.state == "moving", refunds.c.changed_at_ms < before_ms)
                .order_by(refunds.c.changed_at_ms)
                .limit(SWEEP_PAGE)
            )
            left = list(rows)
        went_well = await each(self._finish(row) for row in left)
        if went_well and len(left) == SWEEP_PAGE:
            self._on_change()

    def _judge(self, order: RefundOrder, payment: PaymentRecord | None) -> PaymentRefused | None:
        if not is_ledger_id(order.id):
            return PaymentRefused.because(PaymentRefusal.ID_INVALID)
        if payment is None or (order.account is None and order.by not in (payment.payer, payment.payee)):
            return PaymentRefused.because(PaymentRefusal.PAYMENT_UNKNOWN)
        if (
            payment.kind is not PaymentKind.PAYMENT
            or payment.state is not PaymentState.POSTED
            or (order.account is None and order.by != payment.payee)
        ):
            return PaymentRefused.because(PaymentRefusal.REFUND_IMPOSSIBLE)
        if order.money is not None and order.money.currency != payment.money.currency:
            return PaymentRefused.because(PaymentRefusal.REFUND_CURRENCY, currency=payment.money.currency)
        if len(clean_memo(order.memo)) > MEMO_LENGTH_MAX:
            return self._payments.refused(PaymentRefusal.MEMO_TOO_LONG, payment.money)
        return None

    async def _claim(self, order: RefundOrder, payment: PaymentRecord) -> Row[Any] | PaymentRefused:
        """The refund's row: a new one, or the one that this order has made before."""
        account = order.account or user_account(payment.payee, payment.money.currency)
        async with self._database.begin() as work:
            # Whoever else refunds this payment waits here, in whatever process.
            await work.execute(
                select(payment_rows.c.id).where(payment_rows.c.id == payment.id).with_for_update()
            )
            earlier = (await work.execute(select(refunds).where(refunds.c.id == order.id))).first()
            if earlier is not None:
                same = earlier.payment_id == payment.id and (
                    order.money is None or order.money.amount_minor == earlier.amount_minor
                )
                if not same:
                    return PaymentRefused.because(PaymentRefusal.ID_TAKEN)
                if earlier.state != "refused" or not payment.crosses_servers:
                    return earlier
                made = select(payment_rows.c.id).where(payment_rows.c.id == order.id)
                if (await work.execute(made)).first() is not None:
                    return earlier
                # The other wallet was silent, which spends no id: it is claimed as if anew.
                await work.execute(delete(refunds).where(refunds.c.id == order.id))
            left_minor = payment.money.amount_minor - await _claimed_minor(work, payment.id)
            amount_minor = left_minor if order.money is None else order.money.amount_minor
            if earlier is not None:
                amount_minor = earlier.amount_minor
            if not 0 < amount_minor <= left_minor:
                currency = self._payments.currencies.get(payment.money.currency)
                left = format_minor(left_minor, currency) if currency else str(left_minor)
                return PaymentRefused.because(PaymentRefusal.REFUND_TOO_LARGE, left=left)
            await work.execute(
                insert(refunds),
                {
                    "id": order.id,
                    "payment_id": payment.id,
                    "amount_minor": amount_minor,
                    "state": "moving",
                    "memo": clean_memo(order.memo),
                    "room_id": order.room_id,
                    "account_id": account.id,
                    "account_kind": account.kind.value,
                    "account_owner": account.owner,
                    "changed_at_ms": self._clock(),
                },
            )
            row = (await work.execute(select(refunds).where(refunds.c.id == order.id))).one()
            await work.commit()
            return row

    async def _move(
        self, row: Row[Any], payment: PaymentRecord, *, in_reply_to: EventId | None = None, tell: Tell
    ) -> Outcome:
        peer = server_of(payment.payer) if payment.crosses_servers else None
        movement = Movement(
            id=TransferId(row.id),
            kind=PaymentKind.REFUND,
            payer=payment.payee,
            payee=payment.payer,
            money=Money(row.amount_minor, payment.money.currency),
            debit=_account(row, payment),
            credit=(
                user_account(payment.payer, payment.money.currency)
                if peer is None
                else peer_account(peer, payment.money.currency)
            ),
            memo=row.memo,
            room_id=RoomId(row.room_id) if row.room_id else None,
            in_reply_to=in_reply_to,
            subject=payment.subject,
            of=payment.id,
            needs_room=False,
            peer=peer,
        )

        def settle(outcome: Outcome) -> Sequence[Write]:
            state = "done" if isinstance(outcome, PaymentRecord) else "refused"
            parameters = {"at_id": row.id, "new_state": state, "now_ms": self._clock()}
            return [Write(_SETTLE, parameters), *tell(outcome)]

        if peer is None:
            return await self._till.move(movement, tell=settle)
        return await self._move_elsewhere(movement, peer, settle=settle, tell=tell)

    async def _move_elsewhere(
        self, movement: Movement, peer: ServerName, *, settle: Tell, tell: Tell
    ) -> Outcome:
        earlier = await self._till.record(movement.id)
        if earlier is not None:
            # It is settled since its money was held, and may have come back.
            return await self._till.tell_alone(earlier, tell)
        elsewhere = self._payments.elsewhere
        if elsewhere is None or not await elsewhere.serves(peer):
            refused = self._payments.refused(
                PaymentRefusal.PAYEE_ELSEWHERE, movement.money, payee=movement.payee
            )
            return await self._till.tell_alone(refused, settle)

        def hold(outcome: Outcome) -> Sequence[Write]:
            if isinstance(outcome, PaymentRefused):
                return settle(outcome)
            return [Write(_HELD, {"at_id": movement.id, "now_ms": self._clock()}), *tell(outcome)]

        try:
            return await elsewhere.move(movement, tell=hold)
        except SubmissionFailed as error:
            raise LedgerUnavailable(f"the part that refund {movement.id} gives back was let go") from error

    async def _finish(self, row: Row[Any]) -> None:
        payment = await self._till.record(TransferId(row.payment_id))
        if payment is not None:
            await self._move(row, payment, tell=tell_nothing)


def not_taken_write(id: TransferId, *, now_ms: int) -> Write:
    """A refund to another server that its wallet did not take: that part can be given back again."""
    return Write(_NOT_TAKEN, {"at_id": id, "now_ms": now_ms})


async def _claimed_minor(work: UnitOfWork, payment_id: TransferId) -> int:
    """What was given back of a payment, or is about to be."""
    summed = await work.execute(
        select(func.coalesce(func.sum(refunds.c.amount_minor), 0)).where(
            refunds.c.payment_id == payment_id, refunds.c.state != "refused"
        )
    )
    return int(summed.scalar_one())


def _account(row: Row[Any], payment: PaymentRecord) -> NewAccount:
    """The account that pays, as it was named when the refund was begun."""
    kind, currency = AccountKind(row.account_kind), payment.money.currency
    account = account_for(kind, owner=row.account_owner, currency=currency)
    if account.id == row.account_id:
        return account
    return NewAccount(
        id=AccountId(row.account_id),
        kind=kind,
        currency=currency,
        owner=row.account_owner,
        debits_must_not_exceed_credits=account.debits_must_not_exceed_credits,
    )
