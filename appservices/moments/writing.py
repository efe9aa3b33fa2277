"""How a Moment is written in a message: for whom it is at the start, where it was on the last line.

`/friends`, `/public`, `/me`, `/tag <name>` and `/except <name>` at the start choose the audience. Some
clients keep slashes for themselves, so `!` does instead; there, where `!tag` is a command, it is
`!only <name>`. A last line that begins with 📍 is the place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from appservices.moments.rules import CONTACTS, Audience, AudienceKind
from appservices.vocabulary.ids import UserId
from appservices.vocabulary.languages import _, isolated, listed

_WORD: Final = re.compile(
    r"(?:/|[!\uff01](?!tag))(friends|public|me|tag|only|except)(?:\s+|$)",
    re.IGNORECASE,
)
_NAME: Final = re.compile(r"(?:\"([^\"]+)\"|“([^”]+)”|(\S+))\s*")
_PLACE: Final = "📍"
_KINDS: Final = {
    "friends": AudienceKind.CONTACTS,
    "public": AudienceKind.PUBLIC,
    "me": AudienceKind.ONLY_ME,
    "tag": AudienceKind.ONLY,
    "only": AudienceKind.ONLY,
    "except": AudienceKind.EXCEPT,
}


class WritingUnclear(ValueError):
    """It can't be told for whom it is; the message is one sentence, said already."""


@dataclass(frozen=True, slots=True)
class Written:
    """What somebody has written."""

    text: str
    place: str
    audience: Audience


def is_audience_word(text: str) -> bool:
    """Whether a text that begins as a command does is a Moment with its audience."""
    return _WORD.match(text) is not None


def read_writing(
    text: str, tags: Mapping[str, frozenset[UserId]], *, default: Audience = CONTACTS
) -> Written:
    """Raises WritingUnclear when a tag is named that the author doesn't have."""
    audience = default
    match = _WORD.match(text)
    if match is not None:
        kind = _KINDS[match.group(1).lower()]
        text = text[match.end() :]
        audience = Audience(kind)
        if kind in (AudienceKind.ONLY, AudienceKind.EXCEPT):
            name = _NAME.match(text)
            tag = None if name is None else _tag(next(filter(None, name.groups())), tags)
            if tag is None:
                raise WritingUnclear(_no_tag(tags))
            assert name is not None
            text = text[name.end() :]
            audience = Audience(kind, tags=frozenset({tag}))
    body, place = _place(text.strip())
    return Written(body, place, audience)


def _tag(name: str, tags: Mapping[str, frozenset[UserId]]) -> str | None:
    return next((tag for tag in tags if tag.casefold() == name.rstrip(":").casefold()), None)


def _no_tag(tags: Mapping[str, frozenset[UserId]]) -> str:
    if not tags:
        return _("You have no tags yet: make one with {example}, then send it again.").format(
            example=isolated("!tag family @anna:example.org")
        )
    return _("You have no such tag; yours are {tags}. Nothing was posted.").format(
        tags=listed([isolated(tag) for tag in sorted(tags)])
    )


def _place(text: str) -> tuple[str, str]:
    body, separator, last = text.rpartition("\n")
    if last.strip().startswith(_PLACE) and (separator or not body):
        return body.strip(), last.strip().removeprefix(_PLACE).strip()
    return text, ""
