"""A short run of the simulation of several wallets, and the proof that it finds what it is there to find."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from appservices.chassis.database import Write
from appservices.chassis.links import storage
from appservices.chassis.links.link import Link
from appservices.chassis.links.protocol import Incoming
from appservices.vocabulary.ids import UserId
from tests.simulation.__main__ import main
from tests.simulation.wallets import WalletsFailed, simulate_wallets

STEPS = 20
MUTANT_SEEDS = (19, 20, 1, 2, 3, 4)
"""Those first that lead to clocks that are set back at a bad moment, which is rare."""


@pytest.mark.parametrize("seed", [3, 104])
def test_the_honest_lose_nothing_to_hostile_wallets_crashes_clocks_and_the_network(
    tmp_path: Path, seed: int
) -> None:
    outcome = simulate_wallets(seed, wallets=3, folder=tmp_path, steps=STEPS)
    assert outcome.posted > 0 and outcome.deaths > 0
    # With the one seed there is a hostile wallet, with the other all are honest.
    assert (outcome.lies > 0) is (seed == 3)


def test_the_same_seed_gives_the_same_books(tmp_path: Path) -> None:
    folders = tmp_path / "one", tmp_path / "other"
    for folder in folders:
        folder.mkdir()
    one, other = (simulate_wallets(5, wallets=3, folder=folder, steps=8) for folder in folders)
    assert one == other and one.messages > 0


def test_the_command_runs_one_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--wallets", "2", "--seed", "1", "--steps", "3"]) == 0
    assert capsys.readouterr().out.startswith("seed 1: ")


async def _saying_what_the_clock_says(link: Link) -> int:
    return link._clock()


def _not_noting_what_came(_peer: UserId, _now: Incoming, *, at_ms: int) -> list[Write]:
    return []


@pytest.mark.parametrize(
    ("place", "name", "mutant"),
    [
        (Link, "_time", _saying_what_the_clock_says),
        (storage, "received_writes", _not_noting_what_came),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_a_bug_in_clearing_is_found_within_a_few_runs(
    place: Any, name: str, mutant: Callable[..., Any], tmp_path: Path
) -> None:
    for seed in MUTANT_SEEDS:
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            with patch.object(place, name, mutant):
                simulate_wallets(seed, wallets=3, folder=folder, steps=STEPS)
        except WalletsFailed as failure:
            command = rf"scripts/simulate --wallets 3 --seed {seed} --steps \d+"
            assert re.search(rf"Repeat it by: {command}$", str(failure)) is not None
            return
    pytest.fail("the simulation did not notice")
