"""Where money of people moves: the one road from a use case to the ledger, whatever the use case is.

A movement's transfer, its row with the signed receipt, the messages that tell of it and what the use case
adds (`tell`) are one database transaction. The movement's id makes it safe to ask again: the first answer is
given again and nothing moves twice. The till judges nothing but what the ledger judges; who may move what,
and when, is the use case's to say before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from sqlalchemy import Row, bindparam, insert, select, update

from appservices.chassis.database import Database, Write
from appservices.chassis.shared_reads import SharedReads
from appservices.vocabulary.ids import AccountId, RoomId, TransferId, UserId, derived_id
from appservices.vocabulary.money import Currencies, CurrencyCode, Money, format_minor
from appservices.vocabulary.signing import SigningKey
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.ledger.submissions import Submission, SubmissionFailed
from wallet_appservice.ledger.values import (
    Transfer,
    TransferCode,
    TransferMode,
    TransferRefusal,
    TransferResult,
    expiry_of,
    posting_of,
    voiding_of,
)
from wallet_appservice.payments.accounts import user_account
from wallet_appservice.payments.limits import Admission
from wallet_appservice.payments.receipts import sign_receipt
from wallet_appservice.payments.records import (
    Ending,
    MerchantName,
    Movement,
    PaymentKind,
    PaymentRecord,
    PaymentState,
    merchant_side,
)
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.storage.payment_tables import payments

Outcome = PaymentRecord | PaymentRefused
Tell = Callable[[Outcome], Sequence[Write]]
"""What a way in adds to the transaction once the outcome is known. It must be quick and not fail; it runs in
its caller's language, perhaps several times, and for a repetition again."""

_INSERT: Final = insert(payments)
_FIND: Final = select(payments).where(payments.c.id.in_(bindparam("of_ids", expanding=True)))
_END: Final = (
    update(payments)
    .where(payments.c.id == bindparam("at_id"), payments.c.state == PaymentState.PENDING.value)
    .values(state=bindparam("new_state"), end_receipt=bindparam("new_receipt"))
)
_CODES: Final = {
    PaymentKind.PAYMENT: TransferCode.PAYMENT,
    PaymentKind.DEPOSIT: TransferCode.DEPOSIT,
    PaymentKind.WITHDRAWAL: TransferCode.WITHDRAWAL,
    PaymentKind.REFUND: TransferCode.REFUND,
    PaymentKind.RED_PACKET: TransferCode.RED_PACKET,
    PaymentKind.SHARE: TransferCode.RED_PACKET,
    PaymentKind.RETURN: TransferCode.RETURN,
    PaymentKind.PURCHASE: TransferCode.PAYMENT,
    PaymentKind.PAYOUT: TransferCode.PAYMENT,
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

        Raises RoomNotShared when the movement needs a room in which payer and wallet are not both.
        """
        ...


class RoomNotShared(Exception):
    """The payer or the wallet is not in the room that a movement names."""


def tell_nothing(_outcome: Outcome) -> Sequence[Write]:
    return ()


@dataclass(frozen=True, slots=True)
class HoldEnd:
    """The end of a pending payment: a transfer for whoever's submission, and what is told of it."""

    record: PaymentRecord
    """As it stands before."""
    transfer: Transfer
    movement: Movement
    state: PaymentState
    """As it stands after."""


@dataclass(frozen=True, slots=True)
class EndedHold:
    """A payment that has ended."""

    record: PaymentRecord
    shown: PaymentRecord
    """The end as a record of its own, for whoever tells of it."""
    write: Write
    """To be committed with the ledger's transfer."""


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
        self._records: SharedReads[TransferId, PaymentRecord] = SharedReads(self._read_records)

    async def move(
        self,
        movement: Movement,
        *,
        tell: Tell = tell_nothing,
        admission: Admission | None = None,
        once: Sequence[Write] = (),
        brief: bool = False,
    ) -> Outcome:
        """Moves the money, or holds it, or says why not. Raises LedgerUnavailable.

        What a person spends has been admitted by the gate (limits.py); the admission ends here. `once` is
        committed with the movement when it is made, and not again for a repetition. `brief` saves the looks
        at the database that are there for words alone: what is available, in a refusal, and the record's
        position. It is for use cases that find their payments by their own rows.
        """
        if admission is None:
            return await self._move(movement, tell, once, brief=brief)
        try:
            outcome = await self._move(movement, tell, (*admission.writes, *once), brief=brief)
        except SubmissionFailed:
            # Another process may have used the day's limit up since this one was admitted.
            overtaken = await admission.overtaken()
            if overtaken is None:
                raise
            return await self.tell_alone(overtaken, tell)
        finally:
            admission.end()
        if isinstance(outcome, PaymentRecord):
            await admission.made()
        return outcome

    async def _move(self, movement: Movement, tell: Tell, once: Sequence[Write], *, brief: bool) -> Outcome:
        try:
            announce = await self._announcer.prepare(movement)
        except RoomNotShared:
            return await self.tell_alone(PaymentRefused.because(PaymentRefusal.ROOM_UNKNOWN), tell)
        available = "" if brief else await self.available_text(movement.debit.id, movement.money.currency)
        outcomes: list[Outcome] = []

        def effects(results: tuple[TransferResult, ...]) -> Sequence[Write]:
            result = results[0]
            outcomes.clear()
            if result.refusal is not None:
                refused = PaymentRefused.because(_REFUSALS[result.refusal], available=available)
                outcomes.append(refused)
                return tell(refused)
            record = self.made(movement, at_ms=result.at_ms)
            outcomes.append(record)
            if result.replayed:
                return tell(record)
            return [insertion_of(record), *once, *announce(record), *tell(record)]

        # The ledger calls from a task of its own, which speaks no language.
        context = copy_context()
        await self.ledger.submit(
            Submission(
                accounts=(movement.debit, movement.credit),
                transfers=(transfer_of(movement),),
                effects=lambda results: context.run(effects, results),
                on_commit=self._on_commit,
            )
        )
        outcome = outcomes[0]
        if isinstance(outcome, PaymentRecord) and not brief:
            return await self.record(movement.id) or outcome
        return outcome

    async def end(self, record: PaymentRecord, ending: Ending, *, tell: Tell = tell_nothing) -> Outcome:
        """Ends a pending payment, once: whoever comes later is told that it waits no more, or, having asked
        for the same, how it ended. Both sides get a receipt of it that names the first one.

        Raises LedgerUnavailable.
        """
        held = await self.ledger.transfer(record.id)
        if held is None or record.state is not PaymentState.PENDING:
            return await self.tell_alone(PaymentRefused.because(PaymentRefusal.HOLD_OVER), tell)
        end = end_of(record, held.transfer, ending)
        announce = await self._announcer.prepare(end.movement)
        outcomes: list[Outcome] = []
        endings: list[list[Write]] = []

        def effects(results: tuple[TransferResult, ...]) -> Sequence[Write]:
            result = results[0]
            outcomes.clear()
            endings.clear()
            if result.refusal is not None:
                outcomes.append(PaymentRefused.because(PaymentRefusal.HOLD_OVER))
                return tell(outcomes[0])
            ended = self.ended(end, at_ms=result.at_ms)
            outcomes.append(ended.record)
            endings.append([ended.write, *announce(ended.shown)])
            told = tell(ended.record)
            return told if result.replayed else [*endings[0], *told]

        context = copy_context()
        (result,) = await self.ledger.submit(
            Submission(
                transfers=(end.transfer,),
                effects=lambda results: context.run(effects, results),
                on_commit=self._on_commit,
            )
        )
        if result.replayed and endings:
            await self._catch_up(endings[0])
        outcome = outcomes[0]
        return outcome if isinstance(outcome, PaymentRefused) else await self.record(record.id) or outcome

    async def record(self, id: TransferId) -> PaymentRecord | None:
        """The payment of that id, whoever made it."""
        return await self._records.get(id)

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

    async def _catch_up(self, writes: Sequence[Write]) -> None:
        """What belongs to an ending that the ledger made by itself, by a sweep that knew no record of it."""
        first, *rest = writes
        async with self.database.begin() as work:
            if (await work.execute(first.statement, first.parameters)).rowcount:
                await work.apply(rest)
                work.after_commit(self._on_commit)
                await work.commit()

    async def _read_records(self, ids: Sequence[TransferId]) -> dict[TransferId, PaymentRecord]:
        async with self.database.read() as work:
            return {TransferId(row.id): record_of(row) for row in await work.execute(_FIND, {"of_ids": ids})}

    def wake(self) -> None:
        """To be called after a commit that may have written outbox rows."""
        self._on_commit()

    def made(self, movement: Movement, *, at_ms: int) -> PaymentRecord:
        """The record of a movement that the ledger has made, with its signed receipt.

        This, `ended` and the functions below are for whoever moves several at once, in a submission of their
        own; everybody else calls `move` and `end`.
        """
        held_ms = None if movement.hold_seconds is None else movement.hold_seconds * 1000
        state = PaymentState.PENDING if movement.is_held else PaymentState.POSTED
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
            merchant=movement.merchant,
            expires_at_ms=None if held_ms is None else at_ms + held_ms,
            receipt=sign_receipt(
                movement, state=state, at_ms=at_ms, wallet=self.wallet_user, key=self.signing_key
            ),
        )

    def ended(self, end: HoldEnd, *, at_ms: int) -> EndedHold:
        """What the ledger has ended, with the receipt of that."""
        receipt = sign_receipt(
            end.movement, state=end.state, at_ms=at_ms, wallet=self.wallet_user, key=self.signing_key
        )
        record = replace(end.record, state=end.state, end_receipt=receipt)
        shown = replace(record, id=end.transfer.id, of=record.id, at_ms=at_ms, receipt=receipt, subject="")
        return EndedHold(record, shown, _end(record, receipt))

    async def available_text(self, account_id: AccountId, code: CurrencyCode) -> str:
        """What an account can spend, for people; "" in a currency that is not kept."""
        account = await self.ledger.account(account_id)
        currency = self.currencies.get(code)
        if currency is None:
            return ""
        return format_minor(account.available_minor if account is not None else 0, currency)


def record_of(row: Row[Any]) -> PaymentRecord:
    """A row of payments as a value."""
    receipt = json.loads(row.receipt)
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
        receipt=receipt,
        subject=row.subject,
        of=TransferId(row.of_id) if row.of_id else None,
        merchant=MerchantName(**receipt["merchant"]) if "merchant" in receipt else None,
        expires_at_ms=row.expires_at_ms,
        end_receipt=json.loads(row.end_receipt) if row.end_receipt else None,
    )


def transfer_of(movement: Movement) -> Transfer:
    """The transfer by which a movement is made."""
    return Transfer(
        id=movement.id,
        debit_account_id=movement.debit.id,
        credit_account_id=movement.credit.id,
        amount_minor=movement.money.amount_minor,
        currency=movement.money.currency,
        code=_CODES[movement.kind] if movement.peer is None else TransferCode.CLEARING,
        mode=TransferMode.PENDING if movement.is_held else TransferMode.SINGLE_PHASE,
        timeout_seconds=movement.hold_seconds,
        reference=_reference(movement),
    )


def _reference(movement: Movement) -> str:
    """Ties all that people see to the transfer, so that its id can't be used again with other content."""
    further: tuple[str, ...] = ()
    if movement.subject or movement.of:
        further = (movement.subject, movement.of or "")
    if movement.merchant is not None:
        further = (*further, movement.merchant.id)
    return derived_id("payment", movement.memo, movement.room_id or "", *further)


def insertion_of(record: PaymentRecord) -> Write:
    """The row by which people find a payment in their history."""
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
            "merchant_id": None if record.merchant is None else record.merchant.id,
            "merchant_side": merchant_side(record.kind, record.merchant).value,
            "expires_at_ms": record.expires_at_ms,
        },
    )


def end_of(record: PaymentRecord, held: Transfer, ending: Ending) -> HoldEnd:
    """How that payment, held by that transfer, is to end."""
    transfer = _ending(held, ending)
    state = PaymentState.POSTED if ending is Ending.ACCEPTED else PaymentState.RETURNED
    return HoldEnd(record, transfer, _of_end(record, transfer.id), state)


def _ending(held: Transfer, ending: Ending) -> Transfer:
    id = TransferId(derived_id("ending", held.id, ending.value))
    if ending is Ending.ACCEPTED:
        return posting_of(held, id=id)
    if ending is Ending.DECLINED:
        return voiding_of(held, id=id)
    return expiry_of(held)


def _of_end(record: PaymentRecord, id: TransferId) -> Movement:
    """The end of a pending payment as people are told of it."""
    return Movement(
        id=id,
        kind=record.kind,
        payer=record.payer,
        payee=record.payee,
        money=record.money,
        debit=user_account(record.payer, record.money.currency),
        credit=user_account(record.payee, record.money.currency),
        memo=record.memo,
        room_id=record.room_id,
        of=record.id,
        needs_room=False,
    )


def _end(record: PaymentRecord, receipt: Mapping[str, Any]) -> Write:
    text = json.dumps(receipt, separators=(",", ":"), sort_keys=True)
    return Write(_END, {"at_id": record.id, "new_state": record.state.value, "new_receipt": text})
