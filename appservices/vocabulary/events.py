"""Names on the wire: event types, blocks, state keys and account data. See docs/protocol/."""

from __future__ import annotations

from typing import Final

EXTENSION: Final = "dev.weft.extension"
"""State event that enables an extension in a room; state_key = extension id."""
KEYS: Final = "dev.weft.keys"
"""State event with a service's public keys; state_key = service user."""
HOME_ROOM_TYPE: Final = "dev.weft.home"
"""Room type of a user's Home room."""

RECEIPT: Final = "dev.weft.receipt"
RED_PACKET: Final = "dev.weft.red_packet"
BILL: Final = "dev.weft.bill"
LINK: Final = "dev.weft.link"
SERVICE_ONLY_BLOCKS: Final = (RECEIPT, RED_PACKET, BILL, LINK)
"""Blocks (and event types) that only a service user may send."""

FUNCTIONAL_MEMBERS: Final = "io.element.functional_members"
"""MSC4171: members that don't count for a room's name."""
WIDGET: Final = "im.vector.modular.widgets"
WIDGET_LAYOUT: Final = "io.element.widgets.layout"

PAYMENTS_EXTENSION: Final = "payments"
