"""What a person, an operator or a program may ask of the wallet: pay, deposit, withdraw, look.

Each way in (chat, page, API, command line) calls these. An order's id makes it safe to ask again: the first
answer is given again and nothing moves twice. What is to be told to others (receipts, replies, the mark that
a command is done) is committed in the ledger's own transaction.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from sqlalchemy import ColumnElement, and_, or_, select, text

from appservices.chassis.clock import system_clock
from appservices.chassis.database import Write
from appservices.vocabulary.ids import ServerName, TransferId, UserId, is_ledger_id, is_user_id, server_of
from appservices.vocabulary.money import Currencies, CurrencyCode, Money, format_minor
from wallet_appservice.ledger.values import AccountKind, NewAccount
from wallet_appservice.payments.accounts import (
    issuance_account,
    merchant_account,
    peer_account,
    user_account,
)
from wallet_appservice.payments.audit import AuditAction, audit_write
from wallet_appservice.payments.limit_rules import OperatorLimits
from wallet_appservice.payments.limits import Admission, Gate, Spending
from wallet_appservice.payments.records import (
    HOLD_SECONDS,
    MEMO_LENGTH_MAX,
    Authority,
    Balance,
    MerchantName,
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

    async def move(self, movement: Movement, *, tell: Tell, admission: Admission | None = None) -> Outcome:
        """Holds the money and asks the wallet of the movement's peer; the record is pending, as a rule.

        Ends the admission, as `Till.move` does. Raises LedgerUnavailable.
        """

    async def ended(self, record: PaymentRecord, *, seconds_max: float) -> PaymentRecord:
        """The record once it is posted or returned, or as it stands when that takes longer."""


class Payments:
    """The wallet's use cases on one ledger."""

    def __init__(
        self,
        till: Till,
        *,
        service_users: frozenset[UserId],
        payment_max: int,
        user_exists: Callable[[UserId], Awaitable[bool]],
        gate: Gate | None = None,
        waits_for_acceptance: Callable[[UserId], Awaitable[bool]] | None = None,
    ) -> None:
        """`payment_max` is in whole units of each currency; without a gate the default limits hold.

        `waits_for_acceptance` says of a payee whether what comes in unasked waits until they accept it.
        """
        self.till = till
        self.currencies: Currencies = till.currencies
        self.wallet_user = till.wallet_user
        self._database = till.database
        self._ledger = till.ledger
        self._service_users = service_users
        self._payment_max = payment_max
        self._user_exists = user_exists
        self.gate = gate or Gate(
            till.database,
            currencies=till.currencies,
            operator=OperatorLimits(payment_max=payment_max),
            clock=system_clock,
        )
        self._waits_for_acceptance = waits_for_acceptance
        self.elsewhere: Elsewhere | None = None
        """How people of other homeservers are paid; None where they can't be."""

    def keys(self) -> dict[str, str]:
        """The public keys that receipts are verified with: key id → unpadded base64."""
        return {self.till.signing_key.key_id: self.till.signing_key.public_base64}

    async def pay(self, order: PaymentOrder, *, tell: Tell = tell_nothing) -> Outcome:
        """Moves money from payer to payee, or says why not. Raises LedgerUnavailable."""
        return await self._carry_out(order, PaymentKind.PAYMENT, tell)

    async def answered(self, outcome: Outcome, *, seconds_max: float) -> Outcome:
        """What was paid, once another wallet has answered; as it stands when that takes longer.

        What does not go to another wallet is given back at once, as it is.
        """
        if self.elsewhere is None or not isinstance(outcome, PaymentRecord) or not outcome.crosses_servers:
            return outcome
        return await self.elsewhere.ended(outcome, seconds_max=seconds_max)

    async def check(self, order: PaymentOrder) -> PaymentRefused | None:
        """What would refuse this payment now, without making it: for a page that asks before it pays.

        CONFIRMATION_NEEDED is answered when nothing else is in the way.
        """
        outcome = await self._judge(order, PaymentKind.PAYMENT)
        if outcome is not None:
            return outcome if isinstance(outcome, PaymentRefused) else None
        refused = await self.gate.refusal(_spending(order))
        if refused is not None and refused.refusal is not PaymentRefusal.CONFIRMATION_NEEDED:
            return refused
        return await self._too_low(order) or refused

    async def is_first(self, order: PaymentOrder) -> bool:
        """Whether the payer has never paid this payee before."""
        query = (
            select(payments.c.position)
            .where(
                payments.c.payer == order.payer,
                payments.c.payee == order.payee,
                payments.c.kind == PaymentKind.PAYMENT.value,
            )
            .limit(1)
        )
        async with self._database.read() as work:
            return (await work.execute(query)).first() is None

    async def _too_low(self, order: PaymentOrder) -> PaymentRefused | None:
        account = await self._ledger.account(user_account(order.payer, order.money.currency).id)
        if account is not None and account.available_minor >= order.money.amount_minor:
            return None
        available = await self._available_text(order.payer, order.money.currency)
        return self._refused(PaymentRefusal.BALANCE_TOO_LOW, order, available=available)

    async def purchase(self, order: PaymentOrder, *, merchant: MerchantName, tell: Tell) -> Outcome:
        """Pays a merchant, whose owner is the order's payee. Raises LedgerUnavailable.

        Whether it was paid before, the merchant's own order says.
        """
        outcome = await self._carry_out(order, PaymentKind.PURCHASE, tell, merchant=merchant)
        if isinstance(outcome, PaymentRefused) and outcome.refusal is PaymentRefusal.BALANCE_TOO_LOW:
            # Not looked up beforehand, because few are told it.
            available = await self._available_text(order.payer, order.money.currency)
            return PaymentRefused.because(outcome.refusal, available=available)
        return outcome

    async def deposit(
        self, *, user: UserId, money: Money, id: TransferId, reference: str = "", by: str = "operator"
    ) -> Outcome:
        """Brings money into circulation that was received outside. `by` is for the audit log."""
        order = PaymentOrder(
            id=id,
            payer=self.wallet_user,
            payee=user,
            money=money,
            memo=reference,
            authority=Authority.OPERATOR,
        )
        return await self._carry_out(
            order,
            PaymentKind.DEPOSIT,
            tell_nothing,
            once=[self._audited(AuditAction.DEPOSIT, order, user, by)],
        )

    async def withdraw(
        self, *, user: UserId, money: Money, id: TransferId, reference: str = "", by: str = "operator"
    ) -> Outcome:
        """Takes money out of circulation that was paid out outside. `by` is for the audit log."""
        order = PaymentOrder(
            id=id,
            payer=user,
            payee=self.wallet_user,
            money=money,
            memo=reference,
            authority=Authority.OPERATOR,
        )
        return await self._carry_out(
            order,
            PaymentKind.WITHDRAWAL,
            tell_nothing,
            once=[self._audited(AuditAction.WITHDRAWAL, order, user, by)],
        )

    def _audited(self, action: AuditAction, order: PaymentOrder, user: UserId, by: str) -> Write:
        return audit_write(
            at_ms=self.gate.now_ms(),
            actor=by,
            action=action,
            subject=user,
            id=order.id,
            amount_minor=str(order.money.amount_minor),
            currency=order.money.currency,
            reference=clean_memo(order.memo),
        )

    def judge_amount(self, money: Money, memo: str = "") -> PaymentRefused | None:
        """Why so much can't be moved at once, whoever is to pay it, or be said with it."""
        currency = self.currencies.get(money.currency)
        if currency is None:
            return self.refused(PaymentRefusal.CURRENCY_UNKNOWN, money)
        if money.amount_minor > self._payment_max * 10**currency.exponent:
            return self.refused(PaymentRefusal.AMOUNT_TOO_LARGE, money)
        if len(clean_memo(memo)) > MEMO_LENGTH_MAX:
            return self.refused(PaymentRefusal.MEMO_TOO_LONG, money)
        return None

    def refused(self, refusal: PaymentRefusal, money: Money, **words: str) -> PaymentRefused:
        """A refusal with the words that its sentence may need of this wallet, and those given."""
        currency = self.currencies.get(money.currency)
        payment_max = format_minor(self._payment_max * 10**currency.exponent, currency) if currency else ""
        own = {
            "server": server_of(self.wallet_user),
            "currencies": ", ".join(self.currencies),
            "payment_max": payment_max,
            "memo_length_max": str(MEMO_LENGTH_MAX),
        }
        return PaymentRefused(refusal, {**own, **words})

    async def can_be_paid(self, user: UserId) -> bool:
        """Whether there is such a person here."""
        return user not in self._service_users and await self._user_exists(user)

    async def balances(self, user: UserId) -> list[Balance]:
        """The user's money, one entry per currency they have an account in; the default one always."""
        accounts = await self._ledger.accounts_of(user)
        # What a merchant of theirs has taken is not theirs until it is paid out.
        by_currency = {account.currency: account for account in accounts if account.kind is AccountKind.USER}
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
            .where(in_history_of(user))
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
        return record if record is not None and user in record.people else None

    async def _carry_out(
        self,
        order: PaymentOrder,
        kind: PaymentKind,
        tell: Tell,
        *,
        once: Sequence[Write] = (),
        merchant: MerchantName | None = None,
    ) -> Outcome:
        outcome = await self._judge(order, kind)
        if outcome is not None:
            return await self.till.tell_alone(outcome, tell)
        admission = None
        if kind in (PaymentKind.PAYMENT, PaymentKind.PURCHASE):
            admitted = await self._admitted(order)
            if isinstance(admitted, PaymentRefused):
                # It may have been made since by the same order, asked for at the same moment.
                return await self.till.tell_alone(await self._earlier(order, kind) or admitted, tell)
            admission = admitted
        peer = server_of(order.payee) if self._is_elsewhere(order.payee) else None
        debit, credit = self._accounts(order, kind, merchant)
        # What somebody asked for themselves they have accepted beforehand.
        is_held = (
            kind is PaymentKind.PAYMENT
            and peer is None
            and not order.subject
            and self._waits_for_acceptance is not None
            and await self._waits_for_acceptance(order.payee)
        )
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
            hold_seconds=HOLD_SECONDS if is_held else None,
            # What a request or an order asks for is paid also when its room is gone.
            needs_room=not order.subject,
            merchant=merchant,
            peer=peer,
        )
        if peer is not None and self.elsewhere is not None:
            return await self.elsewhere.move(movement, tell=tell, admission=admission)
        brief = merchant is not None
        return await self.till.move(movement, tell=tell, admission=admission, once=once, brief=brief)

    async def _admitted(self, order: PaymentOrder) -> Admission | PaymentRefused:
        admitted = await self.gate.admit(_spending(order))
        if isinstance(admitted, PaymentRefused) and (admitted.refusal is PaymentRefusal.CONFIRMATION_NEEDED):
            # Nobody is asked to confirm what they can't pay.
            return await self._too_low(order) or admitted
        return admitted

    async def _judge(self, order: PaymentOrder, kind: PaymentKind) -> Outcome | None:
        """The outcome, where it is known before the ledger is asked: a repetition, or a refusal."""
        if not is_ledger_id(order.id):
            return self._refused(PaymentRefusal.ID_INVALID, order)
        earlier = await self._earlier(order, kind)
        if earlier is not None:
            return earlier
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
        refused = self.judge_amount(order.money, order.memo)
        if refused is not None:
            return refused
        if order.payee == order.payer:
            return self._refused(PaymentRefusal.PAYEE_IS_PAYER, order)
        if self._is_elsewhere(order.payee):
            if (
                kind is PaymentKind.PAYMENT
                and self.elsewhere is not None
                and await self.elsewhere.serves(server_of(order.payee))
            ):
                return None
            return self._refused(PaymentRefusal.PAYEE_ELSEWHERE, order)
        if kind not in (PaymentKind.WITHDRAWAL, PaymentKind.PURCHASE) and not (
            await self.can_be_paid(order.payee)
        ):
            return self._refused(PaymentRefusal.PAYEE_UNKNOWN, order)
        return None

    async def _earlier(self, order: PaymentOrder, kind: PaymentKind) -> Outcome | None:
        """What became of an order of that id; of purchases, which orders find, nothing is said."""
        earlier = None if kind is PaymentKind.PURCHASE else await self.till.record(order.id)
        if earlier is None or _is_same(earlier, order, kind):
            return earlier
        return self._refused(PaymentRefusal.ID_TAKEN, order)

    def _is_elsewhere(self, user: UserId) -> bool:
        return server_of(user) != server_of(self.wallet_user)

    def _accounts(
        self, order: PaymentOrder, kind: PaymentKind, merchant: MerchantName | None
    ) -> tuple[NewAccount, NewAccount]:
        currency = order.money.currency
        if merchant is not None:
            return user_account(order.payer, currency), merchant_account(merchant.id, order.payee, currency)
        if kind is PaymentKind.DEPOSIT:
            return issuance_account(currency), user_account(order.payee, currency)
        if kind is PaymentKind.WITHDRAWAL:
            return user_account(order.payer, currency), issuance_account(currency)
        if self._is_elsewhere(order.payee):
            return user_account(order.payer, currency), peer_account(server_of(order.payee), currency)
        return user_account(order.payer, currency), user_account(order.payee, currency)

    async def _available_text(self, user: UserId, code: CurrencyCode) -> str:
        return await self.till.available_text(user_account(user, code).id, code)

    def _refused(
        self, refusal: PaymentRefusal, order: PaymentOrder, *, available: str = ""
    ) -> PaymentRefused:
        return self.refused(refusal, order.money, payer=order.payer, payee=order.payee, available=available)


def in_history_of(user: UserId) -> ColumnElement[bool]:
    """What the user paid or got as a person, not as the owner of a merchant."""
    # Constants, not parameters: only so does PostgreSQL see that its partial indices fit.
    not_as_payer, not_as_payee = text("merchant_side <> 'payer'"), text("merchant_side <> 'payee'")
    return or_(and_(payments.c.payer == user, not_as_payer), and_(payments.c.payee == user, not_as_payee))


def _spending(order: PaymentOrder) -> Spending:
    return Spending(id=order.id, payer=order.payer, money=order.money, authority=order.authority)


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
