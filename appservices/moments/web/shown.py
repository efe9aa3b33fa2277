"""A Moment as a template shows it: names instead of ids, addresses instead of places in the media store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from appservices.moments.names import Names
from appservices.moments.records import VIDEO, Comment, Part
from appservices.moments.rules import Audience, AudienceKind
from appservices.moments.viewing import Seen
from appservices.moments.web.addresses import AddressOf
from appservices.vocabulary.ids import UserId
from appservices.vocabulary.languages import _, listed


@dataclass(frozen=True, slots=True)
class ShownPart:
    """A picture or video by its addresses."""

    part_id: str
    url: str
    small_url: str
    is_video: bool
    alt: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class ShownComment:
    comment_id: str
    maker: UserId
    name: str
    answered_name: str
    text: str
    at_ms: int
    may_delete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownMoment:
    moment_id: str
    author: UserId
    name: str
    text: str
    place: str
    parts: tuple[ShownPart, ...]
    at_ms: int
    is_edited: bool
    is_own: bool
    is_liked: bool
    likers: tuple[str, ...]
    comments: tuple[ShownComment, ...]
    audience: str
    """For whom it is, in words; shown to the author only."""


async def shown_moments(
    seen: Sequence[Seen], viewer: UserId, *, names: Names, address: AddressOf
) -> list[ShownMoment]:
    people: set[UserId] = set()
    for each in seen:
        people |= {each.moment.author, *(like.maker for like in each.likes)}
        people |= {comment.maker for comment in each.comments}
        people |= set(each.moment.audience.people) if each.moment.author == viewer else set()
    called = await names.of(people)
    return [_shown(each, viewer, called, address) for each in seen]


def _shown(seen: Seen, viewer: UserId, called: Mapping[UserId, str], address: AddressOf) -> ShownMoment:
    moment, own = seen.moment, seen.moment.author == viewer
    makers = {comment.comment_id: comment.maker for comment in seen.comments}

    def shown_comment(comment: Comment) -> ShownComment:
        answered = makers.get(comment.answers) if comment.answers is not None else None
        return ShownComment(
            comment_id=comment.comment_id,
            maker=comment.maker,
            name=called[comment.maker],
            answered_name=called[answered] if answered is not None else "",
            text=comment.text,
            at_ms=comment.at_ms,
            may_delete=own or comment.maker == viewer,
        )

    return ShownMoment(
        moment_id=moment.moment_id,
        author=moment.author,
        name=called[moment.author],
        text=moment.content.text,
        place=moment.content.place,
        parts=tuple(shown_part(moment.moment_id, part, address) for part in moment.content.parts),
        at_ms=moment.created_at_ms,
        is_edited=moment.edited_at_ms is not None,
        is_own=own,
        is_liked=any(like.maker == viewer for like in seen.likes),
        likers=tuple(called[like.maker] for like in seen.likes),
        comments=tuple(shown_comment(comment) for comment in seen.comments),
        audience=audience_words(moment.audience, called) if own else "",
    )


def shown_part(moment_id: str, part: Part, address: AddressOf) -> ShownPart:
    path = f"/moments/pictures/{moment_id}/{part.part_id}"
    return ShownPart(
        part_id=part.part_id,
        url=address(path),
        small_url=address(f"{path}?small=1") if part.preview_mxc else address(path),
        is_video=part.kind == VIDEO,
        alt=part.alt,
        width=part.width,
        height=part.height,
    )


def audience_words(audience: Audience, called: Mapping[UserId, str]) -> str:
    """For whom a Moment is, as its author reads it."""
    who = listed(
        [*sorted(audience.tags), *(called.get(person, person) for person in sorted(audience.people))]
    )
    match audience.kind:
        case AudienceKind.PUBLIC:
            return _("Everybody here")
        case AudienceKind.ONLY_ME:
            return _("Only me")
        case AudienceKind.ONLY:
            return _("Only {who}").format(who=who)
        case AudienceKind.EXCEPT:
            return _("All friends but {who}").format(who=who)
        case _:
            return _("All friends")
