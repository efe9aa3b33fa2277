"""Brings Moments to whom they are for: what should stand in each Moments room, against what stands there.

A Moment that is due is looked at whole: who may see it now, and what of it. What is missing in a room is
sent, what has changed is edited, what may not be seen any more is taken back. So posting, liking, commenting,
deleting, another tag, an end of a friendship are one and the same work, and doing it twice changes nothing.

Nobody's room is flooded: where much has come that nobody looked at, nothing more comes until they are there
again; then the newest comes. What may not be seen any more is taken back in any case.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, delete, func, insert, select, update

from appservices.chassis.chosen_languages import LanguageOf
from appservices.chassis.clock import Clock
from appservices.chassis.database import Database, UnitOfWork
from appservices.chassis.homeserver import MatrixRefused, MatrixUnavailable
from appservices.chassis.outbox import REDACTION, Outgoing
from appservices.chassis.tables import outbox
from appservices.moments import store
from appservices.moments.across import Across
from appservices.moments.contacts import ContactBook
from appservices.moments.feed_messages import NameOf, comment_message, likes_message, moment_message
from appservices.moments.records import Content, MomentId, Part
from appservices.moments.rules import WINDOW_MS, Circle, Circles, in_feed, may_see
from appservices.moments.tables import due, feed_entries, feed_rooms, moments
from appservices.moments.viewing import Seen, Viewing, seen_by
from appservices.vocabulary.ids import EventId, OutboxId, RoomId, UserId, derived_id
from appservices.vocabulary.languages import speaking

logger = logging.getLogger(__name__)

DUE_AT_ONCE: Final = 20
LOOK_SECONDS: Final = 2.0
UNSEEN_MAX: Final = 20
"""So many Moments come into a room in which nobody reads; then it is left alone."""
POSTPONED_MS: Final = 60_000
"""Until a Moment that could not be told is tried again."""
WINDOW_LOOK_MS: Final = 600_000
"""How often Moments are looked for that a window has closed on."""

THE_MOMENT, LIKES = "moment", "likes"

NamesOf = Callable[[Iterable[UserId]], Awaitable[NameOf]]
SheetOf = Callable[[Content], Awaitable[Part | None]]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A message that should stand in a room."""

    content: Mapping[str, Any]
    subject: str

    @property
    def digest(self) -> str:
        """The same as long as the message need not change: what it answers is no part of it."""
        shown = {name: value for name, value in self.content.items() if name != "m.relates_to"}
        return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()


class Distribution:
    """Does what is due, in the background."""

    def __init__(
        self,
        database: Database,
        contacts: ContactBook,
        viewing: Viewing,
        *,
        names_of: NamesOf,
        is_private: Callable[[RoomId, UserId], Awaitable[bool]],
        across: Across,
        sheet_of: SheetOf,
        language_of: LanguageOf,
        clock: Clock,
        on_commit: Callable[[], None],
    ) -> None:
        """`is_private` says whether nobody but that person reads in a room; `on_commit` is called when the
        outbox may have something to send."""
        self._database = database
        self._contacts = contacts
        self._viewing = viewing
        self._names_of = names_of
        self._is_private = is_private
        self._across = across
        self._sheet_of = sheet_of
        self._language_of = language_of
        self._clock = clock
        self._on_commit = on_commit
        self._wake = asyncio.Event()
        self._visited: set[RoomId] = set()
        self._windows_at_ms = clock()

    def wake(self) -> None:
        """To be called after a commit that may have made something due."""
        self._wake.set()

    def read_in(self, room_id: RoomId) -> None:
        """Somebody has read in a Moments room."""
        self._visited.add(room_id)
        self._wake.set()

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            self._wake.clear()
            try:
                more = await self.step()
            except MatrixUnavailable as problem:
                logger.warning("Moments wait to be told: %s", problem)
                more = False
            except Exception:
                logger.exception("Moments could not be told; that is tried again")
                more = False
            if not more:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), LOOK_SECONDS)

    async def step(self) -> bool:
        """Does some of what is due; whether there may be more."""
        while self._visited:
            await self._catch_up(self._visited.pop())
        await self._note_closed_windows()
        now_ms = self._clock()
        async with self._database.read() as work:
            rows = await work.execute(
                select(due.c.moment_id, func.max(due.c.position).label("last"))
                .group_by(due.c.moment_id)
                .having(func.max(due.c.at_ms) <= now_ms)
                .order_by(func.min(due.c.position))
                .limit(DUE_AT_ONCE)
            )
            found = [(MomentId(row.moment_id), int(row.last)) for row in rows]
        for moment_id, last in found:
            try:
                await self._distribute(moment_id, last)
            except MatrixUnavailable:
                raise
            except Exception:
                logger.exception("the Moment %s could not be told; others go on", moment_id)
                await self._postpone(moment_id)
        return len(found) == DUE_AT_ONCE

    async def _postpone(self, moment_id: MomentId) -> None:
        async with self._database.begin() as work:
            later = self._clock() + POSTPONED_MS
            await work.execute(update(due).where(due.c.moment_id == moment_id).values(at_ms=later))
            await work.commit()

    # Rooms.

    async def open_room(self, person: UserId, room_id: RoomId) -> None:
        """That is the person's Moments room from now on; the newest of their feed comes into it."""
        async with self._database.begin() as work:
            known = await work.execute(select(feed_rooms.c.room_id).where(feed_rooms.c.user_id == person))
            if known.scalar_one_or_none() == room_id:
                return
            await work.execute(delete(feed_rooms).where(feed_rooms.c.user_id == person))
            await work.execute(delete(feed_rooms).where(feed_rooms.c.room_id == room_id))
            await work.execute(delete(feed_entries).where(feed_entries.c.user_id == person))
            await work.execute(insert(feed_rooms).values(user_id=person, room_id=room_id, unseen=UNSEEN_MAX))
            await work.commit()
        self.read_in(room_id)

    async def owner_of(self, room_id: RoomId) -> UserId | None:
        async with self._database.read() as work:
            found = await work.execute(select(feed_rooms.c.user_id).where(feed_rooms.c.room_id == room_id))
            user = found.scalar_one_or_none()
            return UserId(user) if user else None

    async def _catch_up(self, room_id: RoomId) -> None:
        """Somebody is there again: what they missed is due, as far as a page of the feed goes."""
        async with self._database.read() as work:
            found = await work.execute(select(feed_rooms).where(feed_rooms.c.room_id == room_id))
            room = found.first()
        if room is None or room.unseen == 0:
            return
        missed: list[Seen] = []
        if room.unseen >= UNSEEN_MAX:
            missed = [*reversed((await self._viewing.feed(UserId(room.user_id))).moments)]
        async with self._database.begin() as work:
            await work.execute(update(feed_rooms).where(feed_rooms.c.room_id == room_id).values(unseen=0))
            await work.apply([store.due_write(seen.moment.moment_id) for seen in missed])
            await work.commit()

    async def _note_closed_windows(self) -> None:
        """Moments that have just become older than their author shows are due: they are taken back."""
        now_ms = self._clock()
        if now_ms - self._windows_at_ms < WINDOW_LOOK_MS:
            return
        since_ms, self._windows_at_ms = self._windows_at_ms, now_ms
        async with self._database.begin() as work:
            for span_ms in WINDOW_MS.values():
                if span_ms is None:
                    continue
                rows = await work.execute(
                    select(moments.c.moment_id).where(
                        moments.c.created_at_ms >= since_ms - span_ms - WINDOW_LOOK_MS,
                        moments.c.created_at_ms < now_ms - span_ms,
                        moments.c.deleted_at_ms.is_(None),
                    )
                )
                await work.apply([store.due_write(MomentId(moment_id)) for (moment_id,) in rows])
            await work.commit()

    # One Moment.

    async def _distribute(self, moment_id: MomentId, last: int) -> None:
        """`last` is the position of the newest reason to look at it."""
        async with self._database.read() as work:
            moment = await store.moment_of(work, moment_id)
            threads = await store.threads_of(work, [moment_id])
            entries = await _entries(work, moment_id)
        makers = {like.maker for like in threads.likes.get(moment_id, ())}
        makers |= {comment.maker for comment in threads.comments.get(moment_id, ())}
        circles: dict[UserId, Circle] = {}
        candidates = {user for user, _kind in entries}
        if moment is not None:
            circles = await self._contacts.circles({moment.author, *makers})
            candidates |= {moment.author, *moment.audience.people}
            candidates |= circles.get(moment.author, Circle()).direct
        async with self._database.read() as work:
            rooms = await _rooms(work, candidates)
            first_event = None if moment is None else await store.first_event_of(work, moment)
        # A room that somebody else has come into gets nothing, and gets it when they have left.
        rooms = {
            viewer: room
            for viewer, room in rooms.items()
            if await self._is_private(RoomId(room.room_id), viewer)
        }
        circles |= await self._contacts.last_known(rooms.keys() - circles.keys())
        wanted: dict[UserId, dict[str, _Wanted]] = {}
        if moment is not None:
            for viewer in rooms:
                if may_see(circles, moment.post, viewer, now_ms=self._clock()):
                    seen = seen_by(circles, moment, threads, viewer, now_ms=self._clock())
                    wanted[viewer] = await self._messages(circles, seen, viewer, first_event, entries)
        told = self._across.wanted(moment, threads, circles)
        async with self._database.begin() as work:
            await self._across.settle(work, moment_id, told)
            for viewer, room in rooms.items():
                await self._settle(work, moment_id, viewer, room, wanted.get(viewer, {}), entries)
            await work.execute(delete(due).where(due.c.moment_id == moment_id, due.c.position <= last))
            work.after_commit(self._on_commit)
            await work.commit()

    async def _messages(
        self,
        circles: Circles,
        seen: Seen,
        viewer: UserId,
        first_event: EventId | None,
        entries: Mapping[tuple[UserId, str], Row[Any]],
    ) -> dict[str, _Wanted]:
        """What should stand in the viewer's room of that Moment, by kind."""
        moment, own = seen.moment, seen.moment.author == viewer
        people = {moment.author, *(like.maker for like in seen.likes)}
        people |= {comment.maker for comment in seen.comments}
        wanted: dict[str, _Wanted] = {}
        name_of = await self._names_of(people)
        under = first_event if own else None
        shown = in_feed(circles, moment.post, viewer, now_ms=self._clock())
        with speaking(await self._language_of(viewer)):
            if shown and not (own and first_event is not None):
                try:
                    sheet = await self._sheet_of(moment.content)
                except MatrixRefused as refused:
                    logger.warning("the pictures of %s are gone: %s", moment.moment_id, refused)
                    sheet = None
                wanted[THE_MOMENT] = _Wanted(
                    moment_message(
                        Seen(moment, (), ()) if own else seen, name_of, viewer=viewer, sheet=sheet
                    ),
                    f"moment:{moment.moment_id}",
                )
            if under is None and (entry := entries.get((viewer, THE_MOMENT))) is not None:
                under = await self._sent_as(OutboxId(entry.outbox_id))
            if own and (likes := likes_message(seen, name_of, under=under)) is not None:
                wanted[LIKES] = _Wanted(likes, f"moment:{moment.moment_id}")
            mine = {comment.comment_id for comment in seen.comments if comment.maker == viewer}
            for comment in seen.comments:
                if comment.maker != viewer and (own or comment.answers in mine):
                    message = comment_message(comment, seen, name_of, under=under)
                    wanted[f"comment:{comment.comment_id}"] = _Wanted(
                        message, f"comment:{comment.comment_id}"
                    )
        return wanted

    async def _settle(
        self,
        work: UnitOfWork,
        moment_id: MomentId,
        viewer: UserId,
        room: Row[Any],
        wanted: Mapping[str, _Wanted],
        entries: Mapping[tuple[UserId, str], Row[Any]],
    ) -> None:
        """Writes what makes the room as it should be."""
        is_asleep = room.unseen >= UNSEEN_MAX
        own = {kind: entry for (user, kind), entry in entries.items() if user == viewer}
        for kind, entry in own.items():
            if kind not in wanted and entry.digest:
                await self._take_back(work, room, entry)
        for kind, want in wanted.items():
            before = own.get(kind)
            if is_asleep or (before is not None and before.digest == want.digest):
                continue
            if before is None or not before.digest:
                await self._send(work, moment_id, viewer, room, kind, want, before)
            else:
                await self._edit(work, room, before, want)

    async def _send(
        self,
        work: UnitOfWork,
        moment_id: MomentId,
        viewer: UserId,
        room: Row[Any],
        kind: str,
        want: _Wanted,
        before: Row[Any] | None,
    ) -> None:
        version = 0 if before is None else before.version + 1
        outbox_id = OutboxId(derived_id("feed", room.room_id, moment_id, kind, str(version)))
        outgoing = Outgoing(outbox_id, want.content, room_id=RoomId(room.room_id), subject=want.subject)
        await work.apply([outgoing.write(now_ms=self._clock())])
        await work.execute(
            delete(feed_entries).where(
                feed_entries.c.user_id == viewer,
                feed_entries.c.moment_id == moment_id,
                feed_entries.c.kind == kind,
            )
        )
        await work.execute(
            insert(feed_entries).values(
                user_id=viewer,
                moment_id=moment_id,
                kind=kind,
                outbox_id=outbox_id,
                digest=want.digest,
                version=version,
            )
        )
        await work.execute(
            update(feed_rooms).where(feed_rooms.c.user_id == viewer).values(unseen=feed_rooms.c.unseen + 1)
        )

    async def _edit(self, work: UnitOfWork, room: Row[Any], entry: Row[Any], want: _Wanted) -> None:
        now = str(self._clock())
        outgoing = Outgoing(
            OutboxId(derived_id("feed edit", entry.outbox_id, entry.digest, want.digest, now)),
            want.content,
            room_id=RoomId(room.room_id),
            subject=want.subject,
            replaces=OutboxId(entry.outbox_id),
        )
        await work.apply([outgoing.write(now_ms=self._clock())])
        await _set_digest(work, entry, want.digest)

    async def _take_back(self, work: UnitOfWork, room: Row[Any], entry: Row[Any]) -> None:
        outgoing = Outgoing(
            OutboxId(derived_id("feed redaction", entry.outbox_id)),
            {},
            room_id=RoomId(room.room_id),
            event_type=REDACTION,
            replaces=OutboxId(entry.outbox_id),
        )
        await work.apply([outgoing.write(now_ms=self._clock())])
        await _set_digest(work, entry, "")

    async def _sent_as(self, outbox_id: OutboxId) -> EventId | None:
        async with self._database.read() as work:
            found = await work.execute(select(outbox.c.event_id).where(outbox.c.outbox_id == outbox_id))
            event_id = found.scalar_one_or_none()
            return EventId(event_id) if event_id else None


async def _entries(work: UnitOfWork, moment_id: MomentId) -> dict[tuple[UserId, str], Row[Any]]:
    rows = await work.execute(select(feed_entries).where(feed_entries.c.moment_id == moment_id))
    return {(UserId(row.user_id), row.kind): row for row in rows}


async def _rooms(work: UnitOfWork, people: Iterable[UserId]) -> dict[UserId, Row[Any]]:
    """The Moments rooms of those who have one."""
    found: dict[UserId, Row[Any]] = {}
    wanted: Sequence[UserId] = sorted(people)
    for start in range(0, len(wanted), 500):
        rows = await work.execute(
            select(feed_rooms).where(feed_rooms.c.user_id.in_(wanted[start : start + 500]))
        )
        found |= {UserId(row.user_id): row for row in rows}
    return found


async def _set_digest(work: UnitOfWork, entry: Row[Any], digest: str) -> None:
    await work.execute(
        update(feed_entries)
        .where(
            feed_entries.c.user_id == entry.user_id,
            feed_entries.c.moment_id == entry.moment_id,
            feed_entries.c.kind == entry.kind,
        )
        .values(digest=digest)
    )
