"""Payments across servers while federation is really cut, and while processes are killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clearing_rounds import run_rounds
from tests.severed import Payer, SeverableStack, balances, make_peers, owed_minor
from tests.synapse import eventually


@pytest.fixture(scope="module")
def severable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SeverableStack, SeverableStack]]:
    folder = tmp_path_factory.mktemp("severable")
    stacks = [
        SeverableStack(folder / name, authority_folder=folder / "authority") for name in ("here", "there")
    ]
    try:
        for stack in stacks:
            stack.start()
        make_peers(*stacks)
        yield stacks[0], stacks[1]
    finally:
        for stack in stacks:
            stack.stop()


async def test_federation_cut_at_each_step_of_a_payment_only_delays_it(
    severable: tuple[SeverableStack, SeverableStack],
) -> None:
    here, there = severable
    alice = await Payer.sign_in(here, "alice", "100 EUR")
    bob = await Payer.sign_in(there, "bob", "100 EUR")
    assert await alice.pay(bob.user_id, 100, "first") == "posted"
    paid = 100
    # The question can't get there; the answer can't get back; neither can.
    for number, cut in enumerate(((there,), (here,), (here, there)), 1):
        for stack in cut:
            stack.proxy.cut()
        assert await alice.pay(bob.user_id, number, f"cut {number}") == "pending"
        assert balances(here)[1] == number
        assert owed_minor(here, there) == -paid
        for stack in cut:
            stack.proxy.mend()

        async def released() -> bool:
            return balances(here)[1] == 0

        await eventually(released, seconds_max=180)
        paid += number
        assert await alice.pay(bob.user_id, number, f"cut {number}") == "posted"
        assert owed_minor(there, here) == paid == -owed_minor(here, there)
    assert balances(here)[0] + balances(there)[0] == 20_000


async def test_killed_processes_and_cuts_leave_nothing_pending_and_lose_nothing(tmp_path: Path) -> None:
    print(await run_rounds(tmp_path, rounds=12, seed=1))
