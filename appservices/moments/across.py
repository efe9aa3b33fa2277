"""Moments between homeservers: what each other server should have of a Moment, against what it was told.

As in rooms: a Moment that is due is looked at whole, and the difference is sent. An author's server sends the
Moment to servers with somebody in its audience, with those people only, and below it what these may see. Any
other server sends the likes and comments of its own people to the author's server.

A server is believed about its own people and about what its own people show, and about nothing else. What a
server may not do, and what is about a Moment that it may not know of, is passed over in silence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from canonicaljson import encode_canonical_json
from sqlalchemy import bindparam, delete, insert, literal, select

from appservices.chassis.clock import Clock
from appservices.chassis.database import Database, UnitOfWork, Write
from appservices.chassis.links.feature import ItemsRefused
from appservices.chassis.links.protocol import Item, StopReason
from appservices.chassis.links.storage import item_write
from appservices.moments import items as wire
from appservices.moments import store
from appservices.moments.contacts import ContactBook
from appservices.moments.records import Comment, CommentId, Like, Moment, MomentId, Shown, Threads, mark
from appservices.moments.rules import Circle, Circles, may_see
from appservices.moments.tables import copies, due, moments
from appservices.moments.viewing import shows
from appservices.vocabulary.ids import ServerName, UserId, localpart_of, server_of

_TOLD: Final = insert(copies)
_UNTOLD: Final = delete(copies).where(
    copies.c.moment_id == bindparam("of_moment"),
    copies.c.server == bindparam("of_server"),
    copies.c.element == bindparam("of_element"),
)
_FORGET_SERVER: Final = delete(copies).where(copies.c.server == bindparam("of_server"))
_ALL_DUE: Final = insert(due).from_select(
    ["moment_id", "at_ms"], select(moments.c.moment_id, literal(0)).where(moments.c.deleted_at_ms.is_(None))
)

Wanted = Mapping[ServerName, Mapping[str, Item]]
"""What each server should have, by element."""


class Across:
    """What links carry for Moments, and what becomes of what they bring."""

    def __init__(
        self,
        database: Database,
        contacts: ContactBook,
        *,
        own_user: UserId,
        clock: Clock,
        on_commit: Callable[[], None],
        blocked: frozenset[ServerName] = frozenset(),
    ) -> None:
        """`blocked` servers are told nothing, and nothing of theirs is taken; `on_commit` is called when
        Moments may be due."""
        self._database = database
        self._contacts = contacts
        self._own_user = own_user
        self._own_server = server_of(own_user)
        self._clock = clock
        self._on_commit = on_commit
        self._blocked = blocked
        self.wake: Callable[[UserId], None] = lambda peer: None

    # What is told.

    def wanted(
        self, moment: Moment | None, threads: Threads, circles: Circles
    ) -> dict[ServerName, dict[str, Item]]:
        """What each other server should have of a Moment, by element; nothing of one that is gone."""
        if moment is None:
            return {}
        ours = server_of(moment.author) == self._own_server
        found = (self._for_viewers if ours else self._for_author)(moment, threads, circles)
        return {server: items for server, items in found.items() if server not in self._blocked}

    async def settle(self, work: UnitOfWork, moment_id: MomentId, wanted: Wanted) -> None:
        """Writes what makes the others know it; they are told after the commit."""
        rows = await work.execute(select(copies).where(copies.c.moment_id == moment_id))
        told: dict[ServerName, dict[str, str]] = {}
        for row in rows:
            told.setdefault(ServerName(row.server), {})[row.element] = row.digest
        for server in sorted({*wanted, *told}):
            changes = self._changes(moment_id, server, wanted.get(server, {}), told.get(server, {}))
            if changes:
                peer = UserId(f"@{localpart_of(self._own_user)}:{server}")
                await work.apply(changes)
                work.after_commit(partial(self.wake, peer))

    def _changes(
        self, moment_id: MomentId, server: ServerName, wanted: Mapping[str, Item], told: Mapping[str, str]
    ) -> list[Write]:
        peer = UserId(f"@{localpart_of(self._own_user)}:{server}")
        writes: list[Write] = []

        def untold(element: str) -> Write:
            return Write(_UNTOLD, {"of_moment": moment_id, "of_server": server, "of_element": element})

        for element in told:
            if element not in wanted:
                writes.append(untold(element))
                gone = _gone(moment_id, element)
                # With the Moment goes what is below it; who is not its author's server keeps nothing of it.
                if element == wire.MOMENT or wire.MOMENT in wanted or wire.MOMENT not in told:
                    writes.append(item_write(peer, gone))
        for element, item in wanted.items():
            digest = hashlib.sha256(encode_canonical_json(dict(item))).hexdigest()
            if told.get(element) != digest:
                row = {"moment_id": moment_id, "server": server, "element": element, "digest": digest}
                writes += [untold(element), Write(_TOLD, row), item_write(peer, item)]
        return writes

    def _for_viewers(
        self, moment: Moment, threads: Threads, circles: Circles
    ) -> dict[ServerName, dict[str, Item]]:
        author, now_ms = circles.get(moment.author, Circle()), self._clock()
        viewers: dict[ServerName, set[UserId]] = {}
        for person in author.direct:
            server = server_of(person)
            if server != self._own_server and may_see(circles, moment.post, person, now_ms=now_ms):
                viewers.setdefault(server, set()).add(person)
        wanted: dict[ServerName, dict[str, Item]] = {}
        for server, people in viewers.items():
            elements = {wire.MOMENT: wire.moment_item(moment, frozenset(people), author.window)}
            for made in _made_below(moment, threads):
                shown = Shown(
                    frozenset(
                        person for person in people if shows(circles, moment, made, person, now_ms=now_ms)
                    )
                )
                if shown.people:
                    elements[_element(made)] = _item(made, shown)
            wanted[server] = elements
        return wanted

    def _for_author(
        self, moment: Moment, threads: Threads, circles: Circles
    ) -> dict[ServerName, dict[str, Item]]:
        elements: dict[str, Item] = {}
        for made in _made_below(moment, threads):
            circle = circles.get(made.maker)
            if circle is not None and server_of(made.maker) == self._own_server:
                contacts = circle.direct - circle.ignored
                marks = frozenset(mark(moment.moment_id, person) for person in contacts)
                elements[_element(made)] = _item(made, Shown(marks=marks))
        return {server_of(moment.author): elements} if elements else {}

    # What comes.

    async def allows(self, peer: UserId) -> bool:
        server = server_of(peer)
        is_like_us = localpart_of(peer) == localpart_of(self._own_user)
        return is_like_us and server != self._own_server and server not in self._blocked

    async def apply(self, peer: UserId, items: Sequence[Item], received: Sequence[Write]) -> None:
        server = server_of(peer)
        if server in self._blocked:
            items = ()
        try:
            authors = await self._authors(items)
            circles = await self._contacts.circles(authors)
            async with self._database.begin() as work:
                for item in items:
                    await work.apply(await self._effects(work, server, item, circles))
                await work.apply(received)
                work.after_commit(self._on_commit)
                await work.commit()
        except wire.ItemUnreadable as unreadable:
            raise ItemsRefused(StopReason.UNREADABLE, f"an item with {unreadable}") from unreadable

    async def stopped(self, peer: UserId, reason: StopReason, detail: str) -> Sequence[Write]:
        return []

    async def mended(self, peer: UserId) -> Sequence[Write]:
        """Nothing that was told before counts: all is told anew, which changes nothing where it is known."""
        return [Write(_FORGET_SERVER, {"of_server": server_of(peer)}), Write(_ALL_DUE, {})]

    async def _authors(self, items: Sequence[Item]) -> set[UserId]:
        """The local authors of Moments that the items are about."""
        ids = [MomentId(str(item["moment"])) for item in items if isinstance(item.get("moment"), str)]
        async with self._database.read() as work:
            found = await store.moments_of(work, ids)
        return {moment.author for moment in found.values() if server_of(moment.author) == self._own_server}

    async def _effects(
        self, work: UnitOfWork, server: ServerName, item: Item, circles: Circles
    ) -> list[Write]:
        kind = item["kind"]
        if kind == wire.MOMENT:
            return await self._moment(work, server, wire.read_moment(item))
        if kind not in (wire.MOMENT_DELETE, wire.LIKE, wire.UNLIKE, wire.COMMENT, wire.COMMENT_DELETE):
            raise wire.ItemUnreadable("an unknown kind")
        moment = await store.moment_of(work, MomentId(wire.read_id(item, "moment")))
        is_theirs = moment is not None and server_of(moment.author) == server
        is_ours = moment is not None and server_of(moment.author) == self._own_server
        if kind == wire.MOMENT_DELETE:
            return store.forget_writes(moment.moment_id) if moment is not None and is_theirs else []
        if kind == wire.LIKE:
            like = wire.read_like(item)
            if moment is None or not self._may_bring(circles, server, moment, like):
                return []
            return await self._like(work, like)
        if kind == wire.COMMENT:
            comment = wire.read_comment(item)
            if moment is None or not self._may_bring(circles, server, moment, comment):
                return []
            return await self._comment(work, circles, moment, comment)
        if kind == wire.UNLIKE:
            maker = wire.read_user(item, "maker")
            if moment is None or not (is_theirs or (is_ours and server_of(maker) == server)):
                return []
            return store.unlike_writes(moment.moment_id, maker)
        found = await store.comment_of(work, CommentId(wire.read_id(item, "id")))
        if moment is None or found is None or found.moment_id != moment.moment_id:
            return []
        may = is_theirs or (is_ours and server_of(found.maker) == server)
        return store.delete_comment_writes(found, now_ms=self._clock()) if may else []

    async def _moment(self, work: UnitOfWork, server: ServerName, moment: Moment) -> list[Write]:
        if server_of(moment.author) != server:
            return []
        people = frozenset(
            person for person in moment.audience.people if server_of(person) == self._own_server
        )
        moment = replace(
            moment,
            audience=replace(moment.audience, people=people),
            # Whose clock is ahead does not stay on top.
            created_at_ms=min(moment.created_at_ms, self._clock()),
        )
        known = await store.moment_of(work, moment.moment_id)
        if (known is None and await store.is_taken(work, moment.moment_id)) or (
            known is not None and known.author != moment.author
        ):
            return []
        return store.copy_writes(moment, is_known=known is not None)

    def _may_bring(self, circles: Circles, server: ServerName, moment: Moment, made: Like | Comment) -> bool:
        """The author's server may bring anybody's; any other only its own people's, who see the Moment."""
        if server_of(moment.author) == server:
            return True
        return (
            server_of(moment.author) == self._own_server
            and server_of(made.maker) == server
            and may_see(circles, moment.post, made.maker, now_ms=self._clock())
        )

    async def _like(self, work: UnitOfWork, like: Like) -> list[Write]:
        like = replace(like, at_ms=min(like.at_ms, self._clock()), shown_to=self._shown(like))
        if not await store.likes_it(work, like.moment_id, like.maker):
            return store.like_writes(like, event_id=None)
        return store.shown_to_writes(like)

    async def _comment(
        self, work: UnitOfWork, circles: Circles, moment: Moment, comment: Comment
    ) -> list[Write]:
        comment = replace(comment, at_ms=min(comment.at_ms, self._clock()), shown_to=self._shown(comment))
        known = await store.comment_of(work, comment.comment_id)
        if known is not None:
            same = (known.maker, known.moment_id) == (comment.maker, comment.moment_id)
            return store.shown_to_writes(comment) if same else []
        if await store.is_comment_taken(work, comment.comment_id):
            return []
        answered = None if comment.answers is None else await store.comment_of(work, comment.answers)
        is_ours = server_of(moment.author) == self._own_server
        if (
            answered is None
            or answered.moment_id != moment.moment_id
            or (is_ours and not shows(circles, moment, answered, comment.maker, now_ms=self._clock()))
        ):
            comment = replace(comment, answers=None)
        return store.comment_writes(comment, event_id=None)

    def _shown(self, made: Like | Comment) -> Shown | None:
        """Of our own people our own accounts say to whom it is shown."""
        return None if server_of(made.maker) == self._own_server else made.shown_to


def _made_below(moment: Moment, threads: Threads) -> list[Like | Comment]:
    """Likes and comments."""
    return [
        *threads.likes.get(moment.moment_id, ()),
        *threads.comments.get(moment.moment_id, ()),
    ]


def _element(made: Like | Comment) -> str:
    return f"like:{made.maker}" if isinstance(made, Like) else f"comment:{made.comment_id}"


def _item(made: Like | Comment, shown: Shown) -> Item:
    return wire.like_item(made, shown) if isinstance(made, Like) else wire.comment_item(made, shown)


def _gone(moment_id: MomentId, element: str) -> Item:
    kind, _colon, name = element.partition(":")
    if kind == wire.LIKE:
        return wire.delete_item(wire.UNLIKE, moment_id, maker=name)
    if kind == wire.COMMENT:
        return wire.delete_item(wire.COMMENT_DELETE, moment_id, id=name)
    return wire.delete_item(wire.MOMENT_DELETE, moment_id)
