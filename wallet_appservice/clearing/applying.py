"""Does what comes over a link: all items of a message, the note that it came, and the answers, in one batch.

A message is judged in order against what is known, and becomes one submission to the ledger: its transfers,
and a function from their results to all writes. The ledger's refusal is final for an id, so the answer to a
prepare never changes. Nothing is credited at or after a prepare's time: if the batch turns out to be too
late, nothing of it is committed and the message is judged again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sqlalchemy import Row, bindparam, insert, select, update

from appservices.chassis.clock import Clock
from appservices.chassis.database import Write
from appservices.chassis.links.feature import ItemsRefused
from appservices.chassis.links.protocol import Item, StopReason
from appservices.chassis.links.storage import item_write
from appservices.chassis.links.switchboard import Switchboard
from appservices.vocabulary.ids import ServerName, TransferId, UserId, derived_id, server_of
from wallet_appservice.clearing.asking import Asking, ClaimedShare, Taken
from wallet_appservice.clearing.items import (
    Answer,
    AskEndItem,
    AskItem,
    ClearingItem,
    Inquire,
    ItemUnreadable,
    PacketRefused,
    Prepare,
    RejectReason,
    Settle,
    Statement,
    read_item,
)
from wallet_appservice.clearing.known_people import KnownPeople
from wallet_appservice.clearing.operator_news import OperatorNews
from wallet_appservice.clearing.packet_answers import PacketAnswers
from wallet_appservice.clearing.paying import (
    CAME_FROM,
    FULFILLED,
    PREPARED,
    REJECTED,
    ClearingAnnouncer,
    ClearingPayments,
    OutgoingPayment,
    outgoing_of,
)
from wallet_appservice.clearing.peers import Peers
from wallet_appservice.clearing.statements import statement_write
from wallet_appservice.ledger.submissions import Submission
from wallet_appservice.ledger.values import (
    NewAccount,
    Transfer,
    TransferCode,
    TransferRefusal,
    TransferResult,
)
from wallet_appservice.payments.accounts import issuance_account, peer_account, user_account
from wallet_appservice.payments.records import (
    MEMO_LENGTH_MAX,
    Ending,
    Movement,
    PaymentKind,
    PaymentRecord,
)
from wallet_appservice.payments.refunds import not_taken_write
from wallet_appservice.payments.till import Till, end_of, insertion_of, record_of, transfer_of
from wallet_appservice.storage.clearing_tables import clearing_in, clearing_out, settlements
from wallet_appservice.storage.payment_tables import payments

ATTEMPTS_MAX: Final = 3
IDS_AT_ONCE_MAX: Final = 500

logger = logging.getLogger(__name__)

_INSERT_IN: Final = insert(clearing_in)
_INSERT_SETTLEMENT: Final = insert(settlements)
_END_OUT: Final = (
    update(clearing_out)
    .where(clearing_out.c.id == bindparam("of_id_"))
    .values(state=bindparam("new_state"), reason=bindparam("new_reason"), ended_at_ms=bindparam("new_at_ms"))
)
_REFUSED: Final = {
    TransferRefusal.BALANCE_TOO_LOW: RejectReason.OVER_LIMIT,
    TransferRefusal.BALANCE_OVERFLOW: RejectReason.PAYEE_FULL,
    TransferRefusal.ID_EXISTS_WITH_DIFFERENT_CONTENT: RejectReason.ID_TAKEN,
    TransferRefusal.ACCOUNT_REFUSED: RejectReason.PAYEE_UNKNOWN,
}


class _TooLate(Exception):
    """The batch came at or after the time of a prepare in it."""


@dataclass(slots=True)
class _Plan:
    """What a message comes to: transfers, and for each the writes that follow from its result."""

    transfers: list[Transfer] = field(default_factory=list)
    outcomes: list[Callable[[TransferResult], Sequence[Write]]] = field(default_factory=list)
    accounts: dict[str, NewAccount] = field(default_factory=dict)
    writes: list[Write] = field(default_factory=list)
    """What follows from no transfer."""
    ended: dict[TransferId, PaymentRecord] = field(default_factory=dict)
    prepared: set[TransferId] = field(default_factory=set)
    """What this message prepares; the ledger's answer is still to come."""
    asked: Taken = field(default_factory=dict)
    claimed: set[tuple[TransferId, UserId]] = field(default_factory=set)
    """Shares of requests that this message pays."""
    packets_refused: set[PacketRefused] = field(default_factory=set)
    changes_shown: bool = False
    """Whether it changes what messages show of requests and red packets."""

    def move(
        self,
        transfer: Transfer,
        outcome: Callable[[TransferResult], Sequence[Write]],
        *accounts: NewAccount,
    ) -> None:
        self.transfers.append(transfer)
        self.outcomes.append(outcome)
        self.accounts.update((account.id, account) for account in accounts)


@dataclass(frozen=True, slots=True)
class _Known:
    """The rows that a message speaks of."""

    answered: dict[TransferId, tuple[str, Answer]]
    """Content and answer of what was prepared here before."""
    asked: dict[TransferId, OutgoingPayment]
    """Payments of ours that it answers."""
    records: dict[TransferId, PaymentRecord]
    """The same as people see them."""


class ClearingDesk:
    """What the wallet does with its links: their LinkFeature."""

    def __init__(
        self,
        till: Till,
        *,
        peers: Peers,
        announcer: ClearingAnnouncer,
        people: KnownPeople,
        payment_max: int,
        operators: OperatorNews,
        clock: Clock,
    ) -> None:
        self._till = till
        self._peers = peers
        self._announcer = announcer
        self._people = people
        self._payment_max = payment_max
        self._operators = operators
        self._clock = clock
        self.on_received: Callable[[], None] = _nothing
        """To be called when payees may have to be told."""
        self.on_shown: Callable[[], None] = _nothing
        """To be called when what messages show of requests and red packets may have changed."""
        self._switchboard: Switchboard | None = None
        self._paying: ClearingPayments | None = None
        self._asking: Asking | None = None
        self._packet_answers: PacketAnswers | None = None

    def connect(
        self,
        switchboard: Switchboard,
        paying: ClearingPayments,
        asking: Asking,
        packet_answers: PacketAnswers,
    ) -> None:
        """The parts that need this one too; before anything comes."""
        self._switchboard = switchboard
        self._paying = paying
        self._asking = asking
        self._packet_answers = packet_answers

    async def allows(self, peer: UserId) -> bool:
        return await self._peers.allows(peer)

    async def stopped(self, peer: UserId, reason: StopReason, detail: str) -> Sequence[Write]:
        return await self._operators.link_stopped(peer, reason, detail)

    async def mended(self, peer: UserId) -> Sequence[Write]:
        """Everything under way is asked about again."""
        query = (
            select(clearing_out.c.id)
            .where(clearing_out.c.server == server_of(peer), clearing_out.c.state == PREPARED)
            .order_by(clearing_out.c.created_at_ms)
        )
        async with self._till.database.read() as work:
            rows = (await work.execute(query)).all()
        return [item_write(peer, Inquire(id=TransferId(row.id)).item()) for row in rows]

    async def apply(self, peer: UserId, items: Sequence[Item], received: Sequence[Write]) -> None:
        try:
            read = [read_item(item) for item in items]
        except ItemUnreadable as problem:
            raise ItemsRefused(StopReason.UNREADABLE, str(problem)) from problem
        for attempt in range(ATTEMPTS_MAX):
            try:
                await self._apply(peer, read, received)
                return
            except _TooLate:
                if attempt + 1 == ATTEMPTS_MAX:
                    raise

    async def _apply(self, peer: UserId, items: Sequence[ClearingItem], received: Sequence[Write]) -> None:
        known = await self._known(server_of(peer), items)
        ending = [
            known.asked[item.id]
            for item in items
            if isinstance(item, Answer) and item.id in known.asked and known.asked[item.id].state == PREPARED
        ]
        announce = await self._announcer.outgoing(ending)
        plan = _Plan(writes=list(received))
        for item in items:
            plan.changes_shown |= isinstance(item, AskItem | AskEndItem)
            if isinstance(item, Prepare):
                await self._prepare(plan, peer, item, known)
            elif isinstance(item, Answer):
                self._answered(plan, item, known, announce)
            elif isinstance(item, Inquire):
                self._inquired(plan, peer, item, known)
            elif isinstance(item, AskItem):
                plan.writes += await self._requests.came(peer, item, plan.asked)
            elif isinstance(item, AskEndItem):
                plan.writes += await self._requests.end_came(peer, item, plan.asked)
            elif isinstance(item, PacketRefused):
                if item not in plan.packets_refused:
                    plan.packets_refused.add(item)
                    plan.writes += await self._packets.came(item)
            elif isinstance(item, Statement):
                plan.writes.append(statement_write(server_of(peer), item, ours=False, at_ms=self._clock()))
            elif isinstance(item, Settle):
                self._settled(plan, server_of(peer), item)
        await self._commit(plan, peer)

    async def _commit(self, plan: _Plan, peer: UserId) -> None:
        def effects(results: tuple[TransferResult, ...]) -> Sequence[Write]:
            writes = list(plan.writes)
            for outcome, result in zip(plan.outcomes, results, strict=True):
                writes.extend(outcome(result))
            return writes

        def on_commit() -> None:
            self._till.wake()
            if self._switchboard is not None and self._paying is not None:
                self._switchboard.wake(peer)
                self._paying.note_ended(list(plan.ended.values()))
            self.on_received()
            if plan.changes_shown:
                self.on_shown()

        await self._till.ledger.submit(
            Submission(
                accounts=tuple(plan.accounts.values()),
                transfers=tuple(plan.transfers),
                effects=effects,
                on_commit=on_commit,
            )
        )

    # Where our people are paid.

    async def _prepare(self, plan: _Plan, peer: UserId, item: Prepare, known: _Known) -> None:
        server = server_of(peer)
        earlier = known.answered.get(item.id)
        if earlier is not None:
            content, answer = earlier
            if content not in ("", item.content):
                raise ItemsRefused(StopReason.ANSWERED_TWICE, f"prepare {item.id} came with other content")
            if item.id not in plan.prepared:
                plan.writes.append(item_write(peer, answer.item()))
            return
        reason = await self._refusal(server, item)
        claimed = None
        if reason is None and item.request is not None:
            taken = await self._requests.claim(server, item)
            if isinstance(taken, ClaimedShare):
                claimed = taken
            else:
                reason = taken
        if claimed is not None and claimed.key in plan.claimed:
            reason, claimed = RejectReason.REQUEST_OVER, None
        if reason is not None:
            answer = Answer(id=item.id, fulfilled=False, reason=reason.value)
            known.answered[item.id] = (item.content, answer)
            plan.writes.extend(self._answer_writes(peer, item, answer, at_ms=self._clock()))
            return
        if claimed is not None:
            plan.claimed.add(claimed.key)
            plan.changes_shown = True
        # A repetition in the same message is answered by this one's answer.
        plan.prepared.add(item.id)
        known.answered[item.id] = (item.content, Answer(id=item.id, fulfilled=True))
        currency = item.money.currency
        movement = Movement(
            id=incoming_id(server, item.id),
            kind=PaymentKind(item.payment_kind),
            payer=item.payer,
            payee=item.payee,
            money=item.money,
            debit=peer_account(server, currency),
            credit=user_account(item.payee, currency),
            memo=item.memo,
            room_id=item.room_id,
            subject=f"{CAME_FROM}{item.id}",
            of=item.of,
            peer=server,
        )

        def outcome(result: TransferResult) -> Sequence[Write]:
            if result.refusal is not None:
                refused = _REFUSED[result.refusal]
                answer = Answer(id=item.id, fulfilled=False, reason=refused.value)
                reopened = claimed.settled(is_paid=False, now_ms=result.at_ms) if claimed else ()
                return [*self._answer_writes(peer, item, answer, at_ms=result.at_ms), *reopened]
            if result.at_ms >= item.expires_at_ms:
                raise _TooLate
            record = self._till.made(movement, at_ms=result.at_ms)
            return [
                *self._answer_writes(
                    peer,
                    item,
                    Answer(id=item.id, fulfilled=True),
                    at_ms=result.at_ms,
                    untold=record.id if item.room_id is None else None,
                ),
                insertion_of(record),
                *(claimed.settled(is_paid=True, now_ms=result.at_ms) if claimed else ()),
            ]

        plan.move(transfer_of(movement), outcome, movement.debit, movement.credit)

    async def _refusal(self, server: ServerName, item: Prepare) -> RejectReason | None:
        currency = self._till.currencies.get(item.money.currency)
        if await self._peers.wallet_of(server) is None:
            return RejectReason.NOT_A_PEER
        if item.further:
            return RejectReason.UNSUPPORTED
        if currency is None:
            return RejectReason.CURRENCY_UNKNOWN
        if item.money.amount_minor > self._payment_max * 10**currency.exponent:
            return RejectReason.AMOUNT_TOO_LARGE
        if len(item.memo) > MEMO_LENGTH_MAX or any(not mark.isprintable() for mark in item.memo):
            return RejectReason.MEMO_TOO_LONG
        is_share = item.payment_kind == PaymentKind.SHARE.value
        if server_of(item.payer) != server or (is_share and not await self._peers.allows(item.payer)):
            return RejectReason.PAYER_ELSEWHERE
        if not self._people.are_here(item.payee):
            return RejectReason.PAYEE_ELSEWHERE
        if not await self._people.includes(item.payee):
            return RejectReason.PAYEE_UNKNOWN
        if self._clock() >= item.expires_at_ms:
            return RejectReason.EXPIRED
        return None

    def _answer_writes(
        self,
        peer: UserId,
        item: Prepare | Inquire,
        answer: Answer,
        *,
        at_ms: int,
        untold: TransferId | None = None,
    ) -> list[Write]:
        """The answer as it stands for ever, and as it is sent."""
        prepared = item if isinstance(item, Prepare) else None
        row = {
            "server": server_of(peer),
            "id": item.id,
            "content": prepared.content if prepared else "",
            "answer": FULFILLED if answer.fulfilled else REJECTED,
            "reason": answer.reason,
            "amount_minor": prepared.money.amount_minor if prepared else 0,
            "currency": prepared.money.currency if prepared else "",
            "expires_at_ms": prepared.expires_at_ms if prepared else 0,
            "at_ms": at_ms,
            "untold_payment_id": untold,
        }
        return [Write(_INSERT_IN, row), item_write(peer, answer.item())]

    def _inquired(self, plan: _Plan, peer: UserId, item: Inquire, known: _Known) -> None:
        earlier = known.answered.get(item.id)
        if earlier is not None:
            if item.id not in plan.prepared:
                plan.writes.append(item_write(peer, earlier[1].item()))
            return
        # Items come in order, so what has not come before is never credited: now it can't be any more.
        answer = Answer(id=item.id, fulfilled=False, reason=RejectReason.UNKNOWN.value)
        known.answered[item.id] = ("", answer)
        plan.writes.extend(self._answer_writes(peer, item, answer, at_ms=self._clock()))

    # Where our people pay.

    def _answered(
        self, plan: _Plan, item: Answer, known: _Known, announce: Callable[..., Sequence[Write]]
    ) -> None:
        payment = known.asked.get(item.id)
        if payment is None:
            raise ItemsRefused(StopReason.ANSWER_UNKNOWN, f"an answer to {item.id}, which was never prepared")
        state = FULFILLED if item.fulfilled else REJECTED
        if payment.state != PREPARED:
            if payment.state != state:
                raise ItemsRefused(StopReason.ANSWERED_TWICE, f"{item.id} was {payment.state}, now {state}")
            return
        known.asked[item.id] = _ended(payment, state)
        ending = Ending.ACCEPTED if item.fulfilled else Ending.DECLINED
        end = end_of(known.records[item.id], payment.held, ending)

        def outcome(result: TransferResult) -> Sequence[Write]:
            if result.refusal is not None:
                raise RuntimeError(f"held payment {payment.id} can't be ended: {result.refusal.value}")
            answered = {
                "of_id_": payment.id,
                "new_state": state,
                "new_reason": item.reason,
                "new_at_ms": result.at_ms,
            }
            ended = self._till.ended(end, at_ms=result.at_ms)
            plan.ended[payment.id] = ended.record
            told = announce(_ended(payment, state, reason=item.reason), ended.shown)
            share = self._requests.answered(
                payment.subject,
                payment.payer,
                is_paid=item.fulfilled,
                reason=item.reason,
                now_ms=result.at_ms,
            )
            packet = self._packets.answered(payment, is_paid=item.fulfilled)
            plan.changes_shown |= bool(share or packet)
            writes = [Write(_END_OUT, answered), ended.write, *told, *share, *packet]
            if payment.kind is PaymentKind.REFUND and not item.fulfilled:
                writes.append(not_taken_write(payment.id, now_ms=result.at_ms))
            return writes

        plan.move(end.transfer, outcome)

    def _settled(self, plan: _Plan, server: ServerName, item: Settle) -> None:
        """The peer's operator has got money from ours: we owe so much less."""
        currency = item.money.currency
        if currency not in self._till.currencies:
            raise ItemsRefused(StopReason.UNREADABLE, f"a settlement in {currency}, which we don't keep")
        transfer = Transfer(
            id=TransferId(derived_id("settlement in", server, item.id)),
            debit_account_id=peer_account(server, currency).id,
            credit_account_id=issuance_account(currency).id,
            amount_minor=item.money.amount_minor,
            currency=currency,
            code=TransferCode.SETTLEMENT,
            reference=item.id,
        )

        def outcome(result: TransferResult) -> Sequence[Write]:
            if result.refusal is not None:
                raise ItemsRefused(
                    StopReason.BALANCES_DIFFER, f"settlement {item.id}: {result.refusal.value}"
                )
            if result.replayed:
                return []
            return [settlement_write(server, item, direction="out", at_ms=result.at_ms)]

        plan.move(transfer, outcome, peer_account(server, currency), issuance_account(currency))

    @property
    def _requests(self) -> Asking:
        assert self._asking is not None
        return self._asking

    @property
    def _packets(self) -> PacketAnswers:
        assert self._packet_answers is not None
        return self._packet_answers

    # Reading.

    async def _known(self, server: ServerName, items: Sequence[ClearingItem]) -> _Known:
        prepared = [item.id for item in items if isinstance(item, Prepare | Inquire)]
        answers = [item.id for item in items if isinstance(item, Answer)]
        answered: dict[TransferId, tuple[str, Answer]] = {}
        asked: dict[TransferId, OutgoingPayment] = {}
        records: dict[TransferId, PaymentRecord] = {}
        async with self._till.database.read() as work:
            for ids in _pages(prepared):
                rows = await work.execute(
                    select(clearing_in).where(clearing_in.c.server == server, clearing_in.c.id.in_(ids))
                )
                answered.update((TransferId(row.id), (row.content, _answer_of(row))) for row in rows)
            for ids in _pages(answers):
                rows = await work.execute(
                    select(clearing_out).where(clearing_out.c.server == server, clearing_out.c.id.in_(ids))
                )
                asked.update((TransferId(row.id), outgoing_of(row)) for row in rows)
                rows = await work.execute(select(payments).where(payments.c.id.in_(list(asked))))
                records.update((TransferId(row.id), record_of(row)) for row in rows)
        return _Known(answered, asked, records)


def incoming_id(server: ServerName, id: TransferId) -> TransferId:
    """Our id of a payment that the other server's wallet knows by that one."""
    return TransferId(derived_id("clearing", server, id))


def settlement_write(server: ServerName, item: Settle, *, direction: str, at_ms: int) -> Write:
    return Write(
        _INSERT_SETTLEMENT,
        {
            "id": derived_id("settlement", direction, server, item.id),
            "server": server,
            "direction": direction,
            "amount_minor": item.money.amount_minor,
            "currency": item.money.currency,
            "reference": item.reference,
            "at_ms": at_ms,
        },
    )


def _answer_of(row: Row[Any]) -> Answer:
    return Answer(id=TransferId(row.id), fulfilled=row.answer == FULFILLED, reason=row.reason)


def _ended(payment: OutgoingPayment, state: str, *, reason: str = "") -> OutgoingPayment:
    return replace(payment, state=state, reason=reason)


def _nothing() -> None:
    return None


def _pages(ids: Sequence[TransferId]) -> list[Sequence[TransferId]]:
    return [ids[start : start + IDS_AT_ONCE_MAX] for start in range(0, len(ids), IDS_AT_ONCE_MAX)]
