"""Merchants: opened by the operator, or by members where the operator allows it; closed, listed, found.

What each payment asks again and again, who a merchant is and where its events are told, is remembered for a
few seconds. A change made in this process counts at once, one made elsewhere within that time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from appservices.chassis.clock import Clock, Tokens
from appservices.chassis.database import Database
from appservices.vocabulary.ids import TransferId, UserId, derived_id, is_ledger_id
from appservices.vocabulary.money import Money
from wallet_appservice.ledger.values import Account, AccountKind
from wallet_appservice.payments.accounts import merchant_account, user_account
from wallet_appservice.payments.merchants.records import NAME_LENGTH_MAX, EndpointId, Merchant, MerchantId
from wallet_appservice.payments.merchants.refusals import MerchantRefusal, MerchantRefused
from wallet_appservice.payments.merchants.remembered import Remembered
from wallet_appservice.payments.records import Movement, PaymentKind
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.payments.till import Outcome, Till
from wallet_appservice.storage.merchant_tables import merchant_endpoints, merchants

OWNED_MAX: Final = 10
"""Merchants of one owner, closed ones left out."""
LISTED_MAX: Final = 100
SECRET_BYTES: Final = 32


class Merchants:
    """The merchants of one wallet."""

    def __init__(self, till: Till, *, clock: Clock, tokens: Tokens, members_may_open: bool) -> None:
        self.till = till
        self._database: Database = till.database
        self._clock = clock
        self._tokens = tokens
        self._members_may_open = members_may_open
        self._remembered = Remembered(self._look_up, clock=clock)

    async def open(
        self, *, owner: UserId, name: str, id: str | None = None, by_operator: bool = False
    ) -> Merchant | MerchantRefused:
        """Opens a merchant account. The same id, owner and name again is the same merchant."""
        if not by_operator and not self._members_may_open:
            return MerchantRefused.because(MerchantRefusal.BY_OPERATOR)
        name = " ".join(name.split())
        if not name or len(name) > NAME_LENGTH_MAX or not name.isprintable():
            return MerchantRefused.because(MerchantRefusal.NAME_INVALID, length_max=str(NAME_LENGTH_MAX))
        merchant = Merchant(
            id=MerchantId(id or self._tokens.hex()),
            name=name,
            owner=owner,
            order_secret=self._tokens.hex(SECRET_BYTES),
            created_at_ms=self._clock(),
        )
        try:
            async with self._database.begin() as work:
                owned = await work.execute(
                    select(func.count()).where(
                        merchants.c.owner == owner,
                        merchants.c.closed_at_ms.is_(None),
                        merchants.c.id != merchant.id,
                    )
                )
                if owned.scalar_one() >= OWNED_MAX:
                    return MerchantRefused.because(MerchantRefusal.TOO_MANY, count_max=str(OWNED_MAX))
                await work.execute(insert(merchants).values(_values(merchant)))
                await work.commit()
        except IntegrityError:
            there = await self.find(merchant.id)
            if there is not None and (there.owner, there.name) == (owner, name):
                return there
            return MerchantRefused.because(MerchantRefusal.ID_TAKEN)
        return merchant

    async def close(self, id: MerchantId) -> bool:
        """No order of it can be made or paid any more; False when there is no such merchant, or it is closed.

        Its keys still refund and read, and its owner can take out what it holds.
        """
        async with self._database.begin() as work:
            closed = await work.execute(
                update(merchants)
                .where(merchants.c.id == id, merchants.c.closed_at_ms.is_(None))
                .values(closed_at_ms=self._clock())
            )
            await work.commit()
        self.forget(id)
        return closed.rowcount == 1

    async def of_owner(self, owner: UserId) -> list[Merchant]:
        """Those that are not closed, and the closed ones that there is room for; at most LISTED_MAX."""
        query = (
            select(merchants)
            .where(merchants.c.owner == owner)
            .order_by(merchants.c.closed_at_ms.is_not(None), merchants.c.created_at_ms, merchants.c.id)
            .limit(LISTED_MAX)
        )
        async with self._database.read() as work:
            return [_merchant(row) for row in await work.execute(query)]

    async def all(self, *, after: str = "") -> list[Merchant]:
        """A page of LISTED_MAX by id, for the operator."""
        query = select(merchants).order_by(merchants.c.id).limit(LISTED_MAX)
        if after:
            query = query.where(merchants.c.id > after)
        async with self._database.read() as work:
            return [_merchant(row) for row in await work.execute(query)]

    async def owned(self, owner: UserId, id: str) -> Merchant | MerchantRefused:
        """A merchant of this owner's; somebody else's is as one that isn't there."""
        merchant = await self.find(MerchantId(id)) if is_ledger_id(id) else None
        if merchant is None or merchant.owner != owner:
            return MerchantRefused.because(MerchantRefusal.MERCHANT_UNKNOWN)
        return merchant

    async def find(self, id: MerchantId) -> Merchant | None:
        return await self._remembered.get(id)

    def forget(self, id: MerchantId) -> None:
        """To be called when something of it was changed here."""
        self._remembered.forget(id)

    async def _look_up(self, id: str) -> Merchant | None:
        endpoints = (
            select(merchant_endpoints.c.id)
            .where(merchant_endpoints.c.merchant_id == id, merchant_endpoints.c.disabled_at_ms.is_(None))
            .order_by(merchant_endpoints.c.id)
        )
        async with self._database.read() as work:
            row = (await work.execute(select(merchants).where(merchants.c.id == id))).first()
            if row is None:
                return None
            ids = tuple(EndpointId(found.id) for found in await work.execute(endpoints))
        return replace(_merchant(row), endpoint_ids=ids)

    async def accounts(self, merchant: Merchant) -> list[Account]:
        """Its money, by currency; none in a currency that it never got."""
        ids = {merchant_account(merchant.id, merchant.owner, code).id for code in self.till.currencies}
        return [
            account
            for account in await self.till.ledger.accounts_of(merchant.owner)
            if account.kind is AccountKind.MERCHANT and account.id in ids
        ]

    async def pay_out(self, merchant: Merchant, *, money: Money, id: str) -> Outcome:
        """Moves money of the merchant's to its owner's own account. Raises LedgerUnavailable."""
        code = money.currency
        if code not in self.till.currencies:
            return PaymentRefused.because(
                PaymentRefusal.CURRENCY_UNKNOWN, currencies=", ".join(self.till.currencies)
            )
        return await self.till.move(
            Movement(
                id=TransferId(derived_id("payout", merchant.id, id)),
                kind=PaymentKind.PAYOUT,
                payer=merchant.owner,
                payee=merchant.owner,
                money=money,
                debit=merchant_account(merchant.id, merchant.owner, code),
                credit=user_account(merchant.owner, code),
                subject=f"merchant:{merchant.id}",
                merchant=merchant.as_named,
            )
        )


def _values(merchant: Merchant) -> dict[str, Any]:
    return {
        "id": merchant.id,
        "name": merchant.name,
        "owner": merchant.owner,
        "order_secret": merchant.order_secret,
        "created_at_ms": merchant.created_at_ms,
    }


def _merchant(row: Row[Any]) -> Merchant:
    return Merchant(
        id=MerchantId(row.id),
        name=row.name,
        owner=UserId(row.owner),
        order_secret=row.order_secret,
        created_at_ms=row.created_at_ms,
        closed_at_ms=row.closed_at_ms,
    )
