"""Where money of people moves: the one road from a use case to the ledger, whatever the use case is.

A movement's transfer, its row with the signed receipt, the messages that tell of it and what the use case
adds (`tell`) are one database transaction. The movement's id makes it safe to ask again: the first answer is
given again and nothing moves twice. The till judges nothing but what the ledger judges; who may move what,
and when, is the use case's to say before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Any, Final, Protocol

from sqlalchemy import Row, insert, select

from appservices.chassis.database import Database, Write
from appservices.chassis.gathered_reads import GatheredReads
from appservices.vocabulary.ids import RoomId, TransferId, UserId, derived_id
from appservices.vocabulary.money import Currencies, CurrencyCode, Money, format_minor
from appservices.vocabulary.signing import SigningKey
from wallet_appservice.ledger.engine import Ledger, Submission
from wallet_appservice.ledger.values import (
    Transfer,
    TransferCode,
    TransferMode,
    TransferRefusal,
    TransferResult,
)
from wallet_appservice.payments.receipts import sign_receipt
from wallet_appservice.payments.records import Movement, PaymentKind, PaymentRecord, PaymentState
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.storage.payment_tables import payments

Outcome = PaymentRecord | PaymentRefused
Tell = Callable[[Outcome], Sequence[Write]]
"""What a way in adds to the transaction once the outcome is known. It must be quick and not fail; it runs in
its caller's language, perhaps several times, and for a repetition again."""

_INSERT: Final = insert(payments)
_CODES: Final = {
    PaymentKind.PAYMENT: TransferCode.PAYMENT,
    PaymentKind.DEPOSIT: TransferCode.DEPOSIT,
    PaymentKind.WITHDRAWAL: TransferCode.WITHDRAWAL,
    PaymentKind.REFUND: TransferCode.REFUND,
    PaymentKind.RED_PACKET: TransferCode.RED_PACKET,
    PaymentKind.SHARE: TransferCode.RED_PACKET,
    PaymentKind.RETURN: TransferCode.RETURN,
}
# Any other refusal of the ledger is a bug of ours.
_REFUSALS: Final = {
    TransferRefusal.BALANCE_TOO_LOW: PaymentRefusal.BALANCE_TOO_LOW,
    TransferRefusal.ID_EXISTS_WITH_DIFFERENT_CONTENT: PaymentRefusal.ID_TAKEN,
    TransferRefusal.BALANCE_OVERFLOW: PaymentRefusal.ACCOUNT_FULL,
}


class Announcer(Protocol):
    """Tells people of a payment, in rooms."""

    async def prepare(self, movement: Movement) -> Callable[[PaymentRecord], Sequence[Write]]:
        """Looks up what the receipt's sentence needs; the result makes the outbox rows.

        Raises RoomNotShared when the movement names a room in which payer and wallet are not both.
        """
        ...


class RoomNotShared(Exception):
    """The payer or the wallet is not in the room that a movement names."""


def tell_nothing(_outcome: Outcome) -> Sequence[Write]:
    return ()


class Till:
    """One wallet's till. Several use cases share it."""

    def __init__(
        self,
        *,
        database: Database,
        ledger: Ledger[Write],
        wallet_user: UserId,
        signing_key: SigningKey,
        currencies: Currencies,
        announcer: Announcer,
        on_commit: Callable[[], None],
    ) -> None:
        """`on_commit` wakes the outbox."""
        self.database = database
        self.ledger = ledger
        self.wallet_user = wallet_user
        self.signing_key = signing_key
        self.currencies = currencies
        self._announcer = announcer
        self._on_commit = on_commit
        self._records: GatheredReads[TransferId, PaymentRecord] = GatheredReads(self._read_records)

    async def move(self, movement: Movement, *, tell: Tell = tell_nothing) -> Outcome:
        """Moves the money, or holds it, or says why not. Raises LedgerUnavailable."""
        try:
            announce = await self._announcer.prepare(movement)
        except RoomNotShared:
            return await self.tell_alone(PaymentRefused.because(PaymentRefusal.ROOM_UNKNOWN), tell)
        available = await self._available_text(movement)
        outcomes: list[Outcome] = []

        def effects(results: tuple[TransferResult, ...]) -> Sequence[Write]:
            result = results[0]
            outcomes.clear()
            if result.refusal is not None:
                refused = PaymentRefused.because(_REFUSALS[result.refusal], available=available)
                outcomes.append(refused)
                return tell(refused)
            record = self._made(movement, at_ms=result.at_ms)
            outcomes.append(record)
            if result.replayed:
                return tell(record)
            return [_insertion(record), *announce(record), *tell(record)]

        # The ledger calls from a task of its own, which speaks no language.
        context = copy_context()
        await self.ledger.submit(
            Submission(
                accounts=(movement.debit, movement.credit),
                transfers=(_transfer(movement),),
                effects=lambda results: context.run(effects, results),
                on_commit=self._on_commit,
            )
        )
        outcome = outcomes[0]
        if isinstance(outcome, PaymentRecord):
            return await self.record(movement.id) or outcome
        return outcome

    def wake(self) -> None:
        """Wakes the outbox, after a commit that may have left something to send."""
        self._on_commit()

    async def record(self, id: TransferId) -> PaymentRecord | None:
        """The payment of that id, whoever made it."""
        return await self._records.get(id)

    async def _read_records(self, ids: Sequence[TransferId]) -> dict[TransferId, PaymentRecord]:
        async with self.database.read() as work:
            rows = await work.execute(select(payments).where(payments.c.id.in_(ids)))
            return {TransferId(row.id): record_of(row) for row in rows}

    async def tell_alone(self, outcome: Outcome, tell: Tell) -> Outcome:
        """Commits what there is to tell where no money moves."""
        await self.write(tell(outcome))
        return outcome

    async def write(self, writes: Sequence[Write]) -> None:
        """Commits writes that go with no transfer."""
        if writes:
            async with self.database.begin() as work:
                await work.apply(writes)
                work.after_commit(self._on_commit)
                await work.commit()

    def _made(self, movement: Movement, *, at_ms: int) -> PaymentRecord:
        state = PaymentState.POSTED if movement.hold_seconds is None else PaymentState.PENDING
        return PaymentRecord(
            id=movement.id,
            position=0,
            kind=movement.kind,
            state=state,
            payer=movement.payer,
            payee=movement.payee,
            money=movement.money,
            memo=movement.memo,
            at_ms=at_ms,
            room_id=movement.room_id,
            subject=movement.subject,
            of=movement.of,
            receipt=sign_receipt(
                movement, state=state, at_ms=at_ms, wallet=self.wallet_user, key=self.signing_key
            ),
        )

    async def _available_text(self, movement: Movement) -> str:
        account = await self.ledger.account(movement.debit.id)
        currency = self.currencies.get(movement.money.currency)
        if currency is None:
            return ""
        return format_minor(account.available_minor if account is not None else 0, currency)


def record_of(row: Row[Any]) -> PaymentRecord:
    """A row of payments as a value."""
    return PaymentRecord(
        id=TransferId(row.id),
        position=row.position,
        kind=PaymentKind(row.kind),
        state=PaymentState(row.state),
        payer=UserId(row.payer),
        payee=UserId(row.payee),
        money=Money(row.amount_minor, CurrencyCode(row.currency)),
        memo=row.memo,
        at_ms=row.at_ms,
        room_id=RoomId(row.room_id) if row.room_id else None,
        receipt=json.loads(row.receipt),
        subject=row.subject,
        of=TransferId(row.of_id) if row.of_id else None,
    )


def _transfer(movement: Movement) -> Transfer:
    held = movement.hold_seconds is not None
    return Transfer(
        id=movement.id,
        debit_account_id=movement.debit.id,
        credit_account_id=movement.credit.id,
        amount_minor=movement.money.amount_minor,
        currency=movement.money.currency,
        code=_CODES[movement.kind],
        mode=TransferMode.PENDING if held else TransferMode.SINGLE_PHASE,
        timeout_seconds=movement.hold_seconds,
        reference=_reference(movement),
    )


def _reference(movement: Movement) -> str:
    """Ties all that people see to the transfer, so that its id can't be used again with other content."""
    further = (movement.subject, movement.of or "") if movement.subject or movement.of else ()
    return derived_id("payment", movement.memo, movement.room_id or "", *further)


def _insertion(record: PaymentRecord) -> Write:
    return Write(
        _INSERT,
        {
            "id": record.id,
            "kind": record.kind.value,
            "state": record.state.value,
            "payer": record.payer,
            "payee": record.payee,
            "amount_minor": record.money.amount_minor,
            "currency": record.money.currency,
            "memo": record.memo,
            "room_id": record.room_id,
            "at_ms": record.at_ms,
            "receipt": json.dumps(record.receipt, separators=(",", ":"), sort_keys=True),
            "subject": record.subject,
            "of_id": record.of,
        },
    )
