"""Moments in the database: read as values in somebody's transaction, changed by Writes that ride in one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Row, and_, bindparam, delete, func, insert, or_, select, update

from appservices.chassis.database import UnitOfWork, Write
from appservices.moments.records import (
    Comment,
    CommentId,
    Content,
    Like,
    Moment,
    MomentId,
    Part,
    Shown,
    Threads,
    audience_json,
    read_audience,
)
from appservices.moments.rules import Audience, Window
from appservices.moments.tables import (
    authors,
    comments,
    due,
    feed_rooms,
    likes,
    moment_events,
    moments,
    uploads,
)
from appservices.vocabulary.ids import EventId, RoomId, UserId

_KEYS_MAX: Final = 500
"""Of one query."""

_INSERT_MOMENT: Final = insert(moments)
_INSERT_EVENT: Final = insert(moment_events)
_INSERT_LIKE: Final = insert(likes)
_INSERT_COMMENT: Final = insert(comments)
_INSERT_DUE: Final = insert(due)
_INSERT_UPLOAD: Final = insert(uploads)
_SET_CONTENT: Final = (
    update(moments)
    .where(moments.c.moment_id == bindparam("of_moment"))
    .values(content=bindparam("new_content"), edited_at_ms=bindparam("new_at_ms"))
)
_SET_AUDIENCE: Final = (
    update(moments)
    .where(moments.c.moment_id == bindparam("of_moment"))
    .values(audience=bindparam("new_audience"))
)
_DELETE_MOMENT: Final = (
    update(moments)
    .where(moments.c.moment_id == bindparam("of_moment"))
    .values(content="{}", deleted_at_ms=bindparam("new_at_ms"))
)
_DELETE_EVENT: Final = delete(moment_events).where(moment_events.c.event_id == bindparam("of_event"))
_DELETE_LIKE: Final = delete(likes).where(
    likes.c.moment_id == bindparam("of_moment"), likes.c.maker == bindparam("of_maker")
)
_DELETE_LIKES: Final = delete(likes).where(likes.c.moment_id == bindparam("of_moment"))
_DELETE_COMMENT: Final = (
    update(comments)
    .where(comments.c.comment_id == bindparam("of_comment"))
    .values(text="", deleted_at_ms=bindparam("new_at_ms"))
)
_DELETE_COMMENTS: Final = (
    update(comments)
    .where(comments.c.moment_id == bindparam("of_moment"), comments.c.deleted_at_ms.is_(None))
    .values(text="", deleted_at_ms=bindparam("new_at_ms"))
)
_SET_LIKE_SHOWN: Final = (
    update(likes)
    .where(likes.c.moment_id == bindparam("of_moment"), likes.c.maker == bindparam("of_maker"))
    .values(shown_to=bindparam("new_shown_to"))
)
_SET_COMMENT_SHOWN: Final = (
    update(comments)
    .where(comments.c.comment_id == bindparam("of_comment"))
    .values(shown_to=bindparam("new_shown_to"))
)
_SET_COPY: Final = (
    update(moments)
    .where(moments.c.moment_id == bindparam("of_moment"))
    .values(
        content=bindparam("new_content"),
        audience=bindparam("new_audience"),
        window=bindparam("new_window"),
        edited_at_ms=bindparam("new_edited_at_ms"),
    )
)
_FORGET_MOMENT: Final = delete(moments).where(moments.c.moment_id == bindparam("of_moment"))
_FORGET_COMMENTS: Final = delete(comments).where(comments.c.moment_id == bindparam("of_moment"))
_FORGET_UPLOAD: Final = delete(uploads).where(uploads.c.upload_id == bindparam("of_upload"))


# What is read.


async def moments_of(work: UnitOfWork, ids: Sequence[MomentId]) -> dict[MomentId, Moment]:
    """Those of the Moments that there are."""
    found: dict[MomentId, Moment] = {}
    for start in range(0, len(ids), _KEYS_MAX):
        rows = await work.execute(
            select(moments).where(
                moments.c.moment_id.in_(ids[start : start + _KEYS_MAX]), moments.c.deleted_at_ms.is_(None)
            )
        )
        found |= {moment.moment_id: moment for moment in map(_moment, rows)}
    return found


async def moment_of(work: UnitOfWork, moment_id: MomentId) -> Moment | None:
    return (await moments_of(work, [moment_id])).get(moment_id)


async def is_taken(work: UnitOfWork, moment_id: MomentId) -> bool:
    """Whether there is, or was, a Moment of that id."""
    found = await work.execute(select(moments.c.moment_id).where(moments.c.moment_id == moment_id))
    return found.first() is not None


async def by_authors(
    work: UnitOfWork,
    of: Iterable[UserId],
    *,
    before: tuple[int, MomentId] | None,
    limit: int,
    words: str = "",
) -> list[Moment]:
    """The authors' Moments, newest first, before a place in that order; of those with these words, if any."""
    wanted = sorted(of)
    condition = and_(moments.c.author.in_(wanted), moments.c.deleted_at_ms.is_(None))
    if before is not None:
        at_ms, moment_id = before
        condition = and_(
            condition,
            or_(
                moments.c.created_at_ms < at_ms,
                and_(moments.c.created_at_ms == at_ms, moments.c.moment_id < moment_id),
            ),
        )
    if words:
        # The content is JSON with every character as it is, so that words are found in it.
        condition = and_(condition, func.lower(moments.c.content).contains(words.lower(), autoescape=True))
    rows = await work.execute(
        select(moments)
        .where(condition)
        .order_by(moments.c.created_at_ms.desc(), moments.c.moment_id.desc())
        .limit(limit)
    )
    return [_moment(row) for row in rows]


async def threads_of(work: UnitOfWork, ids: Sequence[MomentId]) -> Threads:
    """All likes and comments of these Moments."""
    found_likes: dict[MomentId, list[Like]] = {}
    found_comments: dict[MomentId, list[Comment]] = {}
    for start in range(0, len(ids), _KEYS_MAX):
        part = ids[start : start + _KEYS_MAX]
        for row in await work.execute(
            select(likes).where(likes.c.moment_id.in_(part)).order_by(likes.c.at_ms, likes.c.maker)
        ):
            like = _like(row)
            found_likes.setdefault(like.moment_id, []).append(like)
        for row in await work.execute(
            select(comments)
            .where(comments.c.moment_id.in_(part), comments.c.deleted_at_ms.is_(None))
            .order_by(comments.c.at_ms, comments.c.comment_id)
        ):
            comment = _comment(row)
            found_comments.setdefault(comment.moment_id, []).append(comment)
    return Threads(found_likes, found_comments)


async def comment_of(work: UnitOfWork, comment_id: CommentId) -> Comment | None:
    found = await work.execute(
        select(comments).where(comments.c.comment_id == comment_id, comments.c.deleted_at_ms.is_(None))
    )
    row = found.first()
    return None if row is None else _comment(row)


async def is_comment_taken(work: UnitOfWork, comment_id: CommentId) -> bool:
    """Whether there is, or was, a comment of that id."""
    found = await work.execute(select(comments.c.comment_id).where(comments.c.comment_id == comment_id))
    return found.first() is not None


async def likes_it(work: UnitOfWork, moment_id: MomentId, maker: UserId) -> bool:
    found = await work.execute(
        select(likes.c.maker).where(likes.c.moment_id == moment_id, likes.c.maker == maker)
    )
    return found.first() is not None


async def touched_by(work: UnitOfWork, person: UserId, *, since_ms: int, limit: int) -> list[MomentId]:
    """The Moments on which others did something since then that may be news for the person: their own, and
    those which they have commented on."""
    mine = select(moments.c.moment_id).where(moments.c.author == person, moments.c.deleted_at_ms.is_(None))
    commented = select(comments.c.moment_id).where(
        comments.c.maker == person, comments.c.deleted_at_ms.is_(None)
    )
    found: dict[MomentId, int] = {}
    for table in (likes, comments):
        rows = await work.execute(
            select(table.c.moment_id, func.max(table.c.at_ms).label("last_ms"))
            .where(
                table.c.at_ms > since_ms,
                table.c.maker != person,
                or_(table.c.moment_id.in_(mine), table.c.moment_id.in_(commented)),
            )
            .group_by(table.c.moment_id)
            .order_by(func.max(table.c.at_ms).desc())
            .limit(limit)
        )
        for row in rows:
            moment_id = MomentId(row.moment_id)
            found[moment_id] = max(found.get(moment_id, 0), row.last_ms)
    return sorted(found, key=lambda moment_id: -found[moment_id])[:limit]


async def made_by(work: UnitOfWork, person: UserId) -> list[MomentId]:
    """The Moments that the person likes or has commented on."""
    liked = select(likes.c.moment_id).where(likes.c.maker == person)
    commented = select(comments.c.moment_id).where(
        comments.c.maker == person, comments.c.deleted_at_ms.is_(None)
    )
    rows = await work.execute(liked.union(commented))
    return [MomentId(moment_id) for (moment_id,) in rows]


async def event_of(work: UnitOfWork, event_id: EventId) -> tuple[MomentId, str] | None:
    """The Moment that an event of its author's room is part of, and which part."""
    found = await work.execute(select(moment_events).where(moment_events.c.event_id == event_id))
    row = found.first()
    return None if row is None else (MomentId(row.moment_id), str(row.part_id))


async def first_event_of(work: UnitOfWork, moment: Moment) -> EventId | None:
    """The event that a Moment was begun with; None when it was not made in a room."""
    rows = await work.execute(select(moment_events).where(moment_events.c.moment_id == moment.moment_id))
    by_part = {row.part_id: EventId(row.event_id) for row in rows}
    for part_id in ("", *(part.part_id for part in moment.content.parts)):
        if part_id in by_part:
            return by_part[part_id]
    return None


async def all_events_of(work: UnitOfWork, moment_id: MomentId) -> list[EventId]:
    """The events of its author's room that a Moment is made of."""
    rows = await work.execute(select(moment_events.c.event_id).where(moment_events.c.moment_id == moment_id))
    return [EventId(event_id) for (event_id,) in rows]


async def made_by_event(
    work: UnitOfWork, *, like_of: tuple[MomentId, UserId] | None = None, comment_id: CommentId | None = None
) -> list[EventId]:
    """The event by which a like or a comment was made, if it was made in a room."""
    if comment_id is not None:
        query = select(comments.c.event_id).where(comments.c.comment_id == comment_id)
    else:
        assert like_of is not None
        query = select(likes.c.event_id).where(likes.c.moment_id == like_of[0], likes.c.maker == like_of[1])
    return [EventId(event_id) for (event_id,) in await work.execute(query) if event_id]


async def room_of(work: UnitOfWork, person: UserId) -> RoomId | None:
    """The person's Moments room."""
    found = await work.execute(select(feed_rooms.c.room_id).where(feed_rooms.c.user_id == person))
    room_id = found.scalar_one_or_none()
    return RoomId(room_id) if room_id else None


async def like_by_event(work: UnitOfWork, event_id: EventId) -> Like | None:
    row = (await work.execute(select(likes).where(likes.c.event_id == event_id))).first()
    return None if row is None else _like(row)


async def comment_by_event(work: UnitOfWork, event_id: EventId) -> Comment | None:
    row = (
        await work.execute(
            select(comments).where(comments.c.event_id == event_id, comments.c.deleted_at_ms.is_(None))
        )
    ).first()
    return None if row is None else _comment(row)


async def uploads_of(work: UnitOfWork, person: UserId, ids: Sequence[str]) -> dict[str, Part]:
    """Those of the uploads that the person made and has not posted yet."""
    rows = await work.execute(
        select(uploads).where(uploads.c.user_id == person, uploads.c.upload_id.in_(list(ids)))
    )
    return {row.upload_id: Part.from_json(json.loads(row.part)) for row in rows}


async def oldest_uploads(work: UnitOfWork, person: UserId, *, beyond: int) -> list[str]:
    """The person's uploads without the newest so many."""
    rows = await work.execute(
        select(uploads.c.upload_id)
        .where(uploads.c.user_id == person)
        .order_by(uploads.c.at_ms.desc())
        .offset(beyond)
        .limit(_KEYS_MAX)
    )
    return [str(upload_id) for (upload_id,) in rows]


async def cover_of(work: UnitOfWork, person: UserId) -> Part | None:
    found = await work.execute(select(authors.c.cover).where(authors.c.user_id == person))
    text = found.scalar_one_or_none()
    return Part.from_json(json.loads(text)) if text else None


async def news_seen_at(work: UnitOfWork, person: UserId) -> int:
    found = await work.execute(select(authors.c.news_seen_at_ms).where(authors.c.user_id == person))
    return int(found.scalar_one_or_none() or 0)


# What is written.


def moment_writes(
    moment: Moment, *, events: Sequence[tuple[EventId, str]] = (), told_at_ms: int = 0
) -> list[Write]:
    """A new Moment; `events` are those of its author's room that it is made of, with their parts. Nobody is
    told of it before `told_at_ms`."""
    return [
        Write(
            _INSERT_MOMENT,
            {
                "moment_id": moment.moment_id,
                "author": moment.author,
                "created_at_ms": moment.created_at_ms,
                "edited_at_ms": moment.edited_at_ms,
                "content": content_json(moment.content),
                "audience": audience_json(moment.audience),
                "window": moment.window.value,
                "deleted_at_ms": None,
            },
        ),
        *(event_write(moment.moment_id, event_id, part_id) for event_id, part_id in events),
        due_write(moment.moment_id, at_ms=told_at_ms),
    ]


def event_write(moment_id: MomentId, event_id: EventId, part_id: str) -> Write:
    return Write(_INSERT_EVENT, {"event_id": event_id, "moment_id": moment_id, "part_id": part_id})


def forget_event_write(event_id: EventId) -> Write:
    return Write(_DELETE_EVENT, {"of_event": event_id})


def content_writes(
    moment_id: MomentId, content: Content, *, now_ms: int | None, told_at_ms: int = 0
) -> list[Write]:
    """Other content; `now_ms` is when it was edited, None where it has only grown."""
    new = {"of_moment": moment_id, "new_content": content_json(content), "new_at_ms": now_ms}
    return [Write(_SET_CONTENT, new), due_write(moment_id, at_ms=told_at_ms)]


def audience_writes(moment_id: MomentId, audience: Audience) -> list[Write]:
    return [
        Write(_SET_AUDIENCE, {"of_moment": moment_id, "new_audience": audience_json(audience)}),
        due_write(moment_id),
    ]


def delete_writes(moment_id: MomentId, *, now_ms: int) -> list[Write]:
    """The Moment with all that was said under it is gone; only its id stays."""
    return [
        Write(_DELETE_MOMENT, {"of_moment": moment_id, "new_at_ms": now_ms}),
        Write(_DELETE_LIKES, {"of_moment": moment_id}),
        Write(_DELETE_COMMENTS, {"of_moment": moment_id, "new_at_ms": now_ms}),
        due_write(moment_id),
    ]


def like_writes(like: Like, *, event_id: EventId | None) -> list[Write]:
    row = {
        "moment_id": like.moment_id,
        "maker": like.maker,
        "at_ms": like.at_ms,
        "event_id": event_id,
        "shown_to": "" if like.shown_to is None else like.shown_to.to_json(),
    }
    return [Write(_INSERT_LIKE, row), due_write(like.moment_id)]


def unlike_writes(moment_id: MomentId, maker: UserId) -> list[Write]:
    return [Write(_DELETE_LIKE, {"of_moment": moment_id, "of_maker": maker}), due_write(moment_id)]


def comment_writes(comment: Comment, *, event_id: EventId | None) -> list[Write]:
    row = {
        "comment_id": comment.comment_id,
        "moment_id": comment.moment_id,
        "maker": comment.maker,
        "text": comment.text,
        "answers": comment.answers,
        "at_ms": comment.at_ms,
        "event_id": event_id,
        "deleted_at_ms": None,
        "shown_to": "" if comment.shown_to is None else comment.shown_to.to_json(),
    }
    return [Write(_INSERT_COMMENT, row), due_write(comment.moment_id)]


def delete_comment_writes(comment: Comment, *, now_ms: int) -> list[Write]:
    return [
        Write(_DELETE_COMMENT, {"of_comment": comment.comment_id, "new_at_ms": now_ms}),
        due_write(comment.moment_id),
    ]


def shown_to_writes(made: Like | Comment) -> list[Write]:
    """Another server says anew to whom it may be shown."""
    text = "" if made.shown_to is None else made.shown_to.to_json()
    if isinstance(made, Like):
        of = {"of_moment": made.moment_id, "of_maker": made.maker, "new_shown_to": text}
        return [Write(_SET_LIKE_SHOWN, of), due_write(made.moment_id)]
    named = {"of_comment": made.comment_id, "new_shown_to": text}
    return [Write(_SET_COMMENT_SHOWN, named), due_write(made.moment_id)]


def copy_writes(moment: Moment, *, is_known: bool) -> list[Write]:
    """A Moment of another server as that server has it now."""
    if not is_known:
        return moment_writes(moment)
    new = {
        "of_moment": moment.moment_id,
        "new_content": content_json(moment.content),
        "new_audience": audience_json(moment.audience),
        "new_window": moment.window.value,
        "new_edited_at_ms": moment.edited_at_ms,
    }
    return [Write(_SET_COPY, new), due_write(moment.moment_id)]


def forget_writes(moment_id: MomentId) -> list[Write]:
    """A Moment of another server that is for nobody here any more: it may come again."""
    of = {"of_moment": moment_id}
    return [
        Write(_FORGET_MOMENT, of),
        Write(_DELETE_LIKES, of),
        Write(_FORGET_COMMENTS, of),
        due_write(moment_id),
    ]


def due_write(moment_id: MomentId, *, at_ms: int = 0) -> Write:
    """Somebody may have to be told of the Moment, or of what became of it, but not before that time."""
    return Write(_INSERT_DUE, {"moment_id": moment_id, "at_ms": at_ms})


def upload_write(upload_id: str, person: UserId, part: Part, *, now_ms: int) -> Write:
    row = {
        "upload_id": upload_id,
        "user_id": person,
        "part": json.dumps(part.to_json()),
        "at_ms": now_ms,
    }
    return Write(_INSERT_UPLOAD, row)


def forget_upload_write(upload_id: str) -> Write:
    return Write(_FORGET_UPLOAD, {"of_upload": upload_id})


async def set_author(work: UnitOfWork, person: UserId, **values: Any) -> None:
    """Sets `cover` or `news_seen_at_ms` of a person."""
    changed = await work.execute(update(authors).where(authors.c.user_id == person).values(**values))
    if not changed.rowcount:
        await work.execute(insert(authors).values(user_id=person, **values))


def content_json(content: Content) -> str:
    return json.dumps(content.to_json(), ensure_ascii=False, separators=(",", ":"))


def _moment(row: Row[Any]) -> Moment:
    return Moment(
        moment_id=MomentId(row.moment_id),
        author=UserId(row.author),
        created_at_ms=row.created_at_ms,
        edited_at_ms=row.edited_at_ms,
        audience=read_audience(row.audience),
        content=Content.from_json(json.loads(row.content)),
        window=Window(row.window),
    )


def _like(row: Row[Any]) -> Like:
    return Like(MomentId(row.moment_id), UserId(row.maker), row.at_ms, Shown.from_json(row.shown_to))


def _comment(row: Row[Any]) -> Comment:
    return Comment(
        comment_id=CommentId(row.comment_id),
        moment_id=MomentId(row.moment_id),
        maker=UserId(row.maker),
        text=row.text,
        at_ms=row.at_ms,
        answers=CommentId(row.answers) if row.answers else None,
        shown_to=Shown.from_json(row.shown_to),
    )
