"""Room keys that have not come yet: whom to ask for them and when, and why they may never come."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from appservices.chassis.homeserver import JsonObject
from appservices.chassis.olm_machine import MEGOLM, RoomKeyArrived, RoomKeyWithheld, SealedEvent
from appservices.vocabulary.ids import RoomId, UserId
from appservices.vocabulary.languages import known

KEY_REQUEST_AFTER_SECONDS: Final = 4.0
"""How long a missing room key may take before its sender's device is asked for it."""
AWAITED_MAX: Final = 10_000
"""Missing keys, and notices of withheld ones, that are remembered; the oldest are forgotten first."""

_SENTENCES: Final = {
    "m.blacklisted": known("your client has blocked this bot's device"),
    "m.unverified": known(
        "your client gives keys to verified devices only, and doesn't count this bot's as one"
    ),
    "m.unauthorised": known("your client says that this bot may not read the message"),
    "m.unavailable": known("your client doesn't have the message's key any more"),
}


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """A to-device message about a missing key, and its receiver."""

    user_id: UserId
    device_id: str
    session_id: str
    content: JsonObject


@dataclass(slots=True)
class _Awaited:
    sealed: SealedEvent
    ask_at: float
    request_id: str | None = None


class AwaitedKeys:
    """The missing keys of one device. Times are seconds of one monotonic clock."""

    def __init__(self, device_id: str) -> None:
        self._device_id = device_id
        self._awaited: OrderedDict[tuple[RoomId, str], _Awaited] = OrderedDict()
        self._withheld: OrderedDict[tuple[UserId, RoomId, str], str] = OrderedDict()
        self._cancellations: list[KeyRequest] = []

    def wait_for(self, sealed: SealedEvent, *, now: float) -> None:
        """A message came whose key is not here."""
        key = (sealed.room_id, sealed.session_id)
        if key not in self._awaited:
            self._awaited[key] = _Awaited(sealed=sealed, ask_at=now + KEY_REQUEST_AFTER_SECONDS)
            while len(self._awaited) > AWAITED_MAX:
                self._awaited.popitem(last=False)

    def arrived(self, key: RoomKeyArrived) -> None:
        awaited = self._awaited.pop((key.room_id, key.session_id), None)
        if awaited is not None and awaited.request_id is not None:
            self._cancellations.append(self._message(awaited, "request_cancellation", awaited.request_id))

    def withheld(self, notice: RoomKeyWithheld) -> None:
        key = (notice.sender, notice.room_id, notice.session_id)
        self._withheld[key] = notice.code
        while len(self._withheld) > AWAITED_MAX:
            self._withheld.popitem(last=False)

    def reason_withheld(self, sealed: SealedEvent) -> str | None:
        """Why its sender gives us no key, a sentence for them; None when they didn't say, or may still."""
        code = self._withheld.get((sealed.sender, sealed.room_id, sealed.session_id))
        return None if code is None else _SENTENCES.get(code)

    def due(self, *, now: float) -> Iterator[KeyRequest]:
        """What is to be sent by now. Each message counts as sent when the next one is asked for."""
        while self._cancellations:
            yield self._cancellations[0]
            del self._cancellations[0]
        for awaited in list(self._awaited.values()):
            if awaited.request_id is None and awaited.ask_at <= now:
                request_id = uuid4().hex
                yield self._message(awaited, "request", request_id)
                awaited.request_id = request_id

    def next_due(self) -> float | None:
        """When the next request is due; None when none is waiting."""
        times = [awaited.ask_at for awaited in self._awaited.values() if awaited.request_id is None]
        return min(times, default=None)

    def _message(self, awaited: _Awaited, action: str, request_id: str) -> KeyRequest:
        sealed = awaited.sealed
        content: JsonObject = {
            "action": action,
            "request_id": request_id,
            "requesting_device_id": self._device_id,
        }
        if action == "request":
            content["body"] = {
                "algorithm": MEGOLM,
                "room_id": sealed.room_id,
                "session_id": sealed.session_id,
            }
            if sealed.sender_key is not None:
                # Deprecated, but older clients don't look at a request without it.
                content["body"]["sender_key"] = sealed.sender_key
        return KeyRequest(
            user_id=sealed.sender,
            device_id=sealed.device_id or "*",
            session_id=sealed.session_id,
            content=content,
        )
