"""A short run of the simulation, and the proof that it finds what it is there to find."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from appservices.chassis.database import UnitOfWork, Write
from tests.ledger_samples import ALICE, BOB, deposit, payment, transfer_id
from tests.postgres import Postgresql, running_postgresql
from tests.simulation.commands import Request
from tests.simulation.faults import Fault, FaultKind
from tests.simulation.simulator import Simulation, SimulationFailed
from wallet_appservice.ledger import engine, rules
from wallet_appservice.ledger.store import StoreBusy
from wallet_appservice.ledger.values import Transfer, TransferMode, TransferRefusal, posting_of
from wallet_appservice.ledger.view import NOTHING, Changes, StoredRefusal, View
from wallet_appservice.storage import ledger_store

PROJECT_ROOT = Path(__file__).resolve().parents[2]
KILL_SECONDS_MAX = 240
KILLS = 6
"""On each of the two databases."""
EVERYWHERE = ((FaultKind.DEATH, False), (FaultKind.DEATH, True), (FaultKind.BUSY, False))
ON_A_LINE = ((FaultKind.LINE, False), (FaultKind.LINE, True))
STATEMENTS_MAX = 60
MUTANT_STEPS_MAX = 60
MUTANT_SEEDS = range(1, 5)


@pytest.fixture(scope="module")
def own_postgresql() -> Iterator[Postgresql]:
    """A server that the simulation may crash."""
    with running_postgresql() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def simulate(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Simulation]:
    """Makes simulations, each on an empty database of either kind."""
    server = request.getfixturevalue("own_postgresql") if request.param == "postgresql" else None

    def make(seed: int, **options: Any) -> Simulation:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        url = "sqlite:///ledger.db" if server is None else server.create_database()
        return Simulation(seed, url=url, folder=folder, server=server, **options)

    return make


@pytest.mark.parametrize("seed", [11, 24])
def test_nothing_is_lost_doubled_or_overdrawn_whatever_goes_wrong(
    simulate: Callable[..., Simulation], seed: int
) -> None:
    outcome = asyncio.run(simulate(seed).run(40))
    assert outcome.transfers > 30
    assert outcome.deaths > 0


def test_the_same_seed_gives_the_same_bytes(simulate: Callable[..., Simulation]) -> None:
    assert asyncio.run(simulate(5).run(15)) == asyncio.run(simulate(5).run(15))


def test_without_faults_both_databases_hold_the_same_bytes(
    own_postgresql: Postgresql, tmp_path: Path
) -> None:
    url = own_postgresql.create_database()
    on_sqlite = Simulation(7, url="sqlite:///ledger.db", folder=tmp_path, with_faults=False)
    on_postgresql = Simulation(7, url=url, folder=tmp_path, with_faults=False)
    assert asyncio.run(on_sqlite.run(30)) == asyncio.run(on_postgresql.run(30))


def test_between_any_two_statements_a_fault_leaves_all_or_nothing(
    simulate: Callable[..., Simulation],
) -> None:
    """A rich batch meets each fault at its first, second, third … statement, until it is over before."""

    simulation = simulate(1)

    async def run() -> None:
        await simulation.begin()
        for kind, after in EVERYWHERE if simulation.server is None else (*EVERYWHERE, *ON_A_LINE):
            struck: list[str] = []
            while len(struck) < STATEMENTS_MAX:
                name = f"{kind} {after} {len(struck)}"
                words = await simulation.crash_at(
                    Fault(kind, len(struck) + 1, after=after), _rich_batch(name)
                )
                if words is None:
                    break
                struck.append(words)
            assert any(words.startswith("COMMIT") for words in struck), struck
            assert len(struck) > 10
        await simulation.end()

    asyncio.run(run())


def _rich_batch(name: str) -> list[Request]:
    """Accounts, transfers, a refusal, a chain, a hold and its end: something for every table."""
    alice, bob = (replace(person, owner=f"{person.owner} {name}") for person in (ALICE, BOB))
    alice, bob = (replace(person, id=type(person.id)(transfer_id(person.owner))) for person in (alice, bob))
    held = payment(f"{name} held", alice, bob, 5, mode=TransferMode.PENDING)
    kept = payment(f"{name} kept", alice, bob, 5, mode=TransferMode.PENDING, timeout_seconds=60)
    chain = (payment(f"{name} 1", alice, bob, 1, linked=True), payment(f"{name} 2", bob, alice, 1))
    return [
        Request(1, accounts=(alice, bob), transfers=(deposit(f"{name} salary", alice, 100),)),
        Request(2, transfers=(held, kept, *chain)),
        Request(3, transfers=(payment(f"{name} too much", alice, bob, 1_000),)),
        Request(4, transfers=(posting_of(held, id=transfer_id(f"{name} posted"), amount_minor=3),)),
    ]


def test_a_killed_process_loses_and_doubles_nothing() -> None:
    """In a process of its own: it forks, which a process with threads had better not do."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--kill", str(KILLS), "--seed", "3"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=KILL_SECONDS_MAX,
    )
    assert ended.returncode == 0, ended.stderr
    for database in ("sqlite", "postgresql"):
        assert f"{database}: killed {KILLS} times under load; all of " in ended.stdout


def _ignoring_pending_debits(view: View, transfer: Transfer, **other: Any) -> TransferRefusal | None:
    refusal = STATE_REFUSAL(view, transfer, **other)
    if refusal is TransferRefusal.BALANCE_TOO_LOW:
        debit = view.sums[transfer.debit_account_id]
        return None if debit.debits_posted + transfer.amount_minor <= debit.credits_posted else refusal
    return refusal


def _ending_twice(view: View, transfer: Transfer, **other: Any) -> TransferRefusal | None:
    refusal = STATE_REFUSAL(view, transfer, **other)
    return None if refusal is TransferRefusal.PENDING_ALREADY_VOIDED else refusal


def _expiring_early(view: View, transfer: Transfer, **other: Any) -> TransferRefusal | None:
    refusal = STATE_REFUSAL(view, transfer, **other)
    return None if refusal is TransferRefusal.PENDING_NOT_EXPIRED else refusal


def _holding_the_rest_of_a_part(view: View, transfer: Transfer, sign: int) -> None:
    MOVE(view, transfer, sign)
    if transfer.mode is TransferMode.POST_PENDING and transfer.pending_id is not None:
        rest = view.transfers[transfer.pending_id].transfer.amount_minor - transfer.amount_minor
        view.sums[transfer.debit_account_id].debits_pending += sign * rest


def _forgetting_refusals(_view: View, _refusal: StoredRefusal) -> None:
    return


def _taking_back_what_is_written(view: View, changes: Changes) -> None:
    view.roll_back(NOTHING)
    BEGIN_NEXT(view, changes)
    view.position = changes.position


async def _dropping_the_last_effect(work: UnitOfWork, writes: Sequence[Write]) -> None:
    await APPLY(work, writes[:-1] if len(writes) > 2 else writes)


async def _committing_before_the_effects(work: UnitOfWork, writes: Sequence[Write]) -> None:
    await work.connection.commit()
    await APPLY(work, writes)


async def _answering_what_is_not_committed(batch: Any, *arguments: Any) -> None:
    try:
        await COMMIT(batch, *arguments)
    except StoreBusy:
        return


async def _taking_lost_commits_for_failed(_batch: Any, _transaction_id: str) -> None:
    raise StoreBusy("it is not known")


async def _taking_lost_commits_for_committed(_batch: Any, _transaction_id: str) -> None:
    return


STATE_REFUSAL = rules.state_refusal
MOVE = View._move
BEGIN_NEXT = View.begin_next
APPLY = UnitOfWork.apply
COMMIT = ledger_store._SqlBatch.commit


def _never(*_arguments: Any, **_options: Any) -> None:
    return None


@pytest.mark.parametrize(
    ("place", "name", "mutant", "database"),
    [
        (rules, "state_refusal", _ignoring_pending_debits, "sqlite"),
        (rules, "state_refusal", _ending_twice, "sqlite"),
        (rules, "state_refusal", _expiring_early, "sqlite"),
        (rules._Judgement, "_known", _never, "sqlite"),
        (View, "_move", _holding_the_rest_of_a_part, "sqlite"),
        (View, "refuse", _forgetting_refusals, "sqlite"),
        (View, "roll_back", _never, "sqlite"),
        (engine, "_has_answers", _never, "sqlite"),
        (View, "begin_next", _taking_back_what_is_written, "sqlite"),
        (UnitOfWork, "apply", _dropping_the_last_effect, "sqlite"),
        (UnitOfWork, "apply", _committing_before_the_effects, "sqlite"),
        (ledger_store._SqlBatch, "commit", _answering_what_is_not_committed, "sqlite"),
        (ledger_store._SqlBatch, "_check_outcome", _taking_lost_commits_for_failed, "postgresql"),
        (ledger_store._SqlBatch, "_check_outcome", _taking_lost_commits_for_committed, "postgresql"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_a_bug_in_the_ledger_is_found_within_a_few_runs(
    place: Any, name: str, mutant: Any, database: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    server = request.getfixturevalue("own_postgresql") if database == "postgresql" else None
    for seed in MUTANT_SEEDS:
        folder = tmp_path / str(seed)
        folder.mkdir()
        url = "sqlite:///ledger.db" if server is None else server.create_database()
        simulation = Simulation(seed, url=url, folder=folder, server=server)
        try:
            with patch.object(place, name, mutant):
                asyncio.run(simulation.run(MUTANT_STEPS_MAX))
        except SimulationFailed as failure:
            command = rf"scripts/simulate --seed {seed} --database {database} --steps (\d+)"
            found = re.search(rf"Repeat it by: {command}$", str(failure))
            assert found is not None
            assert int(found[1]) <= MUTANT_STEPS_MAX
            return
    pytest.fail("the simulation did not notice")
