"""Reactions to a service's messages: a tap that means something, such as paying what a message asks for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from appservices.chassis.calls import Call
from appservices.chassis.database import Write
from appservices.vocabulary.ids import EventId, ServerName, UserId, server_of

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
    to: EventId

    @property
    def answered(self) -> EventId:
        """Clients show no reaction that is replied to, so it is the message that was reacted to."""
        return self.to


ReactionHandler = Callable[[ReactionCall], Awaitable[Sequence[Write] | None]]
"""Returns the reaction's effects; None if it has committed them itself, `call.stored.done` among them."""


class ReactionRouter:
    """Hands each reaction to whoever knows what its message is about, by the subject's kind."""

    def __init__(
        self,
        handlers: Mapping[str, ReactionHandler],
        *,
        own_server: ServerName,
        for_everybody: frozenset[str] = frozenset(),
    ) -> None:
        """`for_everybody` are the kinds whose handlers know what to do with people of other homeservers."""
        self._handlers = dict(handlers)
        self._own_server = own_server
        self._for_everybody = for_everybody

    async def route(self, call: ReactionCall) -> Sequence[Write] | None:
        """The effects of a reaction: none when its message has no use for any, or for a stranger's."""
        kind = call.subject.partition(":")[0]
        handler = self._handlers.get(kind)
        is_ours = server_of(call.sender) == self._own_server
        if handler is None or not (is_ours or kind in self._for_everybody):
            return []
        return await handler(call)
