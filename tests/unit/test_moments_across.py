"""What other homeservers may do to Moments here: nothing but what they are believed about.

Two services, real databases and use cases, and the items that one would tell the other, carried by hand: so a
hostile server can say whatever it likes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from appservices.chassis.links.feature import ItemsRefused
from appservices.moments import store
from appservices.moments.items import comment_item, like_item, moment_item
from appservices.moments.records import Comment, CommentId, Content, Like, Moment, MomentId, Shown, mark
from appservices.moments.rules import CONTACTS, Audience, AudienceKind, Window
from appservices.moments.tables import moments
from appservices.vocabulary.ids import ServerName, UserId
from tests.link_channel import NOTHING
from tests.moments_service import MomentsService, moments_service

ALICE, DAVE = UserId("@alice:here"), UserId("@dave:here")
BOB, EVE, CAROL = UserId("@bob:there"), UserId("@eve:there"), UserId("@carol:elsewhere")
THERE, ELSEWHERE = UserId("@moments:there"), UserId("@moments:elsewhere")
MOMENT, HIDDEN, NONE = MomentId("1" * 32), MomentId("2" * 32), MomentId("3" * 32)
RECEIVED = [NOTHING]


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[MomentsService]:
    """Alice's service: Bob and Carol are her friends elsewhere, Dave is one here, Eve is a stranger."""
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(moments_service(tmp_path))
        service.accounts.set(ALICE, direct=[BOB, CAROL, DAVE], tags={"tags": {"near": [DAVE]}})
        service.accounts.set(DAVE, direct=[ALICE, BOB])
        near = Audience(AudienceKind.ONLY, tags=frozenset({"near"}))
        for moment_id, audience in ((MOMENT, CONTACTS), (HIDDEN, near)):
            await service.actions.post(ALICE, moment_id, Content(text="hello"), audience)
        yield service


async def told(service: MomentsService, moment_id: MomentId) -> dict[ServerName, dict[str, Any]]:
    """What each server should have of a Moment."""
    async with service.actions.database.read() as work:
        moment = await store.moment_of(work, moment_id)
        threads = await store.threads_of(work, [moment_id])
    circles = await service.actions.contacts.circles([ALICE, DAVE])
    return {server: dict(items) for server, items in service.across.wanted(moment, threads, circles).items()}


def like(moment_id: MomentId, maker: UserId, *contacts: UserId) -> Any:
    marks = frozenset(mark(moment_id, person) for person in contacts)
    return like_item(Like(moment_id, maker, 10**12), Shown(marks=marks))


def comment(moment_id: MomentId, maker: UserId, number: int, **more: Any) -> Any:
    said = Comment(
        comment_id=CommentId(f"{number:032x}"), moment_id=moment_id, maker=maker, text="hi", at_ms=1, **more
    )
    return comment_item(said, Shown())


async def state(service: MomentsService) -> list[Any]:
    """All Moments with what is below them, as their author sees them."""
    seen = [await service.viewing.one(ALICE, moment_id) for moment_id in (MOMENT, HIDDEN)]
    async with service.actions.database.read() as work:
        ids = [row.moment_id for row in await work.execute(select(moments.c.moment_id))]
    return [*seen, ids]


async def test_each_server_is_told_of_its_own_people_and_a_server_without_any_of_nothing(
    here: MomentsService,
) -> None:
    open_to_all = await told(here, MOMENT)
    assert open_to_all.keys() == {"there", "elsewhere"}
    assert open_to_all[ServerName("there")]["moment"]["viewers"] == [BOB]
    assert "carol" not in str(open_to_all[ServerName("there")])
    assert await told(here, HIDDEN) == {}


async def test_a_like_reaches_those_alone_who_may_see_it(here: MomentsService) -> None:
    """Bob says by marks who his contacts are; Carol is one, and Dave by his own account as well."""
    await here.across.apply(THERE, [like(MOMENT, BOB, CAROL, DAVE)], RECEIVED)
    assert f"like:{BOB}" in (await told(here, MOMENT))[ServerName("elsewhere")]
    seen = await here.viewing.one(DAVE, MOMENT)
    assert seen is not None and [each.maker for each in seen.likes] == [BOB]
    # Bob has no contact any more who is in this audience.
    await here.across.apply(THERE, [like(MOMENT, BOB)], RECEIVED)
    assert f"like:{BOB}" not in (await told(here, MOMENT))[ServerName("elsewhere")]
    seen = await here.viewing.one(DAVE, MOMENT)
    assert seen is not None and seen.likes == ()


async def test_what_a_server_may_not_do_is_passed_over_as_if_there_were_nothing(here: MomentsService) -> None:
    await here.across.apply(THERE, [comment(MOMENT, BOB, 7)], RECEIVED)
    before = await state(here)
    forged = Moment(
        moment_id=NONE, author=ALICE, created_at_ms=1, audience=CONTACTS, content=Content(text="forged")
    )
    taken = Moment(
        moment_id=MOMENT, author=CAROL, created_at_ms=1, audience=CONTACTS, content=Content(text="taken")
    )
    for peer, item in (
        # On what its people don't see, or is not there.
        (THERE, like(HIDDEN, BOB)),
        (THERE, like(NONE, BOB)),
        (THERE, comment(HIDDEN, BOB, 1)),
        (THERE, like(MOMENT, EVE)),
        # In other servers' people's names.
        (THERE, like(MOMENT, CAROL)),
        (THERE, like(MOMENT, DAVE)),
        (THERE, comment(MOMENT, ALICE, 2)),
        (ELSEWHERE, moment_item(forged, frozenset({DAVE}), Window.ALL)),
        (ELSEWHERE, moment_item(taken, frozenset({DAVE}), Window.ALL)),
        # What others made.
        (ELSEWHERE, {"kind": "comment_delete", "moment": MOMENT, "id": f"{7:032x}"}),
        (ELSEWHERE, comment(MOMENT, CAROL, 7)),
        (THERE, {"kind": "moment_delete", "moment": MOMENT}),
        (ELSEWHERE, {"kind": "unlike", "moment": MOMENT, "maker": BOB}),
    ):
        await here.across.apply(peer, [item], RECEIVED)
        after = await state(here)
        if item == comment(MOMENT, CAROL, 7):
            assert before[0].comments == after[0].comments
        assert after == before, item


async def test_a_comments_answer_to_what_its_maker_cannot_see_answers_nothing(here: MomentsService) -> None:
    said = await here.actions.comment(DAVE, MOMENT, CommentId("d" * 32), "among us")
    assert isinstance(said, Comment)
    await here.across.apply(ELSEWHERE, [comment(MOMENT, CAROL, 9, answers=said.comment_id)], RECEIVED)
    seen = await here.viewing.one(ALICE, MOMENT)
    assert seen is not None and [each.answers for each in seen.comments] == [None, None]


async def test_a_moment_from_elsewhere_is_for_those_named_who_know_its_author(here: MomentsService) -> None:
    moment = Moment(
        moment_id=NONE,
        author=BOB,
        created_at_ms=10**15,
        audience=CONTACTS,
        content=Content(text="from there"),
    )
    for viewers, seen_by in (({DAVE, ALICE}, {DAVE, ALICE}), ({DAVE}, {DAVE}), ({EVE}, set())):
        await here.across.apply(THERE, [moment_item(moment, frozenset(viewers), Window.ALL)], RECEIVED)
        for person in (ALICE, DAVE):
            assert (await here.viewing.one(person, NONE) is not None) == (person in seen_by)
    await here.across.apply(THERE, [moment_item(moment, frozenset({DAVE}), Window.ALL)], RECEIVED)
    here.accounts.set(DAVE, direct=[ALICE])
    assert await here.viewing.one(DAVE, NONE) is None
    here.accounts.set(DAVE, direct=[ALICE, BOB])
    # Dave's like goes to the author's server, with his contacts as marks and nobody by name.
    assert await here.actions.like(DAVE, NONE) is None
    item = (await told(here, NONE))[ServerName("there")][f"like:{DAVE}"]
    assert item["marks"] == sorted({mark(NONE, ALICE), mark(NONE, BOB)}) and item["people"] == []
    await here.across.apply(THERE, [{"kind": "moment_delete", "moment": NONE}], RECEIVED)
    assert await here.viewing.one(DAVE, NONE) is None
    assert await told(here, NONE) == {}


@pytest.mark.parametrize(
    "item",
    [
        {"kind": "photograph"},
        {"kind": "like", "moment": MOMENT, "maker": 1, "at_ms": 1},
        {"kind": "like", "moment": "no id", "maker": BOB, "at_ms": 1},
        {"kind": "comment", "moment": MOMENT, "id": "4" * 32, "maker": BOB, "text": "x" * 501, "at_ms": 1},
        {"kind": "moment", "id": MOMENT, "author": BOB, "at_ms": -1, "window": "all", "content": {}},
    ],
)
async def test_what_is_no_item_stops_the_link_and_changes_nothing(
    here: MomentsService, item: dict[str, Any]
) -> None:
    before = await state(here)
    with pytest.raises(ItemsRefused):
        await here.across.apply(THERE, [like(MOMENT, BOB), item], RECEIVED)
    assert await state(here) == before
