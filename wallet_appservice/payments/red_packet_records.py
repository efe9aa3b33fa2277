"""What a red packet is, and how much the next one finds in it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from appservices.vocabulary.ids import EventId, RoomId, TransferId, UserId, derived_id
from appservices.vocabulary.languages import language
from appservices.vocabulary.money import CurrencyCode, Money
from wallet_appservice.ledger.values import AccountKind, NewAccount, account_for
from wallet_appservice.payments.records import Authority, PaymentOrder, clean_memo

PACKET_SECONDS: Final = 24 * 3600
"""How long a red packet can be opened; what is left then goes back."""
PACKET_COUNT_MAX: Final = 200
"""Shares of one red packet."""
OPEN_PACKETS_MAX: Final = 100
"""Red packets of one person that are open at the same time."""
SUBJECT: Final = "red_packet"


class PacketState(StrEnum):
    """Where a red packet stands."""

    OPEN = "open"
    EMPTIED = "emptied"
    """Every share was drawn."""
    RETURNING = "returning"
    """Its time is over, and what is left is about to go back."""
    RETURNED = "returned"


class FoundState(StrEnum):
    """Whether what somebody has drawn has come to them."""

    DRAWN = "drawn"
    SENT = "sent"
    """The opener's wallet, on another homeserver, has still to answer."""
    PAID = "paid"
    LAPSED = "lapsed"
    """That wallet did not take it; it is about to go back to the packet's sender."""
    RETURNED = "returned"


@dataclass(frozen=True, slots=True)
class PacketOrder:
    """A red packet that somebody wants to put into a room. The id makes it safe to ask again."""

    id: TransferId
    sender: UserId
    room_id: RoomId
    money: Money
    count: int
    is_equal: bool = False
    words: str = ""
    in_reply_to: EventId | None = None
    authority: Authority = Authority.CHAT
    """How the sender is known; no part of what makes the packet itself."""

    def as_payment(self, wallet_user: UserId) -> PaymentOrder:
        """What the sender proves that they want: that the wallet takes so much for the room."""
        return PaymentOrder(
            id=self.id,
            payer=self.sender,
            payee=wallet_user,
            money=self.money,
            memo=self.words,
            room_id=self.room_id,
            authority=self.authority,
            subject=f"{SUBJECT}:{self.id}",
        )


@dataclass(frozen=True, slots=True)
class RedPacket:
    """A red packet as it stands."""

    id: TransferId
    sender: UserId
    room_id: RoomId
    money: Money
    """What was put into it."""
    count: int
    is_equal: bool
    words: str
    language: str
    created_at_ms: int
    expires_at_ms: int
    state: PacketState
    remaining_minor: int
    """What nobody has drawn, or had drawn when its time was over."""
    remaining_count: int
    version: int

    @property
    def subject(self) -> str:
        return f"{SUBJECT}:{self.id}"

    @property
    def is_over(self) -> bool:
        return self.state is not PacketState.OPEN

    def return_id(self) -> TransferId:
        return TransferId(derived_id("red packet return", self.id))


@dataclass(frozen=True, slots=True)
class FoundShare:
    """What one member has found in a red packet. `place` counts openers from 0."""

    opener: UserId
    place: int
    money: Money
    state: FoundState
    drawn_at_ms: int

    def payment_id(self, packet_id: TransferId) -> TransferId:
        return TransferId(derived_id("red packet share", packet_id, self.opener))

    def return_id(self, packet_id: TransferId) -> TransferId:
        return TransferId(derived_id("red packet share return", packet_id, self.opener))


def escrow_account(wallet: UserId, packet_id: TransferId, currency: CurrencyCode) -> NewAccount:
    """Where a packet's money waits: an account of its own, so that no share can take another packet's."""
    return account_for(AccountKind.ESCROW, owner=wallet, currency=currency, name=packet_id)


def drawn_minor(
    *,
    remaining_minor: int,
    remaining_count: int,
    total_minor: int,
    count: int,
    is_equal: bool,
    chance: random.Random,
) -> int:
    """What the next opener finds.

    Uniform between the least unit and twice the mean of what is left, but never so much that a later opener
    would find nothing; the last one takes the rest. In equal mode the remainder is found by the first ones, a
    least unit each.
    """
    if remaining_count == 1:
        return remaining_minor
    if is_equal:
        share, remainder = divmod(total_minor, count)
        return share + 1 if count - remaining_count < remainder else share
    twice_the_mean = 2 * remaining_minor // remaining_count
    return chance.randint(1, min(twice_the_mean, remaining_minor - (remaining_count - 1)))


def luckiest(shares: tuple[FoundShare, ...]) -> FoundShare | None:
    """Who found most, the first of those who found as much; nobody when there is nobody to compare with."""
    if len(shares) < 2:
        return None
    return max(shares, key=lambda share: (share.money.amount_minor, -share.place))


def new_packet(order: PacketOrder, *, now_ms: int) -> RedPacket:
    """The packet that an order makes, before anybody has opened it."""
    return RedPacket(
        id=order.id,
        sender=order.sender,
        room_id=order.room_id,
        money=order.money,
        count=order.count,
        is_equal=order.is_equal,
        words=clean_memo(order.words),
        language=language(),
        created_at_ms=now_ms,
        expires_at_ms=now_ms + PACKET_SECONDS * 1000,
        state=PacketState.OPEN,
        remaining_minor=order.money.amount_minor,
        remaining_count=order.count,
        version=0,
    )


def is_same(packet: RedPacket, order: PacketOrder) -> bool:
    """Whether the order asks for this very packet again."""
    return (packet.sender, packet.room_id, packet.money, packet.count, packet.is_equal, packet.words) == (
        order.sender,
        order.room_id,
        order.money,
        order.count,
        order.is_equal,
        clean_memo(order.words),
    )
