"""What one person sees: their feed, a person's Moments, one Moment, what is new for them.

Everything is judged anew at each look, by circles asked from Synapse just before. Counts count what is shown
and nothing else, and what may not be seen looks like what does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from appservices.chassis.clock import Clock
from appservices.chassis.database import Database
from appservices.moments import store
from appservices.moments.contacts import ContactBook
from appservices.moments.records import Comment, Like, Moment, MomentId, Part, Threads
from appservices.moments.rules import Circle, Circles, Post, are_contacts, in_feed, may_see, may_see_of
from appservices.vocabulary.ids import UserId

PAGE_MOMENTS: Final = 10
ROWS_READ: Final = 50
"""At once, of which those are shown that may be seen."""
ROWS_LOOKED_AT_MAX: Final = 2_000
"""For one page: a viewer of whom nearly all is hidden is not searched for without end."""
NEWS_MAX: Final = 50
NEWS_MS: Final = 60 * 24 * 3600 * 1000

Place = tuple[int, MomentId]
"""A place in the order of Moments: when one was made, and which."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A Moment as one viewer sees it."""

    moment: Moment
    likes: tuple[Like, ...]
    comments: tuple[Comment, ...]

    @property
    def place(self) -> Place:
        return self.moment.created_at_ms, self.moment.moment_id


@dataclass(frozen=True, slots=True)
class SeenPage:
    """Some Moments, and where to look for older ones; None at the end."""

    moments: tuple[Seen, ...]
    older: Place | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """Something that others did that concerns the viewer."""

    moment: Moment
    maker: UserId
    at_ms: int
    comment: Comment | None = None
    """The comment; None for a like, and for a reminder."""
    is_reminder: bool = False
    """The author wants the viewer to see the Moment."""


class Viewing:
    """Looks at Moments as their viewers do."""

    def __init__(self, database: Database, contacts: ContactBook, *, clock: Clock) -> None:
        self._database = database
        self._contacts = contacts
        self._clock = clock

    async def feed(self, viewer: UserId, *, before: Place | None = None) -> SeenPage:
        """What comes to the viewer by itself, newest first, their own with it."""
        circle = await self._contacts.circle(viewer)
        authors = {viewer, *(circle.direct - circle.ignored - circle.hidden)}
        circles = {viewer: circle, **await self._contacts.last_known(authors)}

        def shown(post: Post) -> bool:
            return in_feed(circles, post, viewer, now_ms=self._clock())

        return await self._page(viewer, authors, circles, shown, before)

    async def of(
        self, viewer: UserId, author: UserId, *, before: Place | None = None, words: str = ""
    ) -> SeenPage:
        """One person's Moments; words are looked for in one's own only."""
        circles = await self._contacts.circles({viewer, author})

        def shown(post: Post) -> bool:
            return may_see(circles, post, viewer, now_ms=self._clock())

        sought = words if viewer == author else ""
        return await self._page(viewer, {author}, circles, shown, before, words=sought)

    async def cover(self, viewer: UserId, author: UserId) -> Part | None:
        """The cover of a person's page: for themselves and their contacts."""
        circles = await self._contacts.circles({viewer, author})
        if viewer != author and not are_contacts(circles, viewer, author):
            return None
        if viewer in circles.get(author, Circle()).not_shown_to:
            return None
        async with self._database.read() as work:
            return await store.cover_of(work, author)

    async def one(self, viewer: UserId, moment_id: MomentId) -> Seen | None:
        """One Moment; None when there is none for the viewer."""
        async with self._database.read() as work:
            moment = await store.moment_of(work, moment_id)
        # Synapse is asked in either case, so that the time it takes tells nothing.
        circles = await self._contacts.circles({viewer} if moment is None else {viewer, moment.author})
        if moment is None or not may_see(circles, moment.post, viewer, now_ms=self._clock()):
            return None
        (seen,) = await self._seen(viewer, [moment], circles)
        return seen

    async def news(self, viewer: UserId) -> list[News]:
        """What others did on the viewer's Moments, and below those that they commented on; newest first."""
        since_ms = self._clock() - NEWS_MS
        async with self._database.read() as work:
            ids = await store.touched_by(work, viewer, since_ms=since_ms, limit=NEWS_MAX)
            found = await store.moments_of(work, ids)
        authors = {moment.author for moment in found.values()}
        circles = await self._contacts.circles({viewer, *authors})
        visible = [
            moment for moment in found.values() if may_see(circles, moment.post, viewer, now_ms=self._clock())
        ]
        news: list[News] = []
        for seen in await self._seen(viewer, visible, circles):
            own = seen.moment.author == viewer
            if own:
                news += [
                    News(moment=seen.moment, maker=like.maker, at_ms=like.at_ms)
                    for like in seen.likes
                    if like.maker != viewer
                ]
            news += [
                News(moment=seen.moment, maker=comment.maker, at_ms=comment.at_ms, comment=comment)
                for comment in seen.comments
                if comment.maker != viewer
            ]
        news += await self._reminders(viewer)
        return sorted((item for item in news if item.at_ms > since_ms), key=lambda item: -item.at_ms)[
            :NEWS_MAX
        ]

    async def _reminders(self, viewer: UserId) -> list[News]:
        """Moments that their authors want the viewer to see, of those that the viewer may see."""
        circle = await self._contacts.circle(viewer)
        circles = await self._contacts.last_known({viewer, *circle.direct})
        async with self._database.read() as work:
            found = await store.by_authors(work, circle.direct, before=None, limit=NEWS_MAX, words=viewer)
        return [
            News(moment=moment, maker=moment.author, at_ms=moment.created_at_ms, is_reminder=True)
            for moment in found
            if viewer in moment.content.reminded
            and in_feed(circles, moment.post, viewer, now_ms=self._clock())
        ]

    async def unseen_news(self, viewer: UserId) -> int:
        """How much of that the viewer has not looked at: what the red dot counts."""
        async with self._database.read() as work:
            seen_at_ms = await store.news_seen_at(work, viewer)
        return sum(1 for item in await self.news(viewer) if item.at_ms > seen_at_ms)

    async def saw_news(self, viewer: UserId) -> None:
        async with self._database.begin() as work:
            await store.set_author(work, viewer, news_seen_at_ms=self._clock())
            await work.commit()

    async def _page(
        self,
        viewer: UserId,
        authors: Iterable[UserId],
        circles: Circles,
        shown: Callable[[Post], bool],
        before: Place | None,
        *,
        words: str = "",
    ) -> SeenPage:
        authors = set(authors)
        found: list[Moment] = []
        looked_at = 0
        async with self._database.read() as work:
            while len(found) <= PAGE_MOMENTS and looked_at < ROWS_LOOKED_AT_MAX:
                rows = await store.by_authors(work, authors, before=before, limit=ROWS_READ, words=words)
                looked_at += len(rows)
                found += [moment for moment in rows if shown(moment.post)]
                if len(rows) < ROWS_READ:
                    break
                before = (rows[-1].created_at_ms, rows[-1].moment_id)
        more = len(found) > PAGE_MOMENTS
        page = found[:PAGE_MOMENTS]
        older = (page[-1].created_at_ms, page[-1].moment_id) if more else None
        return SeenPage(tuple(await self._seen(viewer, page, circles)), older)

    async def _seen(self, viewer: UserId, moments: Sequence[Moment], circles: Circles) -> list[Seen]:
        async with self._database.read() as work:
            threads = await store.threads_of(work, [moment.moment_id for moment in moments])
        makers = {like.maker for likes in threads.likes.values() for like in likes}
        makers |= {comment.maker for comments in threads.comments.values() for comment in comments}
        everybody = {**circles, **await self._contacts.last_known(makers - circles.keys())}
        return [seen_by(everybody, moment, threads, viewer, now_ms=self._clock()) for moment in moments]


def seen_by(circles: Circles, moment: Moment, threads: Threads, viewer: UserId, *, now_ms: int) -> Seen:
    """The Moment with those likes and comments that the viewer sees. An answer to a comment that they don't
    see is shown as a comment of its own."""
    likes = [
        like
        for like in threads.likes.get(moment.moment_id, ())
        if shows(circles, moment, like, viewer, now_ms=now_ms)
    ]
    comments = [
        comment
        for comment in threads.comments.get(moment.moment_id, ())
        if shows(circles, moment, comment, viewer, now_ms=now_ms)
    ]
    return Seen(moment, tuple(likes), tuple(_without_unseen(comments)))


def shows(circles: Circles, moment: Moment, made: Like | Comment, viewer: UserId, *, now_ms: int) -> bool:
    """Whether the viewer sees it. What came from another server is shown to those whom that server names, as
    far as their own accounts agree."""
    named = made.shown_to is not None and made.shown_to.includes(moment.moment_id, viewer)
    if made.shown_to is not None and viewer not in (moment.author, made.maker) and not named:
        return False
    if named and viewer not in circles and made.maker not in circles:
        # Of neither there is an account here: what their servers say is all there is.
        return may_see(circles, moment.post, viewer, now_ms=now_ms)
    return may_see_of(circles, moment.post, made.maker, viewer, now_ms=now_ms)


def _without_unseen(comments: Sequence[Comment]) -> Iterable[Comment]:
    shown = {comment.comment_id for comment in comments}
    for comment in comments:
        yield comment if comment.answers in shown else replace(comment, answers=None)
