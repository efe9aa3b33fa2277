"""`weft serve`: every application service in one asyncio process. The composition root."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

import httpx
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from appservices.chassis.chosen_languages import ChosenLanguages
from appservices.chassis.clock import Tokens, system_clock
from appservices.chassis.commands import CommandRouter
from appservices.chassis.config import (
    HomeSection,
    MomentsSection,
    WalletSection,
    WeftConfig,
    load_registration,
    load_signing_key,
)
from appservices.chassis.database import Database, Write
from appservices.chassis.encryption import BotDevice
from appservices.chassis.garbage import collect_rarely
from appservices.chassis.homeserver import Homeserver, open_session
from appservices.chassis.intents import IntentPool
from appservices.chassis.openid import OpenIdCheck
from appservices.chassis.outbox import KEPT_MS
from appservices.chassis.page_assets import Assets
from appservices.chassis.page_language import PageLanguages
from appservices.chassis.pages import Pages, install_shell
from appservices.chassis.reactions import ReactionRouter
from appservices.chassis.service import Service, ServiceIdentity
from appservices.chassis.session_api import session_api
from appservices.chassis.signed_in import SessionGuard
from appservices.chassis.web_sessions import SessionStore
from appservices.moments.feature import Moments, build_moments
from appservices.moments.web.pages import TEMPLATES as MOMENTS_TEMPLATES
from appservices.moments.web.pages import moments_pages
from appservices.portal.chat import HomeCommands
from appservices.portal.pages import TEMPLATES as PORTAL_TEMPLATES
from appservices.portal.pages import portal_pages
from appservices.portal.signin import sign_in_link, sign_in_pages
from appservices.portal.welcome import welcome_words
from appservices.vocabulary.ids import RoomId, ServerName, UserId
from scripts.weft_cli.composition import (
    HOME_BRANCHES,
    MOMENTS_BRANCHES,
    WALLET_BRANCHES,
    Clearing,
    build_clearing,
    build_payments,
    build_protection,
    merchant_rules,
    migrate_configured,
    open_configured_database,
    service_users,
    wallet_settings,
)
from scripts.weft_cli.ports import check_ports, services_listener
from wallet_appservice.chat.announcements import RoomAnnouncer
from wallet_appservice.chat.clearing_announcements import ClearingRoomAnnouncer
from wallet_appservice.chat.commands import WalletCommands
from wallet_appservice.chat.names import Names
from wallet_appservice.chat.people import PeopleChat
from wallet_appservice.chat.published_keys import publish_keys
from wallet_appservice.chat.red_packet_messages import RedPacketMessages
from wallet_appservice.chat.request_messages import RequestMessages
from wallet_appservice.chat.statement_command import StatementCommand
from wallet_appservice.clearing.peers import Peers
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.payments import red_packet_records
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.daily_checkpoints import make_daily_checkpoints
from wallet_appservice.payments.merchants.desk import MerchantDesk, open_merchant_desk
from wallet_appservice.payments.people import People, build_people
from wallet_appservice.payments.protection import Protection
from wallet_appservice.payments.sweeper import RARELY_SECONDS, Sweeper
from wallet_appservice.storage.ledger_store import SqlLedgerStore
from wallet_appservice.web.api import wallet_api
from wallet_appservice.web.merchant_routers import merchant_routers
from wallet_appservice.web.operator_pages import operator_pages
from wallet_appservice.web.pages import TEMPLATES as WALLET_TEMPLATES
from wallet_appservice.web.pages import wallet_pages
from wallet_appservice.web.people_api import people_api
from wallet_appservice.web.security_api import security_api

logger = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS: Final = 75
"""Longer than a reverse proxy keeps a connection that it may use again: closed by us first, a request on its
way would be lost."""
STOP_SECONDS_MAX: Final = 10


async def serve(config: WeftConfig) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises AssetsMissing, CommandFailed (its port is taken), ConfigInvalid and CryptoStoreUnusable.
    """
    # One line per request to the homeserver says too much.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    collect_rarely()
    check_ports([services_listener(config, remedy="choose another with web.port in weft.yaml")])
    async with AsyncExitStack() as stack:
        composition = _Composition(config, stack)
        app = await composition.build()
        server = server_of(config, app)
        serving = asyncio.create_task(server.serve())
        await asyncio.wait({serving, *composition.working}, return_when=asyncio.FIRST_COMPLETED)
        # Either we were asked to end, or a service can't go on: then none does.
        server.should_exit = True
        await serving
        for task in composition.working:
            if task.done():
                await task


def server_of(config: WeftConfig, app: FastAPI) -> uvicorn.Server:
    """The HTTP server on the configured listener."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=config.web.bind_address,
            port=config.web.port,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS_MAX,
        )
    )


class _Composition:
    """Builds what one process runs; what is opened is closed by the stack, last first."""

    def __init__(self, config: WeftConfig, stack: AsyncExitStack) -> None:
        self._config = config
        self._stack = stack
        self._service_users = service_users(config)
        self.working: set[asyncio.Task[None]] = set()

    async def build(self) -> FastAPI:
        config = self._config
        home_database = await self._database("home.database", config.home.database, *HOME_BRANCHES)
        wallet_database = await self._database("wallet.database", config.wallet.database, *WALLET_BRANCHES)
        sessions = SessionStore(home_database, system_clock, Tokens(), session_hours=config.web.session_hours)
        guard = SessionGuard(sessions, config.web)
        chosen = ChosenLanguages(home_database, default=config.language)
        http = await self._stack.enter_async_context(httpx.AsyncClient())

        home = await self._home(home_database, sessions, chosen)
        wallet, people, protection = await self._wallet(wallet_database, chosen)
        payments = people.payments
        moments = await self._moments(chosen)

        app = FastAPI(title="Weft", docs_url=None, redoc_url=None, openapi_url=None)
        assets = Assets()
        portal = Pages(config.web, assets, PORTAL_TEMPLATES)
        own_address = f"http://{config.web.bind_address}:{config.web.port}"
        install_shell(app, portal, assets, PageLanguages(guard, chosen))
        # First, because routes are tried in their order and a shop's programs ask most.
        desk = await self._merchants(payments)
        self._keep_doing(Sweeper().run({**desk.chores, **protection.chores}))
        rarely = Sweeper(look_seconds=RARELY_SECONDS)
        self._keep_doing(rarely.run({**desk.rare_chores, **protection.rare_chores}))
        for router in merchant_routers(desk, guard, public_url=config.web.public_url):
            app.include_router(router)
        app.include_router(session_api(guard, OpenIdCheck(config, http)))
        app.include_router(sign_in_pages(guard, portal, config))
        app.include_router(
            portal_pages(guard, portal, config, chosen=chosen, http=http, wallet_url=own_address)
        )
        app.include_router(
            wallet_api(
                payments,
                guard,
                protection.proofs,
                security_api(protection, guard),
                people_api(people, guard, protection.proofs, config.web.public_url),
            )
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
        for router in moments_pages(
            moments, guard, Pages(config.web, assets, MOMENTS_TEMPLATES), tokens=Tokens()
        ):
            app.include_router(router)
        for service in (home, wallet, moments.service):
            app.include_router(service.routes(), prefix=f"/_weft/appservice/{service.identity.name}")
            self.working.add(service.start())
            self._stack.push_async_callback(service.stop)
        _add_health(app, home=home, wallet=wallet, moments=moments.service)
        return app

    async def _database(self, key: str, url: str, *branches: Path) -> Database:
        database = open_configured_database(self._config, key=key, url=url)
        self._stack.push_async_callback(database.close)
        await migrate_configured(self._config, key=key, database=database, branches=branches)
        return database

    async def _home(self, database: Database, sessions: SessionStore, chosen: ChosenLanguages) -> Service:
        config = self._config
        identity = ServiceIdentity("weft", config.home_user, "Weft", self._service_users)
        service = await self._service(identity, config.home, database, chosen)
        commands = HomeCommands(sessions, chosen, link=partial(sign_in_link, config.web))
        service.welcome(partial(welcome_words, portal_url=config.web.public_url))
        service.use(
            CommandRouter(
                service_user=config.home_user,
                service_users=self._service_users,
                commands=commands.commands(),
                clock=system_clock,
                plain_text=commands.plain_text,
            )
        )
        return service

    async def _wallet(
        self, database: Database, chosen: ChosenLanguages
    ) -> tuple[Service, People, Protection]:
        config = self._config
        identity = ServiceIdentity("wallet", config.wallet_user, "Wallet", self._service_users)
        service = await self._service(identity, config.wallet, database, chosen)
        ledger: Ledger[Write] = await self._stack.enter_async_context(
            Ledger(SqlLedgerStore(database), clock=system_clock)
        )

        key = load_signing_key(config, key="wallet.signing_key_file", name=config.wallet.signing_key_file)
        self._keep_doing(
            make_daily_checkpoints(database, wallet=config.wallet_user, key=key, clock=system_clock)
        )

        async def display_name(user: UserId) -> str | None:
            profile = await service.device.intent.profile(user)
            return profile.display_name if profile else None

        async def user_exists(user: UserId) -> bool:
            return await service.device.intent.profile(user) is not None

        payments = build_payments(
            config,
            database=database,
            ledger=ledger,
            announcer=RoomAnnouncer(
                rooms=service.rooms,
                display_name=display_name,
                language_of=chosen.spoken_with,
                wallet_user=config.wallet_user,
                currencies=config.wallet.kept_currencies,
                clock=system_clock,
            ),
            user_exists=user_exists,
            on_commit=service.outbox.wake,
        )

        names = Names(service.rooms, display_name, config.wallet_user)
        request_teller = RequestMessages(
            names,
            language_of=chosen.spoken_with,
            wallet_user=config.wallet_user,
            currencies=payments.currencies,
            clock=system_clock,
        )
        clearing = await self._clearing(service, payments, request_teller, user_exists, chosen)

        async def allowed(room_id: RoomId) -> None:
            await publish_keys(service.device.intent, room_id, payments)

        service.on_allowed(allowed)
        protection = build_protection(
            config,
            database,
            payments,
            on_commit=service.outbox.wake,
            language_of=chosen.spoken_with,
        )
        people = self._people(service, payments, names, request_teller, chosen)
        people.requests.elsewhere = clearing.asking
        people.red_packets.elsewhere = clearing.packet_answers
        clearing.desk.on_shown = people.wake_all
        chat = PeopleChat(
            people,
            subject_of=service.outbox.subject_of,
            upload=service.upload,
            public_url=config.web.public_url,
        )
        service.use(
            CommandRouter(
                service_user=config.wallet_user,
                service_users=self._service_users,
                commands=(
                    *WalletCommands(payments, protection.confirmations).commands(),
                    *StatementCommand(payments, public_url=config.web.public_url).commands(),
                    *chat.commands(),
                ),
                clock=system_clock,
            )
        )
        reactions = ReactionRouter(
            chat.reactions(),
            own_server=ServerName(config.server_name),
            for_everybody=frozenset({red_packet_records.SUBJECT}),
        )
        service.on_reaction(reactions.route)
        return service, people, protection

    async def _moments(self, chosen: ChosenLanguages) -> Moments:
        config = self._config
        database = await self._database("moments.database", config.moments.database, *MOMENTS_BRANCHES)
        identity = ServiceIdentity("moments", config.moments_user, "Moments", self._service_users)
        key = load_signing_key(config, key="moments.signing_key_file", name=config.moments.signing_key_file)
        # What stands in Moments rooms is edited and taken back for as long as it stands there.
        service = await self._service(identity, config.moments, database, chosen, outbox_kept_ms=None)
        moments = build_moments(
            service,
            database,
            signing_key=key,
            blocked_servers=frozenset(ServerName(name) for name in config.moments.blocked_servers),
            language_of=chosen.spoken_with,
            clock=system_clock,
        )
        self._keep_doing(moments.run())
        return moments

    async def _merchants(self, payments: Payments) -> MerchantDesk:
        desk = await self._stack.enter_async_context(
            open_merchant_desk(payments, merchant_rules(self._config), clock=system_clock, tokens=Tokens())
        )
        self._keep_doing(desk.notifier.run())
        return desk

    def _people(
        self,
        service: Service,
        payments: Payments,
        names: Names,
        request_teller: RequestMessages,
        chosen: ChosenLanguages,
    ) -> People:
        config = self._config
        people = build_people(
            payments,
            wallet_settings(config, payments.till.database),
            language_of=chosen.spoken_with,
            request_teller=request_teller,
            red_packet_teller=RedPacketMessages(
                names,
                wallet_user=config.wallet_user,
                signing_key=payments.till.signing_key,
                currencies=payments.currencies,
                clock=system_clock,
            ),
            red_packet_max=config.wallet.red_packet_max,
            clock=system_clock,
        )

        async def sweep() -> None:
            # Whoever is told is looked up first.
            await service.until_ready()
            await people.sweeper.run(people.chores)

        self._keep_doing(sweep())
        return people

    async def _clearing(
        self,
        service: Service,
        payments: Payments,
        request_teller: RequestMessages,
        user_exists: Callable[[UserId], Awaitable[bool]],
        chosen: ChosenLanguages,
    ) -> Clearing:
        """Lets the wallet exchange payments with those of other homeservers."""
        config = self._config
        clearing = build_clearing(
            config,
            payments,
            announcer=ClearingRoomAnnouncer(
                rooms=service.rooms,
                language_of=chosen.spoken_with,
                currencies=payments.currencies,
                clock=system_clock,
            ),
            request_teller=request_teller,
            user_exists=user_exists,
            intent=lambda: service.device.intent,
            language_of=chosen.spoken_with,
        )
        await clearing.peers.take_from_config(
            {ServerName(name): limits for name, limits in config.wallet.peer_limits.items()}
        )
        service.use_links(clearing.switchboard)

        async def sweep() -> None:
            await service.until_ready()
            await clearing.sweeper.run(clearing.chores)

        self._keep_doing(sweep())
        return clearing

    def _keep_doing(self, upkeep: Coroutine[None, None, None]) -> None:
        """Runs it beside everything else until the end."""
        task = asyncio.create_task(upkeep)

        async def stop() -> None:
            task.cancel()
            await asyncio.wait({task})

        self._stack.push_async_callback(stop)

    async def _service(
        self,
        identity: ServiceIdentity,
        section: HomeSection | WalletSection | MomentsSection,
        database: Database,
        chosen: ChosenLanguages,
        *,
        outbox_kept_ms: int | None = KEPT_MS,
    ) -> Service:
        config = self._config
        registration = load_registration(config, section.registration)
        session = await self._stack.enter_async_context(open_session())
        intents = IntentPool(
            Homeserver(
                config.homeserver.url,
                as_token=registration.as_token,
                server_name=ServerName(config.server_name),
                session=session,
            )
        )

        async def open_device() -> BotDevice:
            return await BotDevice.open(
                intents,
                identity.user_id,
                folder=config.folder / "bots" / identity.name,
                display_name=f"Weft {identity.display_name}",
            )

        return Service(
            identity,
            database=database,
            open_device=open_device,
            registration=registration,
            clock=system_clock,
            language_of=chosen.spoken_with,
            outbox_kept_ms=outbox_kept_ms,
        )


def _add_health(app: FastAPI, **services: Service) -> None:
    @app.get("/_weft/health", include_in_schema=False)
    async def health() -> JSONResponse:
        states = {name: "ready" if service.is_ready else "starting" for name, service in services.items()}
        ready = all(service.is_ready for service in services.values())
        return JSONResponse(
            {"ok": ready, "services": states, "version": version("weft")}, status_code=200 if ready else 503
        )
