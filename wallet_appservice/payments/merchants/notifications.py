"""Delivers notifications to merchants' endpoints, signed after Standard Webhooks, over a day.

At least once: a delivery whose answer was lost is sent again, and its receiver knows it by `webhook-id`. A
receiver says 2xx within TIMEOUT_SECONDS, or it is tried again after a pause; 410 Gone ends the endpoint.
Redirects are not followed, and where it may go is addresses.py's to say.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import httpcore
from sqlalchemy import Row, delete, func, select, update

from appservices.chassis.clock import Clock
from appservices.chassis.database import Database
from wallet_appservice.payments.merchants.addresses import AddressRefused, GuardedNetwork, Resolve, resolve
from wallet_appservice.payments.merchants.endpoints import SECRET_PREFIX, Delivery, read_delivery
from wallet_appservice.payments.merchants.events import DELIVERED, FAILED, WAITING
from wallet_appservice.payments.merchants.merchants import Merchants
from wallet_appservice.payments.merchants.records import MerchantId
from wallet_appservice.storage.merchant_tables import merchant_deliveries, merchant_endpoints

PAUSES_SECONDS: Final = (5, 30, 120, 600, 1800, 3600, 7200, 14_400, 21_600, 36_000)
"""After the first try, the second, and so on: a day and a little less than half an hour in all."""
TIMEOUT_SECONDS: Final = 5.0
LEASE_SECONDS: Final = 60
"""After which somebody else takes up a delivery whose sender has died."""
AT_ONCE_MAX: Final = 32
PER_ENDPOINT_MAX: Final = 4
"""So that one slow endpoint does not hold up the others."""
LOOK_SECONDS: Final = 1.0
KEPT_DAYS: Final = 30
PURGE_SECONDS: Final = 3600.0
PROBLEM_LENGTH_MAX: Final = 200

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Due:
    """A delivery that is to be tried now."""

    delivery: Delivery
    merchant_id: MerchantId
    url: str
    secret: str


class Notifier:
    """Works through the deliveries that wait. Several processes may have one on the same database."""

    def __init__(
        self,
        database: Database,
        merchants: Merchants,
        *,
        clock: Clock,
        private_allowed: bool,
        resolve: Resolve = resolve,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._database = database
        self._merchants = merchants
        self._clock = clock
        self._look_seconds = look_seconds
        self._wake = asyncio.Event()
        self._pool = httpcore.AsyncConnectionPool(
            max_connections=AT_ONCE_MAX,
            # A connection kept open would be to an address that was checked long ago.
            max_keepalive_connections=0,
            network_backend=GuardedNetwork(private_allowed=private_allowed, resolve=resolve),
        )

    def wake(self) -> None:
        """To be called after a commit that may have left deliveries waiting."""
        self._wake.set()

    async def run(self) -> None:
        """Delivers until it is cancelled. What goes wrong is logged and tried again."""
        loop = asyncio.get_running_loop()
        purge_at = loop.time()
        try:
            while True:
                self._wake.clear()
                try:
                    if loop.time() >= purge_at:
                        purge_at = loop.time() + PURGE_SECONDS
                        await self._purge()
                    while await self.deliver_due():
                        pass
                except Exception:
                    logger.exception("notifications could not be delivered; it is tried again")
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self._look_seconds)
        finally:
            await self._pool.aclose()

    async def deliver_due(self) -> int:
        """Tries once what is due now; returns how many were tried."""
        due = await self._due()
        claimed = [one for one in due if await self._claim(one)]
        await asyncio.gather(*(self._deliver(one) for one in claimed))
        return len(claimed)

    async def _due(self) -> list[_Due]:
        # The oldest few of each endpoint, so that one with thousands waiting does not hide the others.
        ranked = (
            select(
                merchant_deliveries.c.position,
                func.row_number()
                .over(
                    partition_by=merchant_deliveries.c.endpoint_id,
                    order_by=(merchant_deliveries.c.next_at_ms, merchant_deliveries.c.position),
                )
                .label("rank"),
            )
            .where(merchant_deliveries.c.state == WAITING, merchant_deliveries.c.next_at_ms <= self._clock())
            .subquery()
        )
        query = (
            select(merchant_deliveries, merchant_endpoints.c.url, merchant_endpoints.c.secret)
            .add_columns(merchant_endpoints.c.disabled_at_ms)
            .join(ranked, ranked.c.position == merchant_deliveries.c.position)
            .join(merchant_endpoints, merchant_endpoints.c.id == merchant_deliveries.c.endpoint_id)
            .where(ranked.c.rank <= PER_ENDPOINT_MAX)
            .order_by(ranked.c.rank, merchant_deliveries.c.next_at_ms)
            .limit(AT_ONCE_MAX)
        )
        async with self._database.read() as work:
            rows = (await work.execute(query)).all()
        gone = [row for row in rows if row.disabled_at_ms is not None]
        for row in gone:
            await self._record(row.position, state=FAILED, problem="the endpoint was taken away")
        return [_due(row) for row in rows if row.disabled_at_ms is None]

    async def _claim(self, due: _Due) -> bool:
        """Whether it is ours to try; another process may have been faster."""
        delivery = due.delivery
        async with self._database.begin() as work:
            claimed = await work.execute(
                update(merchant_deliveries)
                .where(
                    merchant_deliveries.c.position == delivery.position,
                    merchant_deliveries.c.state == WAITING,
                    merchant_deliveries.c.next_at_ms == delivery.next_at_ms,
                    merchant_deliveries.c.attempts == delivery.attempts,
                )
                .values(attempts=delivery.attempts + 1, next_at_ms=self._clock() + LEASE_SECONDS * 1000)
            )
            await work.commit()
        return claimed.rowcount == 1

    async def _deliver(self, due: _Due) -> None:
        delivery = due.delivery
        try:
            status = await self._send(due)
        except AddressRefused as error:
            status, problem = 0, str(error)
        except (TimeoutError, httpcore.TimeoutException):
            status, problem = 0, f"no answer within {TIMEOUT_SECONDS:g} seconds"
        except Exception as error:
            status, problem = 0, f"{type(error).__name__}: {error}"
        else:
            problem = f"it answered {status}"
        if 200 <= status < 300:
            await self._record(delivery.position, state=DELIVERED, problem="")
        elif status == 410:
            await self._disable(due)
            await self._record(delivery.position, state=FAILED, problem="it answered 410, gone")
        elif delivery.attempts >= len(PAUSES_SECONDS):
            logger.warning("notification %s was given up: %s", delivery.id, problem)
            await self._record(delivery.position, state=FAILED, problem=problem)
        else:
            next_at_ms = self._clock() + PAUSES_SECONDS[delivery.attempts] * 1000
            await self._record(delivery.position, state=WAITING, problem=problem, next_at_ms=next_at_ms)

    async def _send(self, due: _Due) -> int:
        body = due.delivery.payload.encode()
        signed = signed_headers(due.delivery.event_id, body, secret=due.secret, now_ms=self._clock())
        headers = [("Content-Type", "application/json"), ("User-Agent", "Weft-Wallet/1"), *signed.items()]
        async with (
            asyncio.timeout(TIMEOUT_SECONDS),
            self._pool.stream("POST", due.url, headers=headers, content=body) as response,
        ):
            # Whatever it says beyond its status is not read.
            return int(response.status)

    async def _record(
        self, position: int, *, state: str, problem: str, next_at_ms: int | None = None
    ) -> None:
        values: dict[str, Any] = {"state": state, "problem": _shortened(problem)}
        if next_at_ms is not None:
            values["next_at_ms"] = next_at_ms
        async with self._database.begin() as work:
            await work.execute(
                update(merchant_deliveries).where(merchant_deliveries.c.position == position).values(values)
            )
            await work.commit()

    async def _disable(self, due: _Due) -> None:
        async with self._database.begin() as work:
            await work.execute(
                update(merchant_endpoints)
                .where(
                    merchant_endpoints.c.id == due.delivery.endpoint_id,
                    merchant_endpoints.c.disabled_at_ms.is_(None),
                )
                .values(disabled_at_ms=self._clock())
            )
            await work.commit()
        self._merchants.forget(due.merchant_id)

    async def _purge(self) -> None:
        before_ms = self._clock() - KEPT_DAYS * 24 * 3_600_000
        async with self._database.begin() as work:
            await work.execute(
                delete(merchant_deliveries).where(
                    merchant_deliveries.c.created_at_ms < before_ms, merchant_deliveries.c.state != WAITING
                )
            )
            await work.commit()


def signed_headers(event_id: str, body: bytes, *, secret: str, now_ms: int) -> dict[str, str]:
    """The three headers of Standard Webhooks (spec 1.0.0, "Signature scheme", `v1`)."""
    timestamp = str(now_ms // 1000)
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = b".".join((event_id.encode(), timestamp.encode(), body))
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {
        "webhook-id": event_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{signature}",
    }


def _due(row: Row[Any]) -> _Due:
    return _Due(read_delivery(row), MerchantId(row.merchant_id), row.url, row.secret)


def _shortened(problem: str) -> str:
    printable = "".join(character if character.isprintable() else " " for character in problem)
    return printable.encode("utf-8", "replace").decode()[:PROBLEM_LENGTH_MAX]
