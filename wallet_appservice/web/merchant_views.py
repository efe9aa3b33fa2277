"""Merchants, orders and the rest as bodies, shared by the routes that show them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import date
from typing import IO, Final
from zoneinfo import ZoneInfo

from fastapi.responses import StreamingResponse

from appservices.chassis.web_errors import ApiError
from appservices.vocabulary.money import CurrencyCode
from wallet_appservice.books.exports import Amounts
from wallet_appservice.books.reconciliation import Day, reconciliation_lines
from wallet_appservice.payments.accounts import merchant_account
from wallet_appservice.payments.merchants.api_keys import ApiKey
from wallet_appservice.payments.merchants.desk import MerchantDesk
from wallet_appservice.payments.merchants.endpoints import Delivery, Endpoint
from wallet_appservice.payments.merchants.events import WAITING
from wallet_appservice.payments.merchants.records import Merchant, Order, OrderId, OrderState, OrderWay
from wallet_appservice.payments.merchants.refunds import Refund, RefundState
from wallet_appservice.web.api import PREFIX, BalanceBody
from wallet_appservice.web.merchant_bodies import (
    DeliveriesBody,
    DeliveryBody,
    EndpointBody,
    KeyBody,
    MerchantBalancesBody,
    MerchantBody,
    OrderBody,
    OrdersBody,
    PayersOrderBody,
    RefundBody,
)

FILE_MEMORY_BYTES: Final = 4 * 1024 * 1024
"""A reconciliation file above this is written to the disk before it is sent."""
CHUNK_BYTES: Final = 64 * 1024


def merchant_body(merchant: Merchant) -> MerchantBody:
    return MerchantBody(
        id=merchant.id,
        name=merchant.name,
        owner=merchant.owner,
        created_at_ms=merchant.created_at_ms,
        closed_at_ms=merchant.closed_at_ms,
    )


async def balances_body(desk: MerchantDesk, merchant: Merchant) -> MerchantBalancesBody:
    return MerchantBalancesBody(
        merchant=merchant_body(merchant),
        balances=[
            BalanceBody(
                currency=account.currency,
                exponent=desk.payments.currencies[account.currency].exponent,
                posted_minor=str(account.posted_minor),
                pending_minor=str(account.held_minor),
                available_minor=str(account.available_minor),
            )
            for account in await desk.merchants.accounts(merchant)
        ],
    )


def key_body(key: ApiKey) -> KeyBody:
    return KeyBody(
        id=key.id,
        name=key.name,
        scopes=sorted(key.scopes),
        created_at_ms=key.created_at_ms,
        revoked_at_ms=key.revoked_at_ms,
        last_used_at_ms=key.last_used_at_ms,
    )


def endpoint_body(endpoint: Endpoint) -> EndpointBody:
    return EndpointBody(
        id=endpoint.id,
        url=endpoint.url,
        created_at_ms=endpoint.created_at_ms,
        disabled_at_ms=endpoint.disabled_at_ms,
    )


def pay_url(public_url: str, id: OrderId) -> str:
    """The page where an order is paid, as its QR code says it."""
    return f"{public_url.rstrip('/')}/wallet/order/{id}"


def order_body(order: Order, *, public_url: str) -> OrderBody:
    is_paid, has_link = order.state is OrderState.PAID, order.way is OrderWay.LINK
    return OrderBody(
        id=order.id,
        reference=order.reference,
        way=order.way,
        description=order.description,
        amount_minor=str(order.amount_minor),
        currency=order.currency,
        state=order.state,
        created_at_ms=order.created_at_ms,
        expires_at_ms=order.expires_at_ms,
        ended_at_ms=order.ended_at_ms,
        payer=order.payer if is_paid else None,
        payment_id=order.payment_id if is_paid else None,
        pay_url=pay_url(public_url, order.id) if has_link else None,
        qr_url=f"{public_url.rstrip('/')}{PREFIX}/v1/orders/{order.id}/qr.svg" if has_link else None,
    )


def orders_body(orders: list[Order], *, limit: int, public_url: str) -> OrdersBody:
    last = orders[-1] if len(orders) == limit else None
    return OrdersBody(
        orders=[order_body(order, public_url=public_url) for order in orders],
        next_before=None if last is None else f"{last.created_at_ms}-{last.id}",
    )


def order_place(before: str | None) -> tuple[int, str] | None:
    """`next_before` as orders are asked for by it; its form was checked by the route."""
    if before is None:
        return None
    created_at_ms, _, id = before.partition("-")
    return int(created_at_ms), id


def payers_order_body(order: Order, merchant: Merchant, *, payer: str) -> PayersOrderBody:
    is_theirs = order.state is OrderState.PAID and order.payer == payer
    return PayersOrderBody(
        id=order.id,
        merchant_id=merchant.id,
        merchant_name=merchant.name,
        merchant_owner=merchant.owner,
        reference=order.reference,
        description=order.description,
        amount_minor=str(order.amount_minor),
        currency=order.currency,
        state=order.state,
        expires_at_ms=order.expires_at_ms,
        payment_id=order.payment_id if is_theirs else None,
    )


def refund_body(refund: Refund) -> RefundBody:
    return RefundBody(
        refund_number=refund.refund_number,
        order_id=refund.order_id,
        payment_id=refund.payment_id,
        amount_minor=str(refund.money.amount_minor),
        currency=refund.money.currency,
        reason=refund.reason,
        state=refund.state,
        created_at_ms=refund.created_at_ms,
        refund_payment_id=refund.transfer_id if refund.state is RefundState.MADE else None,
    )


def delivery_body(delivery: Delivery) -> DeliveryBody:
    return DeliveryBody(
        id=delivery.id,
        webhook_id=delivery.event_id,
        endpoint_id=delivery.endpoint_id,
        event=delivery.event,
        state=delivery.state,
        attempts=delivery.attempts,
        created_at_ms=delivery.created_at_ms,
        next_at_ms=delivery.next_at_ms if delivery.state == WAITING else None,
        problem=delivery.problem,
        payload=delivery.payload,
    )


def deliveries_body(deliveries: list[Delivery], *, limit: int) -> DeliveriesBody:
    last = deliveries[-1].position if len(deliveries) == limit else None
    return DeliveriesBody(
        deliveries=[delivery_body(delivery) for delivery in deliveries],
        next_before=None if last is None else str(last),
    )


async def reconciliation_file(
    desk: MerchantDesk, merchant: Merchant, *, day: str, currency: str, zone: str
) -> StreamingResponse:
    """The file is made in full before it is sent: a slow reader holds no database connection, and a file that
    does not add up is never begun. Raises ApiError."""
    currencies = desk.payments.currencies
    if currency not in currencies:
        raise ApiError(400, "DEV_WEFT_CURRENCY_UNKNOWN", f"This wallet keeps {', '.join(currencies)}.")
    code = CurrencyCode(currency)
    account = merchant_account(merchant.id, merchant.owner, code)
    lines = reconciliation_lines(
        desk.payments.till.database,
        account.id,
        currency=code,
        day=_day(day, zone),
        amounts=Amounts(currencies),
    )
    # Closed by the response, when it has been sent or its reader has gone.
    file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=FILE_MEMORY_BYTES)  # noqa: SIM115
    async for line in lines:
        file.write(line.encode())
    file.seek(0)
    name = f"{merchant.id}-{day}-{code}.csv"
    return StreamingResponse(
        _chunks(file),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _day(text: str, zone: str) -> Day:
    try:
        day = Day(date=date.fromisoformat(text), zone=ZoneInfo(zone))
        # Years at either end of the calendar have no midnight in every time zone.
        assert day.from_ms < day.until_ms
    except (ValueError, OSError, KeyError, OverflowError, AssertionError) as error:
        raise ApiError(
            400, "M_INVALID_PARAM", "A day looks like 2026-11-24, and a time zone like Europe/Berlin."
        ) from error
    return day


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
