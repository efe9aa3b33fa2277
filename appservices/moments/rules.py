"""Who may see what of a Moment, judged at the moment of viewing. Pure: no clock, no database, no Matrix.

Whatever is asked about a Moment that one may not see is answered as if it did not exist, so there is one
refusal here and no reasons. Nothing here remembers: who joins a tag sees its older Moments, who leaves it or
is no contact any more does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from appservices.vocabulary.ids import UserId

_DAY_MS: Final = 24 * 3600 * 1000


class AudienceKind(StrEnum):
    """For whom a Moment is."""

    CONTACTS = "contacts"
    PUBLIC = "public"
    """Contacts, and everybody on the author's server who visits the author's page."""
    ONLY_ME = "me"
    ONLY = "only"
    """Those contacts who have one of these tags, or are named."""
    EXCEPT = "except"
    """All contacts but those."""
    LISTED = "listed"
    """Of a Moment from another server: those whom the author's server has named."""


class Window(StrEnum):
    """How far back visitors may look. The author always sees all."""

    ALL = "all"
    SIX_MONTHS = "6_months"
    ONE_MONTH = "1_month"
    THREE_DAYS = "3_days"


WINDOW_MS: Final[Mapping[Window, int | None]] = MappingProxyType(
    {
        Window.ALL: None,
        Window.SIX_MONTHS: 183 * _DAY_MS,
        Window.ONE_MONTH: 31 * _DAY_MS,
        Window.THREE_DAYS: 3 * _DAY_MS,
    }
)


@dataclass(frozen=True, slots=True)
class Audience:
    """For whom a Moment is; tags are the author's own, by name."""

    kind: AudienceKind
    tags: frozenset[str] = frozenset()
    people: frozenset[UserId] = frozenset()


CONTACTS: Final = Audience(AudienceKind.CONTACTS)


@dataclass(frozen=True, slots=True)
class Circle:
    """What one person's own account says about others, as of now."""

    direct: frozenset[UserId] = frozenset()
    """With whom they share a direct room that both have joined."""
    ignored: frozenset[UserId] = frozenset()
    tags: Mapping[str, frozenset[UserId]] = field(default_factory=lambda: MappingProxyType({}))
    not_shown_to: frozenset[UserId] = frozenset()
    """Whom none of their Moments is shown to."""
    hidden: frozenset[UserId] = frozenset()
    """Whose Moments they don't want in their feed."""
    window: Window = Window.ALL

    def counts(self, other: UserId) -> bool:
        """Whether the other is a contact as far as this person's account says."""
        return other in self.direct and other not in self.ignored


Circles = Mapping[UserId, Circle]
"""Of those people of whom we know; of people of other servers, what their server told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """What the rules need to know of a Moment."""

    author: UserId
    audience: Audience
    created_at_ms: int
    window: Window = Window.ALL
    """Of a Moment from another server, as its server told; otherwise the author's circle says."""


def are_contacts(circles: Circles, one: UserId, other: UserId) -> bool:
    """Whether two people are contacts: by both accounts, or by the one that is known here."""
    known = [
        circles[person].counts(opposite)
        for person, opposite in ((one, other), (other, one))
        if person in circles
    ]
    return one != other and bool(known) and all(known)


def ignore_each_other(circles: Circles, one: UserId, other: UserId) -> bool:
    """Whether either ignores the other."""
    return any(
        person in circles and opposite in circles[person].ignored
        for person, opposite in ((one, other), (other, one))
    )


def may_see(circles: Circles, post: Post, viewer: UserId, *, now_ms: int) -> bool:
    """Whether the Moment exists for the viewer."""
    if viewer == post.author:
        return True
    author = circles.get(post.author, Circle(window=post.window))
    if ignore_each_other(circles, post.author, viewer) or viewer in author.not_shown_to:
        return False
    span_ms = WINDOW_MS[author.window]
    if span_ms is not None and post.created_at_ms < now_ms - span_ms:
        return False
    return _in_audience(circles, post, author, viewer)


def in_feed(circles: Circles, post: Post, viewer: UserId, *, now_ms: int) -> bool:
    """Whether the Moment comes to the viewer by itself: their own, and what contacts show them, unless they
    hide that person's."""
    if viewer == post.author:
        return True
    hides = viewer in circles and post.author in circles[viewer].hidden
    return (
        not hides
        and are_contacts(circles, post.author, viewer)
        and may_see(circles, post, viewer, now_ms=now_ms)
    )


def may_see_of(circles: Circles, post: Post, maker: UserId, viewer: UserId, *, now_ms: int) -> bool:
    """Whether the viewer sees what `maker` made under the Moment: a like or a comment."""
    return may_see(circles, post, viewer, now_ms=now_ms) and (
        viewer in (post.author, maker) or are_contacts(circles, maker, viewer)
    )


def _in_audience(circles: Circles, post: Post, author: Circle, viewer: UserId) -> bool:
    audience = post.audience
    if audience.kind is AudienceKind.PUBLIC:
        return True
    if audience.kind is AudienceKind.ONLY_ME or not are_contacts(circles, post.author, viewer):
        return False
    named = viewer in audience.people or any(
        viewer in author.tags.get(tag, frozenset()) for tag in audience.tags
    )
    match audience.kind:
        case AudienceKind.CONTACTS:
            return True
        case AudienceKind.EXCEPT:
            return not named
        case _:
            return named
