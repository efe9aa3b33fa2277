"""Paying somebody of another homeserver: the money is held, and their wallet is asked.

What is held is given back only when the other wallet has rejected it, never because it is silent. Held money,
the row that remembers what for, and the question to the other wallet are one database transaction of the
till's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sqlalchemy import Row, insert, select

from appservices.chassis.clock import Clock
from appservices.chassis.database import Write
from appservices.chassis.links.link import Link
from appservices.chassis.links.switchboard import LinkRefused, Switchboard
from appservices.chassis.shared_reads import SharedReads
from appservices.vocabulary.ids import EventId, RoomId, ServerName, TransferId, UserId
from appservices.vocabulary.money import CurrencyCode, Money
from wallet_appservice.clearing.items import Prepare
from wallet_appservice.clearing.peers import Peers
from wallet_appservice.ledger.values import NewAccount, Transfer
from wallet_appservice.payments.accounts import peer_account, user_account
from wallet_appservice.payments.limits import Admission
from wallet_appservice.payments.records import Movement, PaymentKind, PaymentRecord, PaymentState
from wallet_appservice.payments.red_packet_records import escrow_account
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.payments.request_records import SUBJECT as REQUEST_SUBJECT
from wallet_appservice.payments.till import Outcome, Tell, Till, transfer_of
from wallet_appservice.storage.clearing_tables import clearing_out

PREPARED_SECONDS: Final = 300
"""For how long the payee's wallet may credit the payee after we have asked."""
OPENING_SECONDS_MAX: Final = 10.0
"""How long the first payment to a server waits for the link to be made."""
SILENCE_MS_MAX: Final = 60_000
"""A peer that has left something unacknowledged for longer gets no new payments."""
UNANSWERED_MS_MAX: Final = 600_000
"""A peer that has left a payment unanswered for longer after its time gets no new ones until it answers."""
INQUIRE_FIRST_MS: Final = 30_000
WAITING_MAX: Final = 20_000
"""Payments whose end may be waited for at once."""
CAME_FROM: Final = "clearing:"
"""Begins the subject of what came from another wallet; that wallet's id of it follows."""

PREPARED, FULFILLED, REJECTED = "prepared", "fulfilled", "rejected"

_INSERT_OUT: Final = insert(clearing_out)


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
    def _debit(self) -> NewAccount:
        if self.kind is PaymentKind.SHARE and self.of is not None:
            return escrow_account(self.payer, self.of, self.money.currency)
        return user_account(self.payer, self.money.currency)

    @property
    def held(self) -> Transfer:
        """The transfer that holds the money until the peer has answered: it has no time-out."""
        currency = self.money.currency
        return transfer_of(
            Movement(
                id=self.id,
                kind=self.kind,
                payer=self.payer,
                payee=self.payee,
                money=self.money,
                debit=self._debit,
                credit=peer_account(self.server, currency),
                memo=self.memo,
                room_id=self.room_id,
                subject=self.subject,
                of=self.of,
                peer=self.server,
            )
        )


class ClearingAnnouncer(Protocol):
    """Tells people how their payments across servers went."""

    async def is_present(self, user: UserId, room_id: RoomId) -> bool:
        """Whether the user has joined that room, as far as the wallet can see."""
        ...

    async def outgoing(
        self, ending: Sequence[OutgoingPayment]
    ) -> Callable[[OutgoingPayment, PaymentRecord], Sequence[Write]]:
        """Looks up what the sentences need; the result tells of an end, which is a record of its own."""
        ...

    async def waiting(self, payment: OutgoingPayment) -> Sequence[Write]:
        """Tells the payer that a payment takes long; at most once."""
        ...

    async def incoming(self, payee: UserId, records: Sequence[PaymentRecord]) -> Sequence[Write]:
        """Tells a payee of ours what has come, in few messages."""
        ...

    async def packet_refused(self, opener: UserId, packet: TransferId, reason: str) -> Sequence[Write]:
        """Tells somebody of ours why they found nothing in a red packet elsewhere."""
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
        self.request_of: Callable[[TransferId, UserId], Awaitable[TransferId | None]] = _no_request
        """What the other wallet calls the request that somebody of ours pays, by ours and who is asked."""
        self._waiting: dict[TransferId, asyncio.Future[PaymentRecord]] = {}
        self._unanswered: SharedReads[ServerName, bool] = SharedReads(self._leaving_unanswered)

    async def serves(self, server: ServerName) -> bool:
        return await self._peers.wallet_of(server) is not None

    async def move(self, movement: Movement, *, tell: Tell, admission: Admission | None = None) -> Outcome:
        try:
            assert movement.peer is not None
            link = await self._open_link(movement.peer)
            if link is None:
                refused = PaymentRefused.because(PaymentRefusal.PEER_SILENT, payee_server=movement.peer)
                return await self._till.tell_alone(refused, tell)
            writes = await self._question(movement, link)
            outcome = await self._till.move(movement, tell=tell, admission=admission, once=writes)
            link.wake()
            return outcome
        finally:
            if admission is not None:
                admission.end()

    async def ended(self, record: PaymentRecord, *, seconds_max: float) -> PaymentRecord:
        if record.state is not PaymentState.PENDING:
            return record
        future = self._expect(record.id)
        # It may have ended before we began to wait.
        current = await self._till.record(record.id)
        if current is not None and current.state is not PaymentState.PENDING:
            self.note_ended([current])
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
        if await self._unanswered.get(server):
            return None
        return link if await link.wait_until_open(OPENING_SECONDS_MAX) else None

    async def _leaving_unanswered(self, servers: Sequence[ServerName]) -> dict[ServerName, bool]:
        """The peers that take questions and answer none: what is held for them would only grow."""
        columns = clearing_out.c
        query = (
            select(columns.server)
            .where(
                columns.server.in_(servers),
                columns.state == PREPARED,
                columns.expires_at_ms < self._clock() - UNANSWERED_MS_MAX,
            )
            .distinct()
        )
        async with self._till.database.read() as work:
            return {ServerName(server): True for server in (await work.execute(query)).scalars()}

    async def _question(self, movement: Movement, link: Link) -> Sequence[Write]:
        """What is committed with the held money: the row that remembers it, and the item for the peer."""
        assert movement.peer is not None
        now_ms = self._clock()
        payment = OutgoingPayment(
            id=movement.id,
            server=movement.peer,
            kind=movement.kind,
            payer=movement.payer,
            payee=movement.payee,
            money=movement.money,
            memo=movement.memo,
            room_id=movement.room_id,
            in_reply_to=movement.in_reply_to,
            subject=movement.subject,
            of=movement.of,
            state=PREPARED,
            reason="",
            created_at_ms=now_ms,
            expires_at_ms=now_ms + PREPARED_SECONDS * 1000,
        )
        is_told_there = movement.room_id is not None and await self._announcer.is_present(
            movement.payee, movement.room_id
        )
        prepare = Prepare(
            id=payment.id,
            payer=payment.payer,
            payee=payment.payee,
            money=payment.money,
            expires_at_ms=payment.expires_at_ms,
            memo=payment.memo,
            room_id=payment.room_id if is_told_there else None,
            payment_kind=payment.kind.value,
            of=_their_id(payment),
            request=await self._their_request(payment),
        )
        return [_out_write(payment), self._switchboard.item(link.peer, prepare.item())]

    async def _their_request(self, payment: OutgoingPayment) -> TransferId | None:
        kind, _, id = payment.subject.partition(":")
        return await self.request_of(TransferId(id), payment.payer) if kind == REQUEST_SUBJECT else None


async def _no_request(_request_id: TransferId, _asked: UserId) -> TransferId | None:
    return None


def _their_id(payment: OutgoingPayment) -> TransferId | None:
    """What a refund gives back, by the id that the other wallet knows it by; of a share, its packet."""
    if payment.kind is PaymentKind.SHARE:
        return payment.of
    if payment.of is None or not payment.subject.startswith(CAME_FROM):
        return None
    return TransferId(payment.subject.removeprefix(CAME_FROM))


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
