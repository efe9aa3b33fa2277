"""Acting in Matrix as any user of an application service, on matrix-nio's client.

An Intent sends what it is told, in plain: whether a room is encrypted is BotDevice's concern. Retries and
errors are those of homeserver.py.

A transaction id makes a repeated send harmless only for an intent that has a device: Synapse stores the id
with the event by (room, user, device), for 24 hours, so also across its own restart. It keeps answers for
half an hour by (path, service) too, without looking at the user: two users of one service must never send
different events into one room with the same transaction id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import aiohttp
import nio
from nio import AsyncClient, AsyncClientConfig

from appservices.chassis.homeserver import (
    Homeserver,
    JsonObject,
    MatrixRefused,
    MatrixUnavailable,
    Retries,
    path_of,
)
from appservices.vocabulary.ids import EventId, RoomId, ServerName, UserId, localpart_of

__all__ = ["Intent", "IntentPool", "MatrixRefused", "MatrixUnavailable", "Profile"]

TYPING_MILLISECONDS_MAX: Final = 30_000
UPLOAD_BYTES_MAX: Final = 50 * 1024 * 1024

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Profile:
    """What a user shows of themselves."""

    display_name: str | None = None
    avatar_url: str | None = None


class IntentPool:
    """One application service's way out: an intent for each of its users, one bounded homeserver for all."""

    def __init__(self, homeserver: Homeserver) -> None:
        self.homeserver = homeserver
        self._intents: dict[tuple[UserId, str | None], Intent] = {}

    def user(self, localpart: str) -> UserId:
        return UserId(f"@{localpart}:{self.server_name}")

    @property
    def server_name(self) -> ServerName:
        return self.homeserver.server_name

    def intent(self, user_id: UserId, device_id: str | None = None) -> Intent:
        """Acts as that user; with a device (see `Intent.ensure_device`) transaction ids hold."""
        key = (user_id, device_id)
        if key not in self._intents:
            self._intents[key] = Intent(self.homeserver, user_id, device_id)
        return self._intents[key]


class Intent:
    """Acts as one user of the service. Every method raises MatrixRefused and MatrixUnavailable."""

    def __init__(self, homeserver: Homeserver, user_id: UserId, device_id: str | None = None) -> None:
        self.homeserver = homeserver
        self.user_id = user_id
        self.device_id = device_id
        self._client = _Client(homeserver, user_id, device_id)

    def __repr__(self) -> str:
        return f"Intent({self.user_id})"

    async def ensure_registered(self) -> None:
        """Makes the user when there is none. Never logs in, so it works under an authentication service."""
        try:
            await self.homeserver.call(
                "POST",
                "/register",
                {
                    "type": "m.login.application_service",
                    "username": localpart_of(self.user_id),
                    "inhibit_login": True,
                },
                user_id=None,
            )
        except MatrixRefused as refused:
            if refused.errcode != "M_USER_IN_USE":
                raise

    async def ensure_device(self, device_id: str, *, display_name: str) -> None:
        """Makes or renames a device of this user (MSC4190; the registration has `io.element.msc4190`)."""
        await self._as_user("PUT", path_of("devices", device_id), {"display_name": display_name})

    async def delete_device(self, device_id: str) -> None:
        await self._as_user("DELETE", path_of("devices", device_id), {})

    async def devices(self) -> tuple[str, ...]:
        answer = await self._as_user("GET", "/devices")
        return tuple(device["device_id"] for device in answer["devices"])

    async def set_display_name(self, display_name: str) -> None:
        _expect(await self._client.set_displayname(display_name), nio.ProfileSetDisplayNameResponse)

    async def set_avatar(self, avatar_url: str) -> None:
        _expect(await self._client.set_avatar(avatar_url), nio.ProfileSetAvatarResponse)

    async def profile(self, user_id: UserId) -> Profile | None:
        """Anybody's profile; None when there is no such user."""
        try:
            answer = _expect(await self._client.get_profile(user_id), nio.ProfileGetResponse)
        except MatrixRefused as refused:
            if refused.status == 404:
                return None
            raise
        return Profile(display_name=answer.displayname, avatar_url=answer.avatar_url)

    async def join(self, room: str, *, via: Sequence[ServerName] = ()) -> RoomId:
        """Joins by room id or alias; `via` names servers that are in the room, when ours isn't."""
        query = [("via", server) for server in via] + [("server_name", server) for server in via]
        answer = await self.call("POST", path_of("join", room), {}, parameters=query)
        return RoomId(answer["room_id"])

    async def leave(self, room_id: RoomId) -> None:
        _expect(await self._client.room_leave(room_id), nio.RoomLeaveResponse)

    async def invite(self, room_id: RoomId, user_id: UserId) -> None:
        _expect(await self._client.room_invite(room_id, user_id), nio.RoomInviteResponse)

    async def create_room(self, **options: Any) -> RoomId:
        """Makes a room; options are the body of createRoom (name, invite, preset, initial_state, …).

        Not tried again once the homeserver may have made it: a MatrixUnavailable then says so.
        """
        answer = await self.call("POST", "/createRoom", options, repeatable=False)
        return RoomId(answer["room_id"])

    async def send(
        self, room_id: RoomId, event_type: str, content: Mapping[str, Any], *, transaction_id: str
    ) -> EventId:
        """Sends a timeline event in plain; the same transaction id again gives the first event's id."""
        answer = _expect(
            await self._client.room_send(room_id, event_type, dict(content), tx_id=transaction_id),
            nio.RoomSendResponse,
        )
        return EventId(answer.event_id)

    async def send_state(
        self, room_id: RoomId, event_type: str, content: Mapping[str, Any], *, state_key: str = ""
    ) -> EventId:
        """Sets state. Repeating it is harmless: Synapse keeps an equal state event."""
        answer = _expect(
            await self._client.room_put_state(room_id, event_type, dict(content), state_key),
            nio.RoomPutStateResponse,
        )
        return EventId(answer.event_id)

    async def redact(
        self, room_id: RoomId, event_id: EventId, *, transaction_id: str, reason: str | None = None
    ) -> EventId:
        answer = _expect(
            await self._client.room_redact(room_id, event_id, reason, transaction_id), nio.RoomRedactResponse
        )
        return EventId(answer.event_id)

    async def joined_members(self, room_id: RoomId) -> dict[UserId, Profile]:
        answer = _expect(await self._client.joined_members(room_id), nio.JoinedMembersResponse)
        return {
            UserId(member.user_id): Profile(display_name=member.display_name, avatar_url=member.avatar_url)
            for member in answer.members
        }

    async def joined_rooms(self) -> tuple[RoomId, ...]:
        answer = _expect(await self._client.joined_rooms(), nio.JoinedRoomsResponse)
        return tuple(RoomId(room_id) for room_id in answer.rooms)

    async def room_state(self, room_id: RoomId) -> list[JsonObject]:
        """All state events of a room."""
        answer = _expect(await self._client.room_get_state(room_id), nio.RoomGetStateResponse)
        return list(answer.events)

    async def state_event(
        self, room_id: RoomId, event_type: str, *, state_key: str = ""
    ) -> JsonObject | None:
        """The content of one state event; None when there is none."""
        try:
            answer = _expect(
                await self._client.room_get_state_event(room_id, event_type, state_key),
                nio.RoomGetStateEventResponse,
            )
        except MatrixRefused as refused:
            if refused.errcode == "M_NOT_FOUND":
                return None
            raise
        content: JsonObject = answer.content
        return content

    async def upload(self, data: bytes, *, content_type: str, filename: str) -> str:
        """Puts a file into the homeserver's media store; its mxc:// URI. At most UPLOAD_BYTES_MAX bytes."""
        if len(data) > UPLOAD_BYTES_MAX:
            raise ValueError(f"a file of {len(data)} bytes is more than Weft uploads")
        response = await self.homeserver.send(
            "POST",
            f"/_matrix/media/v3/upload?{urlencode({'filename': filename})}",
            data,
            {"Content-Type": content_type},
            user_id=self.user_id,
            device_id=self.device_id,
        )
        uri: str = (await response.json(content_type=None))["content_uri"]
        return uri

    async def set_typing(
        self, room_id: RoomId, *, typing: bool, milliseconds: int = TYPING_MILLISECONDS_MAX
    ) -> None:
        _expect(await self._client.room_typing(room_id, typing, milliseconds), nio.RoomTypingResponse)

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        parameters: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        retries: Retries | None = None,
        repeatable: bool = True,
        long_poll_seconds: float = 0,
    ) -> Any:
        """Any other call of the client-server API as this user and device: see Homeserver.call."""
        return await self.homeserver.call(
            method,
            path,
            body,
            user_id=self.user_id,
            device_id=self.device_id,
            parameters=parameters,
            retries=retries,
            repeatable=repeatable,
            long_poll_seconds=long_poll_seconds,
        )

    async def _as_user(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """As the user without the device: the way to make the device itself."""
        return await self.homeserver.call(method, path, body, user_id=self.user_id)


class _Client(AsyncClient):  # type: ignore[misc]
    """nio's client over our transport: acting by query parameters, with our retries instead of nio's."""

    def __init__(self, homeserver: Homeserver, user_id: UserId, device_id: str | None) -> None:
        super().__init__(
            homeserver.url,
            user_id,
            device_id,
            config=AsyncClientConfig(encryption_enabled=False, max_limit_exceeded=0, max_timeouts=0),
        )
        self.user_id = user_id
        # nio only asks whether it is there; the transport sends the real one.
        self.access_token = "as_token"
        # Ours, or nio would open one for each client and leave it open.
        self.client_session = homeserver.session
        self._homeserver = homeserver

    async def send(
        self,
        method: str,
        path: str,
        data: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        trace_context: object = None,
        timeout: float | None = None,
    ) -> aiohttp.ClientResponse:
        return await self._homeserver.send(
            method, path, data, headers, user_id=UserId(self.user_id), device_id=self.device_id or None
        )


def _expect(answer: Any, response_class: type[_Answer]) -> Any:
    """nio's answer, when it could read it: refusals were raised below, so anything else is malformed."""
    if isinstance(answer, response_class):
        return answer
    raise MatrixUnavailable(f"the homeserver's answer can't be read: {answer}")
