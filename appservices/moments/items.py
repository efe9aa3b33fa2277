"""What two Moments services of different homeservers tell each other: the items of their link, read strictly.

A Moment goes once to each server that has somebody in its audience, with those of its people who may see it
and nobody else. What is under a Moment goes to its author's server, which passes it on to who may see it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from appservices.chassis.links.protocol import NUMBER_MAX, Item
from appservices.moments.records import (
    COMMENT_LENGTH_MAX,
    Comment,
    CommentId,
    Content,
    ContentUnreadable,
    Like,
    Moment,
    MomentId,
    Shown,
    is_id,
)
from appservices.moments.rules import Audience, AudienceKind, Window
from appservices.vocabulary.ids import UserId, is_user_id

MOMENT, MOMENT_DELETE = "moment", "moment_delete"
LIKE, UNLIKE = "like", "unlike"
COMMENT, COMMENT_DELETE = "comment", "comment_delete"
PEOPLE_MAX: Final = 1_000
"""Named in one item."""


class ItemUnreadable(ValueError):
    """It is no item of ours; the text names the place."""


def moment_item(moment: Moment, viewers: frozenset[UserId], window: Window) -> Item:
    return {
        "kind": MOMENT,
        "id": moment.moment_id,
        "author": moment.author,
        "at_ms": moment.created_at_ms,
        "edited_at_ms": moment.edited_at_ms or 0,
        "window": window.value,
        "viewers": sorted(viewers),
        # Whom the author wants to be reminded is told to those servers alone that they are of.
        "content": {
            **moment.content.to_json(),
            "reminded": [person for person in moment.content.reminded if person in viewers],
        },
    }


def like_item(like: Like, shown: Shown) -> Item:
    return {
        "kind": LIKE,
        "moment": like.moment_id,
        "maker": like.maker,
        "at_ms": like.at_ms,
        **_shown_json(shown),
    }


def comment_item(comment: Comment, shown: Shown) -> Item:
    return {
        "kind": COMMENT,
        "moment": comment.moment_id,
        "id": comment.comment_id,
        "maker": comment.maker,
        "text": comment.text,
        "answers": comment.answers or "",
        "at_ms": comment.at_ms,
        **_shown_json(shown),
    }


def delete_item(kind: str, moment_id: MomentId, **named: str) -> Item:
    """`moment_delete`, `unlike` with its maker, `comment_delete` with its id."""
    return {"kind": kind, "moment": moment_id, **named}


def read_moment(item: Item) -> Moment:
    """Raises ItemUnreadable."""
    window = _text(item, "window")
    if window not in set(Window):
        raise ItemUnreadable("window")
    try:
        content = Content.from_json(item.get("content"))
    except ContentUnreadable as unreadable:
        raise ItemUnreadable("content") from unreadable
    return Moment(
        moment_id=MomentId(read_id(item, "id")),
        author=read_user(item, "author"),
        created_at_ms=_number(item, "at_ms"),
        edited_at_ms=_number(item, "edited_at_ms") or None,
        audience=Audience(AudienceKind.LISTED, people=_people(item, "viewers")),
        content=content,
        window=Window(window),
    )


def read_like(item: Item) -> Like:
    """Raises ItemUnreadable."""
    moment_id, maker = MomentId(read_id(item, "moment")), read_user(item, "maker")
    return Like(moment_id, maker, _number(item, "at_ms"), _read_shown(item))


def read_comment(item: Item) -> Comment:
    """Raises ItemUnreadable."""
    text = _text(item, "text")
    if not 0 < len(text) <= COMMENT_LENGTH_MAX:
        raise ItemUnreadable("text")
    answers = _text(item, "answers")
    if answers and not is_id(answers):
        raise ItemUnreadable("answers")
    return Comment(
        comment_id=CommentId(read_id(item, "id")),
        moment_id=MomentId(read_id(item, "moment")),
        maker=read_user(item, "maker"),
        text=text,
        at_ms=_number(item, "at_ms"),
        answers=CommentId(answers) if answers else None,
        shown_to=_read_shown(item),
    )


def _read_shown(value: Mapping[str, Any]) -> Shown:
    marks = value.get("marks", [])
    if not isinstance(marks, list) or len(marks) > PEOPLE_MAX:
        raise ItemUnreadable("marks")
    if not all(isinstance(each, str) for each in marks):
        raise ItemUnreadable("marks")
    return Shown(_people(value, "people"), frozenset(each[:24] for each in marks))


def read_id(item: Item, name: str) -> str:
    value = item.get(name)
    if not is_id(value):
        raise ItemUnreadable(name)
    return str(value)


def read_user(item: Item, name: str) -> UserId:
    value = item.get(name)
    if not isinstance(value, str) or not is_user_id(value):
        raise ItemUnreadable(name)
    return UserId(value)


def _shown_json(shown: Shown) -> dict[str, Any]:
    return {"people": sorted(shown.people)[:PEOPLE_MAX], "marks": sorted(shown.marks)[:PEOPLE_MAX]}


def _people(item: Mapping[str, Any], name: str) -> frozenset[UserId]:
    listed = item.get(name, [])
    if not isinstance(listed, list) or len(listed) > PEOPLE_MAX:
        raise ItemUnreadable(name)
    if not all(isinstance(each, str) and is_user_id(each) for each in listed):
        raise ItemUnreadable(name)
    return frozenset(UserId(each) for each in listed)


def _text(item: Item, name: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise ItemUnreadable(name)
    return value


def _number(item: Item, name: str) -> int:
    value = item.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= NUMBER_MAX:
        raise ItemUnreadable(name)
    return value
