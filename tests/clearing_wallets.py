"""Several wallets in one process, each on a database of its own, with a network in between that may lose,
repeat and reorder. Everything is real but the Matrix rooms."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from appservices.chassis.chosen_languages import english_for_all
from appservices.chassis.clock import Clock, system_clock
from appservices.chassis.database import Database, Write, open_database
from appservices.chassis.homeserver import MatrixRefused
from appservices.chassis.inbox import StoredEvent
from appservices.chassis.intents import Intent
from appservices.chassis.links.storage import StoredLink
from appservices.chassis.links.switchboard import Switchboard
from appservices.chassis.migrations import CHASSIS_MIGRATIONS
from appservices.chassis.rooms import Members, Rooms
from appservices.chassis.tables import outbox
from appservices.vocabulary.events import LINK
from appservices.vocabulary.ids import (
    EventId,
    RoomId,
    ServerName,
    TransferId,
    UserId,
    derived_id,
    localpart_of,
)
from appservices.vocabulary.money import Currencies, CurrencyCode, Money, iso_currency
from appservices.vocabulary.signing import SigningKey
from tests.link_channel import Weather
from tests.migrated import migrated
from wallet_appservice.chat.announcements import DirectAnnouncer
from wallet_appservice.chat.names import Names
from wallet_appservice.chat.red_packet_messages import RedPacketMessages
from wallet_appservice.chat.request_messages import RequestMessages
from wallet_appservice.clearing.applying import ClearingDesk
from wallet_appservice.clearing.asking import Asking
from wallet_appservice.clearing.known_people import KnownPeople
from wallet_appservice.clearing.operator_news import OperatorNews
from wallet_appservice.clearing.packet_answers import PacketAnswers
from wallet_appservice.clearing.paying import ClearingPayments, OutgoingPayment
from wallet_appservice.clearing.peers import Peers
from wallet_appservice.clearing.upkeep import ClearingUpkeep
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.payments.accounts import peer_account
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.people import People, build_people
from wallet_appservice.payments.records import Authority, PaymentOrder, PaymentRecord
from wallet_appservice.payments.settings import Settings
from wallet_appservice.payments.till import Outcome, Till
from wallet_appservice.storage import WALLET_MIGRATIONS
from wallet_appservice.storage.ledger_store import SqlLedgerStore

EUR = CurrencyCode("EUR")
PEOPLE = ("alice", "bob", "carol")
OPERATOR = UserId("@olga:here")


class QuietAnnouncer:
    """Nobody is told anything: these wallets have no rooms."""

    def __init__(self) -> None:
        self.refused: list[tuple[UserId, TransferId, str]] = []

    async def is_present(self, user: UserId, room_id: RoomId) -> bool:
        return False

    async def outgoing(
        self, ending: Sequence[OutgoingPayment]
    ) -> Callable[[OutgoingPayment, PaymentRecord], Sequence[Write]]:
        return lambda _payment, _record: ()

    async def waiting(self, payment: OutgoingPayment) -> Sequence[Write]:
        return ()

    async def incoming(self, payee: UserId, records: Sequence[PaymentRecord]) -> Sequence[Write]:
        return ()

    async def packet_refused(self, opener: UserId, packet: TransferId, reason: str) -> Sequence[Write]:
        self.refused.append((opener, packet, reason))
        return ()


@dataclass
class Network:
    """All wallets by server name."""

    weather: Weather
    wallets: dict[str, Wallet] = field(default_factory=dict)
    carried: list[tuple[UserId, UserId, dict[str, Any]]] = field(default_factory=list)
    """Sender, receiver and content of every message that was sent."""
    deliveries: set[asyncio.Task[None]] = field(default_factory=set)
    events: int = 0
    rooms: dict[RoomId, set[UserId]] = field(default_factory=dict)
    """Who is in which room."""

    def carry(self, sender: UserId, to: UserId, content: dict[str, Any]) -> None:
        self.carried.append((sender, to, content))
        weather = self.weather
        for _ in range(2 if weather.chance.random() < weather.repeated else 1):
            if weather.is_cut or weather.chance.random() < weather.lost:
                continue
            delay = weather.chance.random() * weather.delay_seconds_max
            delivery = asyncio.create_task(self._deliver(sender, to, content, delay))
            self.deliveries.add(delivery)
            delivery.add_done_callback(self.deliveries.discard)

    async def _deliver(self, sender: UserId, to: UserId, content: dict[str, Any], delay: float) -> None:
        await asyncio.sleep(delay)
        wallet = self.wallets[to.split(":", 1)[1]]
        with suppress(Exception):
            await wallet.hear(sender, content)


class Wallet:
    """One homeserver's wallet."""

    def __init__(self, server: str, folder: Path, network: Network, *, clock: Clock = system_clock) -> None:
        self.server = ServerName(server)
        self.database_url = f"sqlite:///{server}.db"
        self.user_id = UserId(f"@wallet:{server}")
        self.folder = folder
        self.network = network
        self.clock = clock
        self.key = SigningKey.generate()
        self.database: Database
        self.payments: Payments
        self.peers: Peers
        self.switchboard: Switchboard
        self.paying: ClearingPayments
        self.upkeep: ClearingUpkeep
        self.people: People
        self.announcer: QuietAnnouncer
        self._stack = AsyncExitStack()
        self._running: asyncio.Task[None] | None = None
        network.wallets[server] = self

    def user(self, name: str) -> UserId:
        return UserId(f"@{name}:{self.server}")

    async def start(self) -> None:
        self._stack = AsyncExitStack()
        self.database = open_database(self.database_url, folder=self.folder)
        self._stack.push_async_callback(self.database.close)
        self.opened()
        await migrated(self.database, CHASSIS_MIGRATIONS, WALLET_MIGRATIONS)
        euro, yen = iso_currency("EUR"), iso_currency("JPY")
        assert euro and yen
        currencies = Currencies([euro, yen])
        ledger: Ledger[Write] = await self._stack.enter_async_context(
            Ledger(SqlLedgerStore(self.database), clock=self.clock)
        )
        till = Till(
            database=self.database,
            ledger=ledger,
            wallet_user=self.user_id,
            signing_key=self.key,
            currencies=currencies,
            announcer=DirectAnnouncer(wallet_user=self.user_id, currencies=currencies, clock=self.clock),
            on_commit=lambda: None,
        )
        service_users = frozenset({self.user_id})
        self.payments = Payments(
            till, service_users=service_users, payment_max=1_000, user_exists=self._user_exists
        )
        self.peers = Peers(database=self.database, ledger=ledger, clock=self.clock)
        self.announcer = announcer = QuietAnnouncer()
        operators = OperatorNews([OPERATOR], clock=self.clock)
        known_people = KnownPeople(
            ledger,
            wallet_user=self.user_id,
            service_users=service_users,
            user_exists=self._user_exists,
        )
        desk = ClearingDesk(
            till,
            peers=self.peers,
            announcer=announcer,
            people=known_people,
            payment_max=1_000,
            operators=operators,
            clock=self.clock,
        )
        self.switchboard = Switchboard(
            self.user_id,
            database=self.database,
            key=self.key,
            feature=desk,
            intent=_no_intent,
            clock=self.clock,
            road=self,
        )
        self.paying = ClearingPayments(
            till, peers=self.peers, switchboard=self.switchboard, announcer=announcer, clock=self.clock
        )
        await self._deal_between_people(desk, till, known_people)
        self.payments.elsewhere = self.paying
        self.upkeep = ClearingUpkeep(
            database=self.database,
            peers=self.peers,
            switchboard=self.switchboard,
            announcer=announcer,
            operators=operators,
            on_commit=lambda: None,
            clock=self.clock,
        )
        self._running = asyncio.create_task(self.switchboard.run())

    async def _deal_between_people(self, desk: ClearingDesk, till: Till, known: KnownPeople) -> None:
        """Requests and red packets, in rooms whose members the test says."""
        rooms = Rooms(self._members_of, service_users=frozenset({self.user_id}))
        names = Names(rooms, self._display_name, self.user_id)
        teller = RequestMessages(
            names, wallet_user=self.user_id, currencies=till.currencies, clock=self.clock
        )
        self.people = build_people(
            self.payments,
            Settings(self.database, acceptance=False),
            request_teller=teller,
            red_packet_teller=RedPacketMessages(
                names,
                wallet_user=self.user_id,
                signing_key=self.key,
                currencies=till.currencies,
                clock=self.clock,
            ),
            red_packet_max=200,
            clock=self.clock,
        )
        asking = Asking(
            self.payments,
            peers=self.peers,
            switchboard=self.switchboard,
            teller=teller,
            people=known,
            language_of=english_for_all,
            clock=self.clock,
        )
        self.people.requests.elsewhere = asking
        self.paying.request_of = asking.id_of
        answers = PacketAnswers(
            peers=self.peers, switchboard=self.switchboard, announcer=self.announcer, people=known
        )
        self.people.red_packets.elsewhere = answers
        desk.connect(self.switchboard, self.paying, asking, answers)

    async def told(self, name: str) -> list[str]:
        """The bodies of all that one person was told directly, without the test's own deposits."""
        query = select(outbox.c.content).where(outbox.c.to_user == self.user(name))
        async with self.database.read() as work:
            rows = (await work.execute(query.order_by(outbox.c.position))).all()
        bodies = [str(json.loads(row.content)["body"]) for row in rows]
        return [body for body in bodies if not body.endswith(" as a deposit")]

    def opened(self) -> None:
        """For those who stand between a wallet and its database."""

    async def stop(self) -> None:
        """As a kill would, for all that the network sees."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None
        await self._stack.aclose()

    async def hear(self, sender: UserId, content: Mapping[str, Any]) -> None:
        self.network.events += 1
        event_id = EventId(f"${self.network.events}")
        event = {"type": LINK, "sender": sender, "content": json.loads(json.dumps(content))}
        await self.switchboard.received(StoredEvent(0, RoomId("!r"), event_id, event, 0))

    async def pay(self, payer: str, payee: UserId, amount_minor: int, name: str, **changes: Any) -> Outcome:
        order = PaymentOrder(
            id=TransferId(derived_id("test", self.server, name)),
            payer=self.user(payer),
            payee=payee,
            money=Money(amount_minor, EUR),
            **{"authority": Authority.SESSION, **changes},
        )
        return await self.payments.pay(order)

    async def balance(self, name: str) -> tuple[int, int]:
        """Available, and held."""
        balance = (await self.payments.balances(self.user(name)))[0]
        return balance.available_minor, balance.pending_minor

    async def people_minor(self) -> int:
        """What all people have together, held money included."""
        return sum(balance.posted_minor for balance in await self.payments.all_balances())

    async def held_minor(self) -> int:
        return sum(balance.pending_minor for balance in await self.payments.all_balances())

    async def owed_minor(self, server: str) -> int:
        """What that peer owes us."""
        return sum(item.owed_minor for item in await self.peers.positions() if item.server == server)

    async def peer_available_minor(self, server: str) -> int:
        account = await self.payments.till.ledger.account(peer_account(ServerName(server), EUR).id)
        return account.available_minor if account is not None else 0

    async def _user_exists(self, user: UserId) -> bool:
        return user in {self.user(name) for name in PEOPLE}

    async def _display_name(self, user: UserId) -> str:
        return localpart_of(user).title()

    async def _members_of(self, room_id: RoomId) -> Members:
        members = self.network.rooms.get(room_id, set())
        if self.user_id not in members:
            raise MatrixRefused(status=403, errcode="M_FORBIDDEN", sentence="not in the room")
        return Members({user: localpart_of(user).title() for user in members}, frozenset(), is_closed=True)

    # The road.

    async def is_open(self, link: StoredLink) -> bool:
        return True

    async def peer_keys(self, link: StoredLink) -> Mapping[str, str] | None:
        key = self.network.wallets[link.peer.split(":", 1)[1]].key
        return {key.key_id: key.public_base64}

    async def send(self, link: StoredLink, content: Mapping[str, Any], *, transaction_id: str) -> None:
        self.network.carry(self.user_id, link.peer, dict(content))


def _no_intent() -> Intent:
    raise AssertionError("these wallets have no rooms")


@asynccontextmanager
async def wallets(
    folder: Path,
    *servers: str,
    weather: Weather | None = None,
    limit_minor: int = 50_000,
    database_urls: Mapping[str, str] | None = None,
) -> AsyncIterator[list[Wallet]]:
    """Wallets that are all each other's peers; alice has 100 euros in each."""
    network = Network(weather or Weather())
    made = [Wallet(server, folder, network) for server in servers]
    try:
        for wallet in made:
            wallet.database_url = (database_urls or {}).get(wallet.server, wallet.database_url)
            await wallet.start()
            for other in servers:
                if other != wallet.server:
                    await wallet.peers.add(ServerName(other), {EUR: limit_minor})
            await wallet.payments.deposit(
                user=wallet.user("alice"),
                money=Money(10_000, EUR),
                id=TransferId(derived_id("deposit", wallet.server)),
            )
        yield made
    finally:
        for delivery in network.deliveries:
            delivery.cancel()
        await asyncio.gather(*network.deliveries, return_exceptions=True)
        for wallet in made:
            await wallet.stop()
