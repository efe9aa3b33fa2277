"""What local users may not send: invalid extensions, and what only a service may claim.

Pure rules. They judge events of local senders only; what other servers send is believed by its signature
or not at all, never blocked here, because a server that refuses others' events splits the room.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from appservices.vocabulary.events import EXTENSION, KEYS, SERVICE_ONLY_BLOCKS
from appservices.vocabulary.ids import UserId
from appservices.vocabulary.schemas import BlockInvalid, check_block
from synapse_modules.room_extensions.config import ExtensionsConfig

Content = Mapping[str, Any]

FORBIDDEN: Final = "M_FORBIDDEN"
BAD_JSON: Final = "M_BAD_JSON"

_EXTENSION_ID: Final = re.compile(r"[a-z][a-z0-9_]{0,63}(?::\S{1,180})?")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an event is not accepted; the sentence is for the person who sent it."""

    status: HTTPStatus
    errcode: str
    sentence: str


class Guard:
    """Judges events and rooms-to-be of local users."""

    def __init__(self, config: ExtensionsConfig) -> None:
        self._config = config
        self._service_users = config.service_users

    def judge_event(
        self, *, sender: str, event_type: str, state_key: str | None, content: Content
    ) -> Refusal | None:
        """The reason to refuse a local event, or None. `state_key` is None for a timeline event."""
        if sender not in self._service_users:
            claimed = _claimed(event_type, content)
            if claimed is not None:
                return _forbidden(f"Only a service of this homeserver may send {claimed}.")
        if event_type == KEYS and (sender not in self._service_users or state_key not in (None, sender)):
            return _forbidden("Only a service itself may publish its keys.")
        if event_type == EXTENSION and state_key is not None:
            return self._judge_extension(state_key, content)
        return None

    def judge_room(self, *, creator: str, options: Content) -> Refusal | None:
        """The same for createRoom: every event that its options will become. Malformed options pass:
        Synapse refuses them itself. And the type of the room: only a service makes rooms of its own kind."""
        creation = options.get("creation_content")
        room_type = creation.get("type") if isinstance(creation, Mapping) else None
        if creator not in self._service_users and room_type in SERVICE_ONLY_BLOCKS:
            return _forbidden(f"Only a service of this homeserver may make a room of type {room_type}.")
        planned = [("m.room.create", "", options.get("creation_content"))]
        planned.append(("m.room.power_levels", "", options.get("power_level_content_override")))
        planned.extend(initial_state(options))
        for event_type, state_key, content in planned:
            if isinstance(content, Mapping):
                refusal = self.judge_event(
                    sender=creator, event_type=event_type, state_key=state_key, content=content
                )
                if refusal is not None:
                    return refusal
        return None

    def services_wanted(self, options: Content) -> list[UserId]:
        """The service users of the extensions that createRoom's options enable, each once."""
        wanted: dict[UserId, None] = {}
        for event_type, state_key, content in initial_state(options):
            if event_type == EXTENSION and isinstance(content, Mapping) and content.get("enabled") is True:
                service = self._config.service_of(state_key)
                if service is not None:
                    wanted[service] = None
        return list(wanted)

    def _judge_extension(self, extension_id: str, content: Content) -> Refusal | None:
        if not _EXTENSION_ID.fullmatch(extension_id):
            return _bad_json("The state key of dev.weft.extension must be an extension id such as payments.")
        if self._config.service_of(extension_id) is None:
            return _bad_json(f"This homeserver has no extension {extension_id.split(':', 1)[0]}.")
        try:
            check_block("extension", dict(content))
        except BlockInvalid as invalid:
            return _bad_json(f"{invalid}.")
        return None


def initial_state(options: Content) -> list[tuple[str, str, object]]:
    """(type, state key, content) of the well-formed events in createRoom's initial_state."""
    listed = options.get("initial_state")
    return [
        (item["type"], item.get("state_key", ""), item.get("content"))
        for item in (listed if isinstance(listed, list | tuple) else ())
        if isinstance(item, Mapping)
        and isinstance(item.get("type"), str)
        and isinstance(item.get("state_key", ""), str)
    ]


def _claimed(event_type: str, content: Content) -> str | None:
    if event_type in SERVICE_ONLY_BLOCKS:
        return event_type
    replacement = content.get("m.new_content")
    for block in SERVICE_ONLY_BLOCKS:
        if block in content or (isinstance(replacement, Mapping) and block in replacement):
            return block
    return None


def _forbidden(sentence: str) -> Refusal:
    return Refusal(HTTPStatus.FORBIDDEN, FORBIDDEN, sentence)


def _bad_json(sentence: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, BAD_JSON, sentence)
