"""The whole service against the plain model: whatever people do, everybody sees what the model says, and what
is refused is refused alike."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from appservices.moments.actions import Refusal
from appservices.moments.records import CommentId, Content, MomentId
from appservices.moments.rules import Audience, AudienceKind
from appservices.vocabulary.ids import UserId, derived_id
from tests.moments_model import World
from tests.moments_service import MomentsService, moments_service

NAMES = "abcd"
KINDS = [kind for kind in AudienceKind if kind is not AudienceKind.LISTED]
DAYS = {"all": None, "6_months": 183, "1_month": 31, "3_days": 3}
DAY_MS = 24 * 3600 * 1000

who = st.sampled_from(NAMES)
some = st.sets(who, max_size=3)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("direct"), who, some),
        st.tuples(st.just("friends"), who, who),
        st.tuples(st.just("friends"), who, who),
        st.tuples(st.just("ignored"), who, st.sets(who, max_size=1)),
        st.tuples(st.just("tag"), who, some),
        st.tuples(st.just("switches"), who, some, st.sampled_from(list(DAYS))),
        st.tuples(st.just("hidden"), who, st.sets(who, max_size=1)),
        st.tuples(st.just("post"), who, st.sampled_from(KINDS), st.booleans(), some),
        st.tuples(st.just("post"), who, st.sampled_from(KINDS), st.booleans(), some),
        st.tuples(st.just("like"), who, st.integers(0, 5)),
        st.tuples(st.just("comment"), who, st.integers(0, 5)),
        st.tuples(st.just("delete"), who, st.integers(0, 5)),
        st.tuples(st.just("wait"), st.integers(1, 40)),
    ),
    min_size=4,
    max_size=24,
)


class Play:
    """One story, told to the service and to the model."""

    def __init__(self, service: MomentsService, run: int) -> None:
        self.service = service
        self.run = run
        self.users = {name: UserId(f"@{name}{run}:here") for name in NAMES}
        empty: dict[str, Any] = {"tags": {}, "days": None}
        for part in ("direct", "ignored", "not_shown_to", "hidden"):
            empty[part] = set()
        self.model = World.of(
            {
                user: {k: (set() if isinstance(v, set) else v) for k, v in empty.items()}
                for user in self.users.values()
            }
        )
        self.moments: list[dict[str, Any]] = []
        self.numbers = itertools.count()
        for user in self.users.values():
            self.tell(user)

    def tell(self, user: UserId) -> None:
        """Writes a person's account as the model has it."""
        person = self.model.people[user]
        window = next(name for name, days in DAYS.items() if days == person["days"])
        self.service.accounts.set(
            user,
            direct=sorted(person["direct"] - {user}),
            ignored=sorted(person["ignored"]),
            tags={"tags": {name: sorted(members) for name, members in person["tags"].items()}},
            switches={
                "window": window,
                "not_shown_to": sorted(person["not_shown_to"]),
                "hidden": sorted(person["hidden"]),
            },
        )

    def people(self, names: set[str]) -> set[UserId]:
        return {self.users[name] for name in names}

    def id(self, kind: str) -> str:
        return derived_id(kind, str(self.run), str(next(self.numbers)))

    async def step(self, step: tuple[Any, ...]) -> None:
        kind, *rest = step
        actions, clock = self.service.actions, self.service.clock
        if kind == "wait":
            clock.now_ms += rest[0] * DAY_MS
            return
        user = self.users[rest[0]]
        person = self.model.people[user]
        match kind:
            case "direct" | "ignored" | "hidden":
                person[kind] = self.people(rest[1]) - {user}
                self.tell(user)
            case "friends":
                other = self.users[rest[1]]
                if other != user:
                    person["direct"].add(other)
                    self.model.people[other]["direct"].add(user)
                    self.tell(user)
                    self.tell(other)
            case "tag":
                person["tags"] = {"close": self.people(rest[1])}
                self.tell(user)
            case "switches":
                person["not_shown_to"], person["days"] = self.people(rest[1]) - {user}, DAYS[rest[2]]
                self.tell(user)
            case "post":
                tags = frozenset({"close"} if rest[2] else ())
                people = frozenset(self.people(rest[3]))
                moment_id = MomentId(self.id("moment"))
                posted = await actions.post(
                    user, moment_id, Content(text="hello"), Audience(rest[1], tags=tags, people=people)
                )
                assert not isinstance(posted, Refusal)
                self.moments.append(
                    {
                        "id": moment_id,
                        "author": user,
                        "kind": rest[1].value,
                        "tags": set(tags),
                        "people": set(people),
                        "at_ms": posted.created_at_ms,
                        "likes": set(),
                        "comments": [],
                    }
                )
            case _:
                await self.touch(kind, user, rest[1])

    async def touch(self, kind: str, user: UserId, number: int) -> None:
        """Somebody tries something with a Moment, theirs or not, seen or not; or with one that never was."""
        actions = self.service.actions
        moment = self.moments[number] if number < len(self.moments) else None
        moment_id = MomentId(self.id("none")) if moment is None else moment["id"]
        sees = moment is not None and self.model.sees(self.aged(moment), user)
        match kind:
            case "like":
                refusal = await actions.like(user, moment_id)
                assert refusal == (None if sees else Refusal.NOT_THERE)
                if moment is not None and sees:
                    moment["likes"].add(user)
            case "comment":
                comment_id = CommentId(self.id("comment"))
                outcome = await actions.comment(user, moment_id, comment_id, "well")
                assert (outcome == Refusal.NOT_THERE) == (not sees)
                if moment is not None and sees:
                    moment["comments"].append(user)
            case _:
                refusal = await actions.delete(user, moment_id)
                own = moment is not None and moment["author"] == user
                assert refusal == (None if own else Refusal.NOT_THERE)
                if moment is not None and own:
                    self.moments.remove(moment)

    def aged(self, moment: dict[str, Any]) -> dict[str, Any]:
        # In parts of days: what is posted a moment after another is a moment younger.
        return moment | {"age_days": (self.service.clock.now_ms - moment["at_ms"]) / DAY_MS}

    async def check(self) -> None:
        """Everybody looks everywhere."""
        viewing = self.service.viewing
        for viewer in self.users.values():
            newest = sorted(self.moments, key=lambda moment: -moment["at_ms"])
            fed = [moment["id"] for moment in newest if self.model.is_fed(self.aged(moment), viewer)]
            feed = await viewing.feed(viewer)
            assert [seen.moment.moment_id for seen in feed.moments] == fed[:10]
            for author in self.users.values():
                shown = [
                    moment["id"]
                    for moment in newest
                    if moment["author"] == author and self.model.sees(self.aged(moment), viewer)
                ]
                page = await viewing.of(viewer, author)
                assert [seen.moment.moment_id for seen in page.moments] == shown[:10]
                assert (page.older is None) == (len(shown) <= 10)
            news = 0
            for moment in self.moments:
                aged = self.aged(moment)
                seen = await viewing.one(viewer, moment["id"])
                assert (seen is not None) == self.model.sees(aged, viewer)
                if seen is None:
                    continue
                likes = {maker for maker in moment["likes"] if self.model.sees_of(aged, maker, viewer)}
                said = [maker for maker in moment["comments"] if self.model.sees_of(aged, maker, viewer)]
                assert {like.maker for like in seen.likes} == likes
                assert [comment.maker for comment in seen.comments] == said
                if viewer == moment["author"]:
                    news += len(likes - {viewer})
                if viewer in (moment["author"], *moment["comments"]):
                    news += len([maker for maker in said if maker != viewer])
            told = await viewing.news(viewer)
            assert len(told) <= news, "a count tells nothing that isn't shown"


RUNS = itertools.count()


async def play(stories: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with moments_service(Path(folder)) as service:
            story = Play(service, next(RUNS))
            for number, step in enumerate(stories):
                await story.step(step)
                if number % 6 == 5:
                    await story.check()
            await story.check()


@settings(max_examples=25, deadline=None)
@given(steps)
def test_everybody_sees_what_the_plain_model_says(stories: list[tuple[Any, ...]]) -> None:
    asyncio.run(play(stories))


async def test_a_removed_contacts_next_look_shows_nothing(tmp_path: Path) -> None:
    async with moments_service(tmp_path) as service:
        story = Play(service, next(RUNS))
        await story.step(("friends", "a", "b"))
        await story.step(("post", "a", AudienceKind.CONTACTS, False, set()))
        alice, bob = story.users["a"], story.users["b"]
        moment_id = story.moments[0]["id"]
        assert await service.viewing.one(bob, moment_id) is not None
        assert await service.actions.like(bob, moment_id) is None
        story.model.people[alice]["direct"].clear()
        story.tell(alice)
        assert await service.viewing.one(bob, moment_id) is None
        assert (await service.viewing.feed(bob)).moments == ()
        assert await service.actions.like(bob, moment_id) is Refusal.NOT_THERE
        # Their own like they may still take back.
        assert await service.actions.unlike(bob, moment_id) is None


async def test_what_is_sent_twice_is_there_once_and_an_id_is_nobody_elses(tmp_path: Path) -> None:
    async with moments_service(tmp_path) as service:
        story = Play(service, next(RUNS))
        await story.step(("friends", "a", "b"))
        alice, bob = story.users["a"], story.users["b"]
        moment_id, comment_id = MomentId("1" * 32), CommentId("2" * 32)
        everybody = Audience(AudienceKind.CONTACTS)
        for _again in range(2):
            assert not isinstance(
                await service.actions.post(alice, moment_id, Content(text="once"), everybody), Refusal
            )
            assert await service.actions.like(bob, moment_id) is None
            said = await service.actions.comment(bob, moment_id, comment_id, "once")
            assert not isinstance(said, Refusal)
        seen = await service.viewing.one(alice, moment_id)
        assert seen is not None and (len(seen.likes), len(seen.comments)) == (1, 1)
        taken = await service.actions.post(bob, moment_id, Content(text="mine"), everybody)
        assert taken is Refusal.ID_TAKEN
        await service.actions.delete(alice, moment_id)
        again = await service.actions.post(alice, moment_id, Content(text="once"), everybody)
        assert again is Refusal.ID_TAKEN, "what was deleted does not come again"
