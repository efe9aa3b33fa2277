"""How people learn of payments across servers: the payer's wallet tells the room, each wallet its people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from appservices.chassis.chosen_languages import LanguageOf
from appservices.chassis.clock import Clock
from appservices.chassis.database import Write
from appservices.chassis.homeserver import MatrixRefused
from appservices.chassis.messages import notice, reply_relation, shown_name
from appservices.chassis.outbox import Outgoing
from appservices.chassis.rooms import Room, Rooms
from appservices.vocabulary.events import RECEIPT
from appservices.vocabulary.ids import OutboxId, RoomId, TransferId, UserId, derived_id
from appservices.vocabulary.languages import _, counted, isolated, listed, speaking
from appservices.vocabulary.money import Currencies, CurrencyCode, format_minor
from wallet_appservice.chat.announcements import PAYMENT_SUBJECT, receipt_message
from wallet_appservice.clearing.items import RejectReason
from wallet_appservice.clearing.paying import OutgoingPayment
from wallet_appservice.payments.records import PaymentKind, PaymentRecord, PaymentState
from wallet_appservice.payments.red_packets import PACKET_EMPTY, PACKET_OPENED
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused

SINGLY_MAX = 3
"""More payments than that, come at about the same time, are told in one message."""
QUICK_MS = 10_000
"""A payment without a room that is done within this time needs no message: whoever made it was answered."""


def returned_sentence(reason: str) -> str:
    """Why a payment to another server came back, for the payer, with its places still open."""
    sentences = {
        RejectReason.NOT_A_PEER: _("The wallet of {server} takes no payments from here."),
        RejectReason.CURRENCY_UNKNOWN: _("The wallet of {server} does not keep this currency."),
        RejectReason.AMOUNT_TOO_LARGE: _("That is more than the wallet of {server} takes at once."),
        RejectReason.PAYEE_UNKNOWN: _("There is no such user on {server} to pay."),
        RejectReason.REQUEST_OVER: _("What was asked for is not to be paid any more."),
        RejectReason.EXPIRED: _("The wallet of {server} answered too late."),
        RejectReason.OVER_LIMIT: _("The wallet of {server} takes no more from here at the moment."),
        RejectReason.PAYEE_FULL: _("The payee can't take that much."),
    }
    known_reason = RejectReason(reason) if reason in set(RejectReason) else RejectReason.UNKNOWN
    return sentences.get(known_reason, _("The wallet of {server} did not take the payment."))


class ClearingRoomAnnouncer:
    """A ClearingAnnouncer that writes to rooms and people through the outbox.

    A room reads it in its payer's language, whom it is sent to alone in theirs.
    """

    def __init__(
        self,
        *,
        rooms: Rooms,
        language_of: LanguageOf,
        currencies: Currencies,
        clock: Clock,
    ) -> None:
        self._rooms = rooms
        self._language_of = language_of
        self._currencies = currencies
        self._clock = clock

    async def is_present(self, user: UserId, room_id: RoomId) -> bool:
        try:
            room = await self._rooms.room(room_id)
        except MatrixRefused:
            return False
        return user in room.members.joined

    async def outgoing(
        self, ending: Sequence[OutgoingPayment]
    ) -> Callable[[OutgoingPayment, PaymentRecord], Sequence[Write]]:
        rooms: dict[RoomId, Room | None] = {}
        languages: dict[UserId, str] = {}
        for payment in ending:
            if payment.kind is PaymentKind.SHARE:
                continue
            if payment.payer not in languages:
                languages[payment.payer] = await self._language_of(payment.payer)
            if payment.room_id is not None and payment.room_id not in rooms:
                try:
                    rooms[payment.room_id] = await self._rooms.room(payment.room_id)
                except MatrixRefused:
                    # We are there no more; the payer is told directly.
                    rooms[payment.room_id] = None

        def announce(payment: OutgoingPayment, end: PaymentRecord) -> Sequence[Write]:
            if payment.kind is PaymentKind.SHARE:
                # The packet's own message says who has found what.
                return []
            room = rooms.get(payment.room_id) if payment.room_id is not None else None
            with speaking(languages[payment.payer]):
                if end.state is PaymentState.RETURNED:
                    return self._returned(payment, end, room)
                return self._posted(payment, end, room)

        return announce

    async def waiting(self, payment: OutgoingPayment) -> Sequence[Write]:
        if payment.kind is PaymentKind.SHARE:
            return []
        with speaking(await self._language_of(payment.payer)):
            text = _(
                "{amount} for {payee} is held: the wallet of {server} has not answered yet. "
                "You will be told when it has."
            ).format(
                amount=self._currencies.format(payment.money),
                payee=isolated(payment.payee),
                server=isolated(payment.server),
            )
        content = notice(text)
        outbox_id = OutboxId(derived_id("waiting", payment.id))
        if payment.room_id is None:
            return [Outgoing(outbox_id, content, to_user=payment.payer).write(now_ms=self._clock())]
        if payment.in_reply_to is not None:
            content = {**content, **reply_relation(payment.in_reply_to)}
        return [Outgoing(outbox_id, content, room_id=payment.room_id).write(now_ms=self._clock())]

    async def incoming(self, payee: UserId, records: Sequence[PaymentRecord]) -> Sequence[Write]:
        with speaking(await self._language_of(payee)):
            if len(records) <= SINGLY_MAX:
                return [self._received(record) for record in records]
            totals = Counter[CurrencyCode]()
            for record in records:
                totals[record.money.currency] += record.money.amount_minor
            total = listed([format_minor(sum_, self._currencies[code]) for code, sum_ in totals.items()])
            text = counted(
                "You got {count} payment from another server, {total} in all. {command} lists them.",
                "You got {count} payments from other servers, {total} in all. {command} lists them.",
                len(records),
            ).format(total=total, command=isolated("!history"))
        outbox_id = OutboxId(derived_id("received", payee, records[0].id, records[-1].id))
        return [Outgoing(outbox_id, notice(text), to_user=payee).write(now_ms=self._clock())]

    async def packet_refused(self, opener: UserId, packet: TransferId, reason: str) -> Sequence[Write]:
        with speaking(await self._language_of(opener)):
            if reason == PACKET_OPENED:
                text = _("You have opened this red packet already.")
            elif reason == PACKET_EMPTY:
                text = PaymentRefused.because(PaymentRefusal.PACKET_EMPTY).sentence
            else:
                text = PaymentRefused.because(PaymentRefusal.PACKET_OVER).sentence
        now_ms = self._clock()
        # In one message of the other wallet's a packet and its opener are told of once.
        outbox_id = OutboxId(derived_id("packet refused", packet, opener, str(now_ms), reason))
        return [Outgoing(outbox_id, notice(text), to_user=opener).write(now_ms=now_ms)]

    def _received(self, record: PaymentRecord) -> Write:
        content = self._receipt(record, None)
        outbox_id = OutboxId(derived_id("receipt", record.id, "", record.payee))
        subject = f"{PAYMENT_SUBJECT}:{record.id}"
        outgoing = Outgoing(outbox_id, content, to_user=record.payee, subject=subject)
        return outgoing.write(now_ms=self._clock())

    def _posted(self, payment: OutgoingPayment, end: PaymentRecord, room: Room | None) -> Sequence[Write]:
        content = self._receipt(end, room)
        subject = f"{PAYMENT_SUBJECT}:{payment.id}"
        if room is not None:
            there = content
            if payment.in_reply_to is not None:
                there = {**content, **reply_relation(payment.in_reply_to)}
            outbox_id = OutboxId(derived_id("receipt", end.id, room.room_id, ""))
            outgoing = Outgoing(outbox_id, there, room_id=room.room_id, subject=subject)
        elif payment.room_id is not None or end.at_ms - payment.created_at_ms > QUICK_MS:
            outbox_id = OutboxId(derived_id("receipt", end.id, "", payment.payer))
            outgoing = Outgoing(outbox_id, content, to_user=payment.payer, subject=subject)
        else:
            return []
        return [outgoing.write(now_ms=self._clock())]

    def _returned(self, payment: OutgoingPayment, end: PaymentRecord, room: Room | None) -> Sequence[Write]:
        why = returned_sentence(payment.reason).format(server=isolated(payment.server))
        text = _("{why} {amount} for {payee} went back to you.").format(
            why=why, amount=self._currencies.format(payment.money), payee=isolated(payment.payee)
        )
        outbox_id = OutboxId(derived_id("returned", payment.id))
        content = {**notice(text), "m.mentions": {"user_ids": [payment.payer]}, RECEIPT: end.receipt}
        if room is not None:
            if payment.in_reply_to is not None:
                content = {**content, **reply_relation(payment.in_reply_to)}
            outgoing = Outgoing(outbox_id, content, room_id=room.room_id)
        else:
            outgoing = Outgoing(outbox_id, content, to_user=payment.payer)
        return [outgoing.write(now_ms=self._clock())]

    def _receipt(self, record: PaymentRecord, room: Room | None) -> dict[str, Any]:
        def name(user: UserId) -> str:
            if room is not None and user in room.members.joined:
                return room.name_of(user)
            return shown_name(user, None)

        names = {user: name(user) for user in (record.payer, record.payee)}
        return receipt_message(record, names=names, currencies=self._currencies)
