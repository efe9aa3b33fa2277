"""Rounds of payments between two homeservers while one of the four processes is killed or federation is cut.

    python -m tests.clearing_rounds FOLDER --rounds 100 --seed 7

After all rounds nothing may be pending, both books mirror each other and no cent is lost or made.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from pathlib import Path
from typing import Final

from tests.severed import Payer, SeverableStack, balances, make_peers, owed_minor
from tests.stack import Part

PAYMENTS_A_ROUND: Final = 6
SETTLE_SECONDS_MAX: Final = 180.0


async def run_rounds(folder: Path, *, rounds: int, seed: int) -> str:
    """Runs them; returns what happened, raises AssertionError when something is not as it must be."""
    chance = random.Random(seed)
    stacks = [
        SeverableStack(folder / name, authority_folder=folder / "authority") for name in ("here", "there")
    ]
    try:
        for stack in stacks:
            stack.start()
        make_peers(*stacks)
        payers = [await Payer.sign_in(stack, "alice", "1000 EUR") for stack in stacks]
        states: dict[str, int] = {}
        names: list[tuple[int, str, int]] = []
        for number in range(rounds):
            await _round(chance, stacks, payers, number, states, names)
        # Whoever got no answer asks again with the same id, as the API says.
        for stack in stacks:
            stack.proxy.mend()
            stack.wait_until_ready()
        again = [await payers[side].pay(payers[1 - side].user_id, minor, name) for side, name, minor in names]
        await asyncio.to_thread(_check, stacks)
        return f"{len(names)} payments in {rounds} rounds: first {states}, at the end {sorted(set(again))}"
    finally:
        for stack in stacks:
            stack.stop()


async def _round(
    chance: random.Random,
    stacks: list[SeverableStack],
    payers: list[Payer],
    number: int,
    states: dict[str, int],
    names: list[tuple[int, str, int]],
) -> None:
    paying = []
    for count in range(PAYMENTS_A_ROUND):
        side, minor = chance.randrange(2), chance.randint(1, 99)
        names.append((side, f"{number} {count}", minor))
        paying.append(asyncio.create_task(_pay_later(chance.random(), payers, side, minor, names[-1][1])))
    await asyncio.sleep(chance.random())
    victim = chance.choice(stacks)
    blow = chance.choice(("services", "synapse", "cut"))
    if blow == "cut":
        victim.proxy.cut()
        await asyncio.sleep(chance.random() * 2)
        victim.proxy.mend()
    else:
        part: Part = "services" if blow == "services" else "synapse"
        await asyncio.to_thread(victim.kill, part)
        await asyncio.to_thread(victim.wait_until_ready)
    for state in await asyncio.gather(*paying):
        states[state] = states.get(state, 0) + 1


async def _pay_later(seconds: float, payers: list[Payer], side: int, minor: int, name: str) -> str:
    await asyncio.sleep(seconds)
    return await payers[side].pay(payers[1 - side].user_id, minor, name, seconds_max=15)


def _check(stacks: list[SeverableStack]) -> None:
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    while any(balances(stack)[1] for stack in stacks):
        assert time.monotonic() < deadline, f"still held: {[balances(stack) for stack in stacks]}"
        time.sleep(1)
    here, there = stacks
    assert owed_minor(here, there) == -owed_minor(there, here)
    assert sum(balances(stack)[0] for stack in stacks) == 200_000
    for stack in stacks:
        verified = stack.weft("wallet", "verify")
        assert verified.returncode == 0, verified.stdout + verified.stderr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(asyncio.run(run_rounds(given.folder, rounds=given.rounds, seed=given.seed)))


if __name__ == "__main__":
    main()
