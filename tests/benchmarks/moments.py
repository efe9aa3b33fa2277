"""How quickly a Moment reaches friends, and how quickly a feed is put together.

Rooms: on a whole Weft, from the author's message to the Moment in each friend's room, and from a friend's
❤️ to the author's room. Feed: the service alone, on SQLite, for a viewer with many friends who have shown
much, with and without a change that Synapse tells in between.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from appservices.moments.records import Content, MomentId
from appservices.moments.rules import CONTACTS
from appservices.vocabulary.ids import UserId, derived_id
from tests.moments_people import friends
from tests.moments_service import moments_service
from tests.stack import Stack

FEED_MILLISECONDS_GOAL: Final = 100.0
TO_FRIENDS_SECONDS_GOAL: Final = 3.0
NAMES: Final = ("alice", "bob", "carol", "dave", "erin", "frank")


async def in_rooms(folder: Path, *, rounds: int) -> dict[str, float]:
    """Seconds at the median: until a text is in the last friend's room, until a like is in the author's."""
    stack = Stack(folder)
    stack.start()
    try:
        author, *others = await friends(stack, *NAMES)
        posts: list[float] = []
        likes: list[float] = []
        for number in range(rounds):
            began = time.perf_counter()
            await author.say(f"round {number} ends")
            seen = await asyncio.gather(*(each.sees(f"round {number} ends") for each in others))
            posts.append(time.perf_counter() - began)
            began = time.perf_counter()
            await others[0].like(seen[0]["event_id"])
            # Each Moment has a message of its own for its likes.
            while sum("❤️" in event["content"]["body"] for event in await author.moments()) <= number:
                await asyncio.sleep(0.05)
            likes.append(time.perf_counter() - began)
        return {
            "to_all_friends_seconds": statistics.median(posts),
            "like_to_author_seconds": statistics.median(likes),
        }
    finally:
        stack.stop()


async def of_a_feed(folder: Path, *, people: int, each: int) -> dict[str, float]:
    """Milliseconds at the median for the first page of a feed."""
    async with moments_service(folder) as service:
        viewer = UserId("@viewer:here")
        authors = [UserId(f"@author{number}:here") for number in range(people)]
        service.accounts.set(viewer, direct=authors)
        for author in authors:
            service.accounts.set(author, direct=[viewer])
        for number in range(each):
            for author in authors:
                moment_id = MomentId(derived_id("bench", author, str(number)))
                await service.actions.post(author, moment_id, Content(text="hello"), CONTACTS)
        await service.viewing.feed(viewer)
        still: list[float] = []
        changed: list[float] = []
        for _round in range(20):
            for times in (still, changed):
                if times is changed:
                    service.accounts.set(authors[0], direct=[viewer])
                began = time.perf_counter()
                page = await service.viewing.feed(viewer)
                times.append((time.perf_counter() - began) * 1000)
                assert len(page.moments) == 10
        return {
            "feed_milliseconds": statistics.median(still),
            "feed_after_a_change_milliseconds": statistics.median(changed),
        }


async def measure(*, is_quick: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "feed").mkdir()
        feed = await of_a_feed(folder / "feed", people=50 if is_quick else 300, each=4 if is_quick else 10)
        return feed | await in_rooms(folder / "rooms", rounds=3 if is_quick else 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    measured = asyncio.run(measure(is_quick=chosen.quick))
    for name, value in measured.items():
        print(f"{name}: {value:.3f}")
    for name, goal in (
        ("feed_milliseconds", FEED_MILLISECONDS_GOAL),
        ("to_all_friends_seconds", TO_FRIENDS_SECONDS_GOAL),
    ):
        met = "met" if measured[name] <= goal else "not met"
        print(f"goal: {name} of {goal} or less: {met}")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
