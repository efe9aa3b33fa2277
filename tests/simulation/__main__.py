"""`scripts/simulate`: repeats a seed, goes on with new seeds, or kills processes; of a ledger or of wallets.

See docs/developers/simulation.md.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from random import SystemRandom
from typing import Final

from tests.postgres import Postgresql, PostgresqlMissing, running_postgresql
from tests.simulation.kill import KillFailed, kill_under_load
from tests.simulation.simulator import STEPS, Outcome, Simulation, SimulationFailed
from tests.simulation.wallets import STEPS as WALLET_STEPS
from tests.simulation.wallets import WALLETS_MAX, WALLETS_MIN, WalletsFailed, simulate_wallets

DATABASES: Final = ("sqlite", "postgresql")


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    if options.wallets is not None:
        return _wallets(options.wallets, options.seed, options.steps or WALLET_STEPS, options.minutes)
    options.steps = options.steps or STEPS
    databases: tuple[str, ...] = DATABASES if options.database is None else (options.database,)
    try:
        with ExitStack() as stack:
            server = stack.enter_context(running_postgresql()) if "postgresql" in databases else None
            if options.kill is not None:
                return _kill(options.kill, databases, server, options.seed)
            if options.minutes is not None:
                return _go_on(options.minutes, databases, server, options.seed, options.steps)
            seed = SystemRandom().getrandbits(32) if options.seed is None else options.seed
            for database in databases:
                _say(database, seed, _run(seed, database, server, options.steps))
    except (SimulationFailed, KillFailed) as failure:
        print(f"FAILED. {failure}", file=sys.stderr)
        return 1
    except PostgresqlMissing as missing:
        print(missing, file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/simulate", description="Runs random commands against the ledger while things go wrong."
    )
    parser.add_argument("--seed", type=int, help="repeat this course of events; else a new one")
    parser.add_argument("--database", choices=DATABASES, help="on this kind alone; else on both")
    parser.add_argument("--steps", type=int, help=f"of one course of events ({STEPS}; {WALLET_STEPS})")
    parser.add_argument("--minutes", type=float, help="go on with new seeds for so long")
    parser.add_argument(
        "--kill", type=int, metavar="N", help="instead: kill processes under load, N times on each database"
    )
    parser.add_argument(
        "--wallets",
        type=int,
        metavar="N",
        choices=range(WALLETS_MIN, WALLETS_MAX + 1),
        help=f"instead: {WALLETS_MIN} to {WALLETS_MAX} wallets that pay each other, one of them hostile",
    )
    return parser


def _go_on(
    minutes: float, databases: tuple[str, ...], server: Postgresql | None, seed: int | None, steps: int
) -> int:
    first = SystemRandom().getrandbits(32) if seed is None else seed
    begun = time.monotonic()
    runs = transfers = faults = deaths = 0
    while time.monotonic() < begun + minutes * 60:
        database = databases[runs % len(databases)]
        outcome = _run(first + runs // len(databases), database, server, steps)
        runs += 1
        transfers += outcome.transfers
        faults += outcome.faults
        deaths += outcome.deaths
        line = (
            f"{(time.monotonic() - begun) / 60:.1f} of {minutes:g} minutes: {runs} runs since seed {first}, "
            f"{transfers:,} transfers, {faults:,} faults ({deaths:,} deaths), no failure"
        )
        print(line, end="\r" if sys.stdout.isatty() else "\n", flush=True)
    print()
    return 0


def _wallets(wallets: int, seed: int | None, steps: int, minutes: float | None) -> int:
    first = SystemRandom().getrandbits(32) if seed is None else seed
    begun = time.monotonic()
    runs = orders = lies = deaths = 0
    while runs == 0 or (minutes is not None and time.monotonic() < begun + minutes * 60):
        with tempfile.TemporaryDirectory(prefix="weft-simulation-") as folder:
            try:
                outcome = simulate_wallets(first + runs, wallets=wallets, folder=Path(folder), steps=steps)
            except WalletsFailed as failure:
                print(f"FAILED. {failure}", file=sys.stderr)
                return 1
        print(
            f"seed {first + runs}: {outcome.orders} orders, {outcome.messages} messages, "
            f"{outcome.deaths} deaths, {outcome.lies} lies, {outcome.stops} links mended; "
            f"books {outcome.digest[:16]}",
            flush=True,
        )
        runs += 1
        orders, lies, deaths = orders + outcome.orders, lies + outcome.lies, deaths + outcome.deaths
    if runs > 1:
        print(f"{runs} runs: {orders:,} orders, {deaths:,} deaths, {lies:,} lies, no failure")
    return 0


def _run(seed: int, database: str, server: Postgresql | None, steps: int) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="weft-simulation-") as folder:
        on_server = server if database == "postgresql" else None
        url = "sqlite:///ledger.db" if on_server is None else on_server.create_database()
        simulation = Simulation(seed, url=url, folder=Path(folder), server=on_server)
        try:
            return asyncio.run(simulation.run(steps))
        finally:
            if on_server is not None:
                on_server.drop_database(url)


def _say(database: str, seed: int, outcome: Outcome) -> None:
    print(
        f"{database}, seed {seed}: {outcome.transfers} transfers and {outcome.refusals} refusals, "
        f"{outcome.faults} faults ({outcome.deaths} deaths), {outcome.unknown} answers open at first; "
        f"rows {outcome.digest[:16]}"
    )


def _kill(kills: int, databases: tuple[str, ...], server: Postgresql | None, seed: int | None) -> int:
    for database in databases:
        with tempfile.TemporaryDirectory(prefix="weft-simulation-") as folder:
            url = "sqlite:///ledger.db"
            if database == "postgresql":
                assert server is not None
                url = server.create_database()
            outcome = kill_under_load(
                url,
                folder=Path(folder),
                kills=kills,
                seed=SystemRandom().getrandbits(32) if seed is None else seed,
                on_progress=lambda done, acknowledged, kind=database: print(  # type: ignore[misc]
                    f"{kind}: killed {done} of {kills} times, {acknowledged:,} acknowledged",
                    end="\r" if sys.stdout.isatty() else "\n",
                    flush=True,
                ),
            )
        print(f"\n{database}: {outcome}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
