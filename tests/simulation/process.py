"""A simulated wallet process: what clients send it, what becomes of that, and how it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from appservices.chassis.database import Database, Write, open_database
from tests.postgres import Postgresql
from tests.simulation.commands import Poison, Request
from tests.simulation.faults import FaultyDriver, ProcessDied
from tests.simulation.state import INSERT_NOTE
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.ledger.rules import AccountResult
from wallet_appservice.ledger.submissions import LedgerUnavailable, Submission, SubmissionFailed
from wallet_appservice.ledger.values import Transfer, TransferResult
from wallet_appservice.storage.ledger_store import SqlLedgerStore


class Problem(Exception):
    """What is wrong, before it is known where."""


class Told(Enum):
    """What a client knows once its request has ended."""

    ANSWERED = auto()
    FAILED_ALONE = auto()
    NOTHING_HAPPENED = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request and what came of it; `group` counts what was delivered at once."""

    request: Request
    group: int
    told: Told
    results: tuple[TransferResult, ...] = ()
    accounts: tuple[AccountResult, ...] | None = None


class Process:
    """A wallet's process, as far as the ledger goes. It ends in order, or dies at a statement."""

    def __init__(
        self, *, url: str, folder: Path, server: Postgresql | None, clock: Callable[[], int]
    ) -> None:
        self._database: Database = open_database(url, folder=folder)
        self.driver = FaultyDriver(self._database, server=server)
        self.ledger: Ledger[Write] = Ledger(SqlLedgerStore(self._database), clock=clock)

    async def start(self) -> None:
        await self.ledger.start()

    async def end(self) -> None:
        with contextlib.suppress(ProcessDied):
            await self.ledger.stop()
        if self.driver.is_dead:
            self.driver.hang_up()
        await self._database.close()

    async def ask(self, request: Request, group: int) -> Delivery:
        """Sends a request and waits for what becomes of it. What a dead process says is not heard."""
        results: tuple[TransferResult, ...] = ()
        accounts: tuple[AccountResult, ...] | None = None
        told = Told.ANSWERED
        try:
            if request.transfers:
                results = await self.ledger.submit(_submission(request))
            else:
                accounts = await self.ledger.open_accounts(*request.accounts)
        except LedgerUnavailable as error:
            told = Told.UNKNOWN if error.outcome_unknown else Told.NOTHING_HAPPENED
        except (SubmissionFailed, _PoisonRaised) as error:
            if request.poison is None and not self.driver.is_dead:
                raise Problem(f"request {request.number} failed with nothing wrong in it: {error}") from None
            told = Told.FAILED_ALONE
        if self.driver.is_dead:
            return Delivery(request, group, Told.UNKNOWN)
        return Delivery(request, group, told, results, accounts)

    async def sweep(self) -> int | None:
        try:
            count = await self.ledger.expire_pending(_expiry_effects)
        except (LedgerUnavailable, ProcessDied):
            return None
        return None if self.driver.is_dead else count


class _PoisonRaised(Exception):
    pass


def _submission(request: Request) -> Submission[Write]:
    def effects(results: tuple[TransferResult, ...]) -> Sequence[Write]:
        if request.poison is Poison.RAISES:
            raise _PoisonRaised
        writes = [
            _note(result.transfer) for result in results if result.refusal is None and not result.replayed
        ]
        if request.poison is Poison.IS_REFUSED:
            writes.append(Write(INSERT_NOTE, {"transfer_id": None}))
        return writes

    return Submission(transfers=request.transfers, accounts=request.accounts, effects=effects)


def _note(transfer: Transfer) -> Write:
    return Write(INSERT_NOTE, {"transfer_id": transfer.id})


def _expiry_effects(_pending: Transfer, result: TransferResult) -> Sequence[Write]:
    return [_note(result.transfer)]
