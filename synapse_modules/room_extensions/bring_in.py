"""Lets service users into the rooms that want them, and out again.

A room wants a service when one of its extensions is enabled, or when a local member invites the service user.
Service users are listed as functional members (MSC4171), so that they don't change a room's name. Whoever
enabled or invited acts: what their power doesn't allow is not done.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from synapse.module_api import EventBase, ModuleApi
from synapse.module_api.errors import SynapseError

from appservices.vocabulary.events import EXTENSION, FUNCTIONAL_MEMBERS
from synapse_modules.room_extensions.config import ExtensionsConfig
from synapse_modules.room_extensions.errands import Errand, Errands, TryLater
from synapse_modules.room_extensions.key_power import POWER_LEVELS, with_key_power
from synapse_modules.room_extensions.tables import Tables

logger = logging.getLogger(__name__)

EXTENSION_ERRAND: Final = "extension"
INVITE_ERRAND: Final = "invite"
STORED_SECONDS_MAX: Final = 60.0
"""How long an event may take from the callback until it is room state; after that it was refused."""
SWEEP_SECONDS: Final = 30.0
"""How soon an invite is found that no callback sees: Synapse never asks modules about admins' invites."""
SWEEP_ROWS_MAX: Final = 100

_MEMBER: Final = "m.room.member"
_PENDING: Final = """
    SELECT i.room_id, m.sender FROM local_current_membership i
    JOIN room_memberships m ON m.event_id = i.event_id
    WHERE i.user_id = ? AND i.membership = 'invite' LIMIT ?
"""

State = Mapping[tuple[str, str], EventBase]


async def record_extension(
    errands: Errands, *, room_id: str, extension_id: str, by: str, content: Mapping[str, Any]
) -> None:
    """For an event that Synapse has yet to judge. Each sender has an errand of their own, so that an attempt
    that is refused replaces nobody else's."""
    await errands.record(
        kind=EXTENSION_ERRAND,
        lane=room_id,
        subject=f"{extension_id} {by}",
        payload={"by": by, "content": content_mark(content)},
    )


async def record_invite(errands: Errands, *, room_id: str, service: str, by: str) -> None:
    """For an invite by a local user, which Synapse may have yet to judge; an errand for each inviter."""
    await errands.record(
        kind=INVITE_ERRAND,
        lane=room_id,
        subject=f"{service} {by}",
        payload={"service": service, "by": by},
    )


def content_mark(content: Mapping[str, Any]) -> str:
    """The same for equal contents, frozen by Synapse or not, and short however long they are."""
    text = json.dumps(content, sort_keys=True, default=dict)
    return hashlib.sha256(text.encode()).hexdigest()


class BringIn:
    """Performs the errands of extensions and invites; finds invites that went unseen."""

    def __init__(self, api: ModuleApi, config: ExtensionsConfig, tables: Tables) -> None:
        self._api = api
        self._config = config
        self._tables = tables

    async def do_extension(self, errand: Errand) -> None:
        """Lane, subject and payload are those of `record_extension`. Applies only while the room's state is
        what its sender sent: the errand was recorded before Synapse judged the event, and somebody else's
        event of the same content must not be done as theirs."""
        room_id, by = errand.lane, errand.payload["by"]
        extension_id = _extension_of(errand.subject)
        service = self._config.service_of(extension_id)
        if service is None:
            return
        state = await self._api.get_room_state(
            room_id, [(EXTENSION, None), (FUNCTIONAL_MEMBERS, ""), (POWER_LEVELS, ""), (_MEMBER, service)]
        )
        enabled = {
            state_key
            for (event_type, state_key), event in state.items()
            if event_type == EXTENSION and event.content.get("enabled") is True
        }
        shown = state.get((EXTENSION, extension_id))
        if shown is None or shown.sender != by or content_mark(shown.content) != errand.payload["content"]:
            raise TryLater("the room's state doesn't show it", seconds_max=STORED_SECONDS_MAX)
        if extension_id in enabled:
            await self._let_keys_be_shown(room_id, state, by=by)
            await self._let_in(room_id, service, state, by=by)
            await self._list(room_id, service, state, by=by)
        elif not any(self._config.service_of(extension) == service for extension in enabled):
            await self._let_out(room_id, service, state, by=by)

    async def do_invite(self, errand: Errand) -> None:
        """Lane, subject and payload are those of `record_invite`. Accepts only the inviter's own invite: a
        refused attempt must not accept another server's. Where the service is in the room already, the rest
        is no more than the sender's own power allows."""
        room_id, service, by = errand.lane, errand.payload["service"], errand.payload["by"]
        state = await self._api.get_room_state(
            room_id,
            [(FUNCTIONAL_MEMBERS, ""), (POWER_LEVELS, ""), (_MEMBER, service), ("m.room.name", "")],
        )
        membership = _membership(state, service)
        invited = membership == "invite" and state[(_MEMBER, service)].sender == by
        if not invited and membership != "join":
            raise TryLater("the room's state doesn't show it", seconds_max=STORED_SECONDS_MAX)
        await self._let_keys_be_shown(room_id, state, by=by)
        await self._let_in(room_id, service, state, by=by)
        if ("m.room.name", "") in state or await self._is_among_people(room_id):
            await self._list(room_id, service, state, by=by)

    async def sweep(self, errands: Errands) -> None:
        """Records an errand for each pending invite of a service user by a local user."""
        for service in self._config.service_users:
            for room_id, sender in await self._tables.rows(_PENDING, (service, SWEEP_ROWS_MAX)):
                if self._api.is_mine(sender):
                    await record_invite(errands, room_id=room_id, service=service, by=sender)

    async def _let_in(self, room_id: str, service: str, state: State, *, by: str) -> None:
        membership = _membership(state, service)
        if membership == "join":
            return
        if await self._api.check_user_exists(service) is None:
            raise TryLater(f"{service} isn't registered yet")
        if membership != "invite" and by != service:
            try:
                await self._api.update_room_membership(by, service, room_id, "invite")
            except SynapseError as error:
                if error.code != HTTPStatus.FORBIDDEN:
                    raise
                # In a room that anyone may join, no invite is needed; elsewhere the join is refused too.
        await self._api.update_room_membership(service, service, room_id, "join")

    async def _let_out(self, room_id: str, service: str, state: State, *, by: str) -> None:
        listed = _service_members(state)
        if service in listed:
            listed.remove(service)
            await self._send_list(room_id, listed, state, by=by)
        if _membership(state, service) in ("join", "invite"):
            await self._api.update_room_membership(service, service, room_id, "leave")

    async def _list(self, room_id: str, service: str, state: State, *, by: str) -> None:
        listed = _service_members(state)
        if service not in listed:
            await self._send_list(room_id, [*listed, service], state, by=by)

    async def _send_list(self, room_id: str, listed: list[str], state: State, *, by: str) -> None:
        """A member who may invite may lack the power to send state: then the list stays as it is."""
        current = state.get((FUNCTIONAL_MEMBERS, ""))
        kept = {} if current is None else dict(current.content)
        await self._send_if_allowed(room_id, FUNCTIONAL_MEMBERS, {**kept, "service_members": listed}, by=by)

    async def _let_keys_be_shown(self, room_id: str, state: State, *, by: str) -> None:
        """Also where the service is there already: it may have joined by itself before the errand came."""
        current = state.get((POWER_LEVELS, ""))
        levels = None if current is None else with_key_power(current.content)
        if levels is not None:
            await self._send_if_allowed(room_id, POWER_LEVELS, levels, by=by)

    async def _send_if_allowed(
        self, room_id: str, event_type: str, content: Mapping[str, Any], *, by: str
    ) -> None:
        try:
            await self._api.create_and_send_event_into_room(
                {
                    "type": event_type,
                    "state_key": "",
                    "room_id": room_id,
                    "sender": by,
                    "content": dict(content),
                }
            )
        except SynapseError as error:
            if error.code != HTTPStatus.FORBIDDEN:
                raise
            logger.info("%s may not set %s in %s: %s", by, event_type, room_id, error)

    async def _is_among_people(self, room_id: str) -> bool:
        """Whether two people are there. A nameless room of one person and a service is named after the
        service; were it a functional member, clients would call the room empty."""
        members = await self._api.get_room_state(room_id, [(_MEMBER, None)])
        people = [
            user
            for (_, user), event in members.items()
            if event.content.get("membership") in ("join", "invite")
            and user not in self._config.service_users
        ]
        return len(people) >= 2


def _extension_of(subject: str) -> str:
    """The guard lets no extension id with a space pass."""
    return subject.partition(" ")[0]


def _membership(state: State, user: str) -> str | None:
    event = state.get((_MEMBER, user))
    membership: Any = None if event is None else event.content.get("membership")
    return membership if isinstance(membership, str) else None


def _service_members(state: State) -> list[str]:
    event = state.get((FUNCTIONAL_MEMBERS, ""))
    listed: Any = None if event is None else event.content.get("service_members")
    return [user for user in listed if isinstance(user, str)] if isinstance(listed, list | tuple) else []
