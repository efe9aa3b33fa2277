"""Look-ups that come together are answered together, and a failure reaches whoever asked with it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from appservices.chassis.gathered_reads import GatheredReads


async def test_many_look_ups_at_once_are_few_queries_and_each_gets_its_own_answer() -> None:
    asked: list[list[int]] = []

    async def fetch(keys: Sequence[int]) -> Mapping[int, str]:
        asked.append(list(keys))
        await asyncio.sleep(0)
        return {key: str(key) for key in keys if key % 2 == 0}

    reads = GatheredReads(fetch)
    found = await asyncio.gather(*(reads.get(key) for key in [*range(1_200), *range(10)]))
    assert found[:4] == ["0", None, "2", None] and found[1_200:1_202] == ["0", None]
    assert len(asked) == 3 and max(len(keys) for keys in asked) == 500


async def test_a_look_up_made_while_a_query_runs_is_not_answered_by_that_query() -> None:
    state = {"value": "old"}
    running = asyncio.Event()

    async def fetch(keys: Sequence[str]) -> Mapping[str, str]:
        found = dict.fromkeys(keys, state["value"])
        running.set()
        await asyncio.sleep(0.01)
        return found

    reads = GatheredReads(fetch)
    first = asyncio.create_task(reads.get("key"))
    await running.wait()
    state["value"] = "new"
    assert (await reads.get("key"), await first) == ("new", "old")


async def test_a_failure_reaches_those_who_asked_and_nobody_later() -> None:
    async def fetch(keys: Sequence[int]) -> Mapping[int, int]:
        if 1 in keys:
            raise RuntimeError("broken")
        return {key: key for key in keys}

    reads = GatheredReads(fetch)
    with pytest.raises(RuntimeError, match="broken"):
        await reads.get(1)
    assert await reads.get(2) == 2
