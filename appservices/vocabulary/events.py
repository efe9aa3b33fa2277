"""Names on the wire: event types, blocks, state keys and account data. See docs/protocol/."""

from __future__ import annotations

from typing import Final

EXTENSION: Final = "dev.weft.extension"
"""State event that enables an extension in a room; state_key = extension id."""
KEYS: Final = "dev.weft.keys"
"""State event with a service's public keys; state_key = service user."""
HOME_ROOM_TYPE: Final = "dev.weft.home"
"""Room type of a user's Home room."""
MOMENTS_ROOM_TYPE: Final = "dev.weft.moments"
"""Room type of a user's Moments room, into which friends' Moments come."""
MOMENTS_ROOM: Final = "dev.weft.moments_room"
"""Account data that names a user's Moments room."""
CONTACT_TAGS: Final = "dev.weft.contact_tags"
"""Account data: the user's tags, each a name with the contacts who have it."""
MOMENTS_SWITCHES: Final = "dev.weft.moments"
"""Account data: what the user has chosen for their Moments."""
CONTACTS_PATH: Final = "/_synapse/client/weft/contacts"
"""Where Synapse's contacts module answers services."""

RECEIPT: Final = "dev.weft.receipt"
RED_PACKET: Final = "dev.weft.red_packet"
BILL: Final = "dev.weft.bill"
LINK: Final = "dev.weft.link"
MOMENT: Final = "dev.weft.moment"
SERVICE_ONLY_BLOCKS: Final = (RECEIPT, RED_PACKET, BILL, LINK, MOMENT)
"""Blocks (and event types) that only a service user may send."""

FUNCTIONAL_MEMBERS: Final = "io.element.functional_members"
"""MSC4171: members that don't count for a room's name."""
WIDGET: Final = "im.vector.modular.widgets"
WIDGET_LAYOUT: Final = "io.element.widgets.layout"

PAYMENTS_EXTENSION: Final = "payments"
