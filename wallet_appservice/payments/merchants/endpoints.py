"""Where a merchant's notifications go, and what was delivered: endpoints, deliveries, replays."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, func, insert, select, update

from appservices.chassis.clock import Clock, Tokens
from appservices.chassis.database import Database
from wallet_appservice.payments.merchants.addresses import AddressRefused, check_url
from wallet_appservice.payments.merchants.events import WAITING
from wallet_appservice.payments.merchants.merchants import Merchants
from wallet_appservice.payments.merchants.records import EndpointId, Merchant
from wallet_appservice.payments.merchants.refusals import MerchantRefusal, MerchantRefused
from wallet_appservice.storage.merchant_tables import merchant_deliveries, merchant_endpoints

ENDPOINTS_MAX: Final = 5
"""Endpoints of one merchant, those taken away left out."""
LISTED_MAX: Final = 100
SECRET_PREFIX: Final = "whsec_"
_SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A URL that is told of a merchant's events."""

    id: EndpointId
    url: str
    created_at_ms: int
    disabled_at_ms: int | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one endpoint."""

    position: int
    id: str
    endpoint_id: EndpointId
    event_id: str
    event: str
    payload: str
    state: str
    attempts: int
    created_at_ms: int
    next_at_ms: int
    problem: str


class Endpoints:
    """The endpoints and deliveries of all merchants."""

    def __init__(
        self, database: Database, merchants: Merchants, *, clock: Clock, tokens: Tokens, private_allowed: bool
    ) -> None:
        self._database = database
        self._merchants = merchants
        self._clock = clock
        self._tokens = tokens
        self._private_allowed = private_allowed

    async def add(self, merchant: Merchant, url: str) -> tuple[Endpoint, str] | MerchantRefused:
        """A new endpoint, and the secret that its notifications are signed with, shown this once."""
        try:
            check_url(url, private_allowed=self._private_allowed)
        except AddressRefused as error:
            return MerchantRefused.because(MerchantRefusal.ADDRESS_INVALID, problem=str(error))
        endpoint = Endpoint(EndpointId(self._tokens.hex()), url, self._clock(), None)
        secret = SECRET_PREFIX + base64.b64encode(self._tokens.random_bytes(_SECRET_BYTES)).decode()
        async with self._database.begin() as work:
            counted = await work.execute(
                select(func.count()).where(
                    merchant_endpoints.c.merchant_id == merchant.id,
                    merchant_endpoints.c.disabled_at_ms.is_(None),
                )
            )
            if counted.scalar_one() >= ENDPOINTS_MAX:
                return MerchantRefused.because(MerchantRefusal.TOO_MANY, count_max=str(ENDPOINTS_MAX))
            await work.execute(
                insert(merchant_endpoints).values(
                    id=endpoint.id,
                    merchant_id=merchant.id,
                    url=url,
                    secret=secret,
                    created_at_ms=endpoint.created_at_ms,
                )
            )
            await work.commit()
        self._merchants.forget(merchant.id)
        return endpoint, secret

    async def of_merchant(self, merchant: Merchant) -> list[Endpoint]:
        """Newest first, at most LISTED_MAX."""
        query = (
            select(merchant_endpoints)
            .where(merchant_endpoints.c.merchant_id == merchant.id)
            .order_by(merchant_endpoints.c.created_at_ms.desc(), merchant_endpoints.c.id)
            .limit(LISTED_MAX)
        )
        async with self._database.read() as work:
            return [
                Endpoint(EndpointId(row.id), row.url, row.created_at_ms, row.disabled_at_ms)
                for row in await work.execute(query)
            ]

    async def take_away(self, merchant: Merchant, id: str) -> bool:
        """Sends nothing there any more, what waits included. False: no such endpoint."""
        async with self._database.begin() as work:
            taken = await work.execute(
                update(merchant_endpoints)
                .where(
                    merchant_endpoints.c.id == id,
                    merchant_endpoints.c.merchant_id == merchant.id,
                    merchant_endpoints.c.disabled_at_ms.is_(None),
                )
                .values(disabled_at_ms=self._clock())
            )
            await work.commit()
        self._merchants.forget(merchant.id)
        return taken.rowcount == 1

    async def deliveries(
        self, merchant: Merchant, *, limit: int, before: int | None = None, state: str | None = None
    ) -> list[Delivery]:
        """Newest first; `before` is a delivery's position."""
        query = (
            select(merchant_deliveries)
            .where(merchant_deliveries.c.merchant_id == merchant.id)
            .order_by(merchant_deliveries.c.position.desc())
            .limit(max(1, min(limit, LISTED_MAX)))
        )
        if before is not None:
            query = query.where(merchant_deliveries.c.position < before)
        if state is not None:
            query = query.where(merchant_deliveries.c.state == state)
        async with self._database.read() as work:
            return [read_delivery(row) for row in await work.execute(query)]

    async def replay(self, merchant: Merchant, id: str) -> Delivery | MerchantRefused:
        """Sends a notification again, as it was, from the beginning of its tries."""
        async with self._database.begin() as work:
            replayed = await work.execute(
                update(merchant_deliveries)
                .where(merchant_deliveries.c.id == id, merchant_deliveries.c.merchant_id == merchant.id)
                .values(state=WAITING, attempts=0, next_at_ms=self._clock(), problem="")
                .returning(*merchant_deliveries.columns)
            )
            row = replayed.first()
            await work.commit()
        if row is None:
            return MerchantRefused.because(MerchantRefusal.DELIVERY_UNKNOWN)
        return read_delivery(row)


def read_delivery(row: Row[Any]) -> Delivery:
    """A row of merchant_deliveries as a value."""
    return Delivery(
        position=row.position,
        id=row.id,
        endpoint_id=EndpointId(row.endpoint_id),
        event_id=row.event_id,
        event=row.event,
        payload=row.payload,
        state=row.state,
        attempts=row.attempts,
        created_at_ms=row.created_at_ms,
        next_at_ms=row.next_at_ms,
        problem=row.problem,
    )
