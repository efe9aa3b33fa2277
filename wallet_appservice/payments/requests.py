"""Requests for money: ask one person or several, pay, decline, take back, and the end of their time.

A share is claimed before it is paid (docs/decisions/0007): a step that was begun and left is finished by
`sweep`. What a request's message shows follows its rows and is renewed by `sweep` too, so a crash after a
change leaves no message behind for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Protocol

from sqlalchemy.exc import IntegrityError

from appservices.chassis.chosen_languages import LanguageOf, english_for_all
from appservices.chassis.clock import Clock
from appservices.chassis.database import Write
from appservices.vocabulary.ids import (
    EventId,
    RoomId,
    ServerName,
    TransferId,
    UserId,
    is_ledger_id,
    is_user_id,
    server_of,
)
from appservices.vocabulary.languages import speaking
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.records import Authority, PaymentOrder, PaymentRecord, PaymentState
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.payments.request_records import (
    OPEN_REQUESTS_MAX,
    SPLIT_PEOPLE_MAX,
    Request,
    RequestOrder,
    RequestShare,
    ShareState,
    equal_shares,
    is_same,
    new_request,
)
from wallet_appservice.payments.request_rows import insertions, read_request
from wallet_appservice.payments.sweeper import each
from wallet_appservice.payments.till import Outcome, RoomNotShared, Tell, tell_nothing
from wallet_appservice.storage import request_store as store

STEP_MS_MAX: Final = 30_000
"""How long a step may take before somebody else finishes it."""
SWEEP_PAGE: Final = 100

logger = logging.getLogger(__name__)

Asked = Request | PaymentRefused
TellAsked = Callable[[Asked], Sequence[Write]]


class RequestTeller(Protocol):
    """Writes to people of requests. Its methods look names up first; what they give is to be committed."""

    async def presence(self, room_id: RoomId, requester: UserId) -> frozenset[UserId]:
        """Who is in the room. Raises RoomNotShared when the requester or the wallet is not."""
        ...

    async def asked(self, request: Request, *, in_reply_to: EventId | None) -> Sequence[Write]:
        """The request's message, wherever it goes."""
        ...

    async def shown(self, request: Request) -> Sequence[Write]:
        """New versions of these messages."""
        ...

    async def ended(self, request: Request, shares: Sequence[RequestShare]) -> Sequence[Write]:
        """Tells those concerned that these shares have ended otherwise than by payment."""
        ...

    async def reminded(self, request: Request) -> Sequence[Write]: ...


class RequestsElsewhere(Protocol):
    """Asks people of other homeservers, by way of their wallets. What its methods give is to be committed
    with what they tell of; then `wake`."""

    async def serves(self, server: ServerName) -> bool:
        """Whether people of that server can be asked at all."""
        ...

    async def asked(self, request: Request) -> Sequence[Write]:
        """Whoever of other servers has a share is to be told."""
        ...

    async def ended(self, request: Request, shares: Sequence[RequestShare]) -> Sequence[Write]:
        """Other wallets are to be told that these shares have ended here, otherwise than by payment."""
        ...

    def wake(self) -> None: ...


def tell_nobody(_asked: Asked) -> Sequence[Write]:
    return ()


class Requests:
    """The requests of one wallet."""

    def __init__(
        self,
        payments: Payments,
        *,
        teller: RequestTeller,
        clock: Clock,
        on_change: Callable[[], None],
        language_of: LanguageOf = english_for_all,
    ) -> None:
        """`on_change` wakes whoever calls `sweep`."""
        self._payments = payments
        self._till = payments.till
        self._database = payments.till.database
        self._teller = teller
        self._clock = clock
        self._on_change = on_change
        self._language_of = language_of
        self.elsewhere: RequestsElsewhere | None = None
        """How people of other homeservers are asked; None where they can't be."""

    async def ask(self, order: RequestOrder, *, tell: TellAsked = tell_nobody) -> Asked:
        """Makes the request and tells those asked, or says why not."""
        asked = await self._earlier(order) or await self._judge(order)
        if asked is None:
            try:
                present = await self._presence(order)
            except RoomNotShared:
                asked = PaymentRefused.because(PaymentRefusal.ROOM_UNKNOWN)
        if asked is not None:
            await self._till.write(tell(asked))
            return asked
        # A program's call speaks English; the request is its requester's.
        with speaking(await self._language_of(order.requester)):
            request = new_request(order, present=present, now_ms=self._clock())
        writes = [
            *insertions(request),
            *await self._teller.asked(request, in_reply_to=order.in_reply_to),
            *(await self.elsewhere.asked(request) if self.elsewhere is not None else ()),
            *tell(request),
        ]
        try:
            await self._till.write(writes)
            self._wake_elsewhere()
        except IntegrityError:
            # Somebody made it at the same moment.
            earlier = await self._earlier(order)
            if earlier is None:
                raise
            await self._till.write(tell(earlier))
            return earlier
        return request

    async def request(self, user: UserId, id: TransferId) -> Request | None:
        """A request that the user made or is asked by; None for anybody else's."""
        request = await self._read(id)
        if request is None or not (request.requester == user or request.share_of(user)):
            return None
        return request

    async def pay(
        self, user: UserId, id: TransferId, *, authority: Authority, tell: Tell = tell_nothing
    ) -> Outcome:
        """Pays the user's share. Raises LedgerUnavailable; asking again is safe then."""
        refusal = None
        async with self._database.begin() as work:
            await store.lock(work, id)
            request = await read_request(work, id)
            share = request.share_of(user) if request is not None else None
            if request is None or share is None:
                refusal = PaymentRefusal.REQUEST_UNKNOWN
            elif share.state is ShareState.OPEN and self._clock() < request.expires_at_ms:
                await store.claim(work, id, user, authority=authority.value, now_ms=self._clock())
                share = replace(
                    share, state=ShareState.PAYING, attempt=share.attempt + 1, authority=authority
                )
                await work.commit()
            elif share.state not in (ShareState.PAYING, ShareState.PAID):
                refusal = PaymentRefusal.REQUEST_OVER
        if request is None or share is None or refusal is not None:
            return await self._till.tell_alone(PaymentRefused.because(refusal or _UNKNOWN), tell)
        if share.state is ShareState.PAID:
            record = await self._till.record(request.payment_id(share))
            return await self._till.tell_alone(record or PaymentRefused.because(_UNKNOWN), tell)
        return await self._move(request, share, tell=tell)

    async def decline(self, user: UserId, id: TransferId, *, tell: TellAsked = tell_nobody) -> Asked:
        """Ends the user's own share without payment."""
        request = await self._read(id)
        if request is None or request.share_of(user) is None:
            return await self._tell_refused(PaymentRefusal.REQUEST_UNKNOWN, tell)
        return await self._close(request, ShareState.DECLINED, asked=user, tell=tell)

    async def cancel(self, user: UserId, id: TransferId, *, tell: TellAsked = tell_nobody) -> Asked:
        """Takes back what nobody has paid yet of a request of the user's own."""
        request = await self._read(id)
        if request is None or request.requester != user:
            return await self._tell_refused(PaymentRefusal.REQUEST_UNKNOWN, tell)
        return await self._close(request, ShareState.CANCELLED, tell=tell)

    async def sweep(self, *, is_first: bool = False) -> None:
        """Finishes what was left, ends what is past its time, reminds, and renews what messages show."""
        now_ms = self._clock()
        async with self._database.read() as work:
            left = await store.left_paying(
                work, before_ms=now_ms + 1 if is_first else now_ms - STEP_MS_MAX, limit=SWEEP_PAGE
            )
            over = await store.expired(work, now_ms=now_ms, limit=SWEEP_PAGE)
            silent = await store.to_remind(work, now_ms=now_ms, limit=SWEEP_PAGE)
        went_well = await each(self._finish(TransferId(id), UserId(asked)) for id, asked in left)
        went_well &= await each(self._expire(TransferId(id)) for id in over)
        went_well &= await each(self._remind(TransferId(id)) for id in silent)
        async with self._database.read() as work:
            unshown = await store.unshown(work, limit=SWEEP_PAGE)
        went_well &= await each(self._show(TransferId(id)) for id in unshown)
        if went_well and SWEEP_PAGE in (len(left), len(over), len(silent), len(unshown)):
            self._on_change()

    async def _move(self, request: Request, share: RequestShare, *, tell: Tell) -> Outcome:
        order = PaymentOrder(
            id=request.payment_id(share),
            payer=share.asked,
            payee=request.requester,
            money=share.money,
            memo=request.memo,
            room_id=None if share.has_copy else request.room_id,
            authority=share.authority,
            subject=request.subject,
        )

        def settle(outcome: Outcome) -> Sequence[Write]:
            if isinstance(outcome, PaymentRecord) and outcome.state is PaymentState.PENDING:
                # The requester's wallet has to answer; its answer ends the share as well (clearing/).
                return tell(outcome)
            settled = store.settlement(
                request.id,
                share.asked,
                attempt=share.attempt,
                is_paid=isinstance(outcome, PaymentRecord) and outcome.state is PaymentState.POSTED,
                now_ms=self._clock(),
            )
            return [*settled, *tell(outcome)]

        outcome = await self._payments.pay(order, tell=settle)
        self._on_change()
        return outcome

    async def _close(
        self, request: Request, state: ShareState, *, tell: TellAsked, asked: UserId | None = None
    ) -> Asked:
        concerned = [
            share
            for share in request.shares
            if share.state is ShareState.OPEN and asked in (None, share.asked)
        ]
        if not concerned:
            is_done = any(share.state is state and asked in (None, share.asked) for share in request.shares)
            outcome: Asked = request if is_done else PaymentRefused.because(PaymentRefusal.REQUEST_OVER)
            await self._till.write(tell(outcome))
            return outcome
        with speaking(request.language):
            ended = [replace(share, state=state) for share in concerned]
            told = list(await self._teller.ended(request, ended))
        if self.elsewhere is not None:
            told += await self.elsewhere.ended(request, ended)
        async with self._database.begin() as work:
            await store.hold(work, request.id)
            closed = await store.close(work, request.id, state=state.value, now_ms=self._clock(), asked=asked)
            now = await read_request(work, request.id)
            assert now is not None
            if closed == len(concerned):
                await work.apply([*told, *tell(now)])
                work.after_commit(self._till.wake)
                await work.commit()
                self._on_change()
                self._wake_elsewhere()
                return now
        # Somebody was faster with one of them, and what was to be told is not true any more.
        again = await self._read(request.id)
        assert again is not None
        return await self._close(again, state, asked=asked, tell=tell)

    async def _finish(self, id: TransferId, asked: UserId) -> None:
        request = await self._read(id)
        share = request.share_of(asked) if request is not None else None
        if request is None or share is None or share.state is not ShareState.PAYING:
            return
        if not self._is_own(asked):
            # Another wallet's payment of it was not booked: it can be paid, or taken back, as before.
            await self._till.write(
                store.settlement(id, asked, attempt=share.attempt, is_paid=False, now_ms=self._clock())
            )
        else:
            with speaking(request.language):
                await self._move(request, share, tell=tell_nothing)

    async def _expire(self, id: TransferId) -> None:
        request = await self._read(id)
        if request is not None:
            await self._close(request, ShareState.EXPIRED, tell=tell_nobody)

    async def _remind(self, id: TransferId) -> None:
        request = await self._read(id)
        if request is None:
            return
        with speaking(request.language):
            reminders = await self._teller.reminded(request)
        async with self._database.begin() as work:
            if await store.take_reminder(work, id):
                await work.apply(reminders)
                work.after_commit(self._till.wake)
                await work.commit()

    async def _show(self, id: TransferId) -> None:
        request = await self._read(id)
        if request is None:
            return
        with speaking(request.language):
            versions = await self._teller.shown(request)
        async with self._database.begin() as work:
            if await store.mark_shown(work, id, version=request.version):
                await work.apply(versions)
                work.after_commit(self._till.wake)
                await work.commit()

    async def _read(self, id: TransferId) -> Request | None:
        async with self._database.read() as work:
            return await read_request(work, id)

    async def _earlier(self, order: RequestOrder) -> Asked | None:
        if not is_ledger_id(order.id):
            return PaymentRefused.because(PaymentRefusal.ID_INVALID)
        request = await self._read(order.id)
        if request is None:
            return None
        return request if is_same(request, order) else PaymentRefused.because(PaymentRefusal.ID_TAKEN)

    async def _judge(self, order: RequestOrder) -> PaymentRefused | None:
        refused = self._payments.refused
        server = server_of(self._till.wallet_user)
        others = [user for user in order.people if user != order.requester]
        if server_of(order.requester) != server:
            return refused(PaymentRefusal.PAYER_ELSEWHERE, order.money)
        if not others:
            return refused(PaymentRefusal.ASKED_IS_ASKER, order.money)
        if len(order.people) > (SPLIT_PEOPLE_MAX if order.is_split else 1):
            return refused(PaymentRefusal.PEOPLE_TOO_MANY, order.money, people_max=str(SPLIT_PEOPLE_MAX))
        for asked in order.people:
            if not is_user_id(asked):
                return refused(PaymentRefusal.ASKED_INVALID, order.money)
            if order.people.count(asked) > 1:
                return refused(PaymentRefusal.ASKED_TWICE, order.money, asked=asked)
            if not self._is_own(asked) and (
                self.elsewhere is None or not await self.elsewhere.serves(server_of(asked))
            ):
                return refused(PaymentRefusal.ASKED_ELSEWHERE, order.money, asked=asked)
        for asked in others:
            if self._is_own(asked) and not await self._payments.can_be_paid(asked):
                return refused(PaymentRefusal.ASKED_UNKNOWN, order.money, asked=asked)
        if order.money.amount_minor < len(order.people):
            return refused(PaymentRefusal.SHARE_TOO_SMALL, order.money)
        largest = equal_shares(order.money.amount_minor, len(order.people))[0]
        judged = self._payments.judge_amount(replace(order.money, amount_minor=largest), order.memo)
        if judged is not None:
            return judged
        async with self._database.read() as work:
            if await store.open_count(work, order.requester) >= OPEN_REQUESTS_MAX:
                return refused(PaymentRefusal.OPEN_TOO_MANY, order.money, open_max=str(OPEN_REQUESTS_MAX))
        return None

    def _is_own(self, user: UserId) -> bool:
        return server_of(user) == server_of(self._till.wallet_user)

    def _wake_elsewhere(self) -> None:
        if self.elsewhere is not None:
            self.elsewhere.wake()

    async def _presence(self, order: RequestOrder) -> frozenset[UserId]:
        if order.room_id is None:
            return frozenset()
        return await self._teller.presence(order.room_id, order.requester)

    async def _tell_refused(self, refusal: PaymentRefusal, tell: TellAsked) -> PaymentRefused:
        refused = PaymentRefused.because(refusal)
        await self._till.write(tell(refused))
        return refused


_UNKNOWN: Final = PaymentRefusal.REQUEST_UNKNOWN
