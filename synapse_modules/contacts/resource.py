"""The module's HTTP side, below `/_synapse/client/weft/contacts`, for service users by their as_token.

`GET` tells what changed, `POST` asks for circles or does one thing in a local person's name. Whoever is no
service of this homeserver gets 403, whatever they ask.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any, Final

from synapse.module_api import (
    DirectServeJsonResource,
    ModuleApi,
    SynapseRequest,
    parse_json_object_from_request,
)
from synapse.module_api.errors import Codes, SynapseError

from appservices.vocabulary.events import CONTACT_TAGS, MOMENTS_SWITCHES
from appservices.vocabulary.ids import UserId, is_user_id
from synapse_modules.contacts.changes import Changes
from synapse_modules.contacts.snapshot import DIRECT, USERS_MAX, Snapshots

logger = logging.getLogger(__name__)

_WRITABLE: Final = frozenset({CONTACT_TAGS, MOMENTS_SWITCHES})

Answer = tuple[int, dict[str, Any]]


class ContactsResource(DirectServeJsonResource):  # type: ignore[misc]
    """Answers services."""

    isLeaf = True

    def __init__(
        self, api: ModuleApi, *, service_users: frozenset[UserId], changes: Changes, snapshots: Snapshots
    ) -> None:
        super().__init__()
        self._api = api
        self._service_users = service_users
        self._changes = changes
        self._snapshots = snapshots

    async def _async_render_GET(self, request: SynapseRequest) -> Answer:
        await self._check(request)
        since = (request.args or {}).get(b"since", [b""])[0].decode(errors="replace")
        return 200, await self._changes.since(since or None)

    async def _async_render_POST(self, request: SynapseRequest) -> Answer:
        await self._check(request)
        body = parse_json_object_from_request(request)
        if "users" in body:
            return 200, {"circles": await self._snapshots.of(_users(body["users"]))}
        user = self._local(body.get("user"))
        if "data_type" in body:
            return await self._put(user, body["data_type"], body.get("content"))
        return await self._befriend(user, body.get("friend"))

    async def _check(self, request: SynapseRequest) -> None:
        requester = await self._api.get_user_by_req(request)
        if requester.app_service_id is None or requester.user.to_string() not in self._service_users:
            raise SynapseError(HTTPStatus.FORBIDDEN, "This is for services of Weft.", Codes.FORBIDDEN)

    async def _put(self, user: str, data_type: object, content: object) -> Answer:
        if data_type not in _WRITABLE or not isinstance(content, dict):
            raise _bad("Only tags and switches can be written, as JSON objects.")
        await self._api.account_data_manager.put_global(user, str(data_type), content)
        return 200, {}

    async def _befriend(self, user: str, friend: object) -> Answer:
        """Begins a direct chat as that user, as their client would, unless there is one that both have
        joined or to which the friend is invited already."""
        if not isinstance(friend, str) or not is_user_id(friend) or friend == user:
            raise _bad("friend must be somebody else's full user id.")
        account = self._api.account_data_manager
        before = dict(await account.get_global(user, DIRECT) or {})
        rooms = [room for room in before.get(friend, ()) if isinstance(room, str)]
        for room in rooms:
            members = await self._api.get_room_state(
                room, [("m.room.member", user), ("m.room.member", friend)]
            )
            states = {event.state_key: event.content.get("membership") for event in members.values()}
            if states.get(user) == "join" and states.get(friend) in ("join", "invite"):
                return 200, {"room_id": room, "made": False}
        room_id, _ = await self._api.create_room(
            user, {"preset": "trusted_private_chat", "is_direct": True, "invite": [friend]}, ratelimit=False
        )
        # Read anew: the user's client may have written meanwhile.
        now = dict(await account.get_global(user, DIRECT) or {})
        listed = [room for room in now.get(friend, ()) if isinstance(room, str)]
        await account.put_global(user, DIRECT, {**now, friend: [*listed, room_id]})
        return 200, {"room_id": room_id, "made": True}

    def _local(self, user: object) -> str:
        if not isinstance(user, str) or not is_user_id(user) or not self._api.is_mine(user):
            raise _bad("user must be a user of this homeserver.")
        if user in self._service_users:
            raise _bad("A service has no contacts.")
        return user


def _users(listed: object) -> list[str]:
    if (
        not isinstance(listed, list)
        or len(listed) > USERS_MAX
        or not all(isinstance(user, str) and is_user_id(user) for user in listed)
    ):
        raise _bad(f"users must be a list of up to {USERS_MAX} user ids.")
    return listed


def _bad(sentence: str) -> SynapseError:
    return SynapseError(HTTPStatus.BAD_REQUEST, sentence, Codes.BAD_JSON)
