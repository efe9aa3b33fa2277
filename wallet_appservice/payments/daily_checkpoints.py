"""Signs a checkpoint of the ledger every day while the service runs."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from appservices.chassis.clock import Clock
from appservices.chassis.database import Database
from appservices.vocabulary.ids import UserId
from appservices.vocabulary.signing import SigningKey
from wallet_appservice.storage.ledger_checkpoints import last_checkpoint_at, make_checkpoint

CHECKPOINT_HOURS: Final = 24
LOOK_SECONDS: Final = 600.0
"""How often it is looked whether a day has passed: also after a failure, and whatever the clock does."""

logger = logging.getLogger(__name__)


async def make_daily_checkpoints(
    database: Database, *, wallet: UserId, key: SigningKey, clock: Clock, look_seconds: float = LOOK_SECONDS
) -> None:
    """Runs until it is cancelled. What goes wrong is logged, never raised: payments don't wait for this."""
    while True:
        try:
            if await is_due(database, clock()):
                made = await make_checkpoint(database, wallet=wallet, key=key, clock=clock)
                logger.info("checkpoint %d of the ledger: %d transfers", made.number, made.position)
        except Exception:
            logger.exception("no checkpoint of the ledger could be made")
        await asyncio.sleep(look_seconds)


async def is_due(database: Database, now_ms: int) -> bool:
    """Whether the last checkpoint is a day old, or of a time that a clock set back has yet to reach."""
    last_ms = await last_checkpoint_at(database)
    return last_ms is None or not 0 <= now_ms - last_ms < CHECKPOINT_HOURS * 3_600_000
