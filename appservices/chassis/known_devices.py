"""The devices of people a bot talks to: kept current, reached by Olm, given the room keys they lack."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, TypeVar
from uuid import uuid4

from appservices.chassis.homeserver import JsonObject, path_of
from appservices.chassis.intents import Intent
from appservices.chassis.olm_machine import Device, OlmMachine
from appservices.vocabulary.ids import RoomId, UserId, server_of

logger = logging.getLogger(__name__)

BATCH_MAX: Final = 100
"""Users asked for, or devices given a key, at once: the work on a batch holds up the whole process, some
0.2 s for this many."""
REMOTE_TIMEOUT_SECONDS: Final = 5
"""How long the homeserver may wait for other homeservers while somebody waits for a message to be sent."""
RETRY_SERVER_SECONDS: Final = 60.0
"""After which a homeserver that didn't answer is asked for its users' devices again."""
RETRY_DEVICE_SECONDS: Final = 300.0
"""After which a device that had no one-time key is tried again."""

_Item = TypeVar("_Item")


class KnownDevices:
    """What one bot knows of others' devices. Raises MatrixRefused and MatrixUnavailable."""

    def __init__(self, intent: Intent, machine: OlmMachine) -> None:
        self._intent = intent
        self._machine = machine
        self._current: set[UserId] = set()
        self._ask_again_at: dict[UserId, float] = {}
        self._claim_again_at: dict[Device, float] = {}

    def forget(self, users: Iterable[UserId]) -> None:
        """Their devices may have changed: they are asked for before they are used again."""
        for user_id in users:
            self._current.discard(user_id)
            self._ask_again_at.pop(user_id, None)

    async def refresh(self, users: Iterable[UserId], *, anew: bool = False) -> frozenset[UserId]:
        """Asks for the devices that may be outdated. Returns users whose homeserver did not answer.

        Those are tried again after RETRY_SERVER_SECONDS; meanwhile what was known of them holds.
        """
        asked = sorted(users)
        if anew:
            self.forget(asked)
        now = time.monotonic()
        outdated = (
            user_id
            for user_id in asked
            if user_id not in self._current and now >= self._ask_again_at.get(user_id, 0)
        )
        for batch in _batches(outdated):
            await self._query(batch)
        return frozenset(user_id for user_id in asked if user_id in self._ask_again_at)

    async def give_room_key(self, room_id: RoomId, session: Any, devices: Collection[Device]) -> None:
        """Brings the room's outbound session to these devices; those out of reach stay without it."""
        now = time.monotonic()
        lacking = self._machine.without_olm_session(devices)
        await self.start_sessions(device for device in lacking if now >= self._claim_again_at.get(device, 0))
        reachable = set(devices) - self._machine.without_olm_session(devices)
        for batch in _batches(sorted(reachable)):
            for receivers, body in self._machine.room_key_messages(room_id, batch):
                await self.send_to_devices("m.room.encrypted", body["messages"])
                session.users_shared_with.update(receivers)

    async def start_sessions(self, devices: Iterable[Device]) -> None:
        """Claims a one-time key of each device and starts an Olm session with it."""
        for batch in _batches(devices):
            wanted: dict[str, dict[str, str]] = {}
            for user_id, device_id in batch:
                wanted.setdefault(user_id, {})[device_id] = "signed_curve25519"
            answer = await self._intent.call(
                "POST", "/keys/claim", {"one_time_keys": wanted, "timeout": REMOTE_TIMEOUT_SECONDS * 1000}
            )
            self._machine.start_olm_sessions(answer)
            without = self._machine.without_olm_session(batch)
            for device in batch:
                if device in without:
                    logger.info("%s's device %s has no one-time key for us", *device)
                    self._claim_again_at[device] = time.monotonic() + RETRY_DEVICE_SECONDS
                else:
                    self._claim_again_at.pop(device, None)

    async def send_to_devices(
        self, event_type: str, messages: Mapping[str, Mapping[str, JsonObject]]
    ) -> None:
        """Sends to-device messages, by user and device id."""
        # Synapse keeps answers by path and service alone: the id is unique among all the service's users.
        path = path_of("sendToDevice", event_type, uuid4().hex)
        await self._intent.call("PUT", path, {"messages": messages})

    async def _query(self, users: Collection[UserId]) -> None:
        # Marked before the answer, so that a change that comes meanwhile leads to another query.
        self._current.update(users)
        try:
            answer = await self._intent.call(
                "POST",
                "/keys/query",
                {
                    "device_keys": {user_id: [] for user_id in users},
                    "timeout": REMOTE_TIMEOUT_SECONDS * 1000,
                },
            )
        except BaseException:
            self._current.difference_update(users)
            raise
        self._machine.learn_devices(answer)
        silent = answer.get("failures", {})
        for user_id in users:
            if server_of(user_id) in silent:
                self._current.discard(user_id)
                self._ask_again_at[user_id] = time.monotonic() + RETRY_SERVER_SECONDS
            else:
                self._ask_again_at.pop(user_id, None)


def _batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH_MAX)):
        yield batch
