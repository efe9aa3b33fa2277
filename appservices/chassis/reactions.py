"""Reactions to a service's messages: a tap that means something, such as paying what a message asks for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from appservices.chassis.calls import Call
from appservices.chassis.database import Write
from appservices.vocabulary.ids import EventId, UserId

KEY_LENGTH_MAX: Final = 64
_VARIATION_SELECTOR: Final = "\ufe0f"


@dataclass(frozen=True, slots=True)
class Reaction:
    """Somebody's reaction to an event. `key` is the emoji, without the selector that makes it colourful."""

    sender: UserId
    key: str
    to: EventId

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Reaction | None:
        """The reaction in an event (Matrix spec, "Event annotations and reactions"); None when it is none."""
        relation = event["content"].get("m.relates_to")
        if event["type"] != "m.reaction" or "state_key" in event or not isinstance(relation, Mapping):
            return None
        key, to = relation.get("key"), relation.get("event_id")
        if relation.get("rel_type") != "m.annotation" or not isinstance(key, str) or not isinstance(to, str):
            return None
        return cls(
            UserId(event["sender"]), key[:KEY_LENGTH_MAX].replace(_VARIATION_SELECTOR, ""), EventId(to)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReactionCall(Call):
    """A reaction to one of our messages; `subject` is what that message is about, `kind:id`."""

    key: str
    subject: str


ReactionHandler = Callable[[ReactionCall], Awaitable[Sequence[Write] | None]]
"""Returns the reaction's effects; None if it has committed them itself, `call.stored.done` among them."""
