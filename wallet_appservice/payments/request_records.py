"""What a request for money is, to those who make, pay or show one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from appservices.vocabulary.ids import EventId, RoomId, TransferId, UserId, derived_id, server_of
from appservices.vocabulary.languages import language
from appservices.vocabulary.money import Money
from wallet_appservice.payments.records import Authority, PaymentOrder, clean_memo

REQUEST_SECONDS: Final = 7 * 24 * 3600
"""How long a request waits to be paid."""
REMINDER_SECONDS: Final = 24 * 3600
"""After which whoever has not paid is reminded, once."""
SPLIT_PEOPLE_MAX: Final = 50
OPEN_REQUESTS_MAX: Final = 100
"""Requests of one person that are open at the same time."""
SUBJECT: Final = "request"


class ShareState(StrEnum):
    """Where one asked person's share stands. All but `open` and `paying` are final."""

    OPEN = "open"
    PAYING = "paying"
    """Money is about to move; whoever finds it so long afterwards finishes it."""
    PAID = "paid"
    DECLINED = "declined"
    CANCELLED = "cancelled"
    """Taken back by the requester."""
    EXPIRED = "expired"
    UNREACHED = "unreached"
    """The wallet of whoever is asked did not take the request to them."""
    OWN = "own"
    """The requester's own part of a split, which nobody has to pay."""


@dataclass(frozen=True, slots=True)
class RequestOrder:
    """A request that somebody wants to make. The id makes it safe to ask again."""

    id: TransferId
    requester: UserId
    people: tuple[UserId, ...]
    money: Money
    """Of all shares together."""
    memo: str = ""
    room_id: RoomId | None = None
    in_reply_to: EventId | None = None
    is_split: bool = False


@dataclass(frozen=True, slots=True)
class RequestShare:
    """What one person is asked for."""

    asked: UserId
    money: Money
    state: ShareState
    has_copy: bool
    """Whether they got the request directly, because they are not in its room."""
    attempt: int
    authority: Authority
    changed_at_ms: int

    @property
    def is_open(self) -> bool:
        return self.state in (ShareState.OPEN, ShareState.PAYING)


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it stands."""

    id: TransferId
    requester: UserId
    room_id: RoomId | None
    money: Money
    memo: str
    is_split: bool
    language: str
    created_at_ms: int
    expires_at_ms: int
    version: int
    shares: tuple[RequestShare, ...]

    @property
    def subject(self) -> str:
        return f"{SUBJECT}:{self.id}"

    @property
    def is_open(self) -> bool:
        return any(share.is_open for share in self.shares)

    def share_of(self, user: UserId) -> RequestShare | None:
        return next((share for share in self.shares if share.asked == user), None)

    def as_payment(self, share: RequestShare) -> PaymentOrder:
        """What somebody proves that they want, when they pay their share."""
        return PaymentOrder(
            id=self.id,
            payer=share.asked,
            payee=self.requester,
            money=share.money,
            memo=self.memo,
            authority=Authority.SESSION,
            subject=self.subject,
        )

    def payment_id(self, share: RequestShare) -> TransferId:
        """Of the share's present attempt; the next one is another payment to the ledger."""
        return TransferId(derived_id("request", self.id, share.asked, str(share.attempt)))


def equal_shares(total_minor: int, heads: int) -> list[int]:
    """What each pays; the remainder is borne by the first ones, a least unit each."""
    share, remainder = divmod(total_minor, heads)
    return [share + 1 if place < remainder else share for place in range(heads)]


def new_request(order: RequestOrder, *, present: frozenset[UserId], now_ms: int) -> Request:
    """The request that an order makes, with everybody's share. `present` are those in its room."""
    amounts = equal_shares(order.money.amount_minor, len(order.people))
    return Request(
        id=order.id,
        requester=order.requester,
        room_id=order.room_id,
        money=order.money,
        memo=clean_memo(order.memo),
        is_split=order.is_split,
        language=language(),
        created_at_ms=now_ms,
        expires_at_ms=now_ms + REQUEST_SECONDS * 1000,
        version=0,
        shares=tuple(
            RequestShare(
                asked=asked,
                money=Money(amount_minor, order.money.currency),
                state=ShareState.OWN if asked == order.requester else ShareState.OPEN,
                # Whom another wallet serves has a message of that one.
                has_copy=asked not in present
                and asked != order.requester
                and server_of(asked) == server_of(order.requester),
                attempt=0,
                authority=Authority.CHAT,
                changed_at_ms=now_ms,
            )
            for asked, amount_minor in zip(order.people, amounts, strict=True)
        ),
    )


def request_from_elsewhere(
    id: TransferId,
    *,
    requester: UserId,
    asked: UserId,
    money: Money,
    memo: str,
    now_ms: int,
    expires_at_ms: int,
) -> Request:
    """What a requester of another homeserver asks one person of ours for, in the language spoken."""
    share = RequestShare(
        asked=asked,
        money=money,
        state=ShareState.OPEN,
        has_copy=True,
        attempt=0,
        authority=Authority.CHAT,
        changed_at_ms=now_ms,
    )
    return Request(
        id=id,
        requester=requester,
        room_id=None,
        money=money,
        memo=memo,
        is_split=False,
        language=language(),
        created_at_ms=now_ms,
        expires_at_ms=expires_at_ms,
        version=0,
        shares=(share,),
    )


def is_same(request: Request, order: RequestOrder) -> bool:
    """Whether the order asks for this very request again."""
    return (
        request.requester,
        tuple(share.asked for share in request.shares),
        request.money,
        request.memo,
        request.room_id,
        request.is_split,
    ) == (
        order.requester,
        order.people,
        order.money,
        clean_memo(order.memo),
        order.room_id,
        order.is_split,
    )
