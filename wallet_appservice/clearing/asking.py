"""Requests for money between people of two homeservers.

The requester's wallet asks the wallet of whoever is asked, which keeps a request of its own and tells them.
So they pay, decline and are reminded as by any request, and nobody but their own wallet moves their money.
The payment names the request: the requester's wallet books it and ends the share in one transaction, or
rejects it when the share is over. What a wallet says is believed only of its own people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import insert, select

from appservices.chassis.chosen_languages import LanguageOf
from appservices.chassis.clock import Clock
from appservices.chassis.database import Database, Write
from appservices.chassis.links.feature import ItemsRefused
from appservices.chassis.links.protocol import StopReason
from appservices.chassis.links.storage import item_write
from appservices.chassis.links.switchboard import Switchboard
from appservices.vocabulary.ids import ServerName, TransferId, UserId, derived_id, server_of
from appservices.vocabulary.languages import speaking
from wallet_appservice.clearing.items import AskEndItem, AskItem, Prepare, RejectReason, RequestEnd
from wallet_appservice.clearing.known_people import KnownPeople
from wallet_appservice.clearing.peers import Peers
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.records import Authority, clean_memo
from wallet_appservice.payments.request_records import (
    REQUEST_SECONDS,
    SUBJECT,
    Request,
    RequestShare,
    ShareState,
    request_from_elsewhere,
)
from wallet_appservice.payments.request_rows import insertions, read_request
from wallet_appservice.payments.requests import RequestTeller
from wallet_appservice.storage import request_store as store
from wallet_appservice.storage.clearing_tables import clearing_requests

OPEN_FROM_SERVER_MAX: Final = 20
"""Requests that people of one server may have open with one of ours: more would only pester them."""
OUT, IN = "out", "in"

_INSERT: Final = insert(clearing_requests)
_SAID: Final = {
    RequestEnd.DECLINED: ShareState.DECLINED,
    RequestEnd.UNREACHED: ShareState.UNREACHED,
    RequestEnd.CANCELLED: ShareState.CANCELLED,
}


Taken = dict[TransferId, tuple[AskItem, Request]]
"""The requests that came in the message that is being judged, before it is committed."""


@dataclass(frozen=True, slots=True)
class ClaimedShare:
    """A share of ours that a payment from another wallet is about to end."""

    request_id: TransferId
    share: RequestShare

    @property
    def key(self) -> tuple[TransferId, UserId]:
        return self.request_id, self.share.asked

    def settled(self, *, is_paid: bool, now_ms: int) -> list[Write]:
        """For the transaction that books the payment, or rejects it."""
        return store.settlement(
            self.request_id,
            self.share.asked,
            attempt=self.share.attempt,
            is_paid=is_paid,
            now_ms=now_ms,
        )


class Asking:
    """What the wallets tell each other of requests. `RequestsElsewhere` of the wallet's use cases."""

    def __init__(
        self,
        payments: Payments,
        *,
        peers: Peers,
        switchboard: Switchboard,
        teller: RequestTeller,
        people: KnownPeople,
        language_of: LanguageOf,
        clock: Clock,
    ) -> None:
        self._payments = payments
        self._database: Database = payments.till.database
        self._peers = peers
        self._switchboard = switchboard
        self._teller = teller
        self._people = people
        self._language_of = language_of
        self._clock = clock
        self._to_wake: set[UserId] = set()

    # Where our people ask.

    async def serves(self, server: ServerName) -> bool:
        return await self._peers.wallet_of(server) is not None

    async def asked(self, request: Request) -> Sequence[Write]:
        writes: list[Write] = []
        for share in request.shares:
            wallet = await self._wallet_of(share.asked)
            if wallet is None:
                continue
            item = AskItem(
                id=shared_id(request.id, share.asked),
                requester=request.requester,
                asked=share.asked,
                money=share.money,
                expires_at_ms=request.expires_at_ms,
                memo=request.memo,
            )
            row = _row(server_of(wallet), OUT, item.id, request.id, share.asked)
            writes += [row, item_write(wallet, item.item())]
            self._to_wake.add(wallet)
        return writes

    async def ended(self, request: Request, shares: Sequence[RequestShare]) -> Sequence[Write]:
        writes: list[Write] = []
        for share in shares:
            # Both wallets know the time when a request expires.
            if share.state is ShareState.CANCELLED:
                end, wallet = RequestEnd.CANCELLED, await self._wallet_of(share.asked)
            elif share.state is ShareState.DECLINED:
                end, wallet = RequestEnd.DECLINED, await self._wallet_of(request.requester)
            else:
                continue
            id = await self.id_of(request.id, share.asked)
            if wallet is not None and id is not None:
                writes.append(item_write(wallet, AskEndItem(id=id, end=end).item()))
                self._to_wake.add(wallet)
        return writes

    def wake(self) -> None:
        waking, self._to_wake = self._to_wake, set()
        for wallet in waking:
            self._switchboard.wake(wallet)

    async def id_of(self, request_id: TransferId, asked: UserId) -> TransferId | None:
        """What the other wallet calls that share; None for one that no other wallet has a part in."""
        columns = clearing_requests.c
        query = select(columns.id).where(columns.request_id == request_id, columns.asked == asked)
        async with self._database.read() as work:
            found = (await work.execute(query)).scalar()
        return TransferId(found) if found is not None else None

    # What comes. What these give is committed with the message that the item came in.

    async def came(self, peer: UserId, item: AskItem, taken: Taken) -> Sequence[Write]:
        """Somebody there asks somebody of ours. Raises ItemsRefused."""
        server = server_of(peer)
        known = await self._known(server, IN, item.id)
        content = taken[item.id][0].content if item.id in taken else known.content if known else None
        if content is not None:
            if content != item.content:
                raise ItemsRefused(StopReason.ANSWERED_TWICE, f"request {item.id} came with other content")
            return []
        pestered = sum(earlier.asked == item.asked for earlier, _request in taken.values())
        if not await self._may_be_asked(server, item, open_max=OPEN_FROM_SERVER_MAX - pestered):
            return [item_write(peer, AskEndItem(id=item.id, end=RequestEnd.UNREACHED).item())]
        now_ms = self._clock()
        with speaking(await self._language_of(item.asked)):
            request = request_from_elsewhere(
                TransferId(derived_id("request from", server, item.id)),
                requester=item.requester,
                asked=item.asked,
                money=item.money,
                memo=clean_memo(item.memo),
                now_ms=now_ms,
                expires_at_ms=min(item.expires_at_ms, now_ms + REQUEST_SECONDS * 1000),
            )
            told = await self._teller.asked(request, in_reply_to=None)
        taken[item.id] = item, request
        row = _row(server, IN, item.id, request.id, item.asked, content=item.content)
        return [row, *insertions(request), *told]

    async def end_came(self, peer: UserId, item: AskEndItem, taken: Taken) -> Sequence[Write]:
        """A request has ended there. Of one that is not known, or over here too, there is nothing to do."""
        if item.end is RequestEnd.CANCELLED and item.id in taken:
            request: Request | None = taken[item.id][1]
            share = request.shares[0] if request is not None else None
        else:
            direction = IN if item.end is RequestEnd.CANCELLED else OUT
            request, share = await self._share(await self._known(server_of(peer), direction, item.id))
        if request is None or share is None or share.state is not ShareState.OPEN:
            return []
        state = _SAID[item.end]
        with speaking(request.language):
            told = await self._teller.ended(request, [replace(share, state=state)])
        ended = store.ended_elsewhere(
            request.id,
            share.asked,
            before=ShareState.OPEN.value,
            state=state.value,
            now_ms=self._clock(),
        )
        return [*ended, *told]

    async def claim(self, server: ServerName, item: Prepare) -> ClaimedShare | RejectReason:
        """Takes the share that a payment from there is for, so that nobody takes it back meanwhile.

        What is claimed and then not booked becomes open again by the sweep of requests.
        """
        assert item.request is not None
        known = await self._known(server, OUT, item.request)
        if known is None or known.asked != item.payer:
            return RejectReason.REQUEST_UNKNOWN
        async with self._database.begin() as work:
            await store.lock(work, known.request_id)
            request = await read_request(work, known.request_id)
            share = request.share_of(known.asked) if request is not None else None
            if request is None or share is None:
                return RejectReason.REQUEST_UNKNOWN
            if (item.payee, item.money) != (request.requester, share.money):
                return RejectReason.REQUEST_UNKNOWN
            if share.state is ShareState.PAYING:
                # By this very payment, before a crash: its wallet makes one at a time.
                return ClaimedShare(request.id, share)
            if share.state is not ShareState.OPEN:
                return RejectReason.REQUEST_OVER
            await store.claim(
                work, request.id, share.asked, authority=Authority.CHAT.value, now_ms=self._clock()
            )
            await work.commit()
        return ClaimedShare(request.id, replace(share, attempt=share.attempt + 1))

    def answered(
        self, subject: str, payer: UserId, *, is_paid: bool, reason: str, now_ms: int
    ) -> list[Write]:
        """What the other wallet's answer to a payment of ours makes of the share that it was for."""
        kind, _, request_id = subject.partition(":")
        if kind != SUBJECT:
            return []
        state = ShareState.PAID if is_paid else ShareState.OPEN
        if reason == RejectReason.REQUEST_OVER.value:
            state = ShareState.CANCELLED
        return store.ended_elsewhere(
            request_id, payer, before=ShareState.PAYING.value, state=state.value, now_ms=now_ms
        )

    async def _may_be_asked(self, server: ServerName, item: AskItem, *, open_max: int) -> bool:
        if server_of(item.requester) != server or not await self._people.includes(item.asked):
            return False
        memo_is_clean = clean_memo(item.memo) == item.memo
        if self._payments.judge_amount(item.money, item.memo) is not None or not memo_is_clean:
            return False
        if item.expires_at_ms <= self._clock() or await self._peers.wallet_of(server) is None:
            return False
        async with self._database.read() as work:
            return await store.open_count_from(work, item.asked, server) < open_max

    async def _known(self, server: ServerName, direction: str, id: TransferId) -> _Known | None:
        columns = clearing_requests.c
        query = select(clearing_requests).where(
            columns.server == server, columns.direction == direction, columns.id == id
        )
        async with self._database.read() as work:
            row = (await work.execute(query)).first()
        if row is None:
            return None
        return _Known(TransferId(row.request_id), UserId(row.asked), row.content)

    async def _share(self, known: _Known | None) -> tuple[Request | None, RequestShare | None]:
        if known is None:
            return None, None
        async with self._database.read() as work:
            request = await read_request(work, known.request_id)
        return request, request.share_of(known.asked) if request is not None else None

    async def _wallet_of(self, user: UserId) -> UserId | None:
        if self._people.are_here(user):
            return None
        return await self._peers.wallet_of(server_of(user))


@dataclass(frozen=True, slots=True)
class _Known:
    request_id: TransferId
    asked: UserId
    content: str


def shared_id(request_id: TransferId, asked: UserId) -> TransferId:
    """What both wallets call one asked person's share of a request."""
    return TransferId(derived_id("asked elsewhere", request_id, asked))


def _row(
    server: ServerName,
    direction: str,
    id: TransferId,
    request_id: TransferId,
    asked: UserId,
    *,
    content: str = "",
) -> Write:
    return Write(
        _INSERT,
        {
            "server": server,
            "direction": direction,
            "id": id,
            "request_id": request_id,
            "asked": asked,
            "content": content,
        },
    )
