"""A Moment, its likes and comments, as values, and how they are written down as JSON.

What comes from people's clients and other servers is read here and nowhere else, with a limit on everything;
what does not fit is a ContentUnreadable with one sentence.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NewType

from appservices.moments.rules import Audience, AudienceKind, Post, Window
from appservices.vocabulary.ids import UserId, is_user_id
from appservices.vocabulary.languages import known

MomentId = NewType("MomentId", str)
CommentId = NewType("CommentId", str)

TEXT_LENGTH_MAX: Final = 2_000
COMMENT_LENGTH_MAX: Final = 500
PLACE_LENGTH_MAX: Final = 80
PICTURES_MAX: Final = 9
PEOPLE_NAMED_MAX: Final = 500
"""Of one audience."""
TAG_LENGTH_MAX: Final = 40
TAGS_MAX: Final = 50
PIXELS_MAX: Final = 100_000
"""Of one side, as a description says."""
_MARK_BYTES: Final = 9
_MXC: Final = re.compile(r"mxc://[^/\s]{1,255}/[A-Za-z0-9_-]{1,255}")
_PART_ID: Final = re.compile(r"[0-9a-f]{32}")
PICTURE, VIDEO = "picture", "video"
_MEDIA_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    PICTURE: ("image/jpeg", "image/png", "image/webp", "image/gif"),
    VIDEO: ("video/mp4", "video/webm", "video/quicktime"),
}


class ContentUnreadable(ValueError):
    """It is no content of a Moment; the sentence, to be said by `_`, says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A picture or a video in the media store."""

    part_id: str
    kind: str
    mxc: str
    media_type: str
    size_bytes: int
    width: int = 0
    height: int = 0
    preview_mxc: str = ""
    """A small picture of it; empty when there is none."""
    alt: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.part_id,
            "kind": self.kind,
            "mxc": self.mxc,
            "media_type": self.media_type,
            "bytes": self.size_bytes,
            "width": self.width,
            "height": self.height,
            "preview_mxc": self.preview_mxc,
            "alt": self.alt,
        }

    @classmethod
    def from_json(cls, value: object) -> Part:
        """Raises ContentUnreadable."""
        if not isinstance(value, Mapping):
            raise ContentUnreadable(known("That is no picture."))
        kind, media_type = value.get("kind"), value.get("media_type")
        part_id, mxc, preview = value.get("id"), value.get("mxc"), value.get("preview_mxc", "")
        fits = (
            isinstance(part_id, str)
            and _PART_ID.fullmatch(part_id)
            and isinstance(kind, str)
            and kind in _MEDIA_TYPES
            and media_type in _MEDIA_TYPES[kind]
            and isinstance(mxc, str)
            and _MXC.fullmatch(mxc)
            and isinstance(preview, str)
            and (preview == "" or _MXC.fullmatch(preview))
        )
        if not fits:
            raise ContentUnreadable(known("That is no picture."))
        alt = value.get("alt", "")
        return cls(
            part_id=str(part_id),
            kind=str(kind),
            mxc=str(mxc),
            media_type=str(media_type),
            size_bytes=_number(value.get("bytes"), 2**40),
            width=_number(value.get("width"), PIXELS_MAX),
            height=_number(value.get("height"), PIXELS_MAX),
            preview_mxc=preview,
            alt=alt[:PLACE_LENGTH_MAX] if isinstance(alt, str) else "",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a Moment says."""

    text: str = ""
    parts: tuple[Part, ...] = ()
    place: str = ""
    reminded: tuple[UserId, ...] = ()
    """Who is to be told that they should see it, if they may."""

    @property
    def is_empty(self) -> bool:
        return not self.text and not self.parts

    def to_json(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "parts": [part.to_json() for part in self.parts],
            "place": self.place,
            "reminded": list(self.reminded),
        }

    @classmethod
    def from_json(cls, value: object) -> Content:
        """Raises ContentUnreadable."""
        if not isinstance(value, Mapping):
            raise ContentUnreadable(known("That is no Moment."))
        parts, reminded = value.get("parts", []), value.get("reminded", [])
        text, place = value.get("text", ""), value.get("place", "")
        if not isinstance(parts, list) or not isinstance(text, str) or not isinstance(place, str):
            raise ContentUnreadable(known("That is no Moment."))
        return checked(
            cls(
                text=text,
                parts=tuple(Part.from_json(part) for part in parts),
                place=place,
                reminded=_people(reminded),
            )
        )


def checked(content: Content) -> Content:
    """The content, if it keeps the limits. Raises ContentUnreadable."""
    if len(content.text) > TEXT_LENGTH_MAX:
        raise ContentUnreadable(known("That is too long: a Moment has up to 2,000 characters."))
    if len(content.place) > PLACE_LENGTH_MAX:
        raise ContentUnreadable(known("The place is too long: it has up to 80 characters."))
    pictures = [part for part in content.parts if part.kind == PICTURE]
    videos = [part for part in content.parts if part.kind == VIDEO]
    if len(pictures) > PICTURES_MAX:
        raise ContentUnreadable(known("A Moment has up to nine pictures."))
    if len(videos) > 1 or (videos and pictures):
        raise ContentUnreadable(known("A Moment has either pictures or one video."))
    if len(content.reminded) > PICTURES_MAX + 1:
        raise ContentUnreadable(known("Up to ten people can be reminded."))
    return content


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A Moment as it stands."""

    moment_id: MomentId
    author: UserId
    created_at_ms: int
    audience: Audience
    content: Content
    edited_at_ms: int | None = None
    window: Window = Window.ALL

    @property
    def post(self) -> Post:
        """What the rules need to know of it."""
        return Post(
            author=self.author,
            audience=self.audience,
            created_at_ms=self.created_at_ms,
            window=self.window,
        )


@dataclass(frozen=True, slots=True)
class Shown:
    """To whom what somebody made may be shown, as the other server says: people by name, or by marks that
    tell only whom one knows already."""

    people: frozenset[UserId] = frozenset()
    marks: frozenset[str] = frozenset()

    def to_json(self) -> str:
        return json.dumps({"people": sorted(self.people), "marks": sorted(self.marks)})

    @classmethod
    def from_json(cls, text: str) -> Shown | None:
        """What `to_json` wrote; None for nothing, where no other server has said anything."""
        if not text:
            return None
        value = json.loads(text)
        return cls(frozenset(UserId(person) for person in value["people"]), frozenset(value["marks"]))

    def includes(self, moment_id: MomentId, person: UserId) -> bool:
        return person in self.people or mark(moment_id, person) in self.marks


def mark(moment_id: MomentId, person: UserId) -> str:
    """A contact of somebody who likes a Moment, as their server names them to the author's server: whom that
    server does not have in the Moment's audience anyway it learns nothing of, short of guessing."""
    digest = hashlib.sha256(f"dev.weft.moments contact\n{moment_id}\n{person}".encode()).digest()
    return base64.urlsafe_b64encode(digest[:_MARK_BYTES]).decode()


@dataclass(frozen=True, slots=True)
class Like:
    moment_id: MomentId
    maker: UserId
    at_ms: int
    shown_to: Shown | None = None
    """Of one that came from another server: to whom it may be shown here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    comment_id: CommentId
    moment_id: MomentId
    maker: UserId
    text: str
    at_ms: int
    answers: CommentId | None = None
    shown_to: Shown | None = None
    """Of one that came from another server: to whom it may be shown here."""


@dataclass(frozen=True, slots=True)
class Threads:
    """Likes and comments of several Moments, oldest first."""

    likes: Mapping[MomentId, Sequence[Like]] = field(default_factory=dict)
    comments: Mapping[MomentId, Sequence[Comment]] = field(default_factory=dict)


def audience_json(audience: Audience) -> str:
    return json.dumps(
        {
            "kind": audience.kind.value,
            "tags": sorted(audience.tags),
            "people": sorted(audience.people),
        }
    )


def read_audience(text: str) -> Audience:
    """What audience_json wrote."""
    value = json.loads(text)
    return Audience(
        AudienceKind(value["kind"]),
        tags=frozenset(value["tags"]),
        people=frozenset(UserId(person) for person in value["people"]),
    )


def is_id(text: object) -> bool:
    """Whether it has the form of a Moment's or comment's id: 32 lower-case hex digits."""
    return isinstance(text, str) and _PART_ID.fullmatch(text) is not None


def _people(value: object) -> tuple[UserId, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and is_user_id(item) for item in value):
        raise ContentUnreadable(known("That is no list of people."))
    return tuple(dict.fromkeys(UserId(item) for item in value))


def _number(value: object, highest: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= highest:
        return 0
    return value
