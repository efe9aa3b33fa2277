"""What many callers do together is for each of them as if they had done it alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from appservices.chassis.shared_reads import SIZES, SharedReads
from tests.merchant_world import merchant_world
from tests.web_stack import SettableClock
from wallet_appservice.ledger.submissions import LedgerUnavailable
from wallet_appservice.payments.merchants.order_steps import creating
from wallet_appservice.payments.merchants.records import Order, OrderId
from wallet_appservice.payments.merchants.remembered import REMEMBERED_SECONDS, Remembered
from wallet_appservice.storage.merchant_tables import merchant_orders
from wallet_appservice.storage.shared_steps import Decided


async def test_look_ups_at_the_same_moment_are_one_query_and_each_gets_its_own_answer() -> None:
    queries: list[int] = []

    async def read(keys: Sequence[str]) -> dict[str, str]:
        queries.append(len(keys))
        await asyncio.sleep(0.01)
        return {key: key.upper() for key in keys if key != "none"}

    reads: SharedReads[str, str] = SharedReads(read)
    keys = [f"k{number}" for number in range(100)] + ["none", "k1"]
    answers = await asyncio.gather(*(reads.get(key) for key in keys))
    assert answers == [None if key == "none" else key.upper() for key in keys]
    assert len(queries) <= 3
    assert set(queries) <= set(SIZES)


async def test_a_look_up_that_fails_fails_for_its_callers_alone() -> None:
    async def read(keys: Sequence[str]) -> dict[str, str]:
        if "bad" in keys:
            raise RuntimeError("broken")
        return dict.fromkeys(keys, "found")

    reads: SharedReads[str, str] = SharedReads(read)
    with pytest.raises(RuntimeError, match="broken"):
        await reads.get("bad")
    assert await reads.get("good") == "found"


async def test_what_is_remembered_is_looked_up_once_for_all_and_again_after_its_time() -> None:
    clock, looked = SettableClock(), []

    async def look_up(key: str) -> str | None:
        looked.append(key)
        await asyncio.sleep(0.01)
        return f"{key} {len(looked)}"

    remembered = Remembered(look_up, clock=clock)
    assert set(await asyncio.gather(*(remembered.get("a") for _ in range(20)))) == {"a 1"}
    assert await remembered.get("a") == "a 1"
    clock.ahead_ms += REMEMBERED_SECONDS * 1000
    assert await remembered.get("a") == "a 2"


async def test_a_look_up_that_began_before_a_change_is_not_remembered() -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()
    values = ["before"]

    async def look_up(_key: str) -> str | None:
        value = values[0]
        begun.set()
        await may_end.wait()
        return value

    remembered = Remembered(look_up, clock=SettableClock())
    early = asyncio.create_task(remembered.get("a"))
    await begun.wait()
    values[0] = "after"
    remembered.forget("a")
    late = asyncio.create_task(remembered.get("a"))
    await asyncio.sleep(0)
    may_end.set()
    assert await early == "before"
    assert await late == "after"
    assert await remembered.get("a") == "after"


async def test_a_step_that_the_database_refuses_fails_alone(tmp_path: Path) -> None:
    async with merchant_world(tmp_path) as world:
        order = await world.order(await world.merchant())
        steps = world.desk.orders._steps
        new = [replace(order, id=OrderId(f"{number:032x}"), reference=f"{number}") for number in range(1, 9)]
        # SQLite takes no number of more than 64 bits, which only the database finds out.
        bad = replace(new[3], amount_minor=2**70)

        async def make(one: Order) -> Decided[Order] | Exception:
            try:
                return await steps.step(one.id, creating(one))
            except LedgerUnavailable as error:
                return error

        answers = await asyncio.gather(*(make(bad if one.id == bad.id else one) for one in new))
        assert [isinstance(answer, Exception) for answer in answers] == [one.id == bad.id for one in new]
        async with world.database.read() as work:
            stored = {row.id for row in await work.execute(select(merchant_orders.c.id))}
        assert stored == {order.id, *(one.id for one in new if one.id != bad.id)}


async def test_a_step_after_the_end_says_that_the_wallet_is_stopping(tmp_path: Path) -> None:
    async with merchant_world(tmp_path) as world:
        order = await world.order(await world.merchant())
        steps = world.desk.orders._steps
    with pytest.raises(LedgerUnavailable):
        await steps.step(order.id, creating(order))
