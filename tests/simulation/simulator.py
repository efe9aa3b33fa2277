"""Runs random commands against the real ledger on a real database, and checks after each step all that must
hold. One seed, one course of events: time, ids, order and faults all come from it.

A step delivers some requests, old and new, in an order of its own, to one process, at which perhaps something
goes wrong at some statement. Then the answers and the whole database are compared with the model. Where the
process died or the outcome is unknown, the database must hold a beginning of what was delivered, cut where a
batch ends; which one it is, the clients learn by asking again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Final
from unittest.mock import patch

from appservices.chassis.database import open_database
from appservices.vocabulary.ids import TransferId
from tests.ledger_samples import WALLET_MIGRATIONS
from tests.migrated import migrated
from tests.postgres import Postgresql
from tests.simulation.commands import HOT, PEOPLE, Clients, Request
from tests.simulation.faults import SQLITE_FAULTS, Fault, FaultKind
from tests.simulation.model import Answer, Model
from tests.simulation.process import Delivery, Problem, Process, Told
from tests.simulation.state import State, notes, read_state
from wallet_appservice.ledger.store import StoreBusy
from wallet_appservice.ledger.values import (
    AccountRefusal,
    StoredTransfer,
    TransferResult,
    expiry_of,
)
from wallet_appservice.storage.ledger_check import verify

STEPS: Final = 60
START_MS: Final = 1_795_305_600_000
STATEMENTS_MAX: Final = 24
"""Faults are armed for one of so many statements; some come too late to happen."""
ANSWER_SECONDS_MAX: Final = 60
OUTCOME_SECONDS_MAX: Final = 1.5
"""For which a database that stays away is asked how a commit ended."""
DELIVERED_MAX: Final = 12
FAULT_SHARE: Final = 0.35
SERVER_CRASH_SHARE: Final = 0.02
"""Of the steps; it takes longer than all others."""


class SimulationFailed(Exception):
    """The ledger did what it must not do; says what, at which step of which seed."""

    def __init__(self, *, seed: int, database: str, step: int, problem: str) -> None:
        self.command = f"scripts/simulate --seed {seed} --database {database} --steps {step}"
        super().__init__(f"{problem}\nRepeat it by: {self.command}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a course of events came to. Equal for the same seed on the same database."""

    digest: str
    transfers: int
    refusals: int
    faults: int
    deaths: int
    unknown: int
    """Requests whose outcome was open at first."""


class Simulation:
    """One course of events on one empty, migrated database."""

    def __init__(
        self, seed: int, *, url: str, folder: Path, server: Postgresql | None = None, with_faults: bool = True
    ) -> None:
        self._seed = seed
        self._random = Random(seed)
        self._clients = Clients(self._random)
        self._url = url
        self._folder = folder
        self._server = server
        self._with_faults = with_faults
        self._model = Model()
        self._now_ms = START_MS
        self._waiting: list[Request] = []
        self._answered: list[Request] = []
        self._first_answers: dict[str, TransferResult] = {}
        self._applied: dict[TransferId, TransferResult] = {}
        self._reader = open_database(url, folder=folder)
        self._kind = "sqlite" if self._reader.is_sqlite else "postgresql"
        self._process = self._new_process()
        self._step = 0
        self._struck: str | None = None
        self._faults = self._deaths = self._unknown = 0

    async def run(self, steps: int = STEPS) -> Outcome:
        """Raises SimulationFailed."""
        with _quick_and_quiet():
            try:
                await self._begin()
                for self._step in range(1, steps + 1):
                    await self._take_step()
                await self._end()
            except Exception as error:
                problem = str(error) if isinstance(error, Problem) else repr(error)
                raise SimulationFailed(
                    seed=self._seed, database=self._kind, step=self._step, problem=problem
                ) from (None if isinstance(error, Problem) else error)
            finally:
                await self._process.end()
                await self._reader.close()
        return Outcome(
            self._model.state().digest(),
            len(self._model.applied),
            len(self._model.refused),
            self._faults,
            self._deaths,
            self._unknown,
        )

    @property
    def server(self) -> Postgresql | None:
        return self._server

    def _new_process(self) -> Process:
        return Process(url=self._url, folder=self._folder, server=self._server, clock=lambda: self._now_ms)

    async def crash_at(self, fault: Fault, requests: Sequence[Request]) -> str | None:
        """Delivers the requests with that fault and checks what came of it, then that asking again gets the
        answers. Returns the statement at which it happened; None when there were fewer."""
        with _quick_and_quiet():
            try:
                await self._deliver([list(requests)], fault)
                struck = self._struck
                await self._replace_the_dead()
                await self._deliver([list(requests)], None)
            except Problem as problem:
                raise AssertionError(f"{fault}: {problem}") from None
        return struck

    async def begin(self) -> None:
        """Makes the tables and the opening balances, for those who go on by `crash_at`."""
        with _quick_and_quiet():
            await self._begin()

    async def end(self) -> None:
        with _quick_and_quiet():
            await self._end()
            await self._process.end()
            await self._reader.close()

    async def _begin(self) -> None:
        await migrated(self._reader, WALLET_MIGRATIONS)
        async with self._reader.begin() as work:
            await work.connection.run_sync(lambda connection: notes.metadata.create_all(connection))
            await work.commit()
        await self._process.start()
        await self._deliver([self._clients.opening()], None)

    async def _take_step(self) -> None:
        random = self._random
        self._let_time_pass()
        self._waiting += [self._clients.next() for _ in range(random.randint(0, 7))]
        fault = self._choose_fault()
        if random.random() < 0.1:
            await self._sweep(fault)
        else:
            await self._deliver(self._choose_deliveries(), fault)
        died = await self._replace_the_dead()
        if not died and random.random() < 0.05:
            await self._restart()
        try:
            await self._look()
        except StoreBusy:
            if fault is None or fault.kind is not FaultKind.SERVER_CRASH:
                raise
            # Its connection went with the server, which the first one to ask notices.
            await self._look()

    async def _end(self) -> None:
        """All that waits is asked again and answered; then the ledger is proved as an auditor does."""
        waiting, self._waiting = self._waiting, []
        await self._deliver([[replace(request, poison=None) for request in waiting]], None)
        if self._waiting:
            raise Problem(f"{len(self._waiting)} requests got no answer, though nothing went wrong")
        await self._sweep(None)
        check = await verify(self._reader)
        if check.difference is not None:
            raise Problem(f"the check says: {check.difference.sentence}")

    def _let_time_pass(self) -> None:
        """Mostly forwards by seconds; at times far, or back, as when a clock is set."""
        random = self._random
        jump_ms = random.randint(0, 20_000)
        if random.random() < 0.08:
            jump_ms = random.choice((-1, 1)) * random.randint(60_000, 5 * 86_400_000)
        self._now_ms += jump_ms

    def _choose_fault(self) -> Fault | None:
        random = self._random
        share, at, after = random.random(), random.randint(1, STATEMENTS_MAX), random.random() < 0.5
        of_commits = random.random() < 0.3
        kinds = SQLITE_FAULTS if self._server is None else (*SQLITE_FAULTS, FaultKind.LINE)
        kind = random.choice(kinds)
        if not self._with_faults or share >= FAULT_SHARE:
            return None
        if self._server is not None and share < SERVER_CRASH_SHARE:
            kind = FaultKind.SERVER_CRASH
        after = after and kind not in (FaultKind.BUSY, FaultKind.AWAY)
        return Fault(kind, 1 + at % 2 if of_commits else at, of_commits, after)

    def _choose_deliveries(self) -> list[list[Request]]:
        """Any order; some are left behind, some stay to come again, some come again after their answer."""
        random = self._random
        random.shuffle(self._waiting)
        count = random.randint(0, min(len(self._waiting), DELIVERED_MAX))
        chosen, self._waiting = self._waiting[:count], self._waiting[count:]
        self._waiting += [request for request in chosen if random.random() < 0.15]
        again = random.randint(0, 3) if self._answered else 0
        chosen += [random.choice(self._answered) for _ in range(again)]
        random.shuffle(chosen)
        cut = random.randint(0, len(chosen)) if random.random() < 0.5 else len(chosen)
        return [group for group in (chosen[:cut], chosen[cut:]) if group]

    async def _deliver(self, groups: list[list[Request]], fault: Fault | None) -> None:
        """The second group comes while the first one is being written."""
        self._process.driver.arm(fault)
        tasks: list[asyncio.Task[Delivery]] = []
        for number, group in enumerate(groups):
            tasks += [asyncio.create_task(self._process.ask(request, number)) for request in group]
            for _ in range(8):
                await asyncio.sleep(0)
        await self._wait_for(tasks)
        deliveries = [task.result() for task in tasks]
        await self._note_fault(fault)
        await self._compare(deliveries)
        self._send_on(deliveries)

    async def _wait_for(self, tasks: Sequence[asyncio.Task[Any]]) -> None:
        if not tasks:
            return
        _done, late = await asyncio.wait(tasks, timeout=ANSWER_SECONDS_MAX)
        for task in late:
            task.cancel()
        if late:
            raise Problem(f"{len(late)} of {len(tasks)} callers were not answered")

    async def _note_fault(self, fault: Fault | None) -> None:
        self._struck = self._process.driver.struck
        self._process.driver.arm(None)
        if fault is not None and self._struck is not None:
            self._faults += 1
            if fault.kind is FaultKind.SERVER_CRASH:
                # The reader's connections went with the server.
                await self._reader.close()

    async def _compare(self, deliveries: Sequence[Delivery]) -> None:
        """Finds which of the unknown were committed, and checks all answers and rows."""
        if self._process.driver.is_dead:
            self._process.driver.hang_up()
        state = await read_state(self._reader)
        problem = state.problem()
        if problem is not None:
            raise Problem(problem)
        unknown = _unknown(deliveries)
        self._unknown += len(unknown)
        differences = []
        for count in _possible_counts(deliveries):
            committed = {id(item) for item in unknown[:count]}
            model = self._model.copy()
            expected = [
                (item, *model.submit(item.request.accounts, item.request.transfers, self._now_ms))
                for item in deliveries
                if item.told is Told.ANSWERED or id(item) in committed
            ]
            difference = state.difference(model.state())
            if difference is None:
                self._model = model
                for item, accounts, answers in expected:
                    if item.told is Told.ANSWERED:
                        _check_answers(item, accounts, answers)
                        self._remember(item.results)
                self._check_acknowledged(state)
                return
            differences.append(difference)
        raise Problem("the database differs from the model: " + "; or: ".join(differences))

    def _remember(self, results: Sequence[TransferResult]) -> None:
        """Without any model: what was answered once is the answer for ever."""
        for number, result in enumerate(results):
            transfer, key = result.transfer, repr(result.transfer)
            in_chain = transfer.linked or (number > 0 and results[number - 1].transfer.linked)
            first = self._first_answers.get(key)
            if not in_chain and first is not None:
                if (first.refusal, first.at_ms) != (result.refusal, result.at_ms):
                    raise Problem(f"{transfer} was answered {first.refusal} first and {result.refusal} now")
            elif not in_chain and (result.refusal is None or result.replayed):
                self._first_answers[key] = result
            if result.refusal is None:
                self._applied.setdefault(transfer.id, result)

    def _check_acknowledged(self, state: State) -> None:
        there = {stored.transfer.id: stored for stored in state.transfers}
        for id, result in self._applied.items():
            stored = there.get(id)
            if stored is None or (stored.transfer, stored.at_ms) != (result.transfer, result.at_ms):
                raise Problem(f"{id} was acknowledged and is lost or changed")

    def _send_on(self, deliveries: Sequence[Delivery]) -> None:
        """Who has no answer asks again some time; a poisoned request comes without its poison then."""
        for item in deliveries:
            request = replace(item.request, poison=None)
            if item.told is Told.ANSWERED:
                self._answered.append(request)
            else:
                self._waiting.append(request if item.told is Told.FAILED_ALONE else item.request)

    async def _sweep(self, fault: Fault | None) -> None:
        """Releases what is held past its time."""
        due = self._model.due(self._now_ms)
        fresh = sum(
            self._model.copy().submit((), (expiry_of(item.transfer),), self._now_ms)[1][0].refusal is None
            for item in due
        )
        self._process.driver.arm(fault)
        task = asyncio.create_task(self._process.sweep())
        await self._wait_for([task])
        count = task.result()
        await self._note_fault(fault)
        told = Told.UNKNOWN if count is None or count != fresh else Told.ANSWERED
        if told is Told.UNKNOWN and fault is None:
            raise Problem(f"a sweep released {count}, not {fresh}")
        requests = [Request(0, transfers=(expiry_of(item.transfer),)) for item in due]
        unknown = [Delivery(request, 0, Told.UNKNOWN) for request in requests]
        await self._compare(unknown)
        if told is Told.ANSWERED and self._model.due(self._now_ms) and fresh == len(due):
            raise Problem("a sweep left something that is due")

    async def _replace_the_dead(self) -> bool:
        if not self._process.driver.is_dead:
            return False
        self._deaths += 1
        await self._restart()
        return True

    async def _restart(self) -> None:
        await self._process.end()
        self._process = self._new_process()
        await self._process.start()

    async def _look(self) -> None:
        """Reads as the wallet does, and compares."""
        ledger = self._process.ledger
        account = self._random.choice((HOT, *PEOPLE))
        known = self._model.account(account.id) if account.id in self._model.accounts else None
        if await ledger.account(account.id) != known:
            raise Problem(f"the account {account.id} reads {await ledger.account(account.id)}, not {known}")
        page = await ledger.transfers_of(account.id, limit=5)
        expected: list[StoredTransfer | None] = [
            self._model.transfer(spent.transfer.id)
            for spent in reversed(self._model.applied)
            if account.id in (spent.transfer.debit_account_id, spent.transfer.credit_account_id)
        ]
        if list(page) != expected[:5]:
            raise Problem(f"the statement of {account.id} reads {page}, not {expected[:5]}")


def _unknown(deliveries: Sequence[Delivery]) -> list[Delivery]:
    """Those that may have happened; what is poisoned never does."""
    return [item for item in deliveries if item.told is Told.UNKNOWN and item.request.poison is None]


def _possible_counts(deliveries: Sequence[Delivery]) -> list[int]:
    """How many of the unknown, in order, may have been committed: all up to the end of some batch.

    What was delivered at once is one batch, unless something in it was poisoned: then it is halved, and may
    be cut anywhere.
    """
    unknown = _unknown(deliveries)
    counts = {0, len(unknown)}
    for count in range(1, len(unknown)):
        at_an_end = unknown[count - 1].group != unknown[count].group
        halved = any(
            item.request.poison is not None for item in deliveries if item.group == unknown[count].group
        )
        if at_an_end or halved:
            counts.add(count)
    return sorted(counts)


def _check_answers(
    item: Delivery, accounts: Sequence[AccountRefusal | None], answers: Sequence[Answer]
) -> None:
    if item.request.poison is not None:
        raise Problem(f"request {item.request.number} was answered, though its effects fail")
    if item.accounts is not None:
        opened = [result.refusal for result in item.accounts]
        if opened != list(accounts):
            raise Problem(f"{item.request.accounts} were answered {opened}, not {accounts}")
    for transfer, result, answer in zip(item.request.transfers, item.results, answers, strict=True):
        told = Answer(result.refusal, result.at_ms, result.replayed)
        same = result.transfer is transfer or repr(result.transfer) == repr(transfer)
        if told != answer or not same:
            raise Problem(f"{transfer} was answered {told}, not {answer}")


@contextlib.contextmanager
def _quick_and_quiet() -> Iterator[None]:
    """Nobody waits between attempts, and what is logged about faults made on purpose is not shown."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            patch("wallet_appservice.ledger.engine.RETRY_PAUSE_SECONDS", 0.0),
            patch("wallet_appservice.storage.ledger_store.OUTCOME_PAUSE_SECONDS", 0.01),
            patch("wallet_appservice.storage.ledger_store.OUTCOME_SECONDS_MAX", OUTCOME_SECONDS_MAX),
        ):
            yield
    finally:
        logging.disable(before)
