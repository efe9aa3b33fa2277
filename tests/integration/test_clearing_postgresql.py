"""Clearing where one wallet keeps its books in PostgreSQL and the other in SQLite."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.clearing_wallets import EUR, wallets
from tests.link_channel import Weather
from tests.postgres import Postgresql
from wallet_appservice.clearing.statements import Statements
from wallet_appservice.payments.records import PaymentRecord, PaymentState

pytest_plugins = ["tests.database_fixtures"]


@pytest.fixture
def postgresql_url(postgresql: Postgresql) -> str:
    return postgresql.create_database()


async def test_wallets_on_different_databases_pay_each_other_over_a_bad_network(
    tmp_path: Path, postgresql_url: str
) -> None:
    weather = Weather(seed=5, lost=0.1, repeated=0.1, delay_seconds_max=0.02)
    urls = {"a": postgresql_url}
    async with wallets(tmp_path, "a", "b", weather=weather, database_urls=urls) as (a, b):
        for number in range(3):
            outcomes = await asyncio.gather(
                *(a.pay("alice", b.user("bob"), 10, f"{number} {count}") for count in range(10)),
                *(b.pay("alice", a.user("bob"), 7, f"{number} {count}") for count in range(10)),
            )
            for index, outcome in enumerate(outcomes):
                assert isinstance(outcome, PaymentRecord), outcome
                payer = a if index < 10 else b
                record = await payer.paying.ended(outcome, seconds_max=60)
                assert record.state is PaymentState.POSTED
            await a.stop()
            await a.start()
        assert await b.owed_minor("a") == 300 - 210 == -await a.owed_minor("b")
        for wallet, other in ((a, b), (b, a)):
            await wallet.upkeep.state_and_compare()
            await wallet.upkeep.look_at_positions()
            statement = await Statements(wallet.database).of(other.server, EUR, from_ms=0, to_ms=2**52)
            assert statement is not None and statement.paid.count == 30 == statement.received.count
