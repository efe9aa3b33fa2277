"""What the API between people takes and answers with. See docs/protocol/people-api.md."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from appservices.vocabulary.ids import UserId
from wallet_appservice.payments.pending import PendingItem
from wallet_appservice.payments.red_packet_records import PACKET_COUNT_MAX, FoundShare, RedPacket, luckiest
from wallet_appservice.payments.request_records import SPLIT_PEOPLE_MAX, Request
from wallet_appservice.web.api_values import AmountText, CurrencyText, LedgerId, MemoText, RoomText, UserText
from wallet_appservice.web.security_api import ProofBody


class NewRequestBody(BaseModel):
    """What you want to be paid."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: LedgerId = Field(description="Yours to choose, at random. The same id again asks once.")
    asked: UserText
    amount_minor: AmountText
    currency: CurrencyText
    memo: MemoText = ""
    room_id: RoomText = Field(
        default=None, description="Where it is asked; you and the wallet are both there."
    )


class NewSplitBody(BaseModel):
    """What you want to be paid by several people, in equal parts."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: LedgerId
    people: Annotated[list[UserText], Field(min_length=1, max_length=SPLIT_PEOPLE_MAX)] = Field(
        description="The first ones bear what can't be divided. Name yourself to bear a part."
    )
    amount_minor: AmountText
    currency: CurrencyText
    memo: MemoText = ""
    room_id: RoomText = None


class ShareBody(BaseModel):
    asked: str
    amount_minor: str
    state: str = Field(description="open, paying, paid, declined, cancelled, expired, unreached, or own.")


class RequestBody(BaseModel):
    id: str
    requester: str
    amount_minor: str = Field(description="Of all shares together.")
    currency: str
    memo: str
    room_id: str | None
    is_split: bool
    is_open: bool
    at_ms: int
    expires_at_ms: int
    shares: list[ShareBody]


class NewRedPacketBody(ProofBody):
    """A red packet that you put into a room."""

    id: LedgerId
    room_id: Annotated[str, Field(max_length=255, pattern=r"^![^\s\x00-\x1f]+$")]
    amount_minor: AmountText
    currency: CurrencyText
    count: Annotated[int, Field(ge=1, le=PACKET_COUNT_MAX)]
    equal: bool = Field(default=False, description="Whether each finds the same.")
    words: MemoText = ""


class FoundBody(BaseModel):
    opener: str
    amount_minor: str
    at_ms: int


class RedPacketBody(BaseModel):
    id: str
    sender: str
    room_id: str
    amount_minor: str
    currency: str
    count: int
    equal: bool
    words: str
    state: str = Field(description="open, emptied, returning, or returned.")
    at_ms: int
    expires_at_ms: int
    opened: list[FoundBody] = Field(description="In the order of opening.")
    luckiest: str | None = Field(description="Who found most, once it is over; never in equal mode.")
    found_minor: str | None = Field(description="What you found in it.")


class NewRefundBody(BaseModel):
    """What you give back of a payment to you."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: LedgerId = Field(description="Yours to choose, at random. The same id again gives back once.")
    payment: LedgerId = Field(description="The id of the payment.")
    amount_minor: AmountText | None = Field(
        default=None, description="In the payment's currency; left out for all that is left of it."
    )
    memo: MemoText = ""
    room_id: RoomText = None


class AcceptanceBody(BaseModel):
    """Your answer to a payment that waits for it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    payment: LedgerId
    accept: bool = Field(description="false lets it go back.")


class AcceptanceSettingBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    on: bool = Field(description="Whether payments to you wait until you accept them.")


class PendingBody(BaseModel):
    kind: str = Field(description="request, red_packet, or payment.")
    id: str
    waits_for_me: bool
    other: str | None = Field(description="Who asked you or has to act; null for several people.")
    amount_minor: str
    currency: str
    memo: str
    ends_at_ms: int | None


class PendingPageBody(BaseModel):
    pending: list[PendingBody] = Field(description="What ends soonest first.")
    next_after: str | None = Field(description="Send it as `after` for the next page; null on the last.")


class ReceiveBody(BaseModel):
    link: str = Field(description="Opens a payment to you; it is what the QR code holds.")
    command: str = Field(description="What somebody types instead.")
    qr_svg: str = Field(description="The QR code, to be put into a page.")


def request_body(request: Request) -> RequestBody:
    return RequestBody(
        id=request.id,
        requester=request.requester,
        amount_minor=str(request.money.amount_minor),
        currency=request.money.currency,
        memo=request.memo,
        room_id=request.room_id,
        is_split=request.is_split,
        is_open=request.is_open,
        at_ms=request.created_at_ms,
        expires_at_ms=request.expires_at_ms,
        shares=[
            ShareBody(asked=share.asked, amount_minor=str(share.money.amount_minor), state=share.state.value)
            for share in request.shares
        ],
    )


def packet_body(packet: RedPacket, shares: tuple[FoundShare, ...], *, user: UserId) -> RedPacketBody:
    best = luckiest(shares) if packet.is_over and not packet.is_equal else None
    mine = next((share for share in shares if share.opener == user), None)
    return RedPacketBody(
        id=packet.id,
        sender=packet.sender,
        room_id=packet.room_id,
        amount_minor=str(packet.money.amount_minor),
        currency=packet.money.currency,
        count=packet.count,
        equal=packet.is_equal,
        words=packet.words,
        state=packet.state.value,
        at_ms=packet.created_at_ms,
        expires_at_ms=packet.expires_at_ms,
        opened=[
            FoundBody(
                opener=share.opener, amount_minor=str(share.money.amount_minor), at_ms=share.drawn_at_ms
            )
            for share in shares
        ],
        luckiest=best.opener if best is not None else None,
        found_minor=str(mine.money.amount_minor) if mine is not None else None,
    )


def pending_body(item: PendingItem) -> PendingBody:
    return PendingBody(
        kind=item.kind.value,
        id=item.id,
        waits_for_me=item.waits_for_me,
        other=item.other,
        amount_minor=str(item.money.amount_minor),
        currency=item.money.currency,
        memo=item.memo,
        ends_at_ms=item.ends_at_ms,
    )
