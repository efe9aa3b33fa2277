"""Who is a contact of whom, as this service knows it: a copy of what Synapse tells, brought up to date before
each use.

Whoever judges by a circle has asked Synapse first what changed, so a contact who was removed is removed in
the very next answer. When Synapse can't be asked nothing is judged: MatrixUnavailable is raised. Of people of
other homeservers there is no circle here.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import delete, insert, literal, select, union

from appservices.chassis.database import Database, UnitOfWork
from appservices.chassis.homeserver import MatrixUnavailable
from appservices.chassis.shared_reads import SharedReads
from appservices.moments.records import PEOPLE_NAMED_MAX, TAG_LENGTH_MAX, TAGS_MAX
from appservices.moments.rules import Circle, Window
from appservices.moments.tables import circle_rooms, circles, comments, due, likes, marks, moments
from appservices.vocabulary.events import CONTACT_TAGS, MOMENTS_SWITCHES
from appservices.vocabulary.ids import RoomId, ServerName, UserId, is_user_id, server_of

logger = logging.getLogger(__name__)

USERS_ASKED_MAX: Final = 100
"""Of one question to Synapse."""
CIRCLES_KEPT_MAX: Final = 20_000
"""In memory; the others are read from the database."""
LOOK_SECONDS: Final = 1.0
"""How soon a change is noticed that nobody asks about."""
ANEW_SECONDS: Final = 600.0
"""How often everything is asked for anew, should a change not have been told."""
_TOKEN: Final = "contacts"

AskSynapse = Callable[[str, Mapping[str, Any] | None, Mapping[str, str]], Awaitable[Any]]
"""Method, body and query of a call of the contacts module. Raises MatrixRefused and MatrixUnavailable."""


class ContactBook:
    """The circles of local people."""

    def __init__(
        self,
        database: Database,
        *,
        ask: AskSynapse,
        own_server: ServerName,
        service_users: frozenset[UserId],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_change` is called once a change is committed, with the Moments that it touches being due."""
        self._database = database
        self._ask = ask
        self._own_server = own_server
        self._service_users = service_users
        self._on_change = on_change
        self._kept: OrderedDict[UserId, Circle] = OrderedDict()
        self._refreshing = SharedReads(self._refresh)
        self._changing = asyncio.Lock()

    async def circles(self, people: Iterable[UserId]) -> dict[UserId, Circle]:
        """The circles of those of the people who are local, as Synapse has them now."""
        await self._refreshing.get("")
        return await self.last_known(people)

    async def last_known(self, people: Iterable[UserId]) -> dict[UserId, Circle]:
        """The same without asking what changed, for those who have just done so."""
        local = {person for person in people if server_of(person) == self._own_server} - self._service_users
        found = {person: self._kept[person] for person in local if person in self._kept}
        missing = sorted(local - found.keys())
        if missing:
            found |= await self._read(missing)
        missing = sorted(local - found.keys())
        if missing:
            found |= await self._learn(missing)
        return found

    async def circle(self, person: UserId) -> Circle:
        """One local person's circle, as Synapse has it now."""
        return (await self.circles([person])).get(person, Circle())

    async def befriend(self, person: UserId, friend: UserId) -> tuple[RoomId, bool]:
        """Begins a direct chat in the person's name; the room, and whether it is new."""
        answer = await self._ask("POST", {"user": person, "friend": friend}, {})
        return RoomId(answer["room_id"]), bool(answer["made"])

    async def set_tag(self, person: UserId, tag: str, people: frozenset[UserId]) -> None:
        """Who has the tag from now on; a tag that nobody has is gone."""
        tags = dict((await self.circle(person)).tags)
        tags[tag] = people
        content = {"tags": {name: sorted(members) for name, members in tags.items() if members}}
        await self._ask("POST", {"user": person, "data_type": CONTACT_TAGS, "content": content}, {})

    async def set_switches(
        self,
        person: UserId,
        *,
        window: Window | None = None,
        not_shown_to: frozenset[UserId] | None = None,
        hidden: frozenset[UserId] | None = None,
    ) -> None:
        """Changes those that are given."""
        circle = await self.circle(person)
        content = {
            "window": (window or circle.window).value,
            "not_shown_to": sorted(circle.not_shown_to if not_shown_to is None else not_shown_to),
            "hidden": sorted(circle.hidden if hidden is None else hidden),
        }
        await self._ask("POST", {"user": person, "data_type": MOMENTS_SWITCHES, "content": content}, {})

    async def run(self) -> None:
        """Notices changes that nobody asks about, until cancelled."""
        loop = asyncio.get_running_loop()
        anew_at = loop.time() + ANEW_SECONDS
        while True:
            try:
                if loop.time() >= anew_at:
                    anew_at = loop.time() + ANEW_SECONDS
                    await self._ask_anew()
                await self._refreshing.get("")
            except MatrixUnavailable as unavailable:
                logger.warning("who is a contact of whom can't be asked: %s", unavailable.sentence)
            except Exception:
                logger.exception("what changed between people could not be taken in; it is tried again")
            await asyncio.sleep(LOOK_SECONDS)

    # Keeping up with Synapse.

    async def _refresh(self, keys: Sequence[str]) -> Mapping[str, bool]:
        async with self._changing, self._database.read() as work:
            found = await work.execute(select(marks.c.value).where(marks.c.name == _TOKEN))
            since = str(found.scalar_one_or_none() or "")
        told = await self._ask("GET", None, {"since": since} if since else {})
        async with self._changing:
            affected = await self._affected(told)
            if affected or told["all"] or _place(told["next"]) != _place(since):
                await self._take(await self._snapshots(affected), token=str(told["next"]))
        return dict.fromkeys(keys, True)

    async def _affected(self, told: Mapping[str, Any]) -> list[UserId]:
        """Those whose circle we have, and who may have another one now."""
        async with self._database.read() as work:
            if told["all"]:
                rows = await work.execute(select(circles.c.user_id))
                return [UserId(user) for (user,) in rows]
            found: set[UserId] = set()
            users, rooms = list(told["users"]), list(told["rooms"])
            for start in range(0, max(len(users), len(rooms)), 500):
                rows = await work.execute(
                    union(
                        select(circles.c.user_id).where(circles.c.user_id.in_(users[start : start + 500])),
                        select(circle_rooms.c.user_id).where(
                            circle_rooms.c.room_id.in_(rooms[start : start + 500])
                        ),
                    )
                )
                found.update(UserId(user) for (user,) in rows)
        return sorted(found)

    async def _ask_anew(self) -> None:
        async with self._changing, self._database.begin() as work:
            await work.execute(delete(marks).where(marks.c.name == _TOKEN))
            await work.commit()

    async def _learn(self, people: Sequence[UserId]) -> dict[UserId, Circle]:
        """People whom nobody has asked about before."""
        async with self._changing:
            snapshots = await self._snapshots(people)
            await self._take(snapshots)
        return {person: read_circle(snapshot, self._service_users) for person, snapshot in snapshots.items()}

    async def _snapshots(self, people: Sequence[UserId]) -> dict[UserId, Mapping[str, Any]]:
        told: dict[UserId, Mapping[str, Any]] = {}
        for start in range(0, len(people), USERS_ASKED_MAX):
            answer = await self._ask("POST", {"users": list(people[start : start + USERS_ASKED_MAX])}, {})
            told |= {UserId(user): snapshot for user, snapshot in answer["circles"].items()}
        return told

    async def _take(self, snapshots: Mapping[UserId, Mapping[str, Any]], *, token: str | None = None) -> None:
        """Commits new circles with what follows from them: the Moments that somebody may now see, or no
        longer, are due."""
        before = await self._read(sorted(snapshots))
        now = {person: read_circle(snapshot, self._service_users) for person, snapshot in snapshots.items()}
        changed = {person: circle for person, circle in now.items() if circle != before.get(person)}
        async with self._database.begin() as work:
            for person, snapshot in snapshots.items():
                await _write_snapshot(work, person, snapshot)
            for person, circle in changed.items():
                if person in before:
                    await _mark_due(work, person, before[person], circle)
            if token is not None:
                await work.execute(delete(marks).where(marks.c.name == _TOKEN))
                await work.execute(insert(marks).values(name=_TOKEN, value=token))
            await work.commit()
        for person, circle in now.items():
            self._keep(person, circle)
        if changed:
            self._on_change()

    async def _read(self, people: Sequence[UserId]) -> dict[UserId, Circle]:
        found: dict[UserId, Circle] = {}
        async with self._database.read() as work:
            for start in range(0, len(people), 500):
                rows = await work.execute(
                    select(circles).where(circles.c.user_id.in_(people[start : start + 500]))
                )
                for row in rows:
                    found[UserId(row.user_id)] = read_circle(json.loads(row.snapshot), self._service_users)
        for person, circle in found.items():
            if person not in self._kept:
                self._keep(person, circle)
        return found

    def _keep(self, person: UserId, circle: Circle) -> None:
        self._kept[person] = circle
        self._kept.move_to_end(person)
        while len(self._kept) > CIRCLES_KEPT_MAX:
            self._kept.popitem(last=False)


def read_circle(snapshot: Mapping[str, Any], service_users: frozenset[UserId]) -> Circle:
    """What an account says, whatever people's clients have written into it."""
    tags, switches = snapshot.get("tags"), snapshot.get("switches")
    named = tags.get("tags") if isinstance(tags, Mapping) else None
    switches = switches if isinstance(switches, Mapping) else {}
    window = switches.get("window")
    return Circle(
        direct=frozenset(UserId(user) for user in snapshot["direct"]) - service_users,
        ignored=frozenset(UserId(user) for user in snapshot["ignored"]),
        tags={
            name: _people(people)
            for name, people in list(named.items() if isinstance(named, Mapping) else ())[:TAGS_MAX]
            if isinstance(name, str) and 0 < len(name) <= TAG_LENGTH_MAX
        },
        not_shown_to=_people(switches.get("not_shown_to")),
        hidden=_people(switches.get("hidden")),
        window=Window(window) if isinstance(window, str) and window in set(Window) else Window.ALL,
    )


def _people(listed: object) -> frozenset[UserId]:
    if not isinstance(listed, list):
        return frozenset()
    return frozenset(
        UserId(user) for user in listed[: 10 * PEOPLE_NAMED_MAX] if isinstance(user, str) and is_user_id(user)
    )


def _place(token: str) -> str:
    """What of a token says that something changed; the time in it always goes on."""
    return token.partition(".")[0]


async def _write_snapshot(work: UnitOfWork, person: UserId, snapshot: Mapping[str, Any]) -> None:
    await work.execute(delete(circles).where(circles.c.user_id == person))
    await work.execute(insert(circles).values(user_id=person, snapshot=json.dumps(snapshot)))
    await work.execute(delete(circle_rooms).where(circle_rooms.c.user_id == person))
    rooms = [{"room_id": room, "user_id": person} for room in snapshot["rooms"]]
    if rooms:
        await work.execute(insert(circle_rooms), rooms)


async def _mark_due(work: UnitOfWork, person: UserId, before: Circle, now: Circle) -> None:
    """What may be seen differently when a circle changes: the person's own Moments, and those of the people
    about whom the account says something else; what these two made under others' Moments."""
    others = set[UserId]()
    for one, other in (
        (before.direct, now.direct),
        (before.ignored, now.ignored),
        (before.hidden, now.hidden),
    ):
        others |= one ^ other
    shows_differently = (before.tags, before.not_shown_to, before.window) != (
        now.tags,
        now.not_shown_to,
        now.window,
    )
    whose = sorted({person, *others} if others or shows_differently else ())
    for start in range(0, len(whose), 500):
        part = whose[start : start + 500]
        touched = union(
            select(moments.c.moment_id).where(moments.c.author.in_(part), moments.c.deleted_at_ms.is_(None)),
            select(likes.c.moment_id).where(likes.c.maker.in_(part)),
            select(comments.c.moment_id).where(
                comments.c.maker.in_(part), comments.c.deleted_at_ms.is_(None)
            ),
        ).subquery()
        await work.execute(
            insert(due).from_select(["moment_id", "at_ms"], select(touched.c.moment_id, literal(0)))
        )
