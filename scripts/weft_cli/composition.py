"""What every process of the wallet is put together from, on the configured database.

The command line works on the database directly, so that it can while the service runs and while it is down;
what it has to tell people waits in the outbox until the service sends it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from appservices.chassis.clock import system_clock
from appservices.chassis.config import (
    ConfigInvalid,
    WeftConfig,
    load_registration,
    load_signing_key,
)
from appservices.chassis.database import Database, DatabaseUrlInvalid, Write, open_database
from appservices.chassis.homeserver import ONCE, Homeserver, open_session
from appservices.chassis.intents import IntentPool
from appservices.chassis.migrations import CHASSIS_MIGRATIONS, SESSION_MIGRATIONS, migrate
from appservices.vocabulary.ids import ServerName, UserId
from wallet_appservice.chat.announcements import DirectAnnouncer
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.payments.actions import Announcer, Payments
from wallet_appservice.storage import WALLET_MIGRATIONS
from wallet_appservice.storage.ledger_store import SqlLedgerStore

HOME_BRANCHES = (CHASSIS_MIGRATIONS, SESSION_MIGRATIONS)
WALLET_BRANCHES = (CHASSIS_MIGRATIONS, WALLET_MIGRATIONS)


def service_users(config: WeftConfig) -> tuple[UserId, ...]:
    """All of this server's service users; the home service answers what no service understands."""
    return (config.home_user, config.wallet_user)


def open_configured_database(config: WeftConfig, *, key: str, url: str) -> Database:
    """Raises ConfigInvalid when the URL under that key names no database Weft can use."""
    try:
        return open_database(url, folder=config.folder)
    except DatabaseUrlInvalid as error:
        raise ConfigInvalid(f"{config.folder / 'weft.yaml'}: {key}: {error}") from error


def build_payments(
    config: WeftConfig,
    *,
    database: Database,
    ledger: Ledger[Write],
    announcer: Announcer,
    user_exists: Callable[[UserId], Awaitable[bool]],
    on_commit: Callable[[], None],
) -> Payments:
    return Payments(
        database=database,
        ledger=ledger,
        wallet_user=config.wallet_user,
        service_users=frozenset(service_users(config)),
        signing_key=load_signing_key(
            config, key="wallet.signing_key_file", name=config.wallet.signing_key_file
        ),
        currencies=config.wallet.kept_currencies,
        payment_max=config.wallet.payment_max,
        announcer=announcer,
        user_exists=user_exists,
        on_commit=on_commit,
    )


@asynccontextmanager
async def open_wallet(config: WeftConfig) -> AsyncIterator[Payments]:
    """The wallet's use cases for the command line. Raises ConfigInvalid.

    Whether a payee exists is asked of the homeserver, which must be running for that.
    """
    database = open_configured_database(config, key="wallet.database", url=config.wallet.database)
    try:
        await migrate(database, *WALLET_BRANCHES)
        registration = load_registration(config, config.wallet.registration)
        async with Ledger(SqlLedgerStore(database), clock=system_clock) as ledger, open_session() as session:
            homeserver = Homeserver(
                config.homeserver.url,
                as_token=registration.as_token,
                server_name=ServerName(config.server_name),
                session=session,
                retries=ONCE,
            )
            wallet_intent = IntentPool(homeserver).intent(config.wallet_user)

            async def user_exists(user: UserId) -> bool:
                return await wallet_intent.profile(user) is not None

            yield build_payments(
                config,
                database=database,
                ledger=ledger,
                announcer=DirectAnnouncer(
                    wallet_user=config.wallet_user,
                    currencies=config.wallet.kept_currencies,
                    clock=system_clock,
                ),
                user_exists=user_exists,
                on_commit=lambda: None,
            )
    finally:
        await database.close()
