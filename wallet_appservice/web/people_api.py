"""The part of the wallet's HTTP API by which people deal with one another: requests, red packets, refunds,
acceptance, being paid, and what is pending. See docs/protocol/people-api.md."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace
from typing import Annotated, Final, TypeVar

from fastapi import APIRouter, Path, Query, Request
from pydantic import AfterValidator

from appservices.chassis.signed_in import SessionGuard
from appservices.chassis.web_errors import ApiError, ApiRoute
from appservices.vocabulary.ids import RoomId, TransferId, UserId
from appservices.vocabulary.money import CurrencyCode, Money
from wallet_appservice.ledger.submissions import LedgerUnavailable
from wallet_appservice.payments.code_pictures import qr_svg
from wallet_appservice.payments.pending import PENDING_MAX
from wallet_appservice.payments.people import People
from wallet_appservice.payments.proofs import Proofs
from wallet_appservice.payments.receive import RECEIVE_MEMO_LENGTH_MAX, way_to_pay
from wallet_appservice.payments.records import Authority
from wallet_appservice.payments.red_packet_openings import Found
from wallet_appservice.payments.red_packet_records import (
    PacketOrder,
)
from wallet_appservice.payments.refunds import RefundOrder
from wallet_appservice.payments.refusals import REFUSALS, PaymentRefused
from wallet_appservice.payments.request_records import RequestOrder
from wallet_appservice.payments.till import Outcome
from wallet_appservice.web.api_values import (
    ELSEWHERE_SECONDS_MAX,
    LedgerId,
    PaymentBody,
    errors,
    one_line,
    payment_body,
    unavailable,
)
from wallet_appservice.web.people_bodies import (
    AcceptanceBody,
    AcceptanceSettingBody,
    NewRedPacketBody,
    NewRefundBody,
    NewRequestBody,
    NewSplitBody,
    PendingPageBody,
    ReceiveBody,
    RedPacketBody,
    RequestBody,
    packet_body,
    pending_body,
    request_body,
)
from wallet_appservice.web.security_api import ProofBody

PENDING_DEFAULT: Final = 50
_Answer = TypeVar("_Answer")


def people_api(people: People, guard: SessionGuard, proofs: Proofs, public_url: str) -> APIRouter:
    """The routes, to be included in the wallet's API. `public_url` is where people reach Weft's pages."""
    router = APIRouter(route_class=ApiRoute)
    _add_requests(router, people, guard, proofs)
    _add_red_packets(router, people, guard, proofs)
    _add_endings(router, people, guard)
    _add_views(router, people, guard, public_url)
    return router


def _add_requests(router: APIRouter, people: People, guard: SessionGuard, proofs: Proofs) -> None:
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
        return request_body(await _answered(requests.ask(order)))

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
        return request_body(await _answered(requests.ask(order)))

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
        return request_body(found)

    @router.post(
        "/v1/requests/{id}/pay",
        summary="Pay your share",
        tags=["requests"],
        responses=errors(400, 401, 402, 403, 404, 409, 503),
    )
    async def pay(
        request: Request, id: Annotated[LedgerId, Path()], body: ProofBody | None = None
    ) -> PaymentBody:
        user = (await guard.require_api(request)).user_id
        found = await requests.request(user, TransferId(id))
        share = found.share_of(user) if found is not None else None
        authority = Authority.SESSION
        if found is not None and share is not None and body is not None:
            proven = await _answered(proofs.proven(found.as_payment(share), body.proof()))
            authority = proven.authority

        async def paid() -> Outcome:
            outcome = await requests.pay(user, TransferId(id), authority=authority)
            return await people.payments.answered(outcome, seconds_max=ELSEWHERE_SECONDS_MAX)

        return payment_body(await _answered(paid()))

    @router.post(
        "/v1/requests/{id}/decline",
        summary="Decline to pay your share",
        tags=["requests"],
        responses=errors(400, 401, 404, 409),
    )
    async def decline(request: Request, id: Annotated[LedgerId, Path()]) -> RequestBody:
        user = (await guard.require_api(request)).user_id
        return request_body(await _answered(requests.decline(user, TransferId(id))))

    @router.post(
        "/v1/requests/{id}/cancel",
        summary="Take back your own request",
        tags=["requests"],
        responses=errors(400, 401, 404, 409),
    )
    async def cancel(request: Request, id: Annotated[LedgerId, Path()]) -> RequestBody:
        user = (await guard.require_api(request)).user_id
        return request_body(await _answered(requests.cancel(user, TransferId(id))))


def _add_red_packets(router: APIRouter, people: People, guard: SessionGuard, proofs: Proofs) -> None:
    packets = people.red_packets

    async def shown(user: UserId, id: TransferId) -> RedPacketBody:
        found = await packets.packet(user, id)
        if found is None:
            raise ApiError(404, "M_NOT_FOUND", "There is no such red packet for you.")
        return packet_body(*found, user=user)

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
        proven = await _answered(proofs.proven(order.as_payment(people.payments.wallet_user), body.proof()))
        await _answered(packets.fill(replace(order, authority=proven.authority)))
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

        async def given_back() -> Outcome:
            outcome = await people.refunds.refund(order)
            return await people.payments.answered(outcome, seconds_max=ELSEWHERE_SECONDS_MAX)

        return payment_body(await _answered(given_back()))

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
            pending=[pending_body(item) for item in page.items], next_after=page.next_after
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
        return ReceiveBody(link=way.link, command=way.command, qr_svg=qr_svg(way.link))


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
