"""The module as Synapse loads it: a web resource for services, and a note of each account that changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from synapse.module_api import JsonDict, ModuleApi
from synapse.module_api.errors import ConfigError

from appservices.vocabulary.events import CONTACTS_PATH
from appservices.vocabulary.ids import UserId, is_user_id
from synapse_modules.contacts.changes import Changes
from synapse_modules.contacts.resource import ContactsResource
from synapse_modules.contacts.snapshot import ACCOUNT_DATA_TYPES, Snapshots

SETTINGS: Final = ("service_users",)


@dataclass(frozen=True, slots=True)
class ContactsConfig:
    """Which service users may ask."""

    service_users: frozenset[UserId]


class Contacts:
    """Contacts for services; see docs/operators/contacts.md."""

    @staticmethod
    def parse_config(config: JsonDict) -> ContactsConfig:
        """Raises Synapse's ConfigError with one sentence."""
        return _read_config(config)

    def __init__(self, config: ContactsConfig, api: ModuleApi) -> None:
        for user in sorted(config.service_users):
            if not api.is_mine(user):
                raise ConfigError(f"{user} is not a user of {api.server_name}: services are local users.")
        self._changes = Changes(api)
        api.register_account_data_callbacks(on_account_data_updated=self.on_account_data_updated)
        api.register_web_resource(
            CONTACTS_PATH,
            ContactsResource(
                api, service_users=config.service_users, changes=self._changes, snapshots=Snapshots(api)
            ),
        )

    async def on_account_data_updated(
        self, user_id: str, room_id: str | None, account_data_type: str, content: JsonDict
    ) -> None:
        """Called before the client that changed it is answered, so whoever asks after that answer hears."""
        if room_id is None and account_data_type in ACCOUNT_DATA_TYPES:
            await self._changes.note(user_id)


def _read_config(raw: object) -> ContactsConfig:
    if not isinstance(raw, Mapping):
        raise ConfigError("config must be a mapping.")
    for key in raw:
        if key not in SETTINGS:
            raise ConfigError(f"{key!r} is not a setting; there is {', '.join(SETTINGS)}.")
    listed: Any = raw.get("service_users")
    if not isinstance(listed, list) or not all(isinstance(user, str) and is_user_id(user) for user in listed):
        raise ConfigError("service_users must be a list of full user ids such as @moments:example.org.")
    return ContactsConfig(frozenset(UserId(user) for user in listed))
