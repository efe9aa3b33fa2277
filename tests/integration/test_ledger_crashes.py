"""Several processes on one ledger, and processes, servers and connections that die in the middle."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Final

import pytest

from appservices.chassis.database import Database, Write, open_database
from appservices.chassis.migrations import migrate
from tests.ledger_samples import (
    ALICE,
    BOB,
    PEOPLE,
    WALLET_MIGRATIONS,
    deposit,
    open_ledger,
    payment,
    transfer_id,
)
from tests.postgres import PORT, Postgresql, running_postgresql
from wallet_appservice.ledger import engine
from wallet_appservice.ledger.submissions import LedgerUnavailable, Submission
from wallet_appservice.storage import ledger_store
from wallet_appservice.storage.ledger_check import verify

pytest_plugins = ["tests.database_fixtures"]

PROJECT_ROOT: Final = Path(__file__).resolve().parents[2]
LOAD_SECONDS_MAX: Final = 90


@contextmanager
def load(url: str, folder: Path, name: str, *, transfers: int) -> Iterator[subprocess.Popen[str]]:
    """A second process that pays."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.ledger_load", url, str(folder), name, "16", str(transfers)],
        cwd=PROJECT_ROOT,
        env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def read_until(process: subprocess.Popen[str], count: int | None) -> list[str]:
    """Names of acknowledged transfers: so many, or all until the process ends."""
    assert process.stdout is not None
    names: list[str] = []
    while (count is None or len(names) < count) and (line := process.stdout.readline()):
        if line.startswith("acknowledged "):
            names.append(line.removeprefix("acknowledged ").rstrip("\n"))
    return names


async def assert_all_there(database: Database, names: list[str]) -> None:
    async with open_ledger(database) as ledger:
        for name in names:
            assert await ledger.transfer(transfer_id(name)) is not None, (
                f"{name} was acknowledged and is lost"
            )


@pytest.fixture
async def opened(ledger_database: Database) -> Database:
    """A database in which everybody has an account, and money to begin with."""
    async with open_ledger(ledger_database) as ledger:
        await ledger.open_accounts(*PEOPLE)
        opening = (deposit("opening a", ALICE, 100_000), deposit("opening b", BOB, 100_000))
        await ledger.submit(Submission(transfers=opening))
    return ledger_database


async def test_two_processes_at_once_lose_and_double_nothing(
    opened: Database, database_url: str, tmp_path: Path
) -> None:
    with (
        load(database_url, tmp_path, "one", transfers=300) as one,
        load(database_url, tmp_path, "two", transfers=300) as two,
    ):
        names = await asyncio.gather(
            asyncio.to_thread(read_until, one, None), asyncio.to_thread(read_until, two, None)
        )
        assert [one.wait(LOAD_SECONDS_MAX), two.wait(LOAD_SECONDS_MAX)] == [0, 0]
    assert [len(list) for list in names] == [450, 450]
    check = await verify(opened)
    assert (check.difference, check.transfers_count) == (None, 902)


async def test_killed_under_load_nothing_acknowledged_is_lost(
    opened: Database, database_url: str, tmp_path: Path
) -> None:
    for kill_after in (1, 40, 150):
        with load(database_url, tmp_path, "killed", transfers=400) as process:
            names = await asyncio.to_thread(read_until, process, kill_after)
            process.kill()
            names += await asyncio.to_thread(read_until, process, None)
        check = await verify(opened)
        assert check.difference is None
        await assert_all_there(opened, names)
    with load(database_url, tmp_path, "killed", transfers=400) as process:
        names = await asyncio.to_thread(read_until, process, None)
        assert process.wait(LOAD_SECONDS_MAX) == 0
    check = await verify(opened)
    assert (check.difference, check.transfers_count) == (None, 602)


@pytest.fixture
def own_postgresql() -> Iterator[Postgresql]:
    """A server that may crash without disturbing other tests."""
    with running_postgresql() as server:
        yield server


async def test_postgresql_crashing_under_load_loses_and_doubles_nothing(
    own_postgresql: Postgresql, tmp_path: Path
) -> None:
    url = await asyncio.to_thread(own_postgresql.create_database)
    database = open_database(url, folder=tmp_path)
    await migrate(database, WALLET_MIGRATIONS)

    async def crash_twice() -> None:
        for _ in range(2):
            await asyncio.sleep(0.2)
            await asyncio.to_thread(own_postgresql.crash)
            await asyncio.to_thread(own_postgresql.start)

    async with open_ledger(database) as ledger:

        async def deposit_surely(number: int) -> None:
            """Asks again until it is answered."""
            while True:
                try:
                    await ledger.submit(Submission(transfers=(deposit(str(number), ALICE, 1),)))
                    return
                except LedgerUnavailable:
                    await asyncio.sleep(0.05)

        await ledger.open_accounts(*PEOPLE)
        crashing = asyncio.create_task(crash_twice())
        count = 0
        while not crashing.done():
            await asyncio.gather(*(deposit_surely(count + offset) for offset in range(20)))
            count += 20
        await crashing
        account = await ledger.account(ALICE.id)
    assert account is not None
    assert account.available_minor == count
    assert (await verify(database)).difference is None
    await database.close()


@pytest.mark.parametrize("reaches_the_server", [True, False])
async def test_a_commit_whose_answer_is_lost_is_looked_up(
    postgresql: Postgresql, tmp_path: Path, reaches_the_server: bool
) -> None:
    url = await asyncio.to_thread(postgresql.create_database)
    async with _line_that_breaks(postgresql.folder, tmp_path) as line:
        through_line = url.replace(str(postgresql.folder), str(tmp_path))
        database = open_database(through_line, folder=tmp_path)
        await migrate(database, WALLET_MIGRATIONS)
        async with open_ledger(database) as ledger:
            await ledger.open_accounts(*PEOPLE)
            line.break_at_commit(reaches_the_server=reaches_the_server)
            (result,) = await ledger.submit(Submission(transfers=(deposit("salary", ALICE, 100),)))
            assert line.broke
            assert (result.refusal, result.replayed) == (None, False)
            account = await ledger.account(ALICE.id)
            assert account is not None
            assert account.available_minor == 100
        assert (await verify(database)).is_right
        await database.close()


async def test_a_server_that_falls_silent_is_not_waited_for_without_end(
    own_postgresql: Postgresql, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_store, "STEP_SECONDS_MAX", 0.3)
    monkeypatch.setattr(ledger_store, "OUTCOME_SECONDS_MAX", 0.3)
    url = await asyncio.to_thread(own_postgresql.create_database)
    database = open_database(url, folder=tmp_path)
    await migrate(database, WALLET_MIGRATIONS)
    async with open_ledger(database) as ledger:
        await ledger.open_accounts(*PEOPLE)
        salary: Submission[Write] = Submission(transfers=(deposit("salary", ALICE, 100),))
        with own_postgresql.frozen(), pytest.raises(LedgerUnavailable):
            async with asyncio.timeout(60):
                await ledger.submit(salary)
        monkeypatch.setattr(ledger_store, "STEP_SECONDS_MAX", 30)
        (result,) = await ledger.submit(salary)
        assert result.refusal is None
        account = await ledger.account(ALICE.id)
        assert account is not None
        assert account.available_minor == 100
    await database.close()


async def test_a_database_that_stays_away_is_told_within_bounds(
    postgresql: Postgresql, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "RETRY_PAUSE_SECONDS", 0.001)
    database = open_database(f"postgresql://weft@/none?host={tmp_path}&port={PORT}", folder=tmp_path)
    async with open_ledger(database) as ledger:
        with pytest.raises(LedgerUnavailable) as caught:
            await ledger.submit(Submission(transfers=(payment("tea", ALICE, BOB, 1),)))
    assert not caught.value.outcome_unknown
    await database.close()


class _Line:
    """Passes on what PostgreSQL and its client say to each other, until it is told to break."""

    def __init__(self, server: Path) -> None:
        self.broke = False
        self.connections: set[asyncio.Task[None]] = set()
        self._server = server
        self._reaches_the_server: bool | None = None

    def break_at_commit(self, *, reaches_the_server: bool) -> None:
        self._reaches_the_server = reaches_the_server

    def connect(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.connections.add(asyncio.create_task(self._pass_on(client_reader, client)))

    async def _pass_on(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        server_reader, server = await asyncio.open_unix_connection(self._server)
        answers = asyncio.create_task(self._pass_on_answers(server_reader, client))
        with closing(client), closing(server):
            while words := await client_reader.read(65536):
                if b"COMMIT" in words and self._reaches_the_server is not None:
                    answers.cancel()
                    await asyncio.wait({answers})
                    if self._reaches_the_server:
                        server.write(words)
                        await server_reader.read(65536)
                    self._reaches_the_server = None
                    self.broke = True
                    break
                server.write(words)
        answers.cancel()

    async def _pass_on_answers(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        with closing(client):
            while answer := await reader.read(65536):
                client.write(answer)


@asynccontextmanager
async def _line_that_breaks(server_folder: Path, folder: Path) -> AsyncIterator[_Line]:
    """A line to the server that clients reach by a socket in the other folder."""
    line = _Line(server_folder / f".s.PGSQL.{PORT}")
    listener = await asyncio.start_unix_server(line.connect, folder / f".s.PGSQL.{PORT}")
    try:
        yield line
    finally:
        listener.close()
        await asyncio.wait(line.connections, timeout=5)
