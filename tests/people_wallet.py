"""A wallet in which people deal with one another: a real ledger and real messages in a real outbox, in rooms
whose members the test says."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from appservices.chassis.chosen_languages import english_for_all
from appservices.chassis.clock import system_clock
from appservices.chassis.database import Database, Write, open_database
from appservices.chassis.homeserver import MatrixRefused
from appservices.chassis.migrations import CHASSIS_MIGRATIONS
from appservices.chassis.rooms import Members, Rooms
from appservices.chassis.tables import outbox
from appservices.vocabulary.ids import RoomId, TransferId, UserId, derived_id, localpart_of
from appservices.vocabulary.money import Currencies, CurrencyCode, Money, iso_currency
from appservices.vocabulary.signing import SigningKey
from tests.migrated import migrated
from wallet_appservice.chat.announcements import RoomAnnouncer
from wallet_appservice.chat.names import Names
from wallet_appservice.chat.red_packet_messages import RedPacketMessages
from wallet_appservice.chat.request_messages import RequestMessages
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.people import People, build_people
from wallet_appservice.payments.records import PaymentOrder, PaymentRecord
from wallet_appservice.payments.settings import Settings
from wallet_appservice.payments.till import Till
from wallet_appservice.storage import WALLET_MIGRATIONS
from wallet_appservice.storage.ledger_store import SqlLedgerStore
from wallet_appservice.storage.payment_tables import payments as payment_rows

WALLET = UserId("@wallet:a")
ALICE, BOB, CAROL, DAVE = (UserId(f"@{name}:a") for name in ("alice", "bob", "carol", "dave"))
EUR = CurrencyCode("EUR")
LUNCH = RoomId("!lunch")


@dataclass
class SettableClock:
    """The system's clock, which a test may put forward."""

    ahead_ms: int = 0

    def __call__(self) -> int:
        return system_clock() + self.ahead_ms

    def forward(self, *, hours: float = 0, days: float = 0) -> None:
        self.ahead_ms += int((hours + 24 * days) * 3600 * 1000)


@dataclass
class PeopleWallet:
    """One process of a wallet, and what a test looks at."""

    people: People
    payments: Payments
    database: Database
    ledger: Ledger[Write]
    clock: SettableClock
    members: dict[RoomId, set[UserId]]
    others: set[UserId] = field(default_factory=set)

    async def balance(self, user: UserId) -> int:
        return (await self.payments.balances(user))[0].available_minor

    async def deposit(self, user: UserId, amount_minor: int) -> None:
        id = new_id("deposit", user, str(amount_minor))
        outcome = await self.payments.deposit(user=user, money=Money(amount_minor, EUR), id=id)
        assert isinstance(outcome, PaymentRecord), outcome

    async def pay(self, name: str, amount_minor: int, **changes: Any) -> PaymentRecord:
        order = PaymentOrder(
            **{
                "id": new_id(name),
                "payer": ALICE,
                "payee": BOB,
                "money": Money(amount_minor, EUR),
                "memo": name,
                **changes,
            }
        )
        outcome = await self.payments.pay(order)
        assert isinstance(outcome, PaymentRecord), outcome
        return outcome

    async def told(self, *, to: UserId | RoomId | None = None) -> list[str]:
        """The bodies of all that waits in the outbox for one place, in order, without the test's own
        deposits."""
        bodies = [str(content["body"]) for content in await self.contents(to=to)]
        return [body for body in bodies if not body.endswith(" as a deposit")]

    async def contents(self, *, to: UserId | RoomId | None = None) -> list[Mapping[str, Any]]:
        query = select(outbox.c.content).order_by(outbox.c.position)
        if to is not None:
            query = query.where((outbox.c.to_user == to) | (outbox.c.room_id == to))
        async with self.database.read() as work:
            return [json.loads(row.content) for row in await work.execute(query)]

    async def payments_count(self) -> int:
        async with self.database.read() as work:
            counted = await work.execute(select(func.count()).select_from(payment_rows))
            return int(counted.scalar_one())

    async def money_in_circulation(self) -> int:
        """Of all people and packets together: what the ledger's balances sum up to."""
        return sum([balance.posted_minor for balance in await self.payments.all_balances()])


@asynccontextmanager
async def people_wallet(
    url: str,
    folder: Path,
    *,
    clock: SettableClock | None = None,
    key: SigningKey | None = None,
    members: dict[RoomId, set[UserId]] | None = None,
    acceptance: bool = False,
    packet_max: int = 200,
    seed: int | None = None,
    people_known: Sequence[UserId] = (ALICE, BOB, CAROL, DAVE),
) -> AsyncIterator[PeopleWallet]:
    """A wallet's process on that database, which may have others."""
    clock = clock or SettableClock()
    members = members if members is not None else {LUNCH: {WALLET, ALICE, BOB, CAROL}}
    database = open_database(url, folder=folder)
    await migrated(database, CHASSIS_MIGRATIONS, WALLET_MIGRATIONS)
    euro = iso_currency("EUR")
    assert euro
    currencies = Currencies([euro])
    known = set(people_known)

    async def fetch_members(room_id: RoomId) -> Members:
        if room_id not in members:
            raise MatrixRefused(status=403, errcode="M_FORBIDDEN", sentence="not in the room")
        joined = {user: localpart_of(user).title() for user in members[room_id]}
        return Members(joined, frozenset(), is_closed=True)

    async def display_name(user: UserId) -> str:
        return localpart_of(user).title()

    async def user_exists(user: UserId) -> bool:
        return user in known

    rooms = Rooms(fetch_members, service_users=frozenset({WALLET}))
    async with Ledger(SqlLedgerStore(database), clock=clock) as ledger:
        till = Till(
            database=database,
            ledger=ledger,
            wallet_user=WALLET,
            signing_key=key or SigningKey.generate(),
            currencies=currencies,
            announcer=RoomAnnouncer(
                rooms=rooms,
                display_name=display_name,
                language_of=english_for_all,
                wallet_user=WALLET,
                currencies=currencies,
                clock=clock,
            ),
            on_commit=lambda: None,
        )
        settings = Settings(database, acceptance=acceptance)
        payments = Payments(
            till,
            service_users=frozenset({WALLET}),
            payment_max=1_000,
            user_exists=user_exists,
            waits_for_acceptance=settings.waits_for_acceptance,
        )
        names = Names(rooms, display_name, WALLET)
        people = build_people(
            payments,
            settings,
            request_teller=RequestMessages(names, wallet_user=WALLET, currencies=currencies, clock=clock),
            red_packet_teller=RedPacketMessages(
                names,
                wallet_user=WALLET,
                signing_key=till.signing_key,
                currencies=currencies,
                clock=clock,
            ),
            red_packet_max=packet_max,
            clock=clock,
            chance=random.Random(seed) if seed is not None else None,
        )
        yield PeopleWallet(people, payments, database, ledger, clock, members, known)
    await database.close()


def new_id(*names: str) -> TransferId:
    return TransferId(derived_id("test", *names))
