"""What a person, an operator or a program may ask of the wallet: pay, deposit, withdraw, look.

Each way in (chat, page, API, command line) calls these. An order's id makes it safe to ask again: the first
answer is given again and nothing moves twice. What is to be told to others (receipts, replies, the mark that
a command is done) is committed in the ledger's own transaction.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from sqlalchemy import or_, select

from appservices.vocabulary.ids import ServerName, TransferId, UserId, is_ledger_id, is_user_id, server_of
from appservices.vocabulary.money import Currencies, CurrencyCode, Money, format_minor
from wallet_appservice.ledger.values import AccountKind, NewAccount
from wallet_appservice.payments.accounts import issuance_account, user_account
from wallet_appservice.payments.records import (
    MEMO_LENGTH_MAX,
    Authority,
    Balance,
    Movement,
    PaymentKind,
    PaymentOrder,
    PaymentRecord,
    clean_memo,
)
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.payments.till import Outcome, Tell, Till, record_of, tell_nothing
from wallet_appservice.storage.ledger_tables import ledger_accounts
from wallet_appservice.storage.payment_tables import payments

HISTORY_MAX = 100


class Elsewhere(Protocol):
    """Pays people of other homeservers, by way of their wallets."""

    async def serves(self, server: ServerName) -> bool:
        """Whether payments to that server's people are possible at all."""
        ...

    async def pay(self, order: PaymentOrder, kind: PaymentKind, tell: Tell) -> Outcome:
        """Holds the money and asks the payee's wallet; the record is pending. Raises LedgerUnavailable."""
        ...

    async def ended(self, record: PaymentRecord, *, seconds_max: float) -> PaymentRecord:
        """The record once it is posted or returned, or as it stands when that takes longer."""
        ...


class Payments:
    """The wallet's use cases on one ledger."""

    def __init__(
        self,
        till: Till,
        *,
        service_users: frozenset[UserId],
        payment_max: int,
        user_exists: Callable[[UserId], Awaitable[bool]],
    ) -> None:
        """`payment_max` is in whole units of each currency."""
        self.till = till
        self.currencies: Currencies = till.currencies
        self.wallet_user = till.wallet_user
        self._database = till.database
        self._ledger = till.ledger
        self._service_users = service_users
        self._payment_max = payment_max
        self._user_exists = user_exists
        self._elsewhere: Elsewhere | None = None

    def use_elsewhere(self, elsewhere: Elsewhere) -> None:
        """Lets people of other homeservers be paid."""
        self._elsewhere = elsewhere

    def keys(self) -> dict[str, str]:
        """The public keys that receipts are verified with: key id → unpadded base64."""
        return {self.till.signing_key.key_id: self.till.signing_key.public_base64}

    async def pay(self, order: PaymentOrder, *, tell: Tell = tell_nothing) -> Outcome:
        """Moves money from payer to payee, or says why not. Raises LedgerUnavailable."""
        return await self._carry_out(order, PaymentKind.PAYMENT, tell)

    async def pay_and_wait(self, order: PaymentOrder, *, seconds_max: float) -> Outcome:
        """As `pay`, but waits for another wallet's answer; still pending if that takes longer."""
        outcome = await self.pay(order)
        if isinstance(outcome, PaymentRecord) and self._elsewhere is not None:
            return await self._elsewhere.ended(outcome, seconds_max=seconds_max)
        return outcome

    async def check(self, order: PaymentOrder) -> PaymentRefused | None:
        """What would refuse this payment now, without making it: for a page that asks before it pays."""
        outcome = await self._judge(order, PaymentKind.PAYMENT)
        if outcome is not None:
            return outcome if isinstance(outcome, PaymentRefused) else None
        for balance in await self.balances(order.payer):
            if balance.currency == order.money.currency and (
                balance.available_minor >= order.money.amount_minor
            ):
                return None
        available = await self._available_text(order.payer, order.money.currency)
        return self._refused(PaymentRefusal.BALANCE_TOO_LOW, order, available=available)

    async def deposit(self, *, user: UserId, money: Money, id: TransferId, reference: str = "") -> Outcome:
        """Brings money into circulation that the operator has received outside."""
        order = PaymentOrder(
            id=id,
            payer=self.wallet_user,
            payee=user,
            money=money,
            memo=reference,
            authority=Authority.OPERATOR,
        )
        return await self._carry_out(order, PaymentKind.DEPOSIT, tell_nothing)

    async def withdraw(self, *, user: UserId, money: Money, id: TransferId, reference: str = "") -> Outcome:
        """Takes money out of circulation that the operator has paid out outside."""
        order = PaymentOrder(
            id=id,
            payer=user,
            payee=self.wallet_user,
            money=money,
            memo=reference,
            authority=Authority.OPERATOR,
        )
        return await self._carry_out(order, PaymentKind.WITHDRAWAL, tell_nothing)

    async def balances(self, user: UserId) -> list[Balance]:
        """The user's money, one entry per currency they have an account in; the default one always."""
        accounts = await self._ledger.accounts_of(user)
        by_currency = {account.currency: account for account in accounts}
        shown = [
            code for code in self.currencies if code in by_currency or code == self.currencies.default.code
        ]
        return [
            Balance(
                user=user,
                currency=code,
                posted_minor=account.posted_minor if account else 0,
                pending_minor=account.held_minor if account else 0,
            )
            for code in shown
            for account in [by_currency.get(code)]
        ]

    async def all_balances(self) -> list[Balance]:
        """Every user's money, by user and currency, for the operator."""
        query = (
            select(ledger_accounts)
            .where(ledger_accounts.c.kind == AccountKind.USER.value)
            .order_by(ledger_accounts.c.owner, ledger_accounts.c.currency)
        )
        async with self._database.read() as work:
            return [
                Balance(
                    user=UserId(row.owner),
                    currency=CurrencyCode(row.currency),
                    posted_minor=row.credits_posted - row.debits_posted,
                    pending_minor=row.debits_pending,
                )
                for row in await work.execute(query)
            ]

    async def history(self, user: UserId, *, limit: int, before: int | None = None) -> list[PaymentRecord]:
        """The user's payments, newest first, at most HISTORY_MAX; `before` is a record's position."""
        query = (
            select(payments)
            .where(or_(payments.c.payer == user, payments.c.payee == user))
            .order_by(payments.c.position.desc())
            .limit(max(0, min(limit, HISTORY_MAX)))
        )
        if before is not None:
            query = query.where(payments.c.position < before)
        async with self._database.read() as work:
            return [record_of(row) for row in await work.execute(query)]

    async def payment(self, user: UserId, id: TransferId) -> PaymentRecord | None:
        """One payment that the user made or got; None for anybody else's, as for one that isn't there."""
        record = await self.till.record(id)
        return record if record is not None and user in (record.payer, record.payee) else None

    async def _carry_out(self, order: PaymentOrder, kind: PaymentKind, tell: Tell) -> Outcome:
        outcome = await self._judge(order, kind)
        if outcome is not None:
            return await self.till.tell_alone(outcome, tell)
        if self._elsewhere is not None and self._is_elsewhere(order.payee):
            return await self._elsewhere.pay(order, kind, tell)
        debit, credit = self._accounts(order, kind)
        movement = Movement(
            id=order.id,
            kind=kind,
            payer=order.payer,
            payee=order.payee,
            money=order.money,
            debit=debit,
            credit=credit,
            memo=clean_memo(order.memo),
            room_id=order.room_id,
            in_reply_to=order.in_reply_to,
            subject=order.subject,
        )
        return await self.till.move(movement, tell=tell)

    async def _judge(self, order: PaymentOrder, kind: PaymentKind) -> Outcome | None:
        """The outcome, where it is known before the ledger is asked: a repetition, or a refusal."""
        if not is_ledger_id(order.id):
            return self._refused(PaymentRefusal.ID_INVALID, order)
        earlier = await self.till.record(order.id)
        if earlier is not None:
            return (
                earlier if _is_same(earlier, order, kind) else self._refused(PaymentRefusal.ID_TAKEN, order)
            )
        user = order.payee if kind is PaymentKind.DEPOSIT else order.payer
        if not is_user_id(order.payee):
            return self._refused(PaymentRefusal.PAYEE_INVALID, order)
        if server_of(user) != server_of(self.wallet_user):
            return self._refused(PaymentRefusal.PAYER_ELSEWHERE, order)
        if kind is PaymentKind.WITHDRAWAL and not await self._ledger.accounts_of(user):
            # Whoever has an account is known, also when their Matrix account has ended.
            return self._refused(PaymentRefusal.PAYER_UNKNOWN, order)
        if kind is PaymentKind.DEPOSIT and user in self._service_users:
            return self._refused(PaymentRefusal.PAYEE_UNKNOWN, order)
        currency = self.currencies.get(order.money.currency)
        if currency is None:
            return self._refused(PaymentRefusal.CURRENCY_UNKNOWN, order)
        if order.money.amount_minor > self._payment_max * 10**currency.exponent:
            return self._refused(PaymentRefusal.AMOUNT_TOO_LARGE, order)
        if len(clean_memo(order.memo)) > MEMO_LENGTH_MAX:
            return self._refused(PaymentRefusal.MEMO_TOO_LONG, order)
        if order.payee == order.payer:
            return self._refused(PaymentRefusal.PAYEE_IS_PAYER, order)
        if self._is_elsewhere(order.payee):
            if (
                kind is PaymentKind.PAYMENT
                and self._elsewhere is not None
                and await self._elsewhere.serves(server_of(order.payee))
            ):
                return None
            return self._refused(PaymentRefusal.PAYEE_ELSEWHERE, order)
        if kind is not PaymentKind.WITHDRAWAL and (
            order.payee in self._service_users or not await self._user_exists(order.payee)
        ):
            return self._refused(PaymentRefusal.PAYEE_UNKNOWN, order)
        return None

    def _is_elsewhere(self, user: UserId) -> bool:
        return server_of(user) != server_of(self.wallet_user)

    def _accounts(self, order: PaymentOrder, kind: PaymentKind) -> tuple[NewAccount, NewAccount]:
        currency = order.money.currency
        if kind is PaymentKind.DEPOSIT:
            return issuance_account(currency), user_account(order.payee, currency)
        if kind is PaymentKind.WITHDRAWAL:
            return user_account(order.payer, currency), issuance_account(currency)
        return user_account(order.payer, currency), user_account(order.payee, currency)

    async def _available_text(self, user: UserId, code: CurrencyCode) -> str:
        currency = self.currencies[code]
        for balance in await self.balances(user):
            if balance.currency == code:
                return format_minor(balance.available_minor, currency)
        return format_minor(0, currency)

    def _refused(
        self, refusal: PaymentRefusal, order: PaymentOrder, *, available: str = ""
    ) -> PaymentRefused:
        currency = self.currencies.get(order.money.currency)
        payment_max = format_minor(self._payment_max * 10**currency.exponent, currency) if currency else ""
        return PaymentRefused.because(
            refusal,
            server=server_of(self.wallet_user),
            currencies=", ".join(self.currencies),
            payment_max=payment_max,
            memo_length_max=str(MEMO_LENGTH_MAX),
            payer=order.payer,
            payee=order.payee,
            available=available,
        )


def _is_same(earlier: PaymentRecord, order: PaymentOrder, kind: PaymentKind) -> bool:
    return (
        earlier.kind,
        earlier.payer,
        earlier.payee,
        earlier.money,
        earlier.memo,
        earlier.room_id,
        earlier.subject,
    ) == (
        kind,
        order.payer,
        order.payee,
        order.money,
        clean_memo(order.memo),
        order.room_id,
        order.subject,
    )
