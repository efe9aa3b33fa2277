"""The rules of Moments against a plain model of the same rules, over all small worlds hypothesis makes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from appservices.moments.rules import (
    Audience,
    AudienceKind,
    Circle,
    Post,
    Window,
    are_contacts,
    in_feed,
    may_see,
    may_see_of,
)
from appservices.vocabulary.ids import UserId
from tests.moments_model import World

PEOPLE = tuple(UserId(f"@{name}:here") for name in "abcd")
AUTHOR, OTHERS = PEOPLE[0], PEOPLE[1:]
NOW_MS = 10**12
DAY_MS = 24 * 3600 * 1000

some = st.frozensets(st.sampled_from(PEOPLE))
circles = st.builds(
    Circle,
    direct=some,
    ignored=st.one_of(st.just(frozenset()), some),
    tags=st.dictionaries(st.sampled_from(["family", "work"]), some),
    not_shown_to=st.one_of(st.just(frozenset()), some),
    hidden=st.one_of(st.just(frozenset()), some),
    window=st.sampled_from(Window),
)
worlds = st.fixed_dictionaries(dict.fromkeys(PEOPLE, circles))
audiences = st.builds(
    Audience,
    st.sampled_from([kind for kind in AudienceKind if kind is not AudienceKind.LISTED]),
    tags=st.frozensets(st.sampled_from(["family", "work", "gone"])),
    people=some,
)
posts = st.builds(
    Post,
    author=st.just(AUTHOR),
    audience=audiences,
    created_at_ms=st.integers(0, 400).map(lambda days: NOW_MS - days * DAY_MS),
)


def model_of(world: dict[UserId, Circle]) -> World:
    return World.of(
        {
            person: {
                "direct": set(circle.direct),
                "ignored": set(circle.ignored),
                "tags": {name: set(people) for name, people in circle.tags.items()},
                "not_shown_to": set(circle.not_shown_to),
                "hidden": set(circle.hidden),
                "days": {"all": None, "6_months": 183, "1_month": 31, "3_days": 3}[circle.window],
            }
            for person, circle in world.items()
        }
    )


def plain(post: Post) -> dict[str, Any]:
    return {
        "author": post.author,
        "kind": post.audience.kind.value,
        "tags": set(post.audience.tags),
        "people": set(post.audience.people),
        "age_days": (NOW_MS - post.created_at_ms) // DAY_MS,
    }


@given(worlds, posts)
def test_the_rules_are_those_of_the_plain_model(world: dict[UserId, Circle], post: Post) -> None:
    model = model_of(world)
    for viewer in PEOPLE:
        sees = may_see(world, post, viewer, now_ms=NOW_MS)
        assert sees == model.sees(plain(post), viewer)
        assert in_feed(world, post, viewer, now_ms=NOW_MS) == model.is_fed(plain(post), viewer)
        for maker in PEOPLE:
            assert are_contacts(world, maker, viewer) == model.contacts(maker, viewer)
            shown = may_see_of(world, post, maker, viewer, now_ms=NOW_MS)
            assert shown == model.sees_of(plain(post), maker, viewer)


@given(worlds, posts)
def test_the_author_sees_their_own_whatever_else_is_so(world: dict[UserId, Circle], post: Post) -> None:
    assert may_see(world, post, AUTHOR, now_ms=NOW_MS)
    assert all(may_see_of(world, post, maker, AUTHOR, now_ms=NOW_MS) for maker in PEOPLE)


@given(worlds, posts, st.sampled_from(OTHERS), st.sampled_from(OTHERS))
def test_what_a_viewer_sees_does_not_depend_on_who_else_does(
    world: dict[UserId, Circle], post: Post, viewer: UserId, other: UserId
) -> None:
    """Nobody learns by what they see who else is in an audience: taking another one out changes nothing."""
    if viewer == other:
        return
    author = world[AUTHOR]
    without = {name: people - {other} for name, people in author.tags.items()}
    named = replace(post.audience, people=post.audience.people - {other})
    changed = {**world, AUTHOR: replace(author, tags=without, not_shown_to=author.not_shown_to | {other})}
    before = may_see(world, post, viewer, now_ms=NOW_MS)
    assert may_see(changed, replace(post, audience=named), viewer, now_ms=NOW_MS) == before


@given(worlds, posts, st.sampled_from(OTHERS))
def test_who_is_no_contact_sees_what_is_public_and_nothing_else(
    world: dict[UserId, Circle], post: Post, viewer: UserId
) -> None:
    removed = {**world, AUTHOR: replace(world[AUTHOR], direct=world[AUTHOR].direct - {viewer})}
    if post.audience.kind is not AudienceKind.PUBLIC:
        assert not may_see(removed, post, viewer, now_ms=NOW_MS)
    assert not in_feed(removed, post, viewer, now_ms=NOW_MS)


@given(circles, posts)
def test_of_another_servers_moment_the_list_counts_and_what_is_known_here(me: Circle, post: Post) -> None:
    viewer, author = OTHERS[0], UserId("@far:away")
    listed = replace(post, author=author, audience=Audience(AudienceKind.LISTED, people=frozenset({viewer})))
    friendly = replace(me, direct=me.direct | {author}, ignored=frozenset())
    assert may_see({viewer: friendly}, listed, viewer, now_ms=NOW_MS)
    for changed in (
        replace(friendly, direct=frozenset()),
        replace(friendly, ignored=frozenset({author})),
    ):
        assert not may_see({viewer: changed}, listed, viewer, now_ms=NOW_MS)
    unlisted = replace(listed, audience=Audience(AudienceKind.LISTED))
    assert not may_see({viewer: friendly}, unlisted, viewer, now_ms=NOW_MS)
