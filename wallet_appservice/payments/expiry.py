"""Gives back what pending transfers hold past their time, while the service runs."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from appservices.chassis.database import Write
from wallet_appservice.ledger.engine import Ledger

EXPIRY_LOOK_SECONDS: Final = 5.0

logger = logging.getLogger(__name__)


async def release_expired(ledger: Ledger[Write], *, look_seconds: float = EXPIRY_LOOK_SECONDS) -> None:
    """Runs until it is cancelled. What goes wrong is logged and tried again."""
    while True:
        try:
            if released := await ledger.expire_pending():
                logger.info("released %d pending transfers past their time", released)
        except Exception:
            logger.exception("pending transfers past their time could not be released")
        await asyncio.sleep(look_seconds)
