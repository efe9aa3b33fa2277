"""Three homeservers, each the others' peer: payments in a triangle, with one server's federation cut."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest

from tests.severed import Payer, SeverableStack, balances, make_peers, owed_minor
from tests.synapse import eventually

NAMES = ("north", "south", "west")


@pytest.fixture
def triangle(tmp_path: Path) -> Iterator[list[SeverableStack]]:
    stacks: list[SeverableStack] = []
    try:
        for name in NAMES:
            # Each takes its ports at once: chosen long before, they may be taken by then.
            stacks.append(SeverableStack(tmp_path / name, authority_folder=tmp_path / "authority"))
            stacks[-1].start()
        make_peers(*stacks)
        yield stacks
    finally:
        for stack in stacks:
            stack.stop()


async def test_payments_in_a_triangle_with_one_server_cut_off_end_alike_in_all_books(
    triangle: list[SeverableStack],
) -> None:
    people = [await Payer.sign_in(stack, "alice", "100 EUR") for stack in triangle]

    async def around(name: str) -> list[str]:
        """Everybody pays both others at once."""
        paying = [
            payer.pay(payee.user_id, 10 + number, f"{name} {number}")
            for number, (payer, payee) in enumerate(permutations(people, 2))
        ]
        return list(await asyncio.gather(*paying))

    assert await around("first") == ["posted"] * 6
    west = triangle[2]
    west.proxy.cut()
    states = await around("cut")
    # What does not touch the one that is cut off goes on; it can still speak, and hear nothing.
    between = [set(pair) <= {0, 1} for pair in permutations(range(3), 2)]
    assert [state for state, is_between in zip(states, between, strict=True) if is_between] == ["posted"] * 2
    assert "pending" in states
    west.proxy.mend()

    async def nothing_held() -> bool:
        return not any(balances(stack)[1] for stack in triangle)

    # Synapse looks once a minute for servers that it has not reached.
    await eventually(nothing_held, seconds_max=240)
    # Who was told "pending", or to try again, gets the answer under the same id.
    assert await around("cut") == ["posted"] * 6
    for one, other in permutations(triangle, 2):
        assert owed_minor(one, other) == -owed_minor(other, one)
    assert sum(balances(stack)[0] for stack in triangle) == 30_000
    for stack in triangle:
        verified = stack.weft("wallet", "verify")
        assert verified.returncode == 0, verified.stdout + verified.stderr
