"""Ends what has a time and finishes what was begun, for merchants, while the service runs."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from wallet_appservice.payments.merchants.desk import MerchantDesk

SWEEP_SECONDS: Final = 5.0
PURGE_SWEEPS: Final = 720
"""Each so many sweeps old payment codes are forgotten: hourly."""

logger = logging.getLogger(__name__)


async def sweep_merchants(desk: MerchantDesk, *, look_seconds: float = SWEEP_SECONDS) -> None:
    """Runs until it is cancelled, and sweeps first of all. What goes wrong is logged and tried again."""
    sweeps = 0
    while True:
        try:
            await desk.sweep()
            if sweeps % PURGE_SWEEPS == 0:
                await desk.codes.purge()
        except Exception:
            logger.exception("orders and refunds could not be swept; it is tried again")
        sweeps += 1
        await asyncio.sleep(look_seconds)
