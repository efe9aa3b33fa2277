"""What people do with Moments: post, edit, delete, like, comment. Each is one database transaction.

The caller's own writes (that an event of a room is done, say) ride in the same transaction. A repeated wish
has the same ids and the same outcome. Whoever may not see a Moment is answered as if there were none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Final
from weakref import WeakValueDictionary

from appservices.chassis.clock import Clock
from appservices.chassis.database import Database, UnitOfWork, Write
from appservices.chassis.outbox import REDACTION, Outgoing
from appservices.moments import store
from appservices.moments.contacts import ContactBook
from appservices.moments.records import (
    COMMENT_LENGTH_MAX,
    PICTURE,
    PICTURES_MAX,
    Comment,
    CommentId,
    Content,
    Like,
    Moment,
    MomentId,
    Part,
    checked,
)
from appservices.moments.rules import Audience, Circles, may_see
from appservices.moments.viewing import shows
from appservices.vocabulary.ids import EventId, OutboxId, UserId, derived_id
from appservices.vocabulary.languages import _, known


class Refusal(StrEnum):
    """Why nothing was done, most fundamental reason first."""

    NOT_THERE = "not_there"
    EMPTY = "empty"
    TOO_LONG = "too_long"
    ID_TAKEN = "id_taken"

    @property
    def sentence(self) -> str:
        return _(_SENTENCES[self])


_SENTENCES: Final = {
    Refusal.NOT_THERE: known("There is no such Moment."),
    Refusal.EMPTY: known("There is nothing in it: write something, or add a picture."),
    Refusal.TOO_LONG: known("That is too long: a comment has up to 500 characters."),
    Refusal.ID_TAKEN: known("This was sent before, with something else in it. Please load the page again."),
}


class Actions:
    """The use cases of one homeserver's people."""

    def __init__(
        self,
        database: Database,
        contacts: ContactBook,
        *,
        clock: Clock,
        on_commit: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_commit` is called when Moments may be due."""
        self.database = database
        self.contacts = contacts
        self.clock = clock
        self._on_commit = on_commit
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def post(
        self,
        author: UserId,
        moment_id: MomentId,
        content: Content,
        audience: Audience,
        *,
        events: Sequence[tuple[EventId, str]] = (),
        told_at_ms: int = 0,
        also: Sequence[Write] = (),
    ) -> Moment | Refusal:
        """A new Moment, of which nobody is told before `told_at_ms`. Raises ContentUnreadable."""
        if checked(content).is_empty:
            return Refusal.EMPTY
        moment = Moment(
            moment_id=moment_id,
            author=author,
            created_at_ms=self.clock(),
            audience=audience,
            content=content,
        )
        async with self._lock(moment_id), self.database.begin() as work:
            known_moment = await store.moment_of(work, moment_id)
            if known_moment is not None and known_moment.author == author:
                await self._commit(work, [], also)
                return known_moment
            if await store.is_taken(work, moment_id):
                return Refusal.ID_TAKEN
            await self._commit(work, store.moment_writes(moment, events=events, told_at_ms=told_at_ms), also)
        return moment

    async def add_part(
        self,
        author: UserId,
        moment_id: MomentId,
        part: Part,
        *,
        event_id: EventId,
        told_at_ms: int = 0,
        also: Sequence[Write] = (),
    ) -> bool:
        """One more picture for a Moment of one's own that has pictures and room for another."""
        async with self._lock(moment_id), self.database.begin() as work:
            moment = await store.moment_of(work, moment_id)
            if moment is None or moment.author != author or part.kind != PICTURE:
                return False
            kinds = {each.kind for each in moment.content.parts}
            if kinds != {PICTURE} or len(moment.content.parts) >= PICTURES_MAX:
                return False
            content = replace(moment.content, parts=(*moment.content.parts, part))
            writes = [
                *store.content_writes(moment_id, content, now_ms=moment.edited_at_ms, told_at_ms=told_at_ms),
                store.event_write(moment_id, event_id, part.part_id),
            ]
            await self._commit(work, writes, also)
        return True

    async def remove_event(self, author: UserId, event_id: EventId, *, also: Sequence[Write] = ()) -> bool:
        """The author has taken back an event of which a Moment was made: its picture, or all of it."""
        async with self.database.read() as work:
            found = await store.event_of(work, event_id)
        if found is None:
            return False
        moment_id, part_id = found
        async with self._lock(moment_id), self.database.begin() as work:
            moment = await store.moment_of(work, moment_id)
            if moment is None or moment.author != author:
                return False
            parts = tuple(part for part in moment.content.parts if part.part_id != part_id)
            left = replace(moment.content, parts=parts, text=moment.content.text if part_id else "")
            if left.parts:
                writes = store.content_writes(moment_id, left, now_ms=self.clock())
                writes.append(store.forget_event_write(event_id))
            else:
                writes = store.delete_writes(moment_id, now_ms=self.clock())
            await self._commit(work, writes, also)
        return True

    async def edit(
        self, author: UserId, moment_id: MomentId, content: Content, *, also: Sequence[Write] = ()
    ) -> Moment | Refusal:
        """Other content for a Moment of one's own. Raises ContentUnreadable."""
        checked(content)
        async with self._lock(moment_id), self.database.begin() as work:
            moment = await store.moment_of(work, moment_id)
            if moment is None or moment.author != author:
                return Refusal.NOT_THERE
            if content.is_empty:
                return Refusal.EMPTY
            if content == moment.content:
                await self._commit(work, [], also)
                return moment
            now_ms = self.clock()
            await self._commit(work, store.content_writes(moment_id, content, now_ms=now_ms), also)
        return replace(moment, content=content, edited_at_ms=now_ms)

    async def show_to(
        self, author: UserId, moment_id: MomentId, audience: Audience, *, also: Sequence[Write] = ()
    ) -> Refusal | None:
        """Another audience for a Moment of one's own."""
        async with self._lock(moment_id), self.database.begin() as work:
            moment = await store.moment_of(work, moment_id)
            if moment is None or moment.author != author:
                return Refusal.NOT_THERE
            await self._commit(work, store.audience_writes(moment_id, audience), also)
        return None

    async def delete(
        self, author: UserId, moment_id: MomentId, *, also: Sequence[Write] = ()
    ) -> Refusal | None:
        async with self._lock(moment_id), self.database.begin() as work:
            moment = await store.moment_of(work, moment_id)
            if moment is None or moment.author != author:
                return Refusal.NOT_THERE
            events = await store.all_events_of(work, moment_id)
            back = await self._take_back(work, author, events)
            await self._commit(work, [*store.delete_writes(moment_id, now_ms=self.clock()), *back], also)
        return None

    async def like(
        self,
        maker: UserId,
        moment_id: MomentId,
        *,
        event_id: EventId | None = None,
        also: Sequence[Write] = (),
    ) -> Refusal | None:
        """Liking again is as liking once."""
        async with self._lock(moment_id):
            circles = await self._circles(maker, moment_id)
            async with self.database.begin() as work:
                moment = await self._visible(work, circles, maker, moment_id)
                if moment is None:
                    return Refusal.NOT_THERE
                if await store.likes_it(work, moment_id, maker):
                    await self._commit(work, [], also)
                    return None
                like = Like(moment_id, maker, self.clock())
                await self._commit(work, store.like_writes(like, event_id=event_id), also)
        return None

    async def unlike(
        self,
        maker: UserId,
        moment_id: MomentId,
        *,
        redacted: EventId | None = None,
        also: Sequence[Write] = (),
    ) -> Refusal | None:
        """One's own like is taken back even where the Moment can't be seen any more. `redacted` is an event
        that is gone from its room already."""
        async with self._lock(moment_id), self.database.begin() as work:
            if not await store.likes_it(work, moment_id, maker):
                return Refusal.NOT_THERE
            events = await store.made_by_event(work, like_of=(moment_id, maker))
            back = await self._take_back(work, maker, [event for event in events if event != redacted])
            await self._commit(work, [*store.unlike_writes(moment_id, maker), *back], also)
        return None

    async def comment(
        self,
        maker: UserId,
        moment_id: MomentId,
        comment_id: CommentId,
        text: str,
        *,
        answers: CommentId | None = None,
        event_id: EventId | None = None,
        also: Sequence[Write] = (),
    ) -> Comment | Refusal:
        text = text.strip()
        async with self._lock(moment_id):
            circles = await self._circles(maker, moment_id, answers)
            async with self.database.begin() as work:
                moment = await self._visible(work, circles, maker, moment_id)
                if moment is None:
                    return Refusal.NOT_THERE
                if answers is not None and not await self._may_answer(work, circles, moment, maker, answers):
                    return Refusal.NOT_THERE
                if not text:
                    return Refusal.EMPTY
                if len(text) > COMMENT_LENGTH_MAX:
                    return Refusal.TOO_LONG
                before = await store.comment_of(work, comment_id)
                if before is not None and (before.maker, before.moment_id) == (maker, moment_id):
                    await self._commit(work, [], also)
                    return before
                if await store.is_comment_taken(work, comment_id):
                    return Refusal.ID_TAKEN
                comment = Comment(
                    comment_id=comment_id,
                    moment_id=moment_id,
                    maker=maker,
                    text=text,
                    at_ms=self.clock(),
                    answers=answers,
                )
                await self._commit(work, store.comment_writes(comment, event_id=event_id), also)
        return comment

    async def delete_comment(
        self,
        person: UserId,
        comment_id: CommentId,
        *,
        redacted: EventId | None = None,
        also: Sequence[Write] = (),
    ) -> Refusal | None:
        """For whoever made it, and for the author of the Moment."""
        async with self.database.begin() as work:
            comment = await store.comment_of(work, comment_id)
            moment = None if comment is None else await store.moment_of(work, comment.moment_id)
            if comment is None or moment is None or person not in (comment.maker, moment.author):
                return Refusal.NOT_THERE
            events = await store.made_by_event(work, comment_id=comment_id)
            back = await self._take_back(
                work, comment.maker, [event for event in events if event != redacted]
            )
            writes = [*store.delete_comment_writes(comment, now_ms=self.clock()), *back]
            await self._commit(work, writes, also)
        return None

    async def _take_back(self, work: UnitOfWork, person: UserId, events: Sequence[EventId]) -> list[Write]:
        """What was done by an event and is undone elsewhere disappears from the person's room, too."""
        room_id = await store.room_of(work, person)
        if room_id is None or not events:
            return []
        outbox_id = OutboxId(derived_id("take back", room_id, *events))
        outgoing = Outgoing(outbox_id, {"redacts": [*events]}, room_id=room_id, event_type=REDACTION)
        return [outgoing.write(now_ms=self.clock())]

    async def _circles(self, viewer: UserId, moment_id: MomentId, *comments: CommentId | None) -> Circles:
        """The circles of all who decide whether the viewer sees this; the viewer's alone if there is none."""
        async with self.database.read() as work:
            moment = await store.moment_of(work, moment_id)
            people = {viewer} if moment is None else {viewer, moment.author}
            for comment_id in comments:
                comment = None if comment_id is None else await store.comment_of(work, comment_id)
                people |= set() if comment is None else {comment.maker}
        return await self.contacts.circles(people)

    async def _visible(
        self, work: UnitOfWork, circles: Circles, viewer: UserId, moment_id: MomentId
    ) -> Moment | None:
        moment = await store.moment_of(work, moment_id)
        if moment is None or not may_see(circles, moment.post, viewer, now_ms=self.clock()):
            return None
        return moment

    async def _may_answer(
        self, work: UnitOfWork, circles: Circles, moment: Moment, viewer: UserId, comment_id: CommentId
    ) -> bool:
        comment = await store.comment_of(work, comment_id)
        return (
            comment is not None
            and comment.moment_id == moment.moment_id
            and shows(circles, moment, comment, viewer, now_ms=self.clock())
        )

    async def _commit(self, work: UnitOfWork, writes: Sequence[Write], also: Sequence[Write]) -> None:
        await work.apply([*writes, *also])
        work.after_commit(self._on_commit)
        await work.commit()

    def _lock(self, moment_id: str) -> asyncio.Lock:
        """What happens to one Moment happens in order."""
        return self._locks.setdefault(moment_id, asyncio.Lock())
