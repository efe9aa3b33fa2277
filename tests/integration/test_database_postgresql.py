"""Units of work on PostgreSQL: what is left of one that was cancelled, or whose server was started anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from appservices.chassis.database import POOL_SIZE, Database, open_database
from tests.postgres import Postgresql, running_postgresql


@pytest.fixture
def server() -> Iterator[Postgresql]:
    """One that may be started anew without disturbing other tests."""
    with running_postgresql() as server:
        yield server


@pytest.fixture
async def database(server: Postgresql, tmp_path: Path) -> AsyncIterator[Database]:
    url = await asyncio.to_thread(server.create_database)
    database = open_database(url, folder=tmp_path)
    yield database
    await database.close()


async def one(database: Database) -> int:
    async with database.begin() as work:
        number: int = (await work.execute(text("SELECT 1"))).scalar_one()
        await work.commit()
        return number


async def test_whoever_is_cancelled_leaves_no_transaction_behind(database: Database) -> None:
    for turns in range(60):
        working = asyncio.create_task(one(database))
        for _ in range(turns % 30):
            await asyncio.sleep(0)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    connections = [await database.engine.connect() for _ in range(POOL_SIZE)]
    for connection in connections:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None and not driver.is_in_transaction()
        await connection.close()
    assert await one(database) == 1


async def test_after_the_server_was_started_anew_nobody_meets_a_lost_connection(
    server: Postgresql, database: Database
) -> None:
    assert await asyncio.gather(*(one(database) for _ in range(POOL_SIZE))) == [1] * POOL_SIZE
    await asyncio.to_thread(server.crash)
    await asyncio.to_thread(server.start)
    assert await one(database) == 1
