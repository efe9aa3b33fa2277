"""Weft's web side as it really runs: real databases, ledger and HTTP, one homeserver's worth of users.

Nothing is sent to rooms, and who exists is said by the test; with a `Synapse` that knows, too, what OpenID
tokens are worth. See tests/integration for the whole of it with Synapse.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from appservices.chassis.chosen_languages import ChosenLanguages
from appservices.chassis.clock import Tokens, system_clock
from appservices.chassis.config import WeftConfig
from appservices.chassis.database import Write, open_database
from appservices.chassis.homeserver import MatrixRefused
from appservices.chassis.migrations import CHASSIS_MIGRATIONS, SESSION_MIGRATIONS
from appservices.chassis.openid import OpenIdCheck
from appservices.chassis.page_assets import Assets
from appservices.chassis.page_language import PageLanguages
from appservices.chassis.pages import Pages, install_shell
from appservices.chassis.rooms import Members, Rooms
from appservices.chassis.session_api import session_api
from appservices.chassis.signed_in import SessionGuard
from appservices.chassis.web_sessions import NewSession, SessionStore, SignInWay
from appservices.portal.pages import TEMPLATES as PORTAL_TEMPLATES
from appservices.portal.pages import portal_pages
from appservices.portal.signin import sign_in_pages
from appservices.vocabulary.ids import RoomId, TransferId, UserId, derived_id, localpart_of
from appservices.vocabulary.money import CurrencyCode, Money
from appservices.vocabulary.signing import SigningKey
from scripts.weft_cli.composition import merchant_rules, operator_limits
from tests.migrated import migrated
from tests.synapse import WAIT_SECONDS_MAX, free_port
from wallet_appservice.chat.names import Names
from wallet_appservice.chat.red_packet_messages import RedPacketMessages
from wallet_appservice.chat.request_messages import RequestMessages
from wallet_appservice.clearing.peers import Peers
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.ledger.submissions import Submission
from wallet_appservice.ledger.values import Transfer, TransferCode, TransferMode
from wallet_appservice.payments.accounts import user_account
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.limits import Gate
from wallet_appservice.payments.merchants.desk import MerchantDesk, open_merchant_desk
from wallet_appservice.payments.people import People, build_people
from wallet_appservice.payments.protection import Protection, protect
from wallet_appservice.payments.records import Authority, Movement, PaymentOrder, PaymentRecord
from wallet_appservice.payments.settings import Settings
from wallet_appservice.payments.till import Announcer, Till
from wallet_appservice.storage import WALLET_MIGRATIONS
from wallet_appservice.storage.ledger_store import SqlLedgerStore
from wallet_appservice.web.api import wallet_api
from wallet_appservice.web.merchant_routers import merchant_routers
from wallet_appservice.web.operator_pages import operator_pages
from wallet_appservice.web.pages import TEMPLATES as WALLET_TEMPLATES
from wallet_appservice.web.pages import wallet_pages
from wallet_appservice.web.people_api import people_api
from wallet_appservice.web.security_api import security_api

SERVER_NAME = "weft.example"
EUR = CurrencyCode("EUR")


@dataclass
class SettableClock:
    """The system's clock, which a test may put forward."""

    ahead_ms: int = 0

    def __call__(self) -> int:
        return system_clock() + self.ahead_ms


class NullAnnouncer:
    """Tells nobody."""

    async def prepare(self, _movement: Movement) -> Callable[[PaymentRecord], Sequence[Write]]:
        return lambda _record: ()


@dataclass
class WebStack:
    """The running server and what tests reach behind it."""

    url: str
    config: WeftConfig
    sessions: SessionStore
    languages: ChosenLanguages
    payments: Payments
    protection: Protection
    ledger: Ledger[Write]
    clock: SettableClock
    http: httpx.AsyncClient
    desk: MerchantDesk
    dealings: People
    """Requests, red packets and whatever else people do with one another."""
    people: set[UserId] = field(default_factory=set)
    members: dict[RoomId, set[UserId]] = field(default_factory=dict)
    """Who is in which room, besides the wallet."""

    def user(self, localpart: str) -> UserId:
        """A user who exists here."""
        user_id = UserId(f"@{localpart}:{self.config.server_name}")
        self.people.add(user_id)
        return user_id

    async def session(self, user: UserId, *, user_agent: str = "") -> NewSession:
        return await self.sessions.begin(user, SignInWay.CODE, user_agent)

    async def bearer(self, user: UserId) -> dict[str, str]:
        return {"Authorization": f"Bearer {(await self.session(user)).token}"}

    async def deposit(self, user: UserId, amount_minor: int, currency: str = "EUR") -> None:
        money = Money(amount_minor, CurrencyCode(currency))
        outcome = await self.payments.deposit(user=user, money=money, id=self.new_id())
        assert isinstance(outcome, PaymentRecord), outcome

    async def pay(self, payer: UserId, payee: UserId, amount_minor: int, memo: str = "") -> PaymentRecord:
        order = PaymentOrder(
            id=self.new_id(),
            payer=payer,
            payee=payee,
            money=Money(amount_minor, EUR),
            memo=memo,
            authority=Authority.SESSION,
        )
        outcome = await self.payments.pay(order)
        assert isinstance(outcome, PaymentRecord), outcome
        return outcome

    async def hold(self, payer: UserId, payee: UserId, amount_minor: int) -> None:
        """Holds money as a payment under way does."""
        debit, credit = user_account(payer, EUR), user_account(payee, EUR)
        transfer = Transfer(
            id=self.new_id(),
            debit_account_id=debit.id,
            credit_account_id=credit.id,
            amount_minor=amount_minor,
            currency=EUR,
            code=TransferCode.PAYMENT,
            mode=TransferMode.PENDING,
        )
        results = await self.ledger.submit(Submission(accounts=(debit, credit), transfers=(transfer,)))
        assert results[0].refusal is None

    async def balance_minor(self, user: UserId) -> int:
        return (await self.payments.balances(user))[0].available_minor

    @staticmethod
    def new_id() -> TransferId:
        return TransferId(Tokens().hex())


def web_config(
    folder: Path, *, server_name: str = SERVER_NAME, homeserver_url: str = "", **web: Any
) -> WeftConfig:
    port = free_port()
    return WeftConfig.model_validate(
        {
            "server_name": server_name,
            "homeserver": {
                "url": homeserver_url or "http://127.0.0.1:9",
                "public_url": homeserver_url or "http://127.0.0.1:9",
            },
            "web": {"port": port, "public_url": f"http://127.0.0.1:{port}", **web},
            "wallet": {
                "currencies": ["EUR", {"code": "HOUR", "exponent": 1}],
                "payment_max": 1000,
                "chat_max": 100,
                "merchants": "open",
                "webhooks_to_private_addresses": True,
            },
            "folder": folder,
        }
    )


@asynccontextmanager
async def running_web(config: WeftConfig) -> AsyncIterator[WebStack]:
    """Serves on the config's port, in this event loop."""
    async with AsyncExitStack() as stack:
        app, web = await built_web(config, stack)
        async with served(app, port=config.web.port):
            yield web


async def built_web(
    config: WeftConfig,
    stack: AsyncExitStack,
    *,
    home_url: str = "sqlite:///weft.db",
    wallet_url: str = "sqlite:///wallet.db",
    announcer: Announcer | None = None,
) -> tuple[FastAPI, WebStack]:
    """The app and what is behind it, not yet served; what is opened is closed by the stack."""
    home_database = open_database(home_url, folder=config.folder)
    stack.push_async_callback(home_database.close)
    await migrated(home_database, CHASSIS_MIGRATIONS, SESSION_MIGRATIONS)
    wallet_database = open_database(wallet_url, folder=config.folder)
    stack.push_async_callback(wallet_database.close)
    await migrated(wallet_database, CHASSIS_MIGRATIONS, WALLET_MIGRATIONS)
    clock = SettableClock()
    sessions = SessionStore(home_database, clock, Tokens(), session_hours=config.web.session_hours)
    languages = ChosenLanguages(home_database, default=config.language)
    ledger = await stack.enter_async_context(Ledger(SqlLedgerStore(wallet_database), clock=clock))
    people: set[UserId] = set()

    async def user_exists(user: UserId) -> bool:
        return user in people

    till = Till(
        database=wallet_database,
        ledger=ledger,
        wallet_user=config.wallet_user,
        signing_key=SigningKey.generate(),
        currencies=config.wallet.kept_currencies,
        announcer=announcer or NullAnnouncer(),
        on_commit=lambda: None,
    )
    settings = Settings(wallet_database, acceptance=config.wallet.acceptance)
    payments = Payments(
        till,
        service_users=frozenset({config.home_user, config.wallet_user}),
        payment_max=config.wallet.payment_max,
        user_exists=user_exists,
        waits_for_acceptance=settings.waits_for_acceptance,
        gate=Gate(
            wallet_database,
            currencies=config.wallet.kept_currencies,
            operator=operator_limits(config),
            clock=clock,
        ),
    )
    http = await stack.enter_async_context(httpx.AsyncClient(timeout=WAIT_SECONDS_MAX))
    protection = protect(
        payments.gate,
        wallet_database,
        pay=payments.pay,
        currencies=config.wallet.kept_currencies,
        public_url=config.web.public_url,
        clock=clock,
        tokens=Tokens(),
        on_commit=lambda: None,
    )
    desk = await stack.enter_async_context(
        open_merchant_desk(payments, merchant_rules(config), clock=clock, tokens=Tokens())
    )
    notifying = asyncio.create_task(desk.notifier.run())
    stack.push_async_callback(_ended, notifying)
    members: dict[RoomId, set[UserId]] = {}
    dealings = _people(config, payments, settings, members, clock)
    app = web_app(
        config,
        sessions=sessions,
        languages=languages,
        people=dealings,
        protection=protection,
        http=http,
        desk=desk,
    )
    web = WebStack(
        url=config.web.public_url,
        config=config,
        sessions=sessions,
        languages=languages,
        payments=payments,
        protection=protection,
        ledger=ledger,
        clock=clock,
        http=http,
        desk=desk,
        people=people,
        dealings=dealings,
        members=members,
    )
    return app, web


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


def _people(
    config: WeftConfig,
    payments: Payments,
    settings: Settings,
    members: dict[RoomId, set[UserId]],
    clock: SettableClock,
) -> People:
    async def fetch_members(room_id: RoomId) -> Members:
        if room_id not in members:
            raise MatrixRefused(status=403, errcode="M_FORBIDDEN", sentence="not in the room")
        joined = {user: localpart_of(user).title() for user in (*members[room_id], config.wallet_user)}
        return Members(joined, frozenset(), is_closed=True)

    async def display_name(user: UserId) -> str:
        return localpart_of(user).title()

    rooms = Rooms(fetch_members, service_users=frozenset({config.wallet_user}))
    names = Names(rooms, display_name, config.wallet_user)
    return build_people(
        payments,
        settings,
        request_teller=RequestMessages(
            names, wallet_user=config.wallet_user, currencies=payments.currencies, clock=clock
        ),
        red_packet_teller=RedPacketMessages(
            names,
            wallet_user=config.wallet_user,
            signing_key=payments.till.signing_key,
            currencies=payments.currencies,
            clock=clock,
        ),
        red_packet_max=config.wallet.red_packet_max,
        clock=clock,
    )


@asynccontextmanager
async def served(app: FastAPI, *, port: int) -> AsyncIterator[None]:
    """Serves an app on loopback, in this event loop."""
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, lifespan="off", log_config=None, access_log=False)
    )
    task = asyncio.create_task(server.serve())
    while not server.started:
        if task.done():
            await task
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await task


def web_app(
    config: WeftConfig,
    *,
    sessions: SessionStore,
    languages: ChosenLanguages,
    people: People,
    protection: Protection,
    http: httpx.AsyncClient,
    desk: MerchantDesk,
) -> FastAPI:
    """As the composition root of `weft serve` puts it together, without the Matrix side."""
    payments = people.payments
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    assets = Assets()
    guard = SessionGuard(sessions, config.web)
    portal = Pages(config.web, assets, PORTAL_TEMPLATES)
    install_shell(app, portal, assets, PageLanguages(guard, languages))
    for router in merchant_routers(desk, guard, public_url=config.web.public_url):
        app.include_router(router)
    app.include_router(session_api(guard, OpenIdCheck(config, http)))
    app.include_router(
        wallet_api(
            payments,
            guard,
            protection.proofs,
            security_api(protection, guard),
            people_api(people, guard, protection.proofs, config.web.public_url),
        )
    )
    app.include_router(sign_in_pages(guard, portal, config))
    app.include_router(
        portal_pages(guard, portal, config, chosen=languages, http=http, wallet_url=config.web.public_url)
    )
    pages = Pages(config.web, assets, WALLET_TEMPLATES)
    app.include_router(
        wallet_pages(
            payments, guard, pages, config, Tokens(), desk=desk, protection=protection, people=people
        )
    )
    app.include_router(
        operator_pages(
            protection,
            guard,
            pages,
            config,
            database=payments.till.database,
            peers=Peers(database=payments.till.database, ledger=payments.till.ledger, clock=system_clock),
        )
    )
    return app


def payment_id(*parts: str) -> TransferId:
    return TransferId(derived_id("test", *parts))
