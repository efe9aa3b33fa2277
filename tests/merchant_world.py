"""A wallet with merchants on a real ledger in a real database, without HTTP and without Matrix."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from appservices.chassis.clock import Tokens
from appservices.chassis.database import Database, open_database
from appservices.chassis.migrations import CHASSIS_MIGRATIONS
from appservices.vocabulary.ids import TransferId, UserId, derived_id
from appservices.vocabulary.money import Currencies, CurrencyCode, Money, iso_currency
from appservices.vocabulary.signing import SigningKey
from tests.migrated import migrated
from tests.web_stack import SettableClock
from wallet_appservice.chat.announcements import DirectAnnouncer
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.merchants.addresses import Resolve, resolve
from wallet_appservice.payments.merchants.desk import MerchantDesk, MerchantRules, open_merchant_desk
from wallet_appservice.payments.merchants.records import Merchant, Order
from wallet_appservice.payments.records import PaymentRecord
from wallet_appservice.payments.till import Till
from wallet_appservice.storage import WALLET_MIGRATIONS
from wallet_appservice.storage.ledger_store import SqlLedgerStore

WALLET, ALICE, BOB, OWNER = (UserId(f"@{name}:a") for name in ("wallet", "alice", "bob", "owner"))
EUR, JPY = CurrencyCode("EUR"), CurrencyCode("JPY")


@dataclass
class MerchantWorld:
    """One process's view of the wallet; two of them may stand on one database."""

    desk: MerchantDesk
    database: Database
    clock: SettableClock
    signing_key: SigningKey
    _numbers: int = field(default=0)

    @property
    def payments(self) -> Payments:
        return self.desk.payments

    async def merchant(self, name: str = "Bakery", owner: UserId = OWNER) -> Merchant:
        merchant = await self.desk.merchants.open(owner=owner, name=name, by_operator=True)
        assert isinstance(merchant, Merchant), merchant
        return merchant

    async def order(self, merchant: Merchant, reference: str = "1001", amount_minor: int = 1250) -> Order:
        order = await self.desk.orders.create(
            merchant, reference=reference, money=Money(amount_minor, EUR), description="bread"
        )
        assert isinstance(order, Order), order
        return order

    async def paid_order(
        self, merchant: Merchant, reference: str = "1001", amount_minor: int = 1250
    ) -> Order:
        order = await self.order(merchant, reference, amount_minor)
        paid = await self.desk.orders.pay(order.id, payer=ALICE)
        assert isinstance(paid, Order), paid
        return paid

    async def deposit(self, user: UserId, amount_minor: int) -> None:
        self._numbers += 1
        id = TransferId(derived_id("test deposit", user, str(self._numbers)))
        outcome = await self.payments.deposit(user=user, money=Money(amount_minor, EUR), id=id)
        assert isinstance(outcome, PaymentRecord), outcome

    async def balance(self, user: UserId) -> int:
        return (await self.payments.balances(user))[0].available_minor

    async def takings(self, merchant: Merchant) -> int:
        """What the merchant holds in euro."""
        accounts = await self.desk.merchants.accounts(merchant)
        return sum(account.available_minor for account in accounts if account.currency == EUR)


@asynccontextmanager
async def merchant_world(
    folder: Path,
    *,
    url: str = "sqlite:///wallet.db",
    clock: SettableClock | None = None,
    signing_key: SigningKey | None = None,
    resolve: Resolve = resolve,
    private_allowed: bool = True,
    on_commit: Callable[[], None] = lambda: None,
) -> AsyncIterator[MerchantWorld]:
    """Alice has 100 euro the first time that a database is opened; everybody exists."""
    clock = clock or SettableClock()
    signing_key = signing_key or SigningKey.generate()
    euro, yen = iso_currency("EUR"), iso_currency("JPY")
    assert euro and yen
    currencies = Currencies([euro, yen])
    database = open_database(url, folder=folder)

    async def user_exists(_user: UserId) -> bool:
        return True

    try:
        await migrated(database, CHASSIS_MIGRATIONS, WALLET_MIGRATIONS)
        async with Ledger(SqlLedgerStore(database), clock=clock) as ledger:
            till = Till(
                database=database,
                ledger=ledger,
                wallet_user=WALLET,
                signing_key=signing_key,
                currencies=currencies,
                announcer=DirectAnnouncer(wallet_user=WALLET, currencies=currencies, clock=clock),
                on_commit=on_commit,
            )
            payments = Payments(
                till, service_users=frozenset({WALLET}), payment_max=1_000, user_exists=user_exists
            )
            rules = MerchantRules(
                members_may_open=False, no_pin_max=50, webhooks_to_private_addresses=private_allowed
            )
            async with open_merchant_desk(
                payments, rules, clock=clock, tokens=Tokens(), resolve=resolve
            ) as desk:
                world = MerchantWorld(desk, database, clock, signing_key)
                if not await world.payments.history(ALICE, limit=1):
                    await world.deposit(ALICE, 10_000)
                yield world
    finally:
        await database.close()
