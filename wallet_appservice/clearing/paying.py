"""Paying somebody of another homeserver: the money is held, and their wallet is asked.

What is held is given back only when the other wallet has rejected it, never because it is silent. Held money,
the row that remembers what for, and the question to the other wallet are one database transaction.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sqlalchemy import Row, insert

from appservices.chassis.clock import Clock
from appservices.chassis.database import Write
from appservices.chassis.links.link import Link
from appservices.chassis.links.switchboard import LinkRefused, Switchboard
from appservices.vocabulary.ids import EventId, RoomId, ServerName, TransferId, UserId, server_of
from appservices.vocabulary.money import CurrencyCode, Money, format_minor
from wallet_appservice.clearing.items import Prepare
from wallet_appservice.clearing.peers import Peers, peer_account
from wallet_appservice.ledger.engine import Submission
from wallet_appservice.ledger.values import (
    Transfer,
    TransferCode,
    TransferMode,
    TransferRefusal,
    TransferResult,
)
from wallet_appservice.payments.accounts import user_account
from wallet_appservice.payments.receipts import sign_receipt
from wallet_appservice.payments.records import (
    Movement,
    PaymentKind,
    PaymentOrder,
    PaymentRecord,
    PaymentState,
    clean_memo,
)
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.payments.till import Outcome, RoomNotShared, Tell, Till, tell_nothing
from wallet_appservice.storage.clearing_tables import clearing_out
from wallet_appservice.storage.payment_tables import payments

PREPARED_SECONDS: Final = 300
"""For how long the payee's wallet may credit the payee after we have asked."""
OPENING_SECONDS_MAX: Final = 10.0
"""How long the first payment to a server waits for the link to be made."""
SILENCE_MS_MAX: Final = 60_000
"""A peer that has left something unacknowledged for longer gets no new payments."""
INQUIRE_FIRST_MS: Final = 30_000
WAITING_MAX: Final = 20_000
"""Payments whose end may be waited for at once."""

PREPARED, FULFILLED, REJECTED = "prepared", "fulfilled", "rejected"

logger = logging.getLogger(__name__)

_INSERT_PAYMENT: Final = insert(payments)
_INSERT_OUT: Final = insert(clearing_out)
_REFUSALS: Final = {
    TransferRefusal.BALANCE_TOO_LOW: PaymentRefusal.BALANCE_TOO_LOW,
    TransferRefusal.ID_EXISTS_WITH_DIFFERENT_CONTENT: PaymentRefusal.ID_TAKEN,
    TransferRefusal.BALANCE_OVERFLOW: PaymentRefusal.ACCOUNT_FULL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingPayment:
    """A payment to another homeserver, as the row that remembers it."""

    id: TransferId
    server: ServerName
    kind: PaymentKind
    payer: UserId
    payee: UserId
    money: Money
    memo: str
    room_id: RoomId | None
    in_reply_to: EventId | None
    subject: str
    of: TransferId | None
    state: str
    reason: str
    created_at_ms: int
    expires_at_ms: int

    @property
    def movement(self) -> Movement:
        currency = self.money.currency
        return Movement(
            id=self.id,
            kind=self.kind,
            payer=self.payer,
            payee=self.payee,
            money=self.money,
            debit=user_account(self.payer, currency),
            credit=peer_account(self.server, currency),
            memo=self.memo,
            room_id=self.room_id,
            in_reply_to=self.in_reply_to,
            subject=self.subject,
            of=self.of,
        )

    @property
    def held(self) -> Transfer:
        """The transfer that holds the money until the peer has answered: it has no time-out."""
        movement = self.movement
        return Transfer(
            id=self.id,
            debit_account_id=movement.debit.id,
            credit_account_id=movement.credit.id,
            amount_minor=self.money.amount_minor,
            currency=self.money.currency,
            code=TransferCode.CLEARING,
            mode=TransferMode.PENDING,
            reference=self.id,
        )


class ClearingAnnouncer(Protocol):
    """Tells people how their payments across servers went."""

    async def is_present(self, user: UserId, room_id: RoomId) -> bool:
        """Whether the user has joined a room that payer and wallet share.

        Raises RoomNotShared when payer or wallet are not there.
        """
        ...

    async def check_room(self, payer: UserId, room_id: RoomId) -> None:
        """Raises RoomNotShared when payer or wallet are not in the room."""
        ...

    async def outgoing(
        self, ending: Sequence[OutgoingPayment]
    ) -> Callable[[OutgoingPayment, PaymentRecord], Sequence[Write]]:
        """Looks up what the sentences need; the result tells of one that was posted or returned."""
        ...

    def waiting(self, payment: OutgoingPayment) -> Sequence[Write]:
        """Tells the payer that a payment takes long; at most once."""
        ...

    def incoming(self, payee: UserId, records: Sequence[PaymentRecord]) -> Sequence[Write]:
        """Tells a payee of ours what has come, in few messages."""
        ...


class ClearingPayments:
    """Pays people of peers' servers. `Elsewhere` of the wallet's use cases."""

    def __init__(
        self,
        till: Till,
        *,
        peers: Peers,
        switchboard: Switchboard,
        announcer: ClearingAnnouncer,
        clock: Clock,
    ) -> None:
        self._till = till
        self._peers = peers
        self._switchboard = switchboard
        self._announcer = announcer
        self._clock = clock
        self._waiting: dict[TransferId, asyncio.Future[PaymentRecord]] = {}

    async def serves(self, server: ServerName) -> bool:
        return await self._peers.wallet_of(server) is not None

    async def pay(self, order: PaymentOrder, kind: PaymentKind, tell: Tell) -> Outcome:
        server = server_of(order.payee)
        link = await self._open_link(server)
        if link is None:
            refused = PaymentRefused.because(PaymentRefusal.PEER_SILENT, payee_server=server)
            return await self._till.tell_alone(refused, tell)
        payee_is_present = False
        if order.room_id is not None:
            try:
                await self._announcer.check_room(order.payer, order.room_id)
                payee_is_present = await self._announcer.is_present(order.payee, order.room_id)
            except RoomNotShared:
                refused = PaymentRefused.because(PaymentRefusal.ROOM_UNKNOWN)
                return await self._till.tell_alone(refused, tell)
        return await self._hold(order, kind, link, tell, payee_is_present=payee_is_present)

    async def ended(self, record: PaymentRecord, *, seconds_max: float) -> PaymentRecord:
        if record.state is not PaymentState.PENDING:
            return record
        future = self._waiting.get(record.id)
        if future is None:
            future = self._expect(record.id)
            # It may have ended before we began to wait.
            current = await self._till.record(record.id)
            if current is not None and current.state is not PaymentState.PENDING:
                return current
        try:
            async with asyncio.timeout(seconds_max):
                return await asyncio.shield(future)
        except TimeoutError:
            return record

    def note_ended(self, records: Sequence[PaymentRecord]) -> None:
        """To be called once it is committed that these have ended."""
        for record in records:
            future = self._waiting.pop(record.id, None)
            if future is not None and not future.done():
                future.set_result(record)

    def _expect(self, id: TransferId) -> asyncio.Future[PaymentRecord]:
        """Notes that somebody will wait for that payment's end."""
        while len(self._waiting) >= WAITING_MAX:
            # The oldest have been waited for long enough; what they are told then is read from the database.
            self._waiting.pop(next(iter(self._waiting)))
        future = self._waiting.get(id)
        if future is None:
            future = self._waiting[id] = asyncio.get_running_loop().create_future()
        return future

    async def _open_link(self, server: ServerName) -> Link | None:
        """The link, when there is one on which payments can go now."""
        wallet = await self._peers.wallet_of(server)
        if wallet is None:
            return None
        try:
            link = await self._switchboard.link(wallet)
        except LinkRefused:
            return None
        if link.state.state != "open" or link.silent_ms > SILENCE_MS_MAX:
            return None
        return link if await link.wait_until_open(OPENING_SECONDS_MAX) else None

    async def _hold(
        self, order: PaymentOrder, kind: PaymentKind, link: Link, tell: Tell, *, payee_is_present: bool
    ) -> Outcome:
        now_ms = self._clock()
        payment = OutgoingPayment(
            id=order.id,
            server=server_of(order.payee),
            kind=kind,
            payer=order.payer,
            payee=order.payee,
            money=order.money,
            memo=clean_memo(order.memo),
            room_id=order.room_id,
            in_reply_to=order.in_reply_to,
            subject=order.subject,
            of=None,
            state=PREPARED,
            reason="",
            created_at_ms=now_ms,
            expires_at_ms=now_ms + PREPARED_SECONDS * 1000,
        )
        prepare = Prepare(
            id=payment.id,
            payer=payment.payer,
            payee=payment.payee,
            money=payment.money,
            expires_at_ms=payment.expires_at_ms,
            memo=payment.memo,
            room_id=payment.room_id if payee_is_present else None,
            payment_kind=kind.value,
            of=payment.of,
        )
        question = self._switchboard.item(link.peer, prepare.item())
        movement = payment.movement
        # Read before only where a way in commits the sentence with the outcome.
        tells = tell is not tell_nothing
        available = await self._available_text(movement) if tells else ""
        is_first = payment.id not in self._waiting
        self._expect(payment.id)
        outcomes: list[Outcome] = []

        def effects(results: tuple[TransferResult, ...]) -> Sequence[Write]:
            (result,) = results
            outcomes.clear()
            if result.refusal is not None:
                refused = PaymentRefused.because(_REFUSALS[result.refusal], available=available)
                outcomes.append(refused)
                return tell(refused)
            record = record_of_movement(self._till, movement, state=PaymentState.PENDING, at_ms=result.at_ms)
            outcomes.append(record)
            if result.replayed:
                if is_first:
                    # It may have ended long ago: that is read from the database.
                    self._waiting.pop(payment.id, None)
                return tell(record)
            return [payment_write(record), _out_write(payment), question, *tell(record)]

        def on_commit() -> None:
            self._till.wake()
            link.wake()

        context = copy_context()
        await self._till.ledger.submit(
            Submission(
                accounts=(movement.debit, movement.credit),
                transfers=(payment.held,),
                effects=lambda results: context.run(effects, results),
                on_commit=on_commit,
            )
        )
        outcome = outcomes[0]
        if isinstance(outcome, PaymentRefused):
            self._waiting.pop(payment.id, None)
            if not tells:
                return PaymentRefused.because(outcome.refusal, available=await self._available_text(movement))
        return outcome

    async def _available_text(self, movement: Movement) -> str:
        account = await self._till.ledger.account(movement.debit.id)
        currency = self._till.currencies[movement.money.currency]
        return format_minor(account.available_minor if account is not None else 0, currency)


def record_of_movement(till: Till, movement: Movement, *, state: PaymentState, at_ms: int) -> PaymentRecord:
    """The record of a movement, with its signed receipt."""
    return PaymentRecord(
        id=movement.id,
        position=0,
        kind=movement.kind,
        state=state,
        payer=movement.payer,
        payee=movement.payee,
        money=movement.money,
        memo=movement.memo,
        at_ms=at_ms,
        room_id=movement.room_id,
        subject=movement.subject,
        of=movement.of,
        receipt=sign_receipt(
            movement, state=state, at_ms=at_ms, wallet=till.wallet_user, key=till.signing_key
        ),
    )


def payment_write(record: PaymentRecord) -> Write:
    """The row by which people find a payment in their history."""
    return Write(
        _INSERT_PAYMENT,
        {
            "id": record.id,
            "kind": record.kind.value,
            "state": record.state.value,
            "payer": record.payer,
            "payee": record.payee,
            "amount_minor": record.money.amount_minor,
            "currency": record.money.currency,
            "memo": record.memo,
            "room_id": record.room_id,
            "at_ms": record.at_ms,
            "receipt": receipt_text(record),
            "subject": record.subject,
            "of_id": record.of,
        },
    )


def receipt_text(record: PaymentRecord) -> str:
    return json.dumps(record.receipt, separators=(",", ":"), sort_keys=True)


def outgoing_of(row: Row[Any]) -> OutgoingPayment:
    """A row of clearing_out as a value."""
    return OutgoingPayment(
        id=TransferId(row.id),
        server=ServerName(row.server),
        kind=PaymentKind(row.kind),
        payer=UserId(row.payer),
        payee=UserId(row.payee),
        money=Money(row.amount_minor, CurrencyCode(row.currency)),
        memo=row.memo,
        room_id=RoomId(row.room_id) if row.room_id else None,
        in_reply_to=EventId(row.in_reply_to) if row.in_reply_to else None,
        subject=row.subject,
        of=TransferId(row.of_id) if row.of_id else None,
        state=row.state,
        reason=row.reason,
        created_at_ms=row.created_at_ms,
        expires_at_ms=row.expires_at_ms,
    )


def _out_write(payment: OutgoingPayment) -> Write:
    return Write(
        _INSERT_OUT,
        {
            "id": payment.id,
            "server": payment.server,
            "kind": payment.kind.value,
            "payer": payment.payer,
            "payee": payment.payee,
            "amount_minor": payment.money.amount_minor,
            "currency": payment.money.currency,
            "memo": payment.memo,
            "room_id": payment.room_id,
            "in_reply_to": payment.in_reply_to,
            "subject": payment.subject,
            "of_id": payment.of,
            "state": payment.state,
            "reason": payment.reason,
            "created_at_ms": payment.created_at_ms,
            "expires_at_ms": payment.expires_at_ms,
            "ended_at_ms": None,
            "inquire_at_ms": payment.created_at_ms + INQUIRE_FIRST_MS,
            "inquiries": 0,
        },
    )
