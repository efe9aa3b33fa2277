"""Receipts in rooms: where each goes, and the sentence around the signed block."""

from __future__ import annotations

import html
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from appservices.chassis.chosen_languages import LanguageOf, english_for_all
from appservices.chassis.clock import Clock
from appservices.chassis.database import Write
from appservices.chassis.homeserver import MatrixRefused
from appservices.chassis.messages import notice, pill, reply_relation, shown_name
from appservices.chassis.outbox import Outgoing
from appservices.chassis.rooms import Room, Rooms
from appservices.vocabulary.events import RECEIPT
from appservices.vocabulary.ids import EventId, OutboxId, UserId, derived_id, localpart_of
from appservices.vocabulary.languages import _, isolated, speaking
from appservices.vocabulary.money import Currencies
from wallet_appservice.chat.merchant_receipts import merchant_sentence
from wallet_appservice.payments.records import (
    HOLD_SECONDS,
    Movement,
    PaymentKind,
    PaymentRecord,
    PaymentState,
)
from wallet_appservice.payments.till import RoomNotShared

PAYMENT_SUBJECT: Final = "payment"
DisplayName = Callable[[UserId], Awaitable[str | None]]


class RoomAnnouncer:
    """A receipt goes to the room where the payment was made, and to whoever of the two is not there."""

    def __init__(
        self,
        *,
        rooms: Rooms,
        display_name: DisplayName,
        language_of: LanguageOf,
        wallet_user: UserId,
        currencies: Currencies,
        clock: Clock,
    ) -> None:
        self._rooms = rooms
        self._display_name = display_name
        self._language_of = language_of
        self._wallet_user = wallet_user
        self._currencies = currencies
        self._clock = clock

    async def prepare(self, movement: Movement) -> Callable[[PaymentRecord], Sequence[Write]]:
        room = await self._shared_room(movement)
        if movement.waits_for_peer:
            return _untold
        people = (movement.payer, movement.payee)
        names: dict[UserId, str] = {}
        if movement.merchant is None:
            # A merchant's receipt names no person, and is made too often to ask the homeserver each time.
            names = {user: await self._name(user, room) for user in people}
        languages = {user: await self._language_of(user) for user in people}

        def announce(record: PaymentRecord) -> Sequence[Write]:
            return receipt_writes(
                record,
                names=names,
                languages=languages,
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
            if {movement.payer, self._wallet_user} <= room.members.joined.keys():
                return room
        except MatrixRefused as error:
            if movement.needs_room:
                raise RoomNotShared from error
        if movement.needs_room:
            raise RoomNotShared
        return None

    async def _name(self, user: UserId, room: Room | None) -> str:
        if user == self._wallet_user:
            # No sentence names the wallet.
            return localpart_of(user)
        if room is not None and user in room.members.joined:
            return room.name_of(user)
        return shown_name(user, await self._display_name(user))


class DirectAnnouncer:
    """For payments made without Matrix at hand (the command line): direct messages, names from user ids."""

    def __init__(
        self,
        *,
        wallet_user: UserId,
        currencies: Currencies,
        clock: Clock,
        language_of: LanguageOf = english_for_all,
    ) -> None:
        self._language_of = language_of
        self._wallet_user = wallet_user
        self._currencies = currencies
        self._clock = clock

    async def prepare(self, movement: Movement) -> Callable[[PaymentRecord], Sequence[Write]]:
        if movement.waits_for_peer:
            return _untold
        people = (movement.payer, movement.payee)
        names = {user: localpart_of(user) for user in people}
        languages = {user: await self._language_of(user) for user in people}

        def announce(record: PaymentRecord) -> Sequence[Write]:
            return receipt_writes(
                record,
                names=names,
                languages=languages,
                room=None,
                wallet_user=self._wallet_user,
                currencies=self._currencies,
                now_ms=self._clock(),
            )

        return announce


def _untold(_record: PaymentRecord) -> Sequence[Write]:
    """Of what another wallet has to answer, people are told when it has (clearing_announcements.py)."""
    return ()


def receipt_writes(
    record: PaymentRecord,
    *,
    names: dict[UserId, str],
    languages: dict[UserId, str],
    room: Room | None,
    wallet_user: UserId,
    currencies: Currencies,
    now_ms: int,
    in_reply_to: EventId | None = None,
) -> Sequence[Write]:
    """The outbox rows of a record's receipt, one per place it goes to.

    A room reads it in its payer's language, whom it is sent to alone in theirs.
    """

    def content_for(user: UserId) -> dict[str, Any]:
        with speaking(languages[user]):
            return receipt_message(record, names=names, currencies=currencies)

    # The end of a payment is about that payment; a refund is a payment of its own.
    about = record.of if record.kind is PaymentKind.PAYMENT and record.of is not None else record.id
    subject = f"{PAYMENT_SUBJECT}:{about}"
    present = room.members.joined.keys() if room is not None else frozenset()
    people = [user for user in record.people if user != wallet_user and user not in present]
    outgoing = [
        Outgoing(
            OutboxId(derived_id("receipt", record.id, "", user)),
            content_for(user),
            to_user=user,
            subject=subject,
        )
        for user in people
    ]
    if room is not None:
        content = content_for(record.payer)
        there = content if in_reply_to is None else {**content, **reply_relation(in_reply_to)}
        outbox_id = OutboxId(derived_id("receipt", record.id, room.room_id, ""))
        outgoing.insert(0, Outgoing(outbox_id, there, room_id=room.room_id, subject=subject))
    return [item.write(now_ms=now_ms) for item in outgoing]


def receipt_message(
    record: PaymentRecord, *, names: dict[UserId, str], currencies: Currencies
) -> dict[str, Any]:
    """The message of a receipt: readable by itself, with the signed block beside it."""
    amount = currencies.format(record.money)
    memo = f" · {isolated(record.memo)}" if record.memo else ""
    if record.merchant is not None:
        plain, formatted = merchant_sentence(record, record.merchant, amount=amount)
        content = notice(plain + memo, formatted=formatted + html.escape(memo))
        return {**content, "m.mentions": {"user_ids": list(record.people)}, RECEIPT: record.receipt}
    payer, payee = (isolated(names[user]) for user in (record.payer, record.payee))
    sentence, more = _sentences(record)
    text = sentence.format(payer=payer, payee=payee, amount=amount) + memo
    formatted = html.escape(sentence, quote=False).format(
        payer=pill(record.payer, payer),
        payee=pill(record.payee, payee),
        amount=f"<strong>{html.escape(amount)}</strong>",
    ) + html.escape(memo)
    if more:
        then = more.format(payee=payee, hours=HOLD_SECONDS // 3600)
        text, formatted = f"{text}\n{then}", f"{formatted}<br>{html.escape(then)}"
    content = notice(text, formatted=formatted)
    # Both are told: clients notify whom a message mentions.
    people = [user for user in (record.payer, record.payee) if user != record.receipt["wallet"]]
    content["m.mentions"] = {"user_ids": people}
    return {**content, RECEIPT: record.receipt}


def _sentences(record: PaymentRecord) -> tuple[str, str]:
    """What a receipt says, and what can be done about it ("" when nothing), their places still open."""
    match record.kind:
        case PaymentKind.DEPOSIT:
            return _("{payee} got {amount} as a deposit"), ""
        case PaymentKind.WITHDRAWAL:
            return _("{payer} withdrew {amount}"), ""
        case PaymentKind.REFUND:
            return _("{payer} gave {amount} back to {payee}"), ""
        case PaymentKind.RED_PACKET:
            return _("{payer} put {amount} into a red packet"), ""
        case PaymentKind.SHARE:
            return _("{payee} found {amount} in a red packet"), ""
        case PaymentKind.RETURN:
            return _("{payee} got {amount} back, which nobody had taken"), ""
        case PaymentKind.PAYMENT if record.state is PaymentState.PENDING:
            return (
                _("{payer} sent {payee} {amount}, which waits to be accepted"),
                _(
                    "{payee} can react with ✅ to accept or with ❌ to decline; "
                    "after {hours} hours it goes back."
                ),
            )
        case PaymentKind.PAYMENT if record.state is PaymentState.RETURNED:
            return _("{payer} got {amount} back, which {payee} did not accept"), ""
        case PaymentKind.PAYMENT if record.of is not None and not record.crosses_servers:
            return _("{payee} accepted {amount} from {payer}"), ""
        case PaymentKind.PAYMENT | PaymentKind.PURCHASE | PaymentKind.PAYOUT:
            return _("{payer} paid {payee} {amount}"), ""
