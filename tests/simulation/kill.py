"""Real processes that pay until they are killed, again and again, on one database.

What a process was answered it writes to a pipe at once; whatever stands there must be in the ledger then. In
the end every transfer that was ever asked for is asked for again, and the ledger must hold each of them
once, with its effect, and the very sums that follow from them by plain arithmetic.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

from appservices.chassis.clock import system_clock
from appservices.chassis.database import Database, Write, open_database
from appservices.chassis.migrations import migrate
from appservices.vocabulary.ids import TransferId
from tests.ledger_samples import (
    ALICE,
    BOB,
    ISSUANCE,
    PEOPLE,
    WALLET_MIGRATIONS,
    deposit,
    payment,
    transfer_id,
)
from tests.simulation.state import INSERT_NOTE, State, notes, read_state
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.ledger.submissions import Submission
from wallet_appservice.ledger.values import Transfer, TransferMode, TransferResult, posting_of
from wallet_appservice.storage.ledger_check import verify
from wallet_appservice.storage.ledger_store import SqlLedgerStore

Result = TypeVar("Result")

CALLERS: Final = 24
OPENING_MINOR: Final = 1_000_000
LOAD_SECONDS_MAX: Final = 0.12
"""After its first answer a process pays for at most so long."""
FIRST_ANSWER_SECONDS_MAX: Final = 60
KILLED_EARLY_SHARE: Final = 0.1
"""Of the processes, killed while they still open the database."""
CHECKED_EVERY: Final = 20
"""Kills between two proofs of the whole ledger; what was answered is looked for after each kill."""
ROUTES: Final = ((ISSUANCE, ALICE), (ALICE, BOB), (BOB, ALICE), (ISSUANCE, BOB))


class KillFailed(Exception):
    """Something that was acknowledged is lost, or something happened twice; one sentence."""


@dataclass(frozen=True, slots=True)
class KillOutcome:
    """What survived."""

    kills: int
    acknowledged: int
    unanswered: int
    """Transfers that were asked for and not answered before a kill, but had happened all the same."""
    transfers: int

    def __str__(self) -> str:
        return (
            f"killed {self.kills} times under load; all of {self.acknowledged:,} acknowledged transfers "
            f"are there, {self.unanswered:,} happened unheard, none twice; {self.transfers:,} in all"
        )


def kill_under_load(
    url: str,
    *,
    folder: Path,
    kills: int,
    seed: int,
    on_progress: Callable[[int, int], None] = lambda _done, _acknowledged: None,
) -> KillOutcome:
    """Kills so many processes on an empty database. Raises KillFailed.

    The caller must not be inside an event loop: processes are forked.
    """
    random = Random(seed)
    asyncio.run(_with_database(url, folder, _prepare))
    acknowledged: set[str] = set()
    position = 0
    first = 0
    for kill in range(1, kills + 1):
        # Sometimes a second process pays at the same time, with numbers of its own.
        children = [_Child(url, folder, first=first)]
        if random.random() < 0.3:
            children.append(_Child(url, folder, first=first, name="other"))
        _kill_at_a_random_moment(children, random)
        names = [name for child in children for name in child.names]
        acknowledged.update(names)
        first = _next_number(names, first)
        position = asyncio.run(_with_database(url, folder, partial(_check, names=names, position=position)))
        if kill % CHECKED_EVERY == 0 or kill == kills:
            asyncio.run(_with_database(url, folder, _prove))
            on_progress(kill, len(acknowledged))
    held = asyncio.run(_with_database(url, folder, read_state))
    unheard = len(held.transfers) - 2 - len(acknowledged)
    last = max(first, *(int(stored.transfer.reference) for stored in held.transfers)) + CALLERS
    state = asyncio.run(_with_database(url, folder, lambda opened: _finish(opened, last)))
    return KillOutcome(kills, len(acknowledged), unheard, len(state.transfers))


class _Child:
    """A process that pays. It has nothing of its parent's: no thread, no connection, no event loop."""

    def __init__(self, url: str, folder: Path, *, first: int, name: str = "") -> None:
        self.names: list[str] = []
        self._unread = b""
        self._reader, writer = os.pipe()
        self._process = os.fork()
        if self._process == 0:
            # Leaves without unwinding whatever the parent is in the middle of.
            status = 1
            try:
                os.close(self._reader)
                asyncio.run(_pay_without_end(url, folder, first, name, writer))
                status = 0
            finally:
                os._exit(status)
        os.close(writer)

    def read(self, seconds: float) -> None:
        """Reads names for so long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([self._reader], [], [], left)
            if ready and not self._read_once():
                raise KillFailed("a process ended by itself; see above")

    def read_first(self) -> None:
        deadline = time.monotonic() + FIRST_ANSWER_SECONDS_MAX
        while not self.names:
            ready, _, _ = select.select([self._reader], [], [], deadline - time.monotonic())
            if not ready or not self._read_once():
                raise KillFailed("a process was not answered; see above")

    def kill(self) -> None:
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        while self._read_once():
            pass
        os.close(self._reader)

    def _read_once(self) -> bool:
        words = os.read(self._reader, 65536)
        *lines, self._unread = (self._unread + words).split(b"\n")
        self.names += [line.decode() for line in lines]
        return bool(words)


def _kill_at_a_random_moment(children: Iterable[_Child], random: Random) -> None:
    children = list(children)
    try:
        if random.random() < KILLED_EARLY_SHARE:
            children[0].read(random.uniform(0, 0.03))
        else:
            children[0].read_first()
            children[0].read(random.uniform(0, LOAD_SECONDS_MAX))
    finally:
        random.shuffle(children)
        for child in children:
            child.kill()


async def _pay_without_end(url: str, folder: Path, first: int, name: str, pipe: int) -> None:
    """Asks again for what the process before it may have left open, then for new transfers."""
    database = open_database(url, folder=folder)

    async def ask(transfer: Transfer, label: str) -> None:
        (result,) = await ledger.submit(_with_note(transfer))
        if result.refusal is None:
            os.write(pipe, f"{label}\n".encode())

    async def call(caller: int) -> None:
        number = max(0, first - 2 * CALLERS) + caller
        while True:
            for transfer, label in _asked_for(number, name):
                await ask(transfer, label)
            number += CALLERS

    async with Ledger(SqlLedgerStore(database), clock=system_clock) as ledger:
        await asyncio.gather(*(call(caller) for caller in range(CALLERS)))


def _asked_for(number: int, name: str) -> list[tuple[Transfer, str]]:
    """The transfers of that number, in order: a payment, or a hold and its posting."""
    label = f"{name} {number}"
    debit, credit = ROUTES[number % len(ROUTES)]
    if number % 3:
        return [(payment(label, debit, credit, 1 + number % 7, reference=str(number)), label)]
    held = payment(label, debit, credit, 1 + number % 7, mode=TransferMode.PENDING, reference=str(number))
    posting = posting_of(held, id=transfer_id(f"{label} posted"))
    return [(held, label), (posting, f"{label} posted")]


def _with_note(transfer: Transfer) -> Submission[Write]:
    def effects(results: tuple[TransferResult, ...]) -> list[Write]:
        return [
            Write(INSERT_NOTE, {"transfer_id": result.transfer.id})
            for result in results
            if result.refusal is None and not result.replayed
        ]

    return Submission(transfers=(transfer,), effects=effects)


async def _prepare(database: Database) -> None:
    await migrate(database, WALLET_MIGRATIONS)
    async with database.begin() as work:
        await work.connection.run_sync(lambda connection: notes.metadata.create_all(connection))
        await work.commit()
    async with Ledger(SqlLedgerStore(database), clock=system_clock) as ledger:
        await ledger.open_accounts(*PEOPLE)
        for person in (ALICE, BOB):
            opening = deposit(f"opening {person.owner}", person, OPENING_MINOR, reference="0")
            await ledger.submit(_with_note(opening))


async def _check(database: Database, *, names: Iterable[str], position: int) -> int:
    """What was just acknowledged is there, and the rows are whole; returns the last position."""
    state = await read_state(database)
    there = {stored.transfer.id for stored in state.transfers}
    lost = [name for name in names if transfer_id(name) not in there]
    if lost:
        raise KillFailed(f"{lost[0]!r} was acknowledged and is lost")
    if state.position < position:
        raise KillFailed(f"the ledger ended at {position} before, and at {state.position} now")
    problem = state.problem()
    if problem is not None:
        raise KillFailed(problem)
    return state.position


async def _prove(database: Database) -> None:
    check = await verify(database)
    if check.difference is not None:
        raise KillFailed(check.difference.sentence)


async def _finish(database: Database, last: int) -> State:
    """Asks for everything again; each transfer must then be there once."""
    expected: dict[TransferId, Transfer] = {}
    sums = {ALICE.id: OPENING_MINOR, BOB.id: OPENING_MINOR, ISSUANCE.id: -2 * OPENING_MINOR}
    async with Ledger(SqlLedgerStore(database), clock=system_clock) as ledger:
        for name in ("", "other"):
            for number in range(last):
                asked = [transfer for transfer, _label in _asked_for(number, name)]
                expected.update((transfer.id, transfer) for transfer in asked)
                sums[asked[-1].debit_account_id] -= asked[-1].amount_minor
                sums[asked[-1].credit_account_id] += asked[-1].amount_minor
        transfers = list(expected.values())
        for start in range(0, len(transfers), 1_000):
            answers = await asyncio.gather(
                *(ledger.submit(_with_note(transfer)) for transfer in transfers[start : start + 1_000])
            )
            refused = [result for (result,) in answers if result.refusal is not None]
            if refused:
                raise KillFailed(f"{refused[0]} though its payer has enough")
    state = await read_state(database)
    problem = state.problem()
    if problem is not None:
        raise KillFailed(problem)
    if len(state.transfers) != len(expected) + 2:
        raise KillFailed(f"{len(state.transfers)} transfers are there, not {len(expected) + 2}")
    for id, sum in sums.items():
        if state.accounts[id].posted_minor != sum:
            raise KillFailed(f"{id} holds {state.accounts[id].posted_minor}, not {sum}")
    await _prove(database)
    return state


async def _with_database(
    url: str, folder: Path, act: Callable[[Database], Coroutine[Any, Any, Result]]
) -> Result:
    database = open_database(url, folder=folder)
    try:
        return await act(database)
    finally:
        await database.close()


def _next_number(names: Iterable[str], first: int) -> int:
    """Where the next process goes on, a little before the last one's end."""
    return max([first, *(int(name.removesuffix(" posted").rpartition(" ")[2]) for name in names)])
