"""What merchants are notified of, and the rows that wait to be delivered.

A row is written in the transaction of what it tells of, one for each endpoint, so nothing that happened goes
untold and nothing is told that did not happen. The form is Standard Webhooks' (standardwebhooks.com): `type`,
`timestamp`, `data`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import bindparam, exists, insert, select

from appservices.chassis.database import Write
from appservices.vocabulary.ids import derived_id
from wallet_appservice.payments.merchants.records import Merchant, Order, OrderState, OrderWay
from wallet_appservice.storage.merchant_tables import merchant_deliveries

WAITING: Final = "waiting"
DELIVERED: Final = "delivered"
FAILED: Final = "failed"
"""It was tried for a day, or its endpoint is gone."""


class EventType(StrEnum):
    """What happened."""

    ORDER_PAID = "order.paid"
    ORDER_EXPIRED = "order.expired"
    ORDER_CANCELLED = "order.cancelled"
    CHARGE_PAID = "charge.paid"
    REFUND_MADE = "refund.made"


def order_event(order: Order) -> EventType | None:
    """What an order in this state is news of."""
    if order.state is OrderState.PAID:
        return EventType.CHARGE_PAID if order.way is OrderWay.CODE else EventType.ORDER_PAID
    return {
        OrderState.EXPIRED: EventType.ORDER_EXPIRED,
        OrderState.CANCELLED: EventType.ORDER_CANCELLED,
    }.get(order.state)


def order_writes(merchant: Merchant, order: Order) -> Sequence[Write]:
    event = order_event(order)
    if event is None or order.ended_at_ms is None:
        return ()
    return event_writes(merchant, event, of=order.id, data=order_data(order), at_ms=order.ended_at_ms)


def order_data(order: Order) -> dict[str, Any]:
    """An order as merchants see it, in notifications and in the API alike."""
    is_paid = order.state is OrderState.PAID
    return {
        "id": order.id,
        "reference": order.reference,
        "way": order.way.value,
        "description": order.description,
        "amount_minor": str(order.amount_minor),
        "currency": order.currency,
        "state": order.state.value,
        "created_at_ms": order.created_at_ms,
        "expires_at_ms": order.expires_at_ms,
        "ended_at_ms": order.ended_at_ms,
        "payer": order.payer if is_paid else None,
        "payment_id": order.payment_id if is_paid else None,
    }


def event_writes(
    merchant: Merchant, event: EventType, *, of: str, data: Mapping[str, Any], at_ms: int
) -> Sequence[Write]:
    """A row for each of the merchant's endpoints. The same event again adds nothing."""
    if not merchant.endpoint_ids:
        return ()
    event_id = derived_id("merchant event", event.value, of)
    timestamp = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    content = {"type": event.value, "timestamp": timestamp.replace("+00:00", "Z"), "data": data}
    payload = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    return [
        Write(
            _INSERT,
            {
                "new_id": derived_id("delivery", event_id, endpoint_id),
                "new_merchant_id": merchant.id,
                "new_endpoint_id": endpoint_id,
                "new_event_id": event_id,
                "new_event": event.value,
                "new_payload": payload,
                "new_state": WAITING,
                "new_attempts": 0,
                "new_created_at_ms": at_ms,
                "new_next_at_ms": at_ms,
                "new_problem": "",
            },
        )
        for endpoint_id in merchant.endpoint_ids
    ]


_NAMES: Final = [column.name for column in merchant_deliveries.columns if column.name != "position"]
_INSERT: Final = insert(merchant_deliveries).from_select(
    _NAMES,
    select(*(bindparam(f"new_{name}", type_=merchant_deliveries.c[name].type) for name in _NAMES)).where(
        ~exists().where(merchant_deliveries.c.id == bindparam("new_id", type_=merchant_deliveries.c.id.type))
    ),
)
