"""The merchant side put together: what every process that serves it is made of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from appservices.chassis.clock import Clock, Tokens
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.merchants.addresses import Resolve, resolve
from wallet_appservice.payments.merchants.api_keys import ApiKeys
from wallet_appservice.payments.merchants.charges import Charges
from wallet_appservice.payments.merchants.endpoints import Endpoints
from wallet_appservice.payments.merchants.merchants import Merchants
from wallet_appservice.payments.merchants.notifications import Notifier
from wallet_appservice.payments.merchants.order_steps import order_values, read_order
from wallet_appservice.payments.merchants.orders import Orders
from wallet_appservice.payments.merchants.payment_codes import PaymentCodes
from wallet_appservice.payments.merchants.records import Order
from wallet_appservice.payments.merchants.refunds import MerchantRefunds
from wallet_appservice.payments.sweeper import Sweep, whenever
from wallet_appservice.storage.merchant_tables import merchant_orders
from wallet_appservice.storage.shared_steps import SharedSteps


@dataclass(frozen=True, slots=True, kw_only=True)
class MerchantRules:
    """What the operator says of merchants."""

    members_may_open: bool
    no_pin_max: int
    """The most that a payment code may charge, in whole units of each currency."""
    webhooks_to_private_addresses: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MerchantDesk:
    """All use cases of merchants, and of those who pay them, on one ledger."""

    payments: Payments
    merchants: Merchants
    keys: ApiKeys
    orders: Orders
    codes: PaymentCodes
    charges: Charges
    refunds: MerchantRefunds
    endpoints: Endpoints
    notifier: Notifier

    @property
    def chores(self) -> Mapping[str, Sweep]:
        """Ends what has a time and finishes what was begun: by name, for the log."""
        return {"orders": whenever(self.orders.sweep), "refunds of orders": whenever(self.refunds.sweep)}

    @property
    def rare_chores(self) -> Mapping[str, Sweep]:
        return {"payment codes": whenever(self.codes.purge)}

    async def sweep(self) -> int:
        """Ends what has a time, finishes what was begun; returns how many there were."""
        return await self.orders.sweep() + await self.refunds.sweep()


@asynccontextmanager
async def open_merchant_desk(
    payments: Payments,
    rules: MerchantRules,
    *,
    clock: Clock,
    tokens: Tokens,
    resolve: Resolve = resolve,
) -> AsyncIterator[MerchantDesk]:
    """Delivers nothing and sweeps nothing by itself: a sweeper and the notifier do, where they are run."""
    database = payments.till.database
    private_allowed = rules.webhooks_to_private_addresses
    merchants = Merchants(payments.till, clock=clock, tokens=tokens, members_may_open=rules.members_may_open)
    notifier = Notifier(database, merchants, clock=clock, private_allowed=private_allowed, resolve=resolve)
    steps: SharedSteps[Order] = SharedSteps(
        database, merchant_orders, read_row=read_order, values_of=order_values
    )
    async with steps:
        orders = Orders(payments, merchants, steps, clock=clock, on_event=notifier.wake)
        codes = PaymentCodes(database, clock=clock, tokens=tokens)
        yield MerchantDesk(
            payments=payments,
            merchants=merchants,
            keys=ApiKeys(database, clock=clock, tokens=tokens),
            orders=orders,
            codes=codes,
            charges=Charges(
                orders, codes, currencies=payments.currencies, no_pin_max=rules.no_pin_max, clock=clock
            ),
            refunds=MerchantRefunds(payments.till, merchants, clock=clock, on_event=notifier.wake),
            endpoints=Endpoints(
                database, merchants, clock=clock, tokens=tokens, private_allowed=private_allowed
            ),
            notifier=notifier,
        )
