"""How people learn of payments across servers: the payer's wallet tells the room, each wallet its people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from appservices.chassis.clock import Clock
from appservices.chassis.database import Write
from appservices.chassis.homeserver import MatrixRefused
from appservices.chassis.messages import notice, reply_relation, shown_name
from appservices.chassis.outbox import Outgoing
from appservices.chassis.rooms import Room, Rooms
from appservices.vocabulary.ids import OutboxId, RoomId, UserId, derived_id
from appservices.vocabulary.languages import _
from appservices.vocabulary.money import Currencies, CurrencyCode, format_minor
from wallet_appservice.chat.announcements import receipt_message
from wallet_appservice.clearing.items import RejectReason
from wallet_appservice.clearing.paying import OutgoingPayment
from wallet_appservice.payments.records import PaymentRecord, PaymentState
from wallet_appservice.payments.till import RoomNotShared

SINGLY_MAX = 3
"""More payments than that, come at about the same time, are told in one message."""
QUICK_MS = 10_000
"""A payment without a room that is done within this time needs no message: whoever made it was answered."""


def returned_sentence(reason: str, server: str) -> str:
    """Why a payment to another server came back, for the payer."""
    sentences = {
        RejectReason.NOT_A_PEER: _("The wallet of {server} takes no payments from here."),
        RejectReason.CURRENCY_UNKNOWN: _("The wallet of {server} does not keep this currency."),
        RejectReason.AMOUNT_TOO_LARGE: _("That is more than the wallet of {server} takes at once."),
        RejectReason.PAYEE_UNKNOWN: _("There is no such user on {server} to pay."),
        RejectReason.EXPIRED: _("The wallet of {server} answered too late."),
        RejectReason.OVER_LIMIT: _("The wallet of {server} takes no more from here at the moment."),
        RejectReason.PAYEE_FULL: _("The payee can't take that much."),
    }
    sentence = sentences.get(
        RejectReason(reason) if reason in set(RejectReason) else RejectReason.UNKNOWN,
        _("The wallet of {server} did not take the payment."),
    )
    return sentence.format(server=server)


class ClearingRoomAnnouncer:
    """A ClearingAnnouncer that writes to rooms and people through the outbox."""

    def __init__(
        self, *, rooms: Callable[[], Rooms], wallet_user: UserId, currencies: Currencies, clock: Clock
    ) -> None:
        self._rooms = rooms
        self._wallet_user = wallet_user
        self._currencies = currencies
        self._clock = clock

    async def check_room(self, payer: UserId, room_id: RoomId) -> None:
        await self._shared(payer, room_id)

    async def is_present(self, user: UserId, room_id: RoomId) -> bool:
        try:
            room = await self._rooms().room(room_id)
        except MatrixRefused as error:
            raise RoomNotShared from error
        return user in room.members.joined

    async def outgoing(
        self, ending: Sequence[OutgoingPayment]
    ) -> Callable[[OutgoingPayment, PaymentRecord], Sequence[Write]]:
        rooms: dict[RoomId, Room | None] = {}
        for payment in ending:
            if payment.room_id is not None and payment.room_id not in rooms:
                try:
                    rooms[payment.room_id] = await self._rooms().room(payment.room_id)
                except MatrixRefused:
                    # We are there no more; the payer is told directly.
                    rooms[payment.room_id] = None

        def announce(payment: OutgoingPayment, record: PaymentRecord) -> Sequence[Write]:
            room = rooms.get(payment.room_id) if payment.room_id is not None else None
            if record.state is PaymentState.RETURNED:
                return self._returned(payment, room)
            return self._posted(payment, record, room)

        return announce

    def waiting(self, payment: OutgoingPayment) -> Sequence[Write]:
        text = _(
            "{amount} for {payee} is held: the wallet of {server} has not answered yet. "
            "You will be told when it has."
        ).format(amount=self._currencies.format(payment.money), payee=payment.payee, server=payment.server)
        content = notice(text)
        outbox_id = OutboxId(derived_id("waiting", payment.id))
        if payment.room_id is None:
            return [Outgoing(outbox_id, content, to_user=payment.payer).write(now_ms=self._clock())]
        if payment.in_reply_to is not None:
            content = {**content, **reply_relation(payment.in_reply_to)}
        return [Outgoing(outbox_id, content, room_id=payment.room_id).write(now_ms=self._clock())]

    def incoming(self, payee: UserId, records: Sequence[PaymentRecord]) -> Sequence[Write]:
        if len(records) <= SINGLY_MAX:
            return [write for record in records for write in self._received(record)]
        totals = Counter[CurrencyCode]()
        for record in records:
            totals[record.money.currency] += record.money.amount_minor
        shown = ", ".join(format_minor(total, self._currencies[code]) for code, total in totals.items())
        text = _(
            "You got {count} payments from other servers, {total} in all. `!history` lists them."
        ).format(count=len(records), total=shown)
        outbox_id = OutboxId(derived_id("received", payee, records[0].id, records[-1].id))
        return [Outgoing(outbox_id, notice(text), to_user=payee).write(now_ms=self._clock())]

    def _received(self, record: PaymentRecord) -> Sequence[Write]:
        names = {user: shown_name(user, None) for user in (record.payer, record.payee)}
        content = receipt_message(record, names=names, currencies=self._currencies)
        outbox_id = OutboxId(derived_id("receipt", record.id, "", record.payee))
        outgoing = Outgoing(outbox_id, content, to_user=record.payee, subject=f"payment:{record.id}")
        return [outgoing.write(now_ms=self._clock())]

    def _posted(self, payment: OutgoingPayment, record: PaymentRecord, room: Room | None) -> Sequence[Write]:
        def name(user: UserId) -> str:
            if room is not None and user in room.members.joined:
                return room.name_of(user)
            return shown_name(user, None)

        names = {user: name(user) for user in (record.payer, record.payee)}
        content = receipt_message(record, names=names, currencies=self._currencies)
        subject = f"payment:{record.id}"
        writes = []
        if room is not None:
            there = content
            if payment.in_reply_to is not None:
                there = {**content, **reply_relation(payment.in_reply_to)}
            outbox_id = OutboxId(derived_id("receipt", record.id, room.room_id, ""))
            writes.append(Outgoing(outbox_id, there, room_id=room.room_id, subject=subject))
        elif payment.room_id is not None or record.at_ms - payment.created_at_ms > QUICK_MS:
            outbox_id = OutboxId(derived_id("receipt", record.id, "", record.payer))
            writes.append(Outgoing(outbox_id, content, to_user=record.payer, subject=subject))
        return [outgoing.write(now_ms=self._clock()) for outgoing in writes]

    def _returned(self, payment: OutgoingPayment, room: Room | None) -> Sequence[Write]:
        why = returned_sentence(payment.reason, payment.server)
        text = _("{why} {amount} for {payee} went back to you.").format(
            why=why, amount=self._currencies.format(payment.money), payee=payment.payee
        )
        outbox_id = OutboxId(derived_id("returned", payment.id))
        content = notice(text)
        content["m.mentions"] = {"user_ids": [payment.payer]}
        if room is not None:
            if payment.in_reply_to is not None:
                content = {**content, **reply_relation(payment.in_reply_to)}
            outgoing = Outgoing(outbox_id, content, room_id=room.room_id)
        else:
            outgoing = Outgoing(outbox_id, content, to_user=payment.payer)
        return [outgoing.write(now_ms=self._clock())]

    async def _shared(self, payer: UserId, room_id: RoomId) -> Room:
        try:
            room = await self._rooms().room(room_id)
        except MatrixRefused as error:
            raise RoomNotShared from error
        if not {payer, self._wallet_user} <= room.members.joined.keys():
            raise RoomNotShared
        return room
