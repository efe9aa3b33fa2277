"""A message as a bot reads it, and the answers it writes."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote

from appservices.vocabulary.ids import EventId, RoomId, UserId, is_user_id
from appservices.vocabulary.languages import without_directions

TEXT_LENGTH_MAX = 4_000
SHOWN_NAME_LENGTH_MAX = 64
_USER_LINK = re.compile(r"https://matrix\.to/#/(@[^?/]+)|matrix:u/([^?/]+)")
_BLOCK_TAGS = frozenset({"br", "p", "div", "li", "tr"})


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    """A text message from a person, in clear, with pills turned into user ids."""

    event_id: EventId
    room_id: RoomId
    sender: UserId
    text: str
    reply_to: EventId | None

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> IncomingMessage | None:
        """The message in an event; None when it is no new text from a person.

        Notices are from bots and edits change what was said, not what was ordered: neither is a command.
        """
        content = event["content"]
        relation = content.get("m.relates_to")
        relation = relation if isinstance(relation, Mapping) else {}
        if (
            event["type"] != "m.room.message"
            or "state_key" in event
            or content.get("msgtype") != "m.text"
            or not isinstance(content.get("body"), str)
            or relation.get("rel_type") == "m.replace"
        ):
            return None
        reply = relation.get("m.in_reply_to")
        reply_to = reply.get("event_id") if isinstance(reply, Mapping) else None
        return cls(
            event_id=EventId(event["event_id"]),
            room_id=RoomId(event["room_id"]),
            sender=UserId(event["sender"]),
            text=_text(content, is_reply=isinstance(reply_to, str))[:TEXT_LENGTH_MAX].strip(),
            reply_to=EventId(reply_to) if isinstance(reply_to, str) else None,
        )


def notice(text: str, *, formatted: str | None = None, reply_to: EventId | None = None) -> dict[str, Any]:
    """The content of a bot's message; `formatted` is HTML."""
    content: dict[str, Any] = {"msgtype": "m.notice", "body": text, "m.mentions": {}}
    if formatted is not None:
        content |= {"format": "org.matrix.custom.html", "formatted_body": formatted}
    return content if reply_to is None else content | reply_relation(reply_to)


def reply_relation(event_id: EventId) -> dict[str, Any]:
    """What makes a message an answer to another one, outside of any thread."""
    return {"m.relates_to": {"m.in_reply_to": {"event_id": event_id}}}


def shown_name(user_id: UserId, display_name: str | None) -> str:
    """A person's name as a sentence may show it: one line, printable, no direction marks, short."""
    cleaned = without_directions(display_name or "")
    printable = "".join(character if character.isprintable() else " " for character in cleaned)
    name = " ".join(printable.split())
    if not name:
        return user_id
    return name if len(name) <= SHOWN_NAME_LENGTH_MAX else name[: SHOWN_NAME_LENGTH_MAX - 1] + "…"


def pill(user_id: UserId, name: str) -> str:
    """HTML that clients show as a mention of the user."""
    return f'<a href="https://matrix.to/#/{html.escape(user_id)}">{html.escape(name)}</a>'


def _text(content: Mapping[str, Any], *, is_reply: bool) -> str:
    formatted = content.get("formatted_body")
    if isinstance(formatted, str) and _USER_LINK.search(unquote(formatted)):
        parser = _PillText()
        parser.feed(formatted[: 8 * TEXT_LENGTH_MAX])
        parser.close()
        return parser.text()
    body = str(content["body"])
    if is_reply and body.startswith("> "):
        # The quotation that older clients put before a reply (rich reply fallback).
        _, separator, answer = body.partition("\n\n")
        return answer if separator else body
    return body


class _PillText(HTMLParser):
    """HTML as plain text, with links to users replaced by their user ids."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._in_pill = False
        self._quotation_depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "mx-reply":
            self._quotation_depth += 1
        if tag in _BLOCK_TAGS:
            self._parts.append("\n")
        if tag == "a":
            user_id = _linked_user(unquote(dict(attrs).get("href") or ""))
            if user_id is not None and self._quotation_depth == 0:
                self._parts.append(user_id)
                self._in_pill = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "mx-reply":
            self._quotation_depth = max(0, self._quotation_depth - 1)
        if tag == "a":
            self._in_pill = False

    def handle_data(self, data: str) -> None:
        if not self._in_pill and self._quotation_depth == 0:
            self._parts.append(data)

    def text(self) -> str:
        return "".join(self._parts)


def _linked_user(address: str) -> UserId | None:
    match = _USER_LINK.fullmatch(address.split("?", 1)[0])
    if match is None:
        return None
    user_id = match.group(1) or f"@{match.group(2)}"
    return UserId(user_id) if is_user_id(user_id) else None
