"""Receipts in rooms: where each goes, and the sentence around the signed block."""

from __future__ import annotations

import html
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from appservices.chassis.clock import Clock
from appservices.chassis.database import Write
from appservices.chassis.homeserver import MatrixRefused
from appservices.chassis.messages import notice, pill, reply_relation, shown_name
from appservices.chassis.outbox import Outgoing
from appservices.chassis.rooms import Room, Rooms
from appservices.vocabulary.events import RECEIPT
from appservices.vocabulary.ids import EventId, OutboxId, UserId, derived_id, localpart_of
from appservices.vocabulary.money import Currencies
from wallet_appservice.chat.merchant_receipts import merchant_sentence
from wallet_appservice.payments.records import Movement, PaymentKind, PaymentRecord
from wallet_appservice.payments.till import RoomNotShared

DisplayName = Callable[[UserId], Awaitable[str | None]]


class RoomAnnouncer:
    """A receipt goes to the room where the payment was made, and to whoever of the two is not there."""

    def __init__(
        self,
        *,
        rooms: Rooms,
        display_name: DisplayName,
        wallet_user: UserId,
        currencies: Currencies,
        clock: Clock,
    ) -> None:
        self._rooms = rooms
        self._display_name = display_name
        self._wallet_user = wallet_user
        self._currencies = currencies
        self._clock = clock

    async def prepare(self, movement: Movement) -> Callable[[PaymentRecord], Sequence[Write]]:
        room = await self._shared_room(movement)
        names = {}
        if movement.merchant is None:
            # A merchant's receipt names no person, and is made too often to ask the homeserver each time.
            names = {user: await self._name(user, room) for user in (movement.payer, movement.payee)}

        def announce(record: PaymentRecord) -> Sequence[Write]:
            return receipt_writes(
                record,
                names=names,
                room=room,
                in_reply_to=movement.in_reply_to,
                wallet_user=self._wallet_user,
                currencies=self._currencies,
                now_ms=self._clock(),
            )

        return announce

    async def _shared_room(self, movement: Movement) -> Room | None:
        if movement.room_id is None:
            return None
        try:
            room = await self._rooms.room(movement.room_id)
        except MatrixRefused as error:
            raise RoomNotShared from error
        if not {movement.payer, self._wallet_user} <= room.members.joined.keys():
            raise RoomNotShared
        return room

    async def _name(self, user: UserId, room: Room | None) -> str:
        if room is not None and user in room.members.joined:
            return room.name_of(user)
        return shown_name(user, await self._display_name(user))


class DirectAnnouncer:
    """For payments made without Matrix at hand (the command line): direct messages, names from user ids."""

    def __init__(self, *, wallet_user: UserId, currencies: Currencies, clock: Clock) -> None:
        self._wallet_user = wallet_user
        self._currencies = currencies
        self._clock = clock

    async def prepare(self, movement: Movement) -> Callable[[PaymentRecord], Sequence[Write]]:
        names = {user: localpart_of(user) for user in (movement.payer, movement.payee)}

        def announce(record: PaymentRecord) -> Sequence[Write]:
            return receipt_writes(
                record,
                names=names,
                room=None,
                wallet_user=self._wallet_user,
                currencies=self._currencies,
                now_ms=self._clock(),
            )

        return announce


def receipt_writes(
    record: PaymentRecord,
    *,
    names: dict[UserId, str],
    room: Room | None,
    wallet_user: UserId,
    currencies: Currencies,
    now_ms: int,
    in_reply_to: EventId | None = None,
) -> Sequence[Write]:
    """The outbox rows of a record's receipt, one per place it goes to."""
    content = receipt_message(record, names=names, currencies=currencies)
    subject = f"payment:{record.id}"
    present = room.members.joined.keys() if room is not None else frozenset()
    people = [user for user in record.people if user != wallet_user and user not in present]
    outgoing = [
        Outgoing(OutboxId(derived_id("receipt", record.id, "", user)), content, to_user=user, subject=subject)
        for user in people
    ]
    if room is not None:
        there = content if in_reply_to is None else {**content, **reply_relation(in_reply_to)}
        outbox_id = OutboxId(derived_id("receipt", record.id, room.room_id, ""))
        outgoing.insert(0, Outgoing(outbox_id, there, room_id=room.room_id, subject=subject))
    return [item.write(now_ms=now_ms) for item in outgoing]


def receipt_message(
    record: PaymentRecord, *, names: dict[UserId, str], currencies: Currencies
) -> dict[str, Any]:
    """The message of a receipt: readable by itself, with the signed block beside it."""
    amount = currencies.format(record.money)
    memo = f" · {record.memo}" if record.memo else ""
    if record.merchant is not None:
        plain, formatted = merchant_sentence(record, record.merchant, amount=amount)
        content = notice(plain + memo, formatted=formatted + html.escape(memo))
        return {**content, "m.mentions": {"user_ids": list(record.people)}, RECEIPT: record.receipt}
    payer, payee = names[record.payer], names[record.payee]
    if record.kind is PaymentKind.DEPOSIT:
        text = f"{payee} got {amount} as a deposit{memo}"
        formatted = f"{pill(record.payee, payee)} got <strong>{html.escape(amount)}</strong> as a deposit"
    elif record.kind is PaymentKind.WITHDRAWAL:
        text = f"{payer} withdrew {amount}{memo}"
        formatted = f"{pill(record.payer, payer)} withdrew <strong>{html.escape(amount)}</strong>"
    else:
        text = f"{payer} paid {payee} {amount}{memo}"
        formatted = (
            f"{pill(record.payer, payer)} paid {pill(record.payee, payee)} "
            f"<strong>{html.escape(amount)}</strong>"
        )
    content = notice(text, formatted=formatted + html.escape(memo))
    # Both are told: clients notify whom a message mentions.
    people = [user for user in (record.payer, record.payee) if user != record.receipt["wallet"]]
    content["m.mentions"] = {"user_ids": people}
    return {**content, RECEIPT: record.receipt}
