"""The wallet's public keys as room state, where receipts are, for whoever verifies them there."""

from __future__ import annotations

import logging

from appservices.chassis.homeserver import MatrixRefused
from appservices.chassis.intents import Intent
from appservices.vocabulary.events import KEYS
from appservices.vocabulary.ids import RoomId
from wallet_appservice.payments.actions import Payments

logger = logging.getLogger(__name__)


async def publish_keys(intent: Intent, room_id: RoomId, payments: Payments) -> None:
    """Sets the state event where the room lets us; elsewhere the keys are had from the wallet's API alone."""
    content = {"service": payments.wallet_user, "keys": payments.keys()}
    try:
        await intent.send_state(room_id, KEYS, content, state_key=payments.wallet_user)
    except MatrixRefused as refused:
        logger.debug("keys are not published in %s: %s", room_id, refused)
