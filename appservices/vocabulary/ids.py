"""Ids as types, so that one kind is never passed where another is meant.

Ledger ids are 128 bits, chosen by the caller and written as 32 lower-case hex digits. Most are derived
from what caused them (a Matrix event, a request's idempotency key), so that a repeated cause is the same id.
"""

from __future__ import annotations

import hashlib
import re
from typing import NewType

UserId = NewType("UserId", str)
"""A Matrix user id, `@localpart:server`; the server part may contain a port (Matrix spec, appendix 4.2)."""
RoomId = NewType("RoomId", str)
"""A Matrix room id. From room version 12 on it names no server."""
EventId = NewType("EventId", str)
ServerName = NewType("ServerName", str)
AccountId = NewType("AccountId", str)
"""A ledger account: 32 lower-case hex digits."""
TransferId = NewType("TransferId", str)
"""A ledger transfer: 32 lower-case hex digits."""
OutboxId = NewType("OutboxId", str)
"""An outgoing event; also its Matrix transaction id."""

USER_ID_LENGTH_MAX = 255
_USER_ID = re.compile(r"@[^:\s\x00]+:[^\s\x00]+")
_match_ledger_id = re.compile(r"[0-9a-f]{32}").fullmatch
_SERVER_NAME = re.compile(r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z.-]{1,230})(?::[0-9]{1,5})?")


def is_user_id(text: str) -> bool:
    """Whether the text has the shape of a user id; says nothing about whether such a user exists."""
    return (
        len(text) <= USER_ID_LENGTH_MAX
        and _USER_ID.fullmatch(text) is not None
        and is_server_name(text.split(":", 1)[1])
    )


def is_server_name(text: str) -> bool:
    """Whether the text has the shape of a server name (Matrix spec, appendix 4.1)."""
    return _SERVER_NAME.fullmatch(text) is not None


def is_ledger_id(text: str) -> bool:
    """Whether the text is 32 lower-case hex digits."""
    return _match_ledger_id(text) is not None


def server_of(user_id: UserId) -> ServerName:
    """The server part of a user id, port included: user ids are split at their first colon only."""
    return ServerName(user_id.split(":", 1)[1])


def localpart_of(user_id: UserId) -> str:
    """The localpart of a user id, without `@`."""
    return user_id[1:].split(":", 1)[0]


def derived_id(kind: str, *parts: str) -> str:
    """The 128-bit id of one cause: the same kind and parts always give the same id.

    The parts are length-prefixed before they are hashed (SHA-256), so no two lists of parts collide
    by concatenation. Returns 32 lower-case hex digits.
    """
    digest = hashlib.sha256()
    for part in (kind, *parts):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()[:32]
