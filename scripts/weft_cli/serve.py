"""`weft serve`: every application service in one asyncio process. The composition root."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path

import httpx
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from appservices.chassis.clock import Tokens, system_clock
from appservices.chassis.commands import CommandRouter
from appservices.chassis.config import (
    HomeSection,
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
from appservices.chassis.page_assets import Assets
from appservices.chassis.pages import Pages, install_shell
from appservices.chassis.service import Service, ServiceIdentity
from appservices.chassis.session_api import session_api
from appservices.chassis.signed_in import SessionGuard
from appservices.chassis.web_sessions import SessionStore
from appservices.portal.chat import HomeCommands
from appservices.portal.pages import TEMPLATES as PORTAL_TEMPLATES
from appservices.portal.pages import portal_pages
from appservices.portal.signin import sign_in_link, sign_in_pages
from appservices.portal.welcome import welcome_words
from appservices.vocabulary.ids import RoomId, ServerName, UserId
from scripts.weft_cli.composition import (
    HOME_BRANCHES,
    WALLET_BRANCHES,
    build_clearing,
    build_payments,
    migrate_configured,
    open_configured_database,
    service_users,
)
from scripts.weft_cli.ports import check_ports, services_listener
from wallet_appservice.chat.announcements import RoomAnnouncer
from wallet_appservice.chat.clearing_announcements import ClearingRoomAnnouncer
from wallet_appservice.chat.commands import WalletCommands
from wallet_appservice.chat.published_keys import publish_keys
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.daily_checkpoints import make_daily_checkpoints
from wallet_appservice.payments.expiry import release_expired
from wallet_appservice.storage.ledger_store import SqlLedgerStore
from wallet_appservice.web.api import wallet_api
from wallet_appservice.web.pages import TEMPLATES as WALLET_TEMPLATES
from wallet_appservice.web.pages import wallet_pages

logger = logging.getLogger(__name__)

STOP_SECONDS_MAX = 10


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
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                host=config.web.bind_address,
                port=config.web.port,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=STOP_SECONDS_MAX,
            )
        )
        serving = asyncio.create_task(server.serve())
        await asyncio.wait({serving, *composition.working}, return_when=asyncio.FIRST_COMPLETED)
        # Either we were asked to end, or a service can't go on: then none does.
        server.should_exit = True
        await serving
        for task in composition.working:
            if task.done():
                await task


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
        http = await self._stack.enter_async_context(httpx.AsyncClient())

        home = await self._home(home_database, sessions)
        wallet, payments = await self._wallet(wallet_database)

        app = FastAPI(title="Weft", docs_url=None, redoc_url=None, openapi_url=None)
        assets = Assets()
        portal = Pages(config.web, assets, PORTAL_TEMPLATES)
        own_address = f"http://{config.web.bind_address}:{config.web.port}"
        install_shell(app, portal, assets)
        app.include_router(session_api(guard, OpenIdCheck(config, http)))
        app.include_router(sign_in_pages(guard, portal, config))
        app.include_router(portal_pages(guard, portal, config, http=http, wallet_url=own_address))
        app.include_router(wallet_api(payments, guard))
        app.include_router(
            wallet_pages(payments, guard, Pages(config.web, assets, WALLET_TEMPLATES), config, Tokens())
        )
        for service in (home, wallet):
            app.include_router(service.routes(), prefix=f"/_weft/appservice/{service.identity.name}")
            self.working.add(service.start())
            self._stack.push_async_callback(service.stop)
        _add_health(app, home=home, wallet=wallet)
        return app

    async def _database(self, key: str, url: str, *branches: Path) -> Database:
        database = open_configured_database(self._config, key=key, url=url)
        self._stack.push_async_callback(database.close)
        await migrate_configured(self._config, key=key, database=database, branches=branches)
        return database

    async def _home(self, database: Database, sessions: SessionStore) -> Service:
        config = self._config
        identity = ServiceIdentity("weft", config.home_user, "Weft", self._service_users)
        service = await self._service(identity, config.home, database)
        commands = HomeCommands(sessions, link=partial(sign_in_link, config.web))
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

    async def _wallet(self, database: Database) -> tuple[Service, Payments]:
        config = self._config
        identity = ServiceIdentity("wallet", config.wallet_user, "Wallet", self._service_users)
        service = await self._service(identity, config.wallet, database)
        ledger: Ledger[Write] = await self._stack.enter_async_context(
            Ledger(SqlLedgerStore(database), clock=system_clock)
        )

        key = load_signing_key(config, key="wallet.signing_key_file", name=config.wallet.signing_key_file)
        self._keep_doing(
            make_daily_checkpoints(database, wallet=config.wallet_user, key=key, clock=system_clock)
        )
        self._keep_doing(release_expired(ledger))

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
                wallet_user=config.wallet_user,
                currencies=config.wallet.kept_currencies,
                clock=system_clock,
            ),
            user_exists=user_exists,
            on_commit=service.outbox.wake,
        )

        await self._clearing(service, payments, user_exists)

        async def allowed(room_id: RoomId) -> None:
            await publish_keys(service.device.intent, room_id, payments)

        service.on_allowed(allowed)
        service.use(
            CommandRouter(
                service_user=config.wallet_user,
                service_users=self._service_users,
                commands=WalletCommands(payments).commands(),
                clock=system_clock,
            )
        )
        return service, payments

    async def _clearing(
        self, service: Service, payments: Payments, user_exists: Callable[[UserId], Awaitable[bool]]
    ) -> None:
        """Lets the wallet exchange payments with those of other homeservers."""
        config, till = self._config, payments.till
        clearing = build_clearing(
            config,
            payments,
            announcer=ClearingRoomAnnouncer(
                rooms=lambda: service.rooms,
                wallet_user=config.wallet_user,
                currencies=till.currencies,
                clock=system_clock,
            ),
            user_exists=user_exists,
            intent=lambda: service.device.intent,
        )
        await clearing.peers.take_from_config(
            {ServerName(name): limits for name, limits in config.wallet.peer_limits.items()}
        )
        service.use_links(clearing.switchboard)
        payments.use_elsewhere(clearing.paying)
        self._keep_doing(clearing.upkeep.run())
        self._keep_doing(clearing.news.run())

    def _keep_doing(self, upkeep: Coroutine[None, None, None]) -> None:
        """Runs it beside everything else until the end."""
        task = asyncio.create_task(upkeep)

        async def stop() -> None:
            task.cancel()
            await asyncio.wait({task})

        self._stack.push_async_callback(stop)

    async def _service(
        self, identity: ServiceIdentity, section: HomeSection | WalletSection, database: Database
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
        )


def _add_health(app: FastAPI, **services: Service) -> None:
    @app.get("/_weft/health", include_in_schema=False)
    async def health() -> JSONResponse:
        states = {name: "ready" if service.is_ready else "starting" for name, service in services.items()}
        ready = all(service.is_ready for service in services.values())
        return JSONResponse(
            {"ok": ready, "services": states, "version": version("weft")}, status_code=200 if ready else 503
        )
