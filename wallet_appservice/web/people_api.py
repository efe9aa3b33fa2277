"""The part of the wallet's HTTP API by which people deal with one another: requests, red packets, refunds,
acceptance, being paid, and what is pending. See docs/protocol/people-api.md."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated, Final, TypeVar

from fastapi import APIRouter, Path, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from appservices.chassis.signed_in import SessionGuard
from appservices.chassis.web_errors import ApiError, ApiRoute
from appservices.vocabulary.ids import RoomId, TransferId, UserId
from appservices.vocabulary.money import CurrencyCode, Money
from wallet_appservice.ledger.engine import LedgerUnavailable
from wallet_appservice.payments.pending import PENDING_MAX, PendingItem
from wallet_appservice.payments.people import People
from wallet_appservice.payments.receive import RECEIVE_MEMO_LENGTH_MAX, qr_svg, way_to_pay
from wallet_appservice.payments.records import Authority
from wallet_appservice.payments.red_packet_openings import Found
from wallet_appservice.payments.red_packet_records import (
    PACKET_COUNT_MAX,
    FoundShare,
    PacketOrder,
    RedPacket,
    luckiest,
)
from wallet_appservice.payments.refunds import RefundOrder
from wallet_appservice.payments.refusals import REFUSALS, PaymentRefused
from wallet_appservice.payments.request_records import SPLIT_PEOPLE_MAX, RequestOrder
from wallet_appservice.payments.request_records import Request as MoneyRequest
from wallet_appservice.web.api_values import (
    AmountText,
    CurrencyText,
    LedgerId,
    MemoText,
    PaymentBody,
    RoomText,
    UserText,
    errors,
    one_line,
    payment_body,
    unavailable,
)

PENDING_DEFAULT: Final = 50
_Answer = TypeVar("_Answer")


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
    state: str = Field(description="open, paying, paid, declined, cancelled, expired, or own.")


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


class NewRedPacketBody(BaseModel):
    """A red packet that you put into a room."""

    model_config = ConfigDict(extra="forbid", strict=True)

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


def people_api(people: People, guard: SessionGuard, public_url: str) -> APIRouter:
    """The routes, to be included in the wallet's API. `public_url` is where people reach Weft's pages."""
    router = APIRouter(route_class=ApiRoute)
    _add_requests(router, people, guard)
    _add_red_packets(router, people, guard)
    _add_endings(router, people, guard)
    _add_views(router, people, guard, public_url)
    return router


def _add_requests(router: APIRouter, people: People, guard: SessionGuard) -> None:
    requests = people.requests

    @router.post(
        "/v1/requests",
        summary="Ask someone for money",
        tags=["requests"],
        responses=errors(400, 401, 403, 404, 409, 413),
    )
    async def ask(request: Request, body: NewRequestBody) -> RequestBody:
        user = (await guard.require_api(request)).user_id
        order = RequestOrder(
            id=TransferId(body.id),
            requester=user,
            people=(UserId(body.asked),),
            money=_money(body.amount_minor, body.currency),
            memo=body.memo,
            room_id=_room(body.room_id),
        )
        return _request_body(await _answered(requests.ask(order)))

    @router.post(
        "/v1/splits",
        summary="Ask several people, each for an equal part",
        tags=["requests"],
        responses=errors(400, 401, 403, 404, 409, 413),
    )
    async def split(request: Request, body: NewSplitBody) -> RequestBody:
        user = (await guard.require_api(request)).user_id
        order = RequestOrder(
            id=TransferId(body.id),
            requester=user,
            people=tuple(UserId(asked) for asked in body.people),
            money=_money(body.amount_minor, body.currency),
            memo=body.memo,
            room_id=_room(body.room_id),
            is_split=True,
        )
        return _request_body(await _answered(requests.ask(order)))

    @router.get(
        "/v1/requests/{id}",
        summary="A request that you made or are asked by",
        tags=["requests"],
        responses=errors(400, 401, 404),
    )
    async def one(request: Request, id: Annotated[LedgerId, Path()]) -> RequestBody:
        user = (await guard.require_api(request)).user_id
        found = await requests.request(user, TransferId(id))
        if found is None:
            raise ApiError(404, "M_NOT_FOUND", "There is no such request of yours.")
        return _request_body(found)

    @router.post(
        "/v1/requests/{id}/pay",
        summary="Pay your share",
        tags=["requests"],
        responses=errors(400, 401, 402, 403, 404, 409, 503),
    )
    async def pay(request: Request, id: Annotated[LedgerId, Path()]) -> PaymentBody:
        user = (await guard.require_api(request)).user_id
        paid = await _answered(requests.pay(user, TransferId(id), authority=Authority.SESSION))
        return payment_body(paid)

    @router.post(
        "/v1/requests/{id}/decline",
        summary="Decline to pay your share",
        tags=["requests"],
        responses=errors(400, 401, 404, 409),
    )
    async def decline(request: Request, id: Annotated[LedgerId, Path()]) -> RequestBody:
        user = (await guard.require_api(request)).user_id
        return _request_body(await _answered(requests.decline(user, TransferId(id))))

    @router.post(
        "/v1/requests/{id}/cancel",
        summary="Take back your own request",
        tags=["requests"],
        responses=errors(400, 401, 404, 409),
    )
    async def cancel(request: Request, id: Annotated[LedgerId, Path()]) -> RequestBody:
        user = (await guard.require_api(request)).user_id
        return _request_body(await _answered(requests.cancel(user, TransferId(id))))


def _add_red_packets(router: APIRouter, people: People, guard: SessionGuard) -> None:
    packets = people.red_packets

    async def shown(user: UserId, id: TransferId) -> RedPacketBody:
        found = await packets.packet(user, id)
        if found is None:
            raise ApiError(404, "M_NOT_FOUND", "There is no such red packet for you.")
        return _packet_body(*found, user=user)

    @router.post(
        "/v1/red-packets",
        summary="Put a red packet into a room",
        tags=["red packets"],
        responses=errors(400, 401, 402, 403, 409, 413, 503),
    )
    async def fill(request: Request, body: NewRedPacketBody) -> RedPacketBody:
        user = (await guard.require_api(request)).user_id
        order = PacketOrder(
            id=TransferId(body.id),
            sender=user,
            room_id=RoomId(body.room_id),
            money=_money(body.amount_minor, body.currency),
            count=body.count,
            is_equal=body.equal,
            words=body.words,
            authority=Authority.SESSION,
        )
        await _answered(packets.fill(order))
        return await shown(user, order.id)

    @router.get(
        "/v1/red-packets/{id}",
        summary="A red packet of a room of yours",
        tags=["red packets"],
        responses=errors(400, 401, 404),
    )
    async def one(request: Request, id: Annotated[LedgerId, Path()]) -> RedPacketBody:
        user = (await guard.require_api(request)).user_id
        return await shown(user, TransferId(id))

    @router.post(
        "/v1/red-packets/{id}/open",
        summary="Open it; again, it says what you found",
        tags=["red packets"],
        responses=errors(400, 401, 404, 409, 503),
    )
    async def open_it(request: Request, id: Annotated[LedgerId, Path()]) -> RedPacketBody:
        user = (await guard.require_api(request)).user_id
        opened: Found = await _answered(packets.open(user, TransferId(id)))
        return await shown(user, opened.packet.id)


def _add_endings(router: APIRouter, people: People, guard: SessionGuard) -> None:
    @router.post(
        "/v1/refunds",
        summary="Give back what was paid to you",
        tags=["money"],
        responses=errors(400, 401, 402, 404, 409, 413, 503),
    )
    async def refund(request: Request, body: NewRefundBody) -> PaymentBody:
        user = (await guard.require_api(request)).user_id
        payment = await people.payments.payment(user, TransferId(body.payment))
        money = (
            Money(int(body.amount_minor), payment.money.currency)
            if payment is not None and body.amount_minor is not None
            else None
        )
        order = RefundOrder(
            id=TransferId(body.id),
            payment_id=TransferId(body.payment),
            by=user,
            money=money,
            memo=body.memo,
            room_id=_room(body.room_id),
        )
        return payment_body(await _answered(people.refunds.refund(order)))

    @router.post(
        "/v1/acceptances",
        summary="Accept or decline a payment that waits for you",
        tags=["money"],
        responses=errors(400, 401, 404, 409, 413, 503),
    )
    async def answer(request: Request, body: AcceptanceBody) -> PaymentBody:
        user = (await guard.require_api(request)).user_id
        end = people.acceptance.accept if body.accept else people.acceptance.decline
        return payment_body(await _answered(end(user, TransferId(body.payment))))

    @router.get(
        "/v1/settings/acceptance",
        summary="Whether payments to you wait until you accept them",
        tags=["settings"],
        responses=errors(401),
    )
    async def acceptance(request: Request) -> AcceptanceSettingBody:
        user = (await guard.require_api(request)).user_id
        return AcceptanceSettingBody(on=await people.settings.waits_for_acceptance(user))

    @router.put(
        "/v1/settings/acceptance",
        summary="Choose whether payments to you wait until you accept them",
        tags=["settings"],
        responses=errors(400, 401, 403, 413),
    )
    async def choose(request: Request, body: AcceptanceSettingBody) -> AcceptanceSettingBody:
        user = (await guard.require_api(request)).user_id
        if not body.on and people.settings.acceptance_of_all:
            raise ApiError(403, "M_FORBIDDEN", "On this server all payments wait to be accepted.")
        await people.payments.till.write(people.settings.acceptance_writes(user, on=body.on))
        return AcceptanceSettingBody(on=body.on)


def _add_views(router: APIRouter, people: People, guard: SessionGuard, public_url: str) -> None:
    @router.get("/v1/pending", summary="What is not over yet", tags=["money"], responses=errors(400, 401))
    async def pending(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=PENDING_MAX)] = PENDING_DEFAULT,
        after: Annotated[
            str | None,
            Query(max_length=64, description="`next_after` of the page before."),
        ] = None,
    ) -> PendingPageBody:
        user = (await guard.require_api(request)).user_id
        page = await people.pending.of(user, limit=limit, after=after)
        return PendingPageBody(
            pending=[_pending_body(item) for item in page.items], next_after=page.next_after
        )

    @router.get(
        "/v1/receive",
        summary="A link and a QR code to be paid by",
        tags=["money"],
        responses=errors(400, 401),
    )
    async def receive(
        request: Request,
        amount_minor: Annotated[str | None, Query(pattern="^[1-9][0-9]{0,15}$")] = None,
        currency: Annotated[str | None, Query(pattern="^[A-Z]{3,8}$")] = None,
        memo: Annotated[str, Query(max_length=RECEIVE_MEMO_LENGTH_MAX), AfterValidator(one_line)] = "",
    ) -> ReceiveBody:
        user = (await guard.require_api(request)).user_id
        currencies = people.payments.currencies
        code = CurrencyCode(currency) if currency is not None else currencies.default.code
        money = None
        if amount_minor is not None:
            if code not in currencies:
                raise ApiError(400, "DEV_WEFT_CURRENCY_UNKNOWN", "This wallet does not keep this currency.")
            money = _money(amount_minor, code)
        way = way_to_pay(user, money=money, memo=memo, public_url=public_url, currencies=currencies)
        return ReceiveBody(link=way.link, command=way.command, qr_svg=qr_svg(way))


async def _answered(asked: Awaitable[_Answer | PaymentRefused]) -> _Answer:
    """The answer, a refusal or an absent ledger being the API's errors."""
    try:
        outcome = await asked
    except LedgerUnavailable as error:
        raise unavailable() from error
    if isinstance(outcome, PaymentRefused):
        outside = REFUSALS[outcome.refusal]
        raise ApiError(outside.http_status, outside.errcode, outcome.sentence)
    return outcome


def _money(amount_minor: str, currency: str) -> Money:
    return Money(int(amount_minor), CurrencyCode(currency))


def _room(room_id: str | None) -> RoomId | None:
    return None if room_id is None else RoomId(room_id)


def _request_body(request: MoneyRequest) -> RequestBody:
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


def _packet_body(packet: RedPacket, shares: tuple[FoundShare, ...], *, user: UserId) -> RedPacketBody:
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


def _pending_body(item: PendingItem) -> PendingBody:
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
