"""End-to-end encryption for the bots of an application service.

A BotDevice is a service user's one device. Room events reach the service by application-service transactions
and are handed to `observe` and `decrypt`; keys, device lists and key counts come by the device's own /sync,
which `run` keeps going and which carries nothing else. Only after the homeserver was away is it asked once
for room events: Synapse, killed while it hands one over, forgets to do that again (decision 0011). Nothing
is ever sent in plain into a room that is encrypted: when its key can't be shared, sending fails.

Trust: a message is its sender's when it was written with the keys of a device that the homeserver lists for
that sender. Keys are shared with every device of everybody who may read the room, verified or not, as
Element does by default.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self
from weakref import WeakValueDictionary

from nio.crypto.attachments import encrypt_attachment

from appservices.chassis.awaited_keys import AwaitedKeys
from appservices.chassis.cross_signing import (
    CrossSigningConflict,
    CrossSigningUnusable,
    ensure_cross_signed,
)
from appservices.chassis.crypto_store import DEVICE_ID_PREFIX, CryptoStore, CryptoStoreUnusable
from appservices.chassis.homeserver import ONCE, JsonObject, MatrixRefused, MatrixUnavailable
from appservices.chassis.intents import Intent, IntentPool
from appservices.chassis.known_devices import KnownDevices
from appservices.chassis.olm_machine import (
    OlmMachine,
    RoomKeyArrived,
    RoomKeyWithheld,
    Rotation,
    SealedEvent,
    Undecryptable,
    UndecryptableReason,
)
from appservices.chassis.room_members import EncryptionUnsupported, RoomMembers
from appservices.vocabulary.ids import EventId, RoomId, UserId
from appservices.vocabulary.languages import known

__all__ = [
    "BotDevice",
    "CryptoStoreUnusable",
    "EncryptionUnsupported",
    "Undecryptable",
    "UndecryptableReason",
]

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 30
"""How long the homeserver may hold a /sync that has nothing to say."""
PAUSE_FIRST_SECONDS: Final = 0.5
PAUSE_SECONDS_MAX: Final = 30.0
MISSED_SECONDS: Final = 10.0
"""How long before the homeserver went away what it may have forgotten to hand over begins."""
MISSED_EVENTS_PER_ROOM_MAX: Final = 200
FALLBACK_KEY_SECONDS_MIN: Final = 60.0
"""Between two new fallback keys."""
CLEAR_EVENT_TYPES: Final = frozenset({"m.reaction"})
"""Sent in plain also in encrypted rooms, as all clients do: the homeserver aggregates them."""

_SYNC_FILTER: Final = json.dumps(
    {
        "room": {
            "rooms": [],
            "timeline": {"types": [], "limit": 1},
            "state": {"types": []},
            "ephemeral": {"types": []},
            "account_data": {"types": []},
        },
        "presence": {"types": []},
        "account_data": {"types": []},
    },
    separators=(",", ":"),
)

_MISSED_FILTER: Final = json.dumps(
    {
        "room": {
            "timeline": {"limit": MISSED_EVENTS_PER_ROOM_MAX},
            "state": {"types": []},
            "ephemeral": {"types": []},
            "account_data": {"types": []},
        },
        "presence": {"types": []},
        "account_data": {"types": []},
    },
    separators=(",", ":"),
)


class BotDevice:
    """One service user's device. Made by `open`, kept going by `run`, ended by `close`."""

    def __init__(self, intent: Intent, store: CryptoStore, machine: OlmMachine, *, display_name: str) -> None:
        self.intent = intent
        self._store = store
        self._machine = machine
        self._display_name = display_name
        self._devices = KnownDevices(intent, machine)
        self._rooms = RoomMembers(
            intent,
            encrypted={RoomId(room_id) for room_id in store.nio.load_encrypted_rooms()},
            remember_encrypted=lambda room_id: store.nio.save_encrypted_rooms({room_id}),
        )
        self._room_locks: WeakValueDictionary[RoomId, asyncio.Lock] = WeakValueDictionary()
        self._awaited = AwaitedKeys(store.device_id)
        self._listeners: list[Callable[[], None]] = []
        self._take_missed: Callable[[Sequence[JsonObject]], Awaitable[None]] | None = None
        # What was answered before we ran may have been lost as well.
        self._was_away = True
        self._tokens: deque[tuple[float, str]] = deque()
        self._work = asyncio.Event()
        self._one_time_count: int | None = None
        self._fallback_key_needed = store.is_new
        self._fallback_key_made_at = -FALLBACK_KEY_SECONDS_MIN

    @classmethod
    async def open(
        cls, intents: IntentPool, user_id: UserId, *, folder: Path, display_name: str
    ) -> BotDevice:
        """Opens the bot's store, makes its device and publishes its keys; `run` is to be started next.

        The folder belongs to this bot alone. The display name is what people see in a list of devices.
        Raises CryptoStoreUnusable, MatrixRefused and MatrixUnavailable.
        """
        await intents.intent(user_id).ensure_registered()
        store = CryptoStore(folder, user_id)
        try:
            return await cls._opened(intents, store, display_name)
        except BaseException:
            store.close()
            raise

    @classmethod
    async def _opened(cls, intents: IntentPool, store: CryptoStore, display_name: str) -> BotDevice:
        machine = OlmMachine(store)
        published = await _published_keys(intents, store, display_name)
        if published is not None and published != machine.device_keys()["keys"]:
            logger.warning(
                "the homeserver knows %s's device %s with other keys: it gets a new device",
                store.user_id,
                store.device_id,
            )
            store.set_aside()
            machine = OlmMachine(store)
            published = await _published_keys(intents, store, display_name)
        if published is None:
            # New to this homeserver: a token of an earlier life means nothing to it.
            store.forget_sync_token()
        machine.mark_device_shared(shared=published is not None)
        intent = intents.intent(store.user_id, store.device_id)
        bot = cls(intent, store, machine, display_name=display_name)
        await bot._publish()
        if store.is_new:
            await bot._drop_earlier_devices()
        return bot

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the store; `run` must have ended."""
        self._store.close()

    @property
    def user_id(self) -> UserId:
        return self._store.user_id

    @property
    def device_id(self) -> str:
        return self._store.device_id

    def on_new_keys(self, callback: Callable[[], None]) -> None:
        """Registers what to call when messages that waited for a key may be readable; it must not fail."""
        self._listeners.append(callback)

    def on_missed(self, take: Callable[[Sequence[JsonObject]], Awaitable[None]]) -> None:
        """Registers who takes the room events that the homeserver may have forgotten to hand over, most of
        which are known already; before `run`."""
        self._take_missed = take

    def observe(self, event: Mapping[str, Any]) -> None:
        """Takes note of a room event; to be called with each one that reaches the service, in order."""
        user_id = self._rooms.observe(event)
        if user_id is not None:
            # Device lists are only told of users in common rooms: who comes or goes is asked for anew.
            self._devices.forget([user_id])

    async def decrypt(self, event: Mapping[str, Any]) -> JsonObject | None:
        """The clear event of an m.room.encrypted one, or None while its key has not come.

        The clear event has the ids, sender and time of the sealed one and the decrypted type and content.
        The same event may be decrypted again; another event with the same ciphertext may not.
        Raises Undecryptable when waiting won't help, MatrixUnavailable when the sender's devices can't be
        checked now, MatrixRefused.
        """
        sealed = SealedEvent.of(event)
        if not self._machine.has_session_of(sealed):
            reason = self._awaited.reason_withheld(sealed)
            if reason is not None:
                raise Undecryptable(UndecryptableReason.KEY_WITHHELD, reason)
            self._awaited.wait_for(sealed, now=time.monotonic())
            self._work.set()
            return None
        session = self._machine.session_of_sender(sealed)
        if session is None:
            # A device that we have not seen, perhaps.
            silent = await self._devices.refresh([sealed.sender], anew=True)
            session = self._machine.session_of_sender(sealed)
            if session is None and silent:
                raise MatrixUnavailable(f"the devices of {sealed.sender} can't be asked for now")
        if session is None:
            raise Undecryptable(
                UndecryptableReason.SENDER_DIFFERS,
                known("the message was not written by a device of its sender, or that device is gone"),
            )
        payload = self._machine.open_event(sealed, session)
        content = payload["content"]
        relation = event["content"].get("m.relates_to")
        if relation is not None:
            content.setdefault("m.relates_to", relation)
        return {**event, "type": payload["type"], "content": content}

    async def send(
        self, room_id: RoomId, event_type: str, content: Mapping[str, Any], *, transaction_id: str
    ) -> EventId:
        """Sends a timeline event, encrypted when the room is; see Intent.send for the transaction id.

        Raises EncryptionUnsupported, MatrixRefused and MatrixUnavailable; nothing was sent in plain then.
        """
        try:
            return await self._send(room_id, event_type, content, transaction_id)
        except MatrixRefused as refused:
            if refused.errcode != "M_UNKNOWN_DEVICE":
                raise
        await self._make_device_again()
        return await self._send(room_id, event_type, content, transaction_id)

    async def _send(
        self, room_id: RoomId, event_type: str, content: Mapping[str, Any], transaction_id: str
    ) -> EventId:
        rotation = await self._rooms.rotation(room_id)
        if rotation is not None and event_type not in CLEAR_EVENT_TYPES:
            async with self._room_locks.setdefault(room_id, asyncio.Lock()):
                content = await self._sealed(room_id, rotation, event_type, content)
            event_type = "m.room.encrypted"
        return await self.intent.send(room_id, event_type, content, transaction_id=transaction_id)

    async def _sealed(
        self, room_id: RoomId, rotation: Rotation, event_type: str, content: Mapping[str, Any]
    ) -> JsonObject:
        readers = await self._rooms.readers(room_id)
        await self._devices.refresh(readers)
        recipients = self._machine.devices_of(readers)
        session = self._machine.outbound_session(room_id, recipients=recipients, rotation=rotation)
        missing = recipients - session.users_shared_with
        if missing:
            await self._devices.give_room_key(room_id, session, missing)
        return self._machine.seal(room_id, event_type, content)

    async def upload(
        self, room_id: RoomId, data: bytes, *, content_type: str, filename: str
    ) -> dict[str, Any]:
        """Puts a file into the media store for a message to that room, encrypted when the room is; what the
        message's content says of where it is (Matrix spec, "Sending encrypted attachments").

        Raises EncryptionUnsupported, MatrixRefused and MatrixUnavailable.
        """
        if await self._rooms.rotation(room_id) is None:
            return {"url": await self.intent.upload(data, content_type=content_type, filename=filename)}
        sealed, keys = encrypt_attachment(data)
        # Neither type nor name are for the homeserver to know.
        uri = await self.intent.upload(sealed, content_type="application/octet-stream", filename="file")
        return {"file": {**keys, "url": uri}}

    async def run(self) -> None:
        """Receives keys, and keeps ours in supply, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._attend())

    async def _listen(self) -> None:
        failures = 0
        while True:
            try:
                if self._was_away:
                    await self._ask_for_missed()
                self._absorb(await self._poll())
                failures = 0
                continue
            except MatrixUnavailable as unavailable:
                self._was_away = True
                logger.warning("%s can't receive keys: %s", self.user_id, unavailable.sentence)
                asked_pause = unavailable.retry_after_seconds
            except MatrixRefused as refused:
                logger.error("%s can't receive keys: %s", self.user_id, refused)
                asked_pause = None
                if refused.errcode == "M_UNKNOWN_DEVICE":
                    await self._try(self._make_device_again)
            except Exception:
                # A full disk, say, which passes; a bot that stopped listening would stay deaf.
                logger.exception("%s can't take in keys", self.user_id)
                asked_pause = None
            failures += 1
            await asyncio.sleep(asked_pause if asked_pause is not None else _pause(failures))

    async def _ask_for_missed(self) -> None:
        """Fetches what happened in rooms from a moment before the homeserver went away."""
        since = self._tokens[0][1] if self._tokens else self._store.sync_token()
        if since is not None and self._take_missed is not None:
            parameters = {"filter": _MISSED_FILTER, "since": since, "timeout": "0", "set_presence": "offline"}
            answer = await self.intent.call("GET", "/sync", parameters=parameters, retries=ONCE)
            events = []
            for room_id, room in answer.get("rooms", {}).get("join", {}).items():
                timeline = room.get("timeline", {})
                if timeline.get("limited"):
                    logger.warning("more happened in %s than is asked for after an outage", room_id)
                events += [{**event, "room_id": room_id} for event in timeline.get("events", ())]
            await self._take_missed(events)
        self._was_away = False

    async def _poll(self) -> JsonObject:
        parameters = {"filter": _SYNC_FILTER, "timeout": str(POLL_SECONDS * 1000), "set_presence": "offline"}
        token = self._store.sync_token()
        if token is not None:
            parameters["since"] = token
            now = time.monotonic()
            self._tokens.append((now, token))
            while len(self._tokens) > 1 and self._tokens[1][0] < now - MISSED_SECONDS:
                self._tokens.popleft()
        answer: JsonObject = await self.intent.call(
            "GET", "/sync", parameters=parameters, retries=ONCE, long_poll_seconds=POLL_SECONDS
        )
        return answer

    def _absorb(self, answer: Mapping[str, Any]) -> None:
        arrived = False
        # The homeserver forgets these events once a poll names the token: both are stored, or neither.
        with self._store.transaction():
            for event in answer.get("to_device", {}).get("events", ()):
                match self._machine.receive(event):
                    case RoomKeyArrived() as key:
                        self._awaited.arrived(key)
                        arrived = True
                    case RoomKeyWithheld() as notice:
                        self._awaited.withheld(notice)
                        arrived = True
                    case None:
                        pass
            self._store.nio.save_sync_token(answer["next_batch"])
        lists = answer.get("device_lists", {})
        self._devices.forget([*lists.get("changed", ()), *lists.get("left", ())])
        self._one_time_count = answer.get("device_one_time_keys_count", {}).get("signed_curve25519", 0)
        # An answer may be older than the last upload; a second new key at once would retire the first.
        self._fallback_key_needed = (
            "signed_curve25519" not in answer.get("device_unused_fallback_key_types", ())
            and time.monotonic() - self._fallback_key_made_at > FALLBACK_KEY_SECONDS_MIN
        )
        self._work.set()
        if arrived:
            for callback in self._listeners:
                callback()

    async def _attend(self) -> None:
        """What is to be done between polls, without holding them up."""
        while True:
            next_due = self._awaited.next_due()
            wait_seconds = None if next_due is None else max(0.0, next_due - time.monotonic())
            try:
                async with asyncio.timeout(wait_seconds):
                    await self._work.wait()
            except TimeoutError:
                pass
            self._work.clear()
            if not await self._try(self._attend_once):
                await asyncio.sleep(_pause(1))
                self._work.set()

    async def _attend_once(self) -> None:
        await self._upload_keys()
        await self._devices.start_sessions(self._machine.devices_to_unwedge())
        for event_type, messages in self._machine.waiting_messages():
            await self._devices.send_to_devices(event_type, messages)
        for request in self._awaited.due(now=time.monotonic()):
            self._machine.expect_forwarded(request.session_id, request.user_id)
            await self._devices.send_to_devices(
                "m.room_key_request", {request.user_id: {request.device_id: request.content}}
            )

    async def _try(self, work: Callable[[], Awaitable[None]]) -> bool:
        try:
            await work()
        except (MatrixRefused, MatrixUnavailable) as error:
            logger.warning("%s's keys can't be attended to: %s", self.user_id, error)
            return False
        except Exception:
            logger.exception("%s's keys can't be attended to", self.user_id)
            return False
        return True

    async def _publish(self) -> None:
        """Puts the device's identity, one-time and cross-signing keys onto the homeserver."""
        identity = {} if self._machine.account.shared else {"device_keys": self._machine.device_keys()}
        if identity:
            self._fallback_key_needed = True
        answer = await self.intent.call("POST", "/keys/upload", identity)
        self._machine.mark_device_shared(shared=True)
        self._one_time_count = answer.get("one_time_key_counts", {}).get("signed_curve25519", 0)
        await self._upload_keys()
        try:
            await ensure_cross_signed(self.intent, folder=self._store.folder, device_id=self.device_id)
        except (CrossSigningConflict, CrossSigningUnusable, MatrixRefused) as error:
            # People whose clients ask for cross-signed devices can't use the bot; all others still can.
            logger.error("%s's device is not cross-signed: %s", self.user_id, error)

    async def _upload_keys(self) -> None:
        if self._one_time_count is None:
            return
        upload = self._machine.fresh_keys(
            one_time_count=self._one_time_count, fallback_key_needed=self._fallback_key_needed
        )
        if not upload:
            return
        # The next poll or start says how many keys are there, whether this arrives or not; sending the same
        # keys twice could offer one again that was claimed in between.
        if self._fallback_key_needed:
            self._fallback_key_made_at = time.monotonic()
        self._one_time_count, self._fallback_key_needed = None, False
        await self.intent.call("POST", "/keys/upload", upload, retries=ONCE)

    async def _make_device_again(self) -> None:
        """After somebody removed the device from the homeserver: the same device, its keys published anew."""
        logger.warning("%s's device %s was removed from the homeserver", self.user_id, self.device_id)
        await self.intent.ensure_device(self.device_id, display_name=self._display_name)
        self._store.forget_sync_token()
        self._machine.mark_device_shared(shared=False)
        await self._publish()

    async def _drop_earlier_devices(self) -> None:
        """Devices whose store is lost can read nothing; people should not see them, nor encrypt for them."""
        for device_id in await self.intent.devices():
            if device_id.startswith(DEVICE_ID_PREFIX) and device_id != self.device_id:
                await self.intent.delete_device(device_id)


async def _published_keys(intents: IntentPool, store: CryptoStore, display_name: str) -> object:
    """Makes the device; the identity keys that the homeserver has of it already, None when it has none."""
    intent = intents.intent(store.user_id)
    await intent.ensure_device(store.device_id, display_name=display_name)
    answer = await intent.call("POST", "/keys/query", {"device_keys": {store.user_id: [store.device_id]}})
    device = answer.get("device_keys", {}).get(store.user_id, {}).get(store.device_id)
    return None if device is None else device.get("keys")


def _pause(failures: int) -> float:
    longest = min(PAUSE_SECONDS_MAX, PAUSE_FIRST_SECONDS * 2.0 ** min(failures - 1, 10))
    return longest * random.uniform(0.5, 1)
