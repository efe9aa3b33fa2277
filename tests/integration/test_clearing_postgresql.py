"""Clearing where one wallet keeps its books in PostgreSQL and the other in SQLite."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from appservices.vocabulary.ids import RoomId, TransferId, derived_id
from appservices.vocabulary.money import Money
from tests.clearing_wallets import EUR, Wallet, wallets
from tests.link_channel import NOTHING, Weather
from tests.postgres import Postgresql
from tests.synapse import eventually
from wallet_appservice.clearing.statements import Statements
from wallet_appservice.payments.records import Authority, PaymentRecord, PaymentState
from wallet_appservice.payments.red_packet_records import FoundState, PacketOrder, RedPacket
from wallet_appservice.payments.request_records import Request, RequestOrder, ShareState

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


async def test_requests_and_red_packets_cross_between_different_databases(
    tmp_path: Path, postgresql_url: str
) -> None:
    async with wallets(tmp_path, "a", "b", database_urls={"a": postgresql_url}) as (a, b):
        party = RoomId("!party")
        people = {wallet.user(name) for wallet in (a, b) for name in ("alice", "bob")}
        a.network.rooms[party] = people | {a.user_id, b.user_id}
        for asker, payer in ((a, b), (b, a)):
            asked = await asker.people.requests.ask(
                RequestOrder(
                    id=TransferId(derived_id("request", asker.server)),
                    requester=asker.user("bob"),
                    people=(payer.user("alice"),),
                    money=Money(500, EUR),
                )
            )
            assert isinstance(asked, Request), asked

            async def is_paid(
                asker: Wallet = asker, payer: Wallet = payer, id: TransferId = asked.id
            ) -> bool:
                for item in (await payer.people.pending.of(payer.user("alice"))).items:
                    if item.waits_for_me:
                        await payer.people.requests.pay(
                            payer.user("alice"), item.id, authority=Authority.SESSION
                        )
                await payer.people.requests.sweep(is_first=True)
                request = await asker.people.requests.request(asker.user("bob"), id)
                return request is not None and request.shares[0].state is ShareState.PAID

            await eventually(is_paid)
            packet = await asker.people.red_packets.fill(
                PacketOrder(
                    id=TransferId(derived_id("packet", asker.server)),
                    sender=asker.user("alice"),
                    room_id=party,
                    money=Money(300, EUR),
                    count=1,
                )
            )
            assert isinstance(packet, RedPacket), packet
            await asker.people.red_packets.draw_elsewhere(payer.user("bob"), packet.id, done=NOTHING)

            async def is_opened(asker: Wallet = asker, id: TransferId = packet.id) -> bool:
                await asker.people.red_packets.sweep()
                found = await asker.people.red_packets.packet(asker.user("alice"), id)
                return found is not None and found[1][0].state is FoundState.PAID

            await eventually(is_opened)
        assert await a.balance("bob") == await b.balance("bob") == (800, 0)
        assert await a.owed_minor("b") == 0 == await b.owed_minor("a")
