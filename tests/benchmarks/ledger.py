"""How fast the ledger is, beside one transaction per transfer, and how much a long history slows it down.

All contenders take turns in each round, on the same machine and the same durable PostgreSQL, in one order
and then the other; a goal is the median of its ratios, each of two turns of the same round. Callers wait for
their answer before they ask again. "hot" means that many people pay to one account, "uniform" that they pay
to one another. A caller submits one transfer, or a batch of 5,000 where it says so, and its time includes
what it takes to make them.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appservices.chassis.database import Database, Write, open_database
from appservices.chassis.garbage import collect_rarely
from appservices.chassis.migrations import migrate
from appservices.vocabulary.ids import TransferId
from scripts.weft_cli.event_loop import run_on_fast_loop
from tests.ledger_history import fill
from tests.ledger_rivals import ACCOUNTS, CONNECTIONS, FUNDS, open_rivals, pgbench_program
from tests.ledger_samples import EUR, ISSUANCE, WALLET_MIGRATIONS, deposit, open_ledger
from tests.postgres import Postgresql, running_postgresql
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.ledger.submissions import Submission
from wallet_appservice.ledger.values import AccountKind, Transfer, TransferCode, account_for

BATCH: Final = 5_000
"""Transfers of one submission, linked to nothing: as many as one may have."""
BATCH_CALLERS: Final = 4
"""Who submit batches at the same time."""
AGED_CALLERS: Final = 256
SHORT_HISTORY: Final = 1_000
SHARED_BUFFERS_SHARE: Final = 1 / 4
"""Of the machine's memory, as PostgreSQL's documentation recommends, and ours; the default is for small
machines. The rivals' tables are on the same server."""
PEOPLE: Final = [
    account_for(AccountKind.USER, owner=f"@{number}:a.example", currency=EUR) for number in range(ACCOUNTS)
]
HOT, *PAYERS = PEOPLE

Pay = Callable[[], Awaitable[object]]
TakeTurn = Callable[[], Awaitable["Turn"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured, and for how long."""

    rounds: int
    turn_seconds: float
    callers: Sequence[int]
    uniform_callers: Sequence[int]
    histories: Sequence[int]


FULL: Final = Plan(
    rounds=7,
    turn_seconds=1.0,
    callers=(1, 8, 32, 256, 2_000),
    uniform_callers=(1, 8, 32, 256, 2_000),
    histories=(100_000, 10_000_000),
)
QUICK: Final = Plan(
    rounds=3,
    turn_seconds=0.25,
    callers=(1, 256),
    uniform_callers=(256,),
    histories=(100_000,),
)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one contender did in one round."""

    per_second: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A value of each round, whose median is to reach the bar."""

    name: str
    values: Sequence[float]
    bar: float
    at_most: bool = False

    @property
    def value(self) -> float:
        return statistics.median(self.values)

    @property
    def is_met(self) -> bool:
        return self.value <= self.bar if self.at_most else self.value >= self.bar


def main(*, plan: Plan, json_path: Path | None) -> None:
    collect_rarely()  # As `weft serve` does.
    with (
        tempfile.TemporaryDirectory() as folder,
        running_postgresql(server_settings()) as server,
    ):
        turns = run_on_fast_loop(_measure(plan, Stages(server, Path(folder))))  # As it does, too.
    _report(plan, turns, json_path=json_path)


def server_settings() -> dict[str, str]:
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "shared_buffers": f"{int(memory_bytes * SHARED_BUFFERS_SHARE) // 2**20}MB",
        "max_wal_size": "4GB",
    }


class Stages:
    """Makes databases, each with a running ledger, accounts and money."""

    def __init__(self, server: Postgresql, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self._numbers = itertools.count(1)

    async def url(self, kind: str) -> str:
        if kind == "PostgreSQL":
            return await asyncio.to_thread(self.server.create_database)
        return f"sqlite:///ledger_{next(self._numbers)}.db"

    @asynccontextmanager
    async def ledger(self, kind: str, *, history: int) -> AsyncIterator[Ledger[Write]]:
        """With so many transfers stored, or a few more: those which give people their money."""
        database: Database = open_database(await self.url(kind), folder=self.folder)
        await migrate(database, WALLET_MIGRATIONS)
        if history > ACCOUNTS:
            await fill(database, history - ACCOUNTS, debits=PAYERS, credit=HOT)
        async with open_ledger(database) as ledger:
            await ledger.open_accounts(ISSUANCE, *PEOPLE)
            funds = tuple(deposit(f"funds of {account.owner}", account, FUNDS) for account in PEOPLE)
            await ledger.submit(Submission(transfers=funds))
            yield ledger
        await database.close()


async def _contenders(plan: Plan, stages: Stages, stack: AsyncExitStack) -> dict[str, TakeTurn]:
    """Everybody who takes a turn in each round, by name."""
    contenders: dict[str, TakeTurn] = {}
    for kind in ("PostgreSQL", "SQLite"):
        _say(f"filling {kind}")
        ledger = await stack.enter_async_context(stages.ledger(kind, history=SHORT_HISTORY))
        for callers in plan.callers:
            contenders[_name(kind, "hot", callers)] = _turns_of(ledger_payer(ledger, hot=True), callers, plan)
        contenders[_batches_name(kind)] = _turns_of(
            ledger_payer(ledger, hot=True, transfers=BATCH), BATCH_CALLERS, plan, transfers=BATCH
        )
        for callers in plan.uniform_callers:
            pay = ledger_payer(ledger, hot=False)
            contenders[_name(kind, "uniform", callers)] = _turns_of(pay, callers, plan)
        for history in plan.histories:
            aged = await stack.enter_async_context(stages.ledger(kind, history=history))
            contenders[_aged_name(kind, history)] = _warm_turns(aged, plan)
        contenders[_aged_name(kind, SHORT_HISTORY)] = _fresh_turns(stages, kind, plan)
    rivals = await stack.enter_async_context(open_rivals(stages.server, await stages.url("PostgreSQL")))
    for hot in (True, False):
        pairs = numbers(hot=hot)
        contenders[_name("asyncpg", "hot" if hot else "uniform", AGED_CALLERS)] = _turns_of(
            lambda pairs=pairs: rivals.pay_by_asyncpg(*next(pairs)),  # type: ignore[misc]
            AGED_CALLERS,
            plan,
        )
    pairs = numbers(hot=True)
    contenders[_name("ORM", "hot", AGED_CALLERS)] = _turns_of(
        lambda: rivals.pay_by_orm(*next(pairs)), AGED_CALLERS, plan
    )

    async def pgbench() -> Turn:
        seconds = max(1.0, plan.turn_seconds)
        latencies = await asyncio.to_thread(
            rivals.run_pgbench, stages.folder, clients=CONNECTIONS, seconds=seconds
        )
        return _turn(latencies, seconds)

    if pgbench_program() is None:
        print("This machine has no pgbench beside its PostgreSQL server, so it does not take part.")
    else:
        contenders[_name("pgbench", "hot", CONNECTIONS)] = pgbench
    return contenders


def ledger_payer(ledger: Ledger[Write], *, hot: bool, transfers: int = 1) -> Pay:
    """Makes so many transfers, each between two accounts of its own, and submits them together."""
    pairs = numbers(hot=hot)
    getrandbits = random.Random().getrandbits

    def transfer() -> Transfer:
        debit, credit = next(pairs)
        return Transfer(
            id=TransferId(f"{getrandbits(128):032x}"),
            debit_account_id=PEOPLE[debit].id,
            credit_account_id=PEOPLE[credit].id,
            amount_minor=1,
            currency=EUR,
            code=TransferCode.PAYMENT,
        )

    def pay() -> Awaitable[object]:
        return ledger.submit(Submission(transfers=tuple([transfer() for _ in range(transfers)])))

    return pay


def numbers(*, hot: bool) -> Iterator[tuple[int, int]]:
    """Accounts that pay and are paid, the same on every run."""
    chance = random.Random(1)
    pairs = [tuple(chance.sample(range(1, ACCOUNTS), 2)) for _ in range(4_096)]
    return itertools.cycle((debit, 0 if hot else credit) for debit, credit in pairs)


def _turns_of(pay: Pay, callers: int, plan: Plan, *, transfers: int = 1) -> TakeTurn:
    return lambda: take_turn(pay, callers=callers, seconds=plan.turn_seconds, transfers=transfers)


def _warm_turns(ledger: Ledger[Write], plan: Plan) -> TakeTurn:
    """Each turn after one that does not count: others have taken the caches since the last round."""
    one_turn = _turns_of(ledger_payer(ledger, hot=True), AGED_CALLERS, plan)

    async def turn() -> Turn:
        await one_turn()
        return await one_turn()

    return turn


def _fresh_turns(stages: Stages, kind: str, plan: Plan) -> TakeTurn:
    """Each turn on a ledger that has no longer history than it should."""

    async def turn() -> Turn:
        async with stages.ledger(kind, history=SHORT_HISTORY) as ledger:
            return await _warm_turns(ledger, plan)()

    return turn


async def take_turn(pay: Pay, *, callers: int, seconds: float, transfers: int = 1) -> Turn:
    """Everybody pays again and again, so many transfers at once, until the time is over, and the last answer
    is waited for."""
    latencies: list[float] = []
    begin = time.perf_counter()
    end = begin + seconds

    async def call() -> None:
        before = time.perf_counter()
        while before < end:
            await pay()
            after = time.perf_counter()
            latencies.append(after - before)
            before = after

    await asyncio.gather(*(call() for _ in range(callers)))
    return _turn(latencies, time.perf_counter() - begin, transfers)


def _turn(latencies: list[float], seconds: float, transfers: int = 1) -> Turn:
    ordered = sorted(latencies)
    return Turn(
        per_second=len(ordered) * transfers / seconds,
        p50_ms=1000 * ordered[len(ordered) // 2],
        p99_ms=1000 * ordered[math.ceil(0.99 * len(ordered)) - 1],
    )


async def _measure(plan: Plan, stages: Stages) -> dict[str, list[Turn]]:
    async with AsyncExitStack() as stack:
        contenders = await _contenders(plan, stages, stack)
        turns: dict[str, list[Turn]] = {name: [] for name in contenders}
        for number in range(plan.rounds):
            for name in contenders if number % 2 == 0 else reversed(list(contenders)):
                _say(f"round {number + 1} of {plan.rounds}: {name}")
                gc.collect()
                turns[name].append(await contenders[name]())
    _say("")
    return turns


def _report(plan: Plan, turns: Mapping[str, Sequence[Turn]], *, json_path: Path | None) -> None:
    """Prints medians and goals; a goal that is not met is said to be not met, and is no error."""
    rates = {name: [turn.per_second for turn in of_name] for name, of_name in turns.items()}
    rival = rates[_name("asyncpg", "hot", AGED_CALLERS)]
    print(f"{'':36} transfers/s   p50 ms   p99 ms   of asyncpg, hot")
    measurements = []
    for name, of_name in turns.items():
        middle = Turn(
            statistics.median(rates[name]),
            statistics.median(turn.p50_ms for turn in of_name),
            statistics.median(turn.p99_ms for turn in of_name),
        )
        ratio = statistics.median(_ratios(rates[name], rival))
        print(
            f"{name:36} {middle.per_second:11.0f} {middle.p50_ms:8.1f} {middle.p99_ms:8.1f} {ratio:10.1f} ×"
        )
        measurements.append(
            {
                "name": name,
                "transfers_per_second": round(middle.per_second),
                "p50_ms": round(middle.p50_ms, 2),
                "p99_ms": round(middle.p99_ms, 2),
                "of_asyncpg_hot": round(ratio, 2),
            }
        )
    print(
        f"Medians of {plan.rounds} rounds of {plan.turn_seconds} s, on PostgreSQL with "
        f"{', '.join(f'{name} = {value}' for name, value in server_settings().items())}. "
        f"asyncpg and ORM make one transaction per transfer on {CONNECTIONS} connections. "
        f"A caller submits one transfer at a time; {BATCH_CALLERS} callers of {BATCH:,} each submit so many "
        f"at once, and their p50 and p99 are of all of them."
    )
    goals = _goals(plan, turns, rates)
    for goal in goals:
        met = "met" if goal.is_met else "NOT MET"
        low, high = min(goal.values), max(goal.values)
        bound = "at most" if goal.at_most else "at least"
        print(f"{goal.name}: {goal.value:.2f} ({low:.2f} to {high:.2f}; {bound} {goal.bar:g}: {met})")
    if json_path is not None:
        described = [
            {"name": goal.name, "value": round(goal.value, 4), "bar": goal.bar, "met": goal.is_met}
            for goal in goals
        ]
        json_path.write_text(json.dumps({"goals": described, "measurements": measurements}, indent=2) + "\n")


def _goals(
    plan: Plan, turns: Mapping[str, Sequence[Turn]], rates: Mapping[str, Sequence[float]]
) -> list[Goal]:
    rival = rates[_name("asyncpg", "hot", AGED_CALLERS)]
    hot = _name("PostgreSQL", "hot", AGED_CALLERS)
    batches = _batches_name("PostgreSQL")
    longest = max(plan.histories)
    goals = [
        Goal(name="hot account, 256 callers, × asyncpg", values=_ratios(rates[hot], rival), bar=25),
        Goal(name="hot account, batches of 5,000, × asyncpg", values=_ratios(rates[batches], rival), bar=50),
        Goal(
            name="hot account, 256 callers, p99 in ms",
            values=[turn.p99_ms for turn in turns[hot]],
            bar=20,
            at_most=True,
        ),
    ]
    for kind in ("PostgreSQL", "SQLite"):
        short, long = rates[_aged_name(kind, SHORT_HISTORY)], rates[_aged_name(kind, longest)]
        name = f"{kind}, slower with {longest:,} transfers stored than with {SHORT_HISTORY:,}, ×"
        goals.append(Goal(name=name, values=_ratios(short, long), bar=1.3, at_most=True))
    return goals


def _ratios(values: Sequence[float], of: Sequence[float]) -> list[float]:
    """Round by round, so that whatever else the machine does falls on both."""
    return [value / other for value, other in zip(values, of, strict=True)]


def _name(who: str, pattern: str, callers: int) -> str:
    return f"{who}, {pattern}, {callers:,} {'caller' if callers == 1 else 'callers'}"


def _batches_name(who: str) -> str:
    return f"{who}, hot, {BATCH_CALLERS} callers of {BATCH:,} each"


def _aged_name(kind: str, history: int) -> str:
    return f"{kind}, with {history:,} stored"


def _say(words: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{words}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/bench ledger", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute, less certain, shorter history")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write goals and medians to this file")
    arguments = parser.parse_args()
    main(plan=QUICK if arguments.quick else FULL, json_path=arguments.json)
