"""A bot's olm machine: matrix-nio's, made safe for events that strangers write.

What differs from nio, and why:
- a room message counts as its sender's only when the session's keys are those of a device of that sender
  (nio hands it out as "unverified", and checks no room id inside);
- a message index that another event has used is refused also after a restart (nio forgets at exit);
- malformed input from others (to-device events, device keys, one-time keys) is skipped, never raised;
- one-time keys are on the disk before they are uploaded, and a fallback key is kept on the homeserver;
- a repeated room key never replaces a better one; a key forwarded by its very creator is accepted.

No I/O but the store: requests are made by encryption.py.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from types import SimpleNamespace
from typing import Any, Final

import vodozemac
from nio.crypto import InboundGroupSession, Olm
from nio.events import ForwardedRoomKeyEvent, RoomKeyEvent, ToDeviceEvent

from appservices.chassis.crypto_store import CryptoStore
from appservices.vocabulary.ids import RoomId, UserId
from appservices.vocabulary.languages import known

logger = logging.getLogger(__name__)

JsonObject = dict[str, Any]
Device = tuple[UserId, str]
"""A user and one of their device ids."""

MEGOLM: Final = "m.megolm.v1.aes-sha2"
ONE_TIME_KEYS_KEPT: Final = 50
"""One-time keys on the homeserver; more are uploaded when fewer than half are left."""
REQUESTED_SESSIONS_MAX: Final = 10_000
ROTATION_SECONDS_MIN: Final = 60 * 60
ROTATION_SECONDS_DEFAULT: Final = 7 * 24 * 60 * 60
ROTATION_MESSAGES_DEFAULT: Final = 100


class UndecryptableReason(StrEnum):
    """Why a message will not become readable by waiting."""

    MALFORMED = "malformed"
    ALGORITHM_UNKNOWN = "algorithm_unknown"
    SENDER_DIFFERS = "sender_differs"
    ROOM_DIFFERS = "room_differs"
    REPLAYED = "replayed"
    KEY_TOO_NEW = "key_too_new"
    KEY_WITHHELD = "key_withheld"


class Undecryptable(Exception):
    """A message that this device can't read or must not believe. `sentence` is for people."""

    def __init__(self, reason: UndecryptableReason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence


@dataclass(frozen=True, slots=True)
class SealedEvent:
    """The parts of an m.room.encrypted event that matter here, their types checked."""

    event_id: str
    room_id: RoomId
    sender: UserId
    session_id: str
    ciphertext: str
    sender_key: str | None
    device_id: str | None
    """Both named by the sender's client: hints only, and deprecated (MSC3700)."""

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> SealedEvent:
        """Raises Undecryptable."""
        content = event.get("content")
        if not isinstance(content, Mapping):
            raise Undecryptable(UndecryptableReason.MALFORMED, known("the message has no content"))
        if content.get("algorithm") != MEGOLM:
            raise Undecryptable(
                UndecryptableReason.ALGORITHM_UNKNOWN,
                known("the message is encrypted in a way that Weft doesn't know"),
            )
        texts = [event.get(name) for name in ("event_id", "room_id", "sender")]
        texts += [content.get(name) for name in ("session_id", "ciphertext")]
        if not all(isinstance(text, str) and text for text in texts):
            raise Undecryptable(UndecryptableReason.MALFORMED, known("the encrypted message is malformed"))
        sender_key, device_id = (content.get(name) for name in ("sender_key", "device_id"))
        return cls(
            event_id=str(texts[0]),
            room_id=RoomId(str(texts[1])),
            sender=UserId(str(texts[2])),
            session_id=str(texts[3]),
            ciphertext=str(texts[4]),
            sender_key=sender_key if isinstance(sender_key, str) else None,
            device_id=device_id if isinstance(device_id, str) else None,
        )


@dataclass(frozen=True, slots=True)
class RoomKeyArrived:
    """A key by which messages of a session in a room may be readable now."""

    room_id: RoomId
    session_id: str


@dataclass(frozen=True, slots=True)
class RoomKeyWithheld:
    """Somebody says why they don't give us a key (Matrix spec, m.room_key.withheld)."""

    sender: UserId
    room_id: RoomId
    session_id: str
    code: str


class OlmMachine(Olm):  # type: ignore[misc]
    """The olm machine of one bot's device."""

    def __init__(self, store: CryptoStore) -> None:
        self.bot_id = store.user_id
        self._requested_sessions: OrderedDict[str, UserId] = OrderedDict()
        super().__init__(store.user_id, store.device_id, store.nio)
        # Whether these reached the homeserver before the last end is unknown. Offering one again that was
        # claimed already would break somebody's session, so they are kept to be received, not to be offered.
        self.account.mark_keys_as_published()
        self.save_account()

    @property
    def identity_keys(self) -> Mapping[str, str]:
        keys: Mapping[str, str] = self.account.identity_keys
        return keys

    # --- Keys of ours -------------------------------------------------------------------------------------

    def device_keys(self) -> JsonObject:
        """This device's identity keys, signed by itself."""
        keys: JsonObject = {
            "algorithms": list(self._algorithms),
            "device_id": self.device_id,
            "user_id": self.user_id,
            "keys": {f"{kind}:{self.device_id}": key for kind, key in self.identity_keys.items()},
        }
        return self._signed(keys)

    def fresh_keys(self, *, one_time_count: int, fallback_key_needed: bool) -> JsonObject:
        """New public keys to upload, their private halves on the disk; empty when none are needed."""
        upload: JsonObject = {}
        if one_time_count < ONE_TIME_KEYS_KEPT / 2:
            self.account.generate_one_time_keys(ONE_TIME_KEYS_KEPT - one_time_count)
            upload["one_time_keys"] = {
                f"signed_curve25519:{key_id}": self._signed({"key": key})
                for key_id, key in self.account.one_time_keys["curve25519"].items()
            }
        if fallback_key_needed:
            # nio has no fallback keys; its account wraps vodozemac's, which has.
            account = self.account._account
            account.generate_fallback_key()
            upload["fallback_keys"] = {
                f"signed_curve25519:{key_id}": self._signed({"key": key.to_base64(), "fallback": True})
                for key_id, key in account.fallback_key.items()
            }
        if upload:
            self.account.mark_keys_as_published()
            self.save_account()
        return upload

    def mark_device_shared(self, *, shared: bool) -> None:
        self.account.shared = shared
        self.save_account()

    def _signed(self, value: JsonObject) -> JsonObject:
        return {**value, "signatures": {self.user_id: {f"ed25519:{self.device_id}": self.sign_json(value)}}}

    # --- To-device events ---------------------------------------------------------------------------------

    def receive(self, raw: object) -> RoomKeyArrived | RoomKeyWithheld | None:
        """Takes in one to-device event; whatever is wrong with it is logged and has no other effect."""
        try:
            if isinstance(raw, Mapping) and raw.get("type") in (
                "m.room_key.withheld",
                "org.matrix.room_key.withheld",
            ):
                return _withheld(raw)
            if not isinstance(raw, Mapping) or raw.get("type") != "m.room.encrypted":
                # Verifications and key requests are not for bots; nio would keep them without limit.
                return None
            event = ToDeviceEvent.parse_event(raw)
            received = None if event is None else self.handle_to_device_event(event)
        except Exception:
            # Anybody on Matrix can send us anything; one bad event must not stop those behind it.
            sender = raw.get("sender") if isinstance(raw, Mapping) else None
            logger.warning("a to-device event from %s can't be used", sender, exc_info=True)
            return None
        if isinstance(received, RoomKeyEvent | ForwardedRoomKeyEvent):
            return RoomKeyArrived(room_id=RoomId(received.room_id), session_id=received.session_id)
        return None

    def expect_forwarded(self, session_id: str, user_id: UserId) -> None:
        """That user was asked for the key of a session: should they forward it, it is taken."""
        self._requested_sessions[session_id] = user_id
        while len(self._requested_sessions) > REQUESTED_SESSIONS_MAX:
            self._requested_sessions.popitem(last=False)

    def create_group_session(
        self, sender_key: str, sender_fp_key: str, room_id: str, session_id: str, session_key: str
    ) -> None:
        session = InboundGroupSession(session_key, sender_fp_key, sender_key, room_id)
        if session.id != session_id:
            raise ValueError("a room key is not that of the session it names")
        self._keep(session)

    def _keep(self, session: Any) -> None:
        """Stores a room key unless one is there that reads as much."""
        known = self.inbound_group_store.get(session.room_id, session.sender_key, session.id)
        if known is not None and (
            known.first_known_index <= session.first_known_index or known.ed25519 != session.ed25519
        ):
            return
        self.inbound_group_store.add(session)
        self.save_inbound_group_session(session)

    def _handle_forwarded_room_key_event(self, sender: str, sender_key: str, payload: JsonObject) -> Any:
        # nio accepts forwarded keys from other devices of our own user only, of which a bot has none. A key
        # forwarded by the very device that made the session is as good as its first sending.
        event = ForwardedRoomKeyEvent.from_dict(payload, sender, sender_key)
        if not isinstance(event, ForwardedRoomKeyEvent):
            return None
        content = payload["content"]
        asked = self._requested_sessions.get(event.session_id)
        if (
            asked != sender
            or event.algorithm != MEGOLM
            or content["sender_key"] != sender_key
            or content["sender_claimed_ed25519_key"] != payload["keys"].get("ed25519")
            or content["forwarding_curve25519_key_chain"]
        ):
            logger.info("a forwarded room key from %s was not asked for or not their own", sender)
            return None
        session = InboundGroupSession.import_session(
            content["session_key"], content["sender_claimed_ed25519_key"], sender_key, event.room_id, []
        )
        if session.id != event.session_id:
            return None
        self._keep(session)
        return event

    # --- Devices of others --------------------------------------------------------------------------------

    def learn_devices(self, answer: Mapping[str, Any]) -> None:
        """Takes in the `device_keys` of a /keys/query answer, leaving out what is malformed."""
        by_user = answer.get("device_keys")
        sound: dict[str, JsonObject] = {}
        for user_id, devices in by_user.items() if isinstance(by_user, Mapping) else ():
            if isinstance(devices, Mapping):
                sound[user_id] = {
                    device_id: keys for device_id, keys in devices.items() if _is_device_keys(keys)
                }
        with self.store.database.atomic():
            try:
                self._handle_key_query(SimpleNamespace(device_keys=sound, changed={}))
            except Exception:
                # One user's malformed keys must not hide all the others'.
                logger.warning("device keys are taken in one user at a time", exc_info=True)
                for user_id, user_devices in sound.items():
                    self._learn_devices_of(user_id, user_devices)
            self._revive(sound)

    def _learn_devices_of(self, user_id: str, devices: JsonObject) -> None:
        try:
            self._handle_key_query(SimpleNamespace(device_keys={user_id: devices}, changed={}))
        except Exception:
            logger.warning("the device keys of %s can't be used", user_id, exc_info=True)

    def _revive(self, seen: Mapping[str, JsonObject]) -> None:
        # nio marks a device that is missing once as deleted for ever; a list may have been incomplete.
        changed: dict[str, dict[str, Any]] = {}
        for user_id, devices in seen.items():
            for device_id in devices:
                device = self.device_store[user_id].get(device_id)
                if device is not None and device.deleted and device.ed25519 in _values(devices[device_id]):
                    device.deleted = False
                    changed.setdefault(user_id, {})[device_id] = device
        if changed:
            self.store.save_device_keys(changed)

    def devices_of(self, users: Iterable[UserId]) -> set[Device]:
        """All devices that are there now, without this one."""
        return {
            (user_id, device.id)
            for user_id in users
            for device in self.device_store.active_user_devices(user_id)
            if (user_id, device.id) != (self.bot_id, self.device_id)
        }

    def devices_to_unwedge(self) -> set[Device]:
        """Devices whose Olm sessions with us broke: a new one is to be started by claiming a key."""
        return {(UserId(device.user_id), device.id) for device in self.wedged_devices}

    def waiting_messages(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """To-device messages that nio wants sent, each forgotten once the caller has sent it."""
        while self.outgoing_to_device_messages:
            message = self.outgoing_to_device_messages[0]
            yield message.type, message.as_dict()["messages"]
            self.outgoing_to_device_messages.remove(message)

    def without_olm_session(self, devices: Iterable[Device]) -> set[Device]:
        return {
            (user_id, device_id)
            for user_id, device_id in devices
            if self.session_store.get(self.device_store[user_id][device_id].curve25519) is None
        }

    def start_olm_sessions(self, answer: Mapping[str, Any]) -> None:
        """Takes in the `one_time_keys` of a /keys/claim answer, leaving out what is malformed."""
        by_user = answer.get("one_time_keys")
        with self.store.database.atomic():
            for user_id, devices in by_user.items() if isinstance(by_user, Mapping) else ():
                for device_id, keys in devices.items() if isinstance(devices, Mapping) else ():
                    self._start_olm_session(user_id, device_id, keys)

    def _start_olm_session(self, user_id: str, device_id: str, keys: Mapping[str, Any]) -> None:
        claim = SimpleNamespace(one_time_keys={user_id: {device_id: keys}})
        try:
            self._handle_key_claiming(claim)
        except Exception:
            logger.warning(
                "the one-time key of %s's device %s can't be used", user_id, device_id, exc_info=True
            )

    # --- Room messages ------------------------------------------------------------------------------------

    def has_session_of(self, sealed: SealedEvent) -> bool:
        return bool(self._sessions_of(sealed))

    def session_of_sender(self, sealed: SealedEvent) -> Any:
        """The session whose keys are those of a device of the event's sender; None when no one's are."""
        for session in self._sessions_of(sealed):
            if sealed.sender == self.bot_id and session.sender_key == self.identity_keys["curve25519"]:
                return session
            for device in self.device_store[sealed.sender].values():
                if device.curve25519 == session.sender_key and device.ed25519 == session.ed25519:
                    return session
        return None

    def open_event(self, sealed: SealedEvent, session: Any) -> JsonObject:
        """The payload, `type` and `content`, of a message. Raises Undecryptable."""
        try:
            text, message_index = session.decrypt(sealed.ciphertext)
            payload = json.loads(text)
        except (vodozemac.MegolmDecryptionException, vodozemac.DecodeException) as error:
            if "index" in str(error).lower():
                raise Undecryptable(
                    UndecryptableReason.KEY_TOO_NEW,
                    known("the message was sent before its key was shared with me"),
                ) from error
            raise Undecryptable(
                UndecryptableReason.MALFORMED,
                known("the message doesn't fit its key: it was damaged or forged"),
            ) from error
        except (ValueError, RecursionError) as error:
            raise Undecryptable(
                UndecryptableReason.MALFORMED, known("the decrypted message is malformed")
            ) from error
        if (
            not isinstance(payload, dict)
            or not isinstance(payload.get("type"), str)
            or not isinstance(payload.get("content"), dict)
        ):
            raise Undecryptable(UndecryptableReason.MALFORMED, known("the decrypted message is malformed"))
        if payload.get("room_id") != sealed.room_id:
            raise Undecryptable(
                UndecryptableReason.ROOM_DIFFERS, known("the message was written for another room")
            )
        first_event_id = self.store.event_of_message_index(sealed.session_id, message_index)
        if first_event_id is None:
            self.store.remember_message_index(sealed.session_id, message_index, sealed.event_id)
        elif first_event_id != sealed.event_id:
            raise Undecryptable(
                UndecryptableReason.REPLAYED, known("the message repeats an earlier one (a replay)")
            )
        return payload

    def _sessions_of(self, sealed: SealedEvent) -> list[Any]:
        by_sender = self.inbound_group_store[sealed.room_id]
        return [
            sessions[sealed.session_id] for sessions in by_sender.values() if sealed.session_id in sessions
        ]

    # --- Sending ------------------------------------------------------------------------------------------

    def outbound_session(self, room_id: RoomId, *, recipients: Collection[Device], rotation: Rotation) -> Any:
        """The room's outbound session, a new one when there is none, it is used up, or somebody has it who
        must not read on."""
        session = self.outbound_group_sessions.get(room_id)
        if session is None or session.expired or not session.users_shared_with <= set(recipients):
            self.create_outbound_group_session(room_id)
            session = self.outbound_group_sessions[room_id]
        session.max_age = timedelta(seconds=rotation.seconds)
        session.max_messages = rotation.messages
        return session

    def discard_outbound_session(self, room_id: RoomId) -> None:
        self.outbound_group_sessions.pop(room_id, None)

    def room_key_messages(
        self, room_id: RoomId, devices: Collection[Device]
    ) -> list[tuple[set[Device], JsonObject]]:
        """To-device bodies that bring the room's outbound session to these devices, batch by batch."""
        session = self.outbound_group_sessions[room_id]
        # nio begins a new session when this one is marked as shared; it skips those who have it.
        session.shared = False
        users = sorted({user_id for user_id, _ in devices})
        with self.store.database.atomic():
            return list(self.share_group_session_parallel(room_id, users))

    def is_device_verified(self, device: object) -> bool:
        # A bot verifies nobody and shuts nobody out: all devices count alike when keys are shared. Asking
        # nio's store would be several queries for each device.
        return True

    def is_device_blacklisted(self, device: object) -> bool:
        return False

    def seal(self, room_id: RoomId, event_type: str, content: Mapping[str, Any]) -> JsonObject:
        """The content of an m.room.encrypted event. Relations stay readable for the homeserver (spec,
        "Event relationships": m.relates_to is not encrypted)."""
        self.outbound_group_sessions[room_id].mark_as_shared()
        hidden = {name: value for name, value in content.items() if name != "m.relates_to"}
        sealed: JsonObject = self.group_encrypt(room_id, {"type": event_type, "content": hidden})
        if "m.relates_to" in content:
            sealed["m.relates_to"] = content["m.relates_to"]
        return sealed


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a room's key is replaced (content of m.room.encryption)."""

    seconds: float = ROTATION_SECONDS_DEFAULT
    messages: int = ROTATION_MESSAGES_DEFAULT

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Rotation:
        """Values that are missing or not sensible are the spec's defaults; an age is at least an hour."""
        milliseconds = content.get("rotation_period_ms")
        messages = content.get("rotation_period_msgs")
        return cls(
            seconds=min(
                ROTATION_SECONDS_DEFAULT,
                max(ROTATION_SECONDS_MIN, milliseconds / 1000),
            )
            if type(milliseconds) is int
            else ROTATION_SECONDS_DEFAULT,
            messages=min(ROTATION_MESSAGES_DEFAULT, max(1, messages))
            if type(messages) is int
            else ROTATION_MESSAGES_DEFAULT,
        )


def _withheld(raw: Mapping[str, Any]) -> RoomKeyWithheld | None:
    content = raw.get("content")
    if not isinstance(content, Mapping):
        return None
    room_id, session_id, code = (content.get(name) for name in ("room_id", "session_id", "code"))
    sender = raw.get("sender")
    if all(isinstance(text, str) for text in (sender, room_id, session_id, code)):
        return RoomKeyWithheld(
            sender=UserId(str(sender)),
            room_id=RoomId(str(room_id)),
            session_id=str(session_id),
            code=str(code),
        )
    return None


def _is_device_keys(keys: object) -> bool:
    return (
        isinstance(keys, Mapping)
        and isinstance(keys.get("user_id"), str)
        and isinstance(keys.get("device_id"), str)
        and all(isinstance(key, str) for key in _values(keys))
        and isinstance(keys.get("signatures"), Mapping)
    )


def _values(keys: Mapping[str, Any]) -> list[object]:
    inner = keys.get("keys")
    return list(inner.values()) if isinstance(inner, Mapping) else [None]
