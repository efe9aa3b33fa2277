"""The application-service side of HTTP: what Synapse calls (Matrix Application Service API v1).

A transaction is stored before it is answered; what is in it is applied later. A single malformed event is
dropped with a log line, since refusing the transaction would stop the queue behind it for ever.
"""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from appservices.vocabulary.ids import RoomId, UserId, is_user_id

logger = logging.getLogger(__name__)

TRANSACTION_BYTES_MAX = 64 * 1024 * 1024
ID_LENGTH_MAX = 255

AcceptEvents = Callable[[Sequence[Mapping[str, Any]]], Awaitable[None]]
"""Stores the events of a transaction, each once; returns when they are durable."""
IsWanted = Callable[[Mapping[str, Any]], bool]


def transaction_routes(
    *,
    hs_token: str,
    accept: AcceptEvents,
    is_wanted: IsWanted,
    users: frozenset[UserId],
    on_receipt: Callable[[RoomId, UserId], None] = lambda room_id, user_id: None,
    on_ping: Callable[[], None] = lambda: None,
) -> APIRouter:
    """The routes of one application service below its registration's `url`.

    `is_wanted` says which events are stored at all; `users` exist when the homeserver asks for them;
    `on_receipt` is told who has read in which room, where the registration asks for that.
    """
    router = APIRouter(prefix="/_matrix/app/v1", include_in_schema=False)

    def refusal(request: Request) -> JSONResponse | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return _error(401, "M_MISSING_TOKEN", "The hs_token is missing.")
        if not hmac.compare_digest(token.strip().encode(), hs_token.encode()):
            return _error(403, "M_FORBIDDEN", "The hs_token is not the one in this service's registration.")
        return None

    @router.put("/transactions/{transaction_id}")
    async def transaction(transaction_id: str, request: Request) -> JSONResponse:
        if (refused := refusal(request)) is not None:
            return refused
        content = await _json_body(request)
        events = content.get("events") if isinstance(content, dict) else None
        if not isinstance(events, list):
            return _error(400, "M_NOT_JSON", "A transaction is a JSON object with a list of events.")
        await accept([event for event in events if is_sound(event) and is_wanted(event)])
        for room_id, user_id in _readers(content):
            on_receipt(room_id, user_id)
        return JSONResponse({})

    @router.get("/users/{user_id}")
    async def user(user_id: str, request: Request) -> JSONResponse:
        if (refused := refusal(request)) is not None:
            return refused
        if user_id in users:
            return JSONResponse({})
        return _error(404, "M_NOT_FOUND", "No such user.")

    @router.get("/rooms/{room_alias}")
    async def room(room_alias: str, request: Request) -> JSONResponse:
        if (refused := refusal(request)) is not None:
            return refused
        return _error(404, "M_NOT_FOUND", "No such room.")

    @router.post("/ping")
    async def ping(request: Request) -> JSONResponse:
        if (refused := refusal(request)) is not None:
            return refused
        on_ping()
        return JSONResponse({})

    return router


async def _json_body(request: Request) -> object:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > TRANSACTION_BYTES_MAX:
            return None
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError):
        return None


def _readers(content: object) -> Iterator[tuple[RoomId, UserId]]:
    """Who has read in which room, as the transaction's receipts say (Application Service API, "Pushing
    ephemeral data")."""
    ephemeral = content.get("ephemeral") if isinstance(content, dict) else None
    for event in ephemeral if isinstance(ephemeral, list) else ():
        if not isinstance(event, dict) or event.get("type") != "m.receipt":
            continue
        room_id, receipts = event.get("room_id"), event.get("content")
        if not isinstance(room_id, str) or not isinstance(receipts, dict):
            continue
        for kinds in receipts.values():
            for readers in kinds.values() if isinstance(kinds, dict) else ():
                for user in readers if isinstance(readers, dict) else ():
                    if is_user_id(user):
                        yield RoomId(room_id), UserId(user)


def is_sound(event: object) -> bool:
    """Whether an event has what a handler relies on."""
    sound = (
        isinstance(event, dict)
        and all(
            isinstance(event.get(key), str) and 0 < len(event[key]) <= ID_LENGTH_MAX
            for key in ("event_id", "room_id", "sender", "type")
        )
        and is_user_id(event["sender"])
        and isinstance(event.get("content"), dict)
        and isinstance(event.get("state_key", ""), str)
    )
    if not sound:
        logger.warning("dropped a malformed event of a transaction")
    return sound


def _error(status: int, errcode: str, error: str) -> JSONResponse:
    return JSONResponse({"errcode": errcode, "error": error}, status_code=status)
