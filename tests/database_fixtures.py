"""Fixtures: databases of either kind, and a ledger on each; tests name this in `pytest_plugins`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from appservices.chassis.database import Database, Write, open_database
from tests.ledger_samples import PEOPLE, WALLET_MIGRATIONS, open_ledger
from tests.migrated import migrated
from tests.postgres import Postgresql, running_postgresql
from wallet_appservice.ledger.engine import Ledger


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgresql]:
    """The server that all tests of a run share, each with databases of its own."""
    with running_postgresql() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database of either kind; the SQLite one is relative to the test's folder."""
    if request.param == "sqlite":
        return "sqlite:///ledger.db"
    server: Postgresql = request.getfixturevalue("postgresql")
    return server.create_database()


@pytest.fixture
async def ledger_database(database_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    """A migrated database of either kind."""
    database = open_database(database_url, folder=tmp_path)
    await migrated(database, WALLET_MIGRATIONS)
    yield database
    await database.close()


@pytest.fixture
async def ledger(ledger_database: Database) -> AsyncIterator[Ledger[Write]]:
    """A running ledger with an issuance account and two people who own nothing yet."""
    async with open_ledger(ledger_database) as running:
        await running.open_accounts(*PEOPLE)
        yield running
