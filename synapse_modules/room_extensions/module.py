"""The module as Synapse loads it: callbacks in, errands out.

Callbacks are chosen for their price. `check_event_allowed` would load a room's whole state for every event,
and `on_new_event` aborts inbound federation, so neither is used. What is used:

- `check_event_for_spam`: every event that a local user sends, and received ones, which pass;
- `user_may_send_state_event`: state over the client API, member events included, before it is an event, so
  that the answer can have its own status;
- `on_create_room`: createRoom's options, of server admins too;
- `user_may_invite`: local invites, except those of server admins, which a sweep finds;
- `on_user_registration` and `on_user_login`.
"""

from __future__ import annotations

import logging
from typing import Any

from synapse.module_api import NOT_SPAM, EventBase, JsonDict, ModuleApi, Requester
from synapse.module_api.errors import Codes, ConfigError, SynapseError

from appservices.vocabulary.events import EXTENSION
from appservices.vocabulary.ids import UserId, server_of
from synapse_modules.room_extensions.bring_in import (
    EXTENSION_ERRAND,
    INVITE_ERRAND,
    SWEEP_SECONDS,
    BringIn,
    record_extension,
    record_invite,
)
from synapse_modules.room_extensions.config import ExtensionsConfig, SettingInvalid, read_config
from synapse_modules.room_extensions.errands import Errands
from synapse_modules.room_extensions.guard import Guard, Refusal
from synapse_modules.room_extensions.home_room import (
    HOME_ERRAND,
    MOMENTS_ERRAND,
    PersonalRooms,
    home_plan,
    moments_plan,
)
from synapse_modules.room_extensions.tables import Tables

logger = logging.getLogger(__name__)


class RoomExtensions:
    """Room-level extensions; see docs/operators/room-extensions.md."""

    @staticmethod
    def parse_config(config: JsonDict) -> ExtensionsConfig:
        """Raises Synapse's ConfigError with one sentence."""
        try:
            return read_config(config)
        except SettingInvalid as invalid:
            raise ConfigError(str(invalid)) from invalid

    def __init__(self, config: ExtensionsConfig, api: ModuleApi) -> None:
        for user in sorted(config.service_users):
            if not api.is_mine(user):
                raise ConfigError(f"{user} is not a user of {api.server_name}: services are local users.")
        self._api = api
        self._config = config
        self._own_server = api.server_name
        self._service_users = config.service_users
        self._guard = Guard(config)
        tables = Tables(api, unlimited_users=sorted(config.service_users))
        self._bring_in = BringIn(api, config, tables)
        self._personal_rooms = {HOME_ERRAND: PersonalRooms(api, config, tables, home_plan(config))}
        moments = moments_plan(config)
        if moments is not None:
            self._personal_rooms[MOMENTS_ERRAND] = PersonalRooms(api, config, tables, moments)
        self._errands = Errands(
            api,
            tables,
            {
                EXTENSION_ERRAND: self._bring_in.do_extension,
                INVITE_ERRAND: self._bring_in.do_invite,
                **{errand: rooms.do for errand, rooms in self._personal_rooms.items()},
            },
        )
        api.register_spam_checker_callbacks(
            check_event_for_spam=self.check_event_for_spam,
            user_may_send_state_event=self.user_may_send_state_event,
            user_may_invite=self.user_may_invite,
        )
        api.register_third_party_rules_callbacks(on_create_room=self.on_create_room)
        api.register_account_validity_callbacks(
            on_user_registration=self.on_user_registration, on_user_login=self.on_user_login
        )
        if api.should_run_background_tasks():
            api.looping_background_call(self._sweep, SWEEP_SECONDS * 1000, desc="weft_sweep")

    async def check_event_for_spam(self, event: EventBase) -> Any:
        """Refuses by a value: an exception here would abort federation if one of our own events came back."""
        sender = event.sender
        if server_of(UserId(sender)) != self._own_server:
            return NOT_SPAM
        state_key = event.get_state_key()
        content = event.content
        refusal = self._guard.judge_event(
            sender=sender, event_type=event.type, state_key=state_key, content=content
        )
        if refusal is not None:
            return Codes(refusal.errcode), {"error": refusal.sentence}
        if event.type == EXTENSION and state_key is not None:
            await record_extension(
                self._errands, room_id=event.room_id, extension_id=state_key, by=sender, content=content
            )
        return NOT_SPAM

    async def user_may_send_state_event(
        self, user_id: str, room_id: str, event_type: str, state_key: str, content: JsonDict
    ) -> Any:
        """Refuses with the right status; not asked for server admins, whom check_event_for_spam meets."""
        _raise(
            self._guard.judge_event(
                sender=user_id, event_type=event_type, state_key=state_key, content=content
            )
        )
        return NOT_SPAM

    async def on_create_room(self, requester: Requester, config: JsonDict, is_requester_admin: bool) -> None:
        """Refuses; and invites the services of the extensions that the new room begins with."""
        creator = requester.user.to_string()
        _raise(self._guard.judge_room(creator=creator, options=config))
        invited = config.get("invite", [])
        if isinstance(invited, list):
            wanted = [user for user in self._guard.services_wanted(config) if user not in (creator, *invited)]
            config["invite"] = invited + wanted
            if is_requester_admin and not self._service_users.isdisjoint(config["invite"]):
                self._api.delayed_background_call(1000, self._sweep, desc="weft_sweep")

    async def user_may_invite(self, inviter: str, invitee: str, room_id: str) -> Any:
        """Refuses nobody; a service user accepts a local invite. Synapse asks about other servers' invites
        here too; those wait for the service's own decision."""
        if invitee in self._service_users and self._api.is_mine(inviter):
            await record_invite(self._errands, room_id=room_id, service=invitee, by=inviter)
        return NOT_SPAM

    async def on_user_registration(self, user: str) -> None:
        await self._want_rooms(user)

    async def on_user_login(
        self, user_id: str, auth_provider_type: str | None, auth_provider_id: str | None
    ) -> None:
        await self._want_rooms(user_id)

    async def _want_rooms(self, user_id: str) -> None:
        """A database that fails here must not fail the login: the next one asks again. Bridges register
        ghosts by the thousand, so whoever is no person costs no errand."""
        try:
            if not await self._personal_rooms[HOME_ERRAND].is_person(user_id):
                return
            for errand in self._personal_rooms:
                await self._errands.record(kind=errand, lane=user_id, subject="", payload={})
        except Exception:
            logger.exception("The Home room of %s waits for the next login", user_id)

    async def _sweep(self) -> None:
        await self._bring_in.sweep(self._errands)


def _raise(refusal: Refusal | None) -> None:
    if refusal is not None:
        raise SynapseError(refusal.status, refusal.sentence, Codes(refusal.errcode))
