"""What every process of the wallet is put together from, on the configured database.

The command line works on the database directly, so that it can while the service runs and while it is down;
what it has to tell people waits in the outbox until the service sends it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from asyncpg import PostgresError
from sqlalchemy.exc import SQLAlchemyError

from appservices.chassis.chosen_languages import ChosenLanguages, LanguageOf
from appservices.chassis.clock import Tokens, system_clock
from appservices.chassis.config import (
    CONFIG_NAME,
    ConfigInvalid,
    WeftConfig,
    load_registration,
    load_signing_key,
)
from appservices.chassis.database import Database, DatabaseUrlInvalid, Write, open_database
from appservices.chassis.homeserver import ONCE, Homeserver, MatrixUnavailable, open_session
from appservices.chassis.intents import Intent, IntentPool
from appservices.chassis.links.switchboard import Switchboard
from appservices.chassis.migrations import CHASSIS_MIGRATIONS, SESSION_MIGRATIONS, SchemaUnknown, migrate
from appservices.moments.tables import MOMENTS_MIGRATIONS
from appservices.vocabulary.ids import ServerName, UserId
from scripts.weft_cli.waiting import ANSWER_SECONDS_MAX, silent_homeserver, told_when_slow
from wallet_appservice.chat.announcements import DirectAnnouncer
from wallet_appservice.clearing.applying import ClearingDesk
from wallet_appservice.clearing.asking import Asking
from wallet_appservice.clearing.known_people import KnownPeople
from wallet_appservice.clearing.operator_news import OperatorNews
from wallet_appservice.clearing.packet_answers import PacketAnswers
from wallet_appservice.clearing.payee_news import PayeeNews
from wallet_appservice.clearing.paying import ClearingAnnouncer, ClearingPayments
from wallet_appservice.clearing.peers import Peers
from wallet_appservice.clearing.upkeep import ClearingUpkeep
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.audit import AuditLog
from wallet_appservice.payments.limit_rules import OperatorLimits
from wallet_appservice.payments.limits import Gate
from wallet_appservice.payments.merchants.desk import MerchantRules
from wallet_appservice.payments.protection import Protection, protect
from wallet_appservice.payments.requests import RequestTeller
from wallet_appservice.payments.settings import Settings
from wallet_appservice.payments.sweeper import Sweep, Sweeper
from wallet_appservice.payments.till import Announcer, Till
from wallet_appservice.storage import WALLET_MIGRATIONS
from wallet_appservice.storage.ledger_store import SqlLedgerStore

PAYEE_NEWS = "news for payees"
HOME_BRANCHES = (CHASSIS_MIGRATIONS, SESSION_MIGRATIONS)
WALLET_BRANCHES = (CHASSIS_MIGRATIONS, WALLET_MIGRATIONS)
MOMENTS_BRANCHES = (CHASSIS_MIGRATIONS, MOMENTS_MIGRATIONS)
Branches = tuple[Path, ...]
_CLASS_NAME = re.compile(r"^<class '[^']*'>: ")


def service_users(config: WeftConfig) -> tuple[UserId, ...]:
    """All of this server's service users; the home service answers what no service understands."""
    return (config.home_user, config.wallet_user, config.moments_user)


def open_configured_database(config: WeftConfig, *, key: str, url: str) -> Database:
    """Raises ConfigInvalid when the URL under that key names no database Weft can use."""
    place = f"{config.folder / CONFIG_NAME}: {key}"
    try:
        database = open_database(url, folder=config.folder)
    except DatabaseUrlInvalid as error:
        raise ConfigInvalid(f"{place}: {error}") from error
    file = database.engine.url.database
    if database.is_sqlite and file and not Path(file).parent.is_dir():
        raise ConfigInvalid(f"{place}: {file} can't be used: there is no folder {Path(file).parent}")
    return database


@contextmanager
def database_failures_named(config: WeftConfig, *, key: str, database: Database) -> Iterator[None]:
    """A database that is down, damaged or another's becomes one sentence with key and database.

    Raises ConfigInvalid.
    """
    try:
        yield
    except (SQLAlchemyError, PostgresError, SchemaUnknown) as error:
        raise unusable_database(config, key=key, database=database, error=error) from error


async def migrate_configured(config: WeftConfig, *, key: str, database: Database, branches: Branches) -> None:
    """The first connection, and the newest schema. Raises ConfigInvalid when the database can't be used."""
    try:
        with database_failures_named(config, key=key, database=database):
            await migrate(database, *branches)
    except OSError as error:
        # A PostgreSQL that is down is told so by the network.
        raise unusable_database(config, key=key, database=database, error=error) from error


def unusable_database(config: WeftConfig, *, key: str, database: Database, error: Exception) -> ConfigInvalid:
    """The sentence about a database that failed, without its password."""
    url = database.engine.url
    named = url.database if database.is_sqlite else url.set(drivername="postgresql").render_as_string()
    return ConfigInvalid(
        f"{config.folder / CONFIG_NAME}: {key}: {named} can't be used: {failure_words(error)}"
    )


def failure_words(error: Exception) -> str:
    """What a driver says, without the statement, its class names and links."""
    reason = getattr(error, "orig", None) or error
    words = (isinstance(reason, OSError) and reason.strerror) or str(reason) or type(reason).__name__
    return _CLASS_NAME.sub("", words.strip().partition("\n")[0]).rstrip(".")


def build_payments(
    config: WeftConfig,
    *,
    database: Database,
    ledger: Ledger[Write],
    announcer: Announcer,
    user_exists: Callable[[UserId], Awaitable[bool]],
    on_commit: Callable[[], None],
) -> Payments:
    till = Till(
        database=database,
        ledger=ledger,
        wallet_user=config.wallet_user,
        signing_key=load_signing_key(
            config, key="wallet.signing_key_file", name=config.wallet.signing_key_file
        ),
        currencies=config.wallet.kept_currencies,
        announcer=announcer,
        on_commit=on_commit,
    )
    gate = Gate(
        database,
        currencies=config.wallet.kept_currencies,
        operator=operator_limits(config),
        clock=system_clock,
    )
    return Payments(
        till,
        service_users=frozenset(service_users(config)),
        payment_max=config.wallet.payment_max,
        user_exists=user_exists,
        gate=gate,
        waits_for_acceptance=wallet_settings(config, database).waits_for_acceptance,
    )


def build_protection(
    config: WeftConfig,
    database: Database,
    payments: Payments,
    *,
    on_commit: Callable[[], None],
    language_of: LanguageOf | None = None,
) -> Protection:
    """Limits, proofs, confirmations, budgets and audit of these payments."""
    return protect(
        payments.gate,
        database,
        pay=payments.pay,
        currencies=config.wallet.kept_currencies,
        public_url=config.web.public_url,
        clock=system_clock,
        tokens=Tokens(),
        on_commit=on_commit,
        language_of=language_of or partial(_language_of, config),
    )


def operator_limits(config: WeftConfig) -> OperatorLimits:
    wallet = config.wallet
    return OperatorLimits(
        payment_max=wallet.payment_max,
        day_max=wallet.day_max,
        chat_max=wallet.chat_max,
        no_pin_max=wallet.no_pin_max,
    )


def merchant_rules(config: WeftConfig) -> MerchantRules:
    return MerchantRules(
        members_may_open=config.wallet.merchants == "open",
        no_pin_max=config.wallet.no_pin_max,
        webhooks_to_private_addresses=config.wallet.webhooks_to_private_addresses,
    )


def wallet_settings(config: WeftConfig, database: Database) -> Settings:
    """What the operator and everybody have chosen for wallets here."""
    return Settings(database, acceptance=config.wallet.acceptance)


@dataclass(frozen=True, slots=True)
class Clearing:
    """The parts by which a wallet exchanges payments with others."""

    peers: Peers
    switchboard: Switchboard
    desk: ClearingDesk
    asking: Asking
    packet_answers: PacketAnswers
    sweeper: Sweeper
    chores: Mapping[str, Sweep]
    """What the sweeper is to run: by name, for the log."""


def build_clearing(
    config: WeftConfig,
    payments: Payments,
    *,
    announcer: ClearingAnnouncer,
    request_teller: RequestTeller,
    user_exists: Callable[[UserId], Awaitable[bool]],
    intent: Callable[[], Intent],
    language_of: LanguageOf,
) -> Clearing:
    """Lets people of other homeservers be paid, and pay."""
    till, sweeper = payments.till, Sweeper()
    peers = Peers(database=till.database, ledger=till.ledger, clock=system_clock)
    operators = OperatorNews(config.web.operators, clock=system_clock, language_of=language_of)
    known_people = KnownPeople(
        till.ledger,
        wallet_user=config.wallet_user,
        service_users=frozenset(service_users(config)),
        user_exists=user_exists,
    )
    desk = ClearingDesk(
        till,
        peers=peers,
        announcer=announcer,
        people=known_people,
        payment_max=config.wallet.payment_max,
        operators=operators,
        clock=system_clock,
    )
    switchboard = Switchboard(
        config.wallet_user,
        database=till.database,
        key=till.signing_key,
        feature=desk,
        intent=intent,
        clock=system_clock,
    )
    paying = ClearingPayments(
        till, peers=peers, switchboard=switchboard, announcer=announcer, clock=system_clock
    )
    asking = Asking(
        payments,
        peers=peers,
        switchboard=switchboard,
        teller=request_teller,
        people=known_people,
        language_of=language_of,
        clock=system_clock,
    )
    paying.request_of = asking.id_of
    packet_answers = PacketAnswers(
        peers=peers, switchboard=switchboard, announcer=announcer, people=known_people
    )
    desk.connect(switchboard, paying, asking, packet_answers)
    payments.elsewhere = paying
    upkeep = ClearingUpkeep(
        database=till.database,
        peers=peers,
        switchboard=switchboard,
        announcer=announcer,
        operators=operators,
        on_commit=till.wake,
        clock=system_clock,
    )
    news = PayeeNews(database=till.database, announcer=announcer, on_commit=till.wake)
    desk.on_received = lambda: sweeper.wake(PAYEE_NEWS)
    return Clearing(
        peers, switchboard, desk, asking, packet_answers, sweeper, {**upkeep.chores, PAYEE_NEWS: news.sweep}
    )


@asynccontextmanager
async def open_wallet(config: WeftConfig) -> AsyncIterator[Payments]:
    """The wallet's use cases for the command line. Raises ConfigInvalid.

    Whether a payee exists is asked of the homeserver, which must be running for that.
    """
    database = open_configured_database(config, key="wallet.database", url=config.wallet.database)
    key = "wallet.database"
    try:
        await migrate_configured(config, key=key, database=database, branches=WALLET_BRANCHES)
        registration = load_registration(config, config.wallet.registration)
        with database_failures_named(config, key=key, database=database):
            async with (
                Ledger(SqlLedgerStore(database), clock=system_clock) as ledger,
                open_session() as session,
            ):
                homeserver = Homeserver(
                    config.homeserver.url,
                    as_token=registration.as_token,
                    server_name=ServerName(config.server_name),
                    session=session,
                    retries=ONCE,
                )
                wallet_intent = IntentPool(homeserver).intent(config.wallet_user)

                async def user_exists(user: UserId) -> bool:
                    try:
                        with told_when_slow(config):
                            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                                return await wallet_intent.profile(user) is not None
                    except TimeoutError as error:
                        raise MatrixUnavailable(silent_homeserver(config)) from error

                payments = build_payments(
                    config,
                    database=database,
                    ledger=ledger,
                    announcer=DirectAnnouncer(
                        language_of=partial(_language_of, config),
                        wallet_user=config.wallet_user,
                        currencies=config.wallet.kept_currencies,
                        clock=system_clock,
                    ),
                    user_exists=user_exists,
                    on_commit=lambda: None,
                )
                yield payments
                # What this command wrote into the audit log is linked before it ends.
                await AuditLog(database).chain()
    finally:
        await database.close()


async def _language_of(config: WeftConfig, user: UserId) -> str:
    """The language to tell the user in, looked up in the home database, which is not needed otherwise."""
    database = open_configured_database(config, key="home.database", url=config.home.database)
    try:
        if not _is_there(database):
            return config.language
        return await ChosenLanguages(database, default=config.language).spoken_with(user)
    finally:
        await database.close()


def _is_there(database: Database) -> bool:
    """Whether looking into the database would not make it."""
    return not database.is_sqlite or Path(str(database.engine.url.database)).is_file()
