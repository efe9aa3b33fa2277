"""Red packets: fill one, open it, and what is left goes back.

What an opener finds is drawn at that moment, under the packet's row, so that all together never find more
than there is; many who open at once are drawn for in one transaction. The drawn share is the intention
(docs/decisions/0007): its money moves a moment later, from the packet's own account, by whoever sweeps.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Final, Protocol

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
    server_of,
)
from appservices.vocabulary.languages import speaking
from appservices.vocabulary.money import CurrencyCode, Money, format_minor
from wallet_appservice.ledger.values import NewAccount
from wallet_appservice.payments.accounts import peer_account, user_account
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.limits import Admission, Spending
from wallet_appservice.payments.records import Movement, PaymentKind
from wallet_appservice.payments.red_packet_openings import Found, Opened, Openings, TellOpened
from wallet_appservice.payments.red_packet_records import (
    OPEN_PACKETS_MAX,
    PACKET_COUNT_MAX,
    FoundShare,
    FoundState,
    PacketOrder,
    PacketState,
    RedPacket,
    escrow_account,
    is_same,
    new_packet,
)
from wallet_appservice.payments.red_packet_rows import packet_of, packet_row, share_of
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.payments.sweeper import each
from wallet_appservice.payments.till import Outcome
from wallet_appservice.storage import red_packet_store as store

SWEEP_PAGE: Final = 500
PACKET_EMPTY, PACKET_OVER, PACKET_OPENED = "empty", "over", "opened"
"""Why somebody of another homeserver finds nothing, as their wallet is told."""

logger = logging.getLogger(__name__)

Filled = RedPacket | PaymentRefused


TellFilled = Callable[[Filled], Sequence[Write]]


class RedPacketTeller(Protocol):
    """Writes to a room of its red packets. Its methods look names up first; what they give is to be
    committed."""

    async def is_member(self, room_id: RoomId, user: UserId) -> bool:
        """Whether the user and the wallet are both in the room."""
        ...

    async def packed(self, packet: RedPacket, *, in_reply_to: EventId | None) -> Sequence[Write]:
        """The packet's message."""
        ...

    async def shown(self, packet: RedPacket, shares: tuple[FoundShare, ...]) -> Sequence[Write]:
        """A new version of it, with who has opened it."""
        ...


class PacketsElsewhere(Protocol):
    """Tells people of other homeservers, by way of their wallets, why they found nothing."""

    async def refusals(self, opener: UserId) -> Callable[[TransferId, str], Sequence[Write]] | None:
        """What is to be committed for a packet and a reason; None when nothing can be paid there."""
        ...

    async def wake(self, opener: UserId) -> None:
        """To be called after such a commit."""
        ...


def tell_nobody(_outcome: Filled | Opened) -> Sequence[Write]:
    return ()


class RedPackets:
    """The red packets of one wallet."""

    def __init__(
        self,
        payments: Payments,
        *,
        teller: RedPacketTeller,
        packet_max: int,
        chance: random.Random,
        clock: Clock,
        on_change: Callable[[], None],
        language_of: LanguageOf = english_for_all,
    ) -> None:
        """`packet_max` is in whole units of each currency; `on_change` wakes whoever calls `sweep`."""
        self._payments = payments
        self._till = payments.till
        self._database = payments.till.database
        self._teller = teller
        self._packet_max = packet_max
        self._openings = Openings(payments.till, chance=chance, clock=clock)
        self._clock = clock
        self._on_change = on_change
        self._language_of = language_of
        self.elsewhere: PacketsElsewhere | None = None
        """How people of other homeservers are answered; None where they can't open anything."""

    async def fill(self, order: PacketOrder, *, tell: TellFilled = tell_nobody) -> Filled:
        """Takes the money from the sender and puts the packet into the room, or says why not.

        Raises LedgerUnavailable.
        """
        filled = await self._earlier(order) or await self._judge(order)
        if filled is None and not await self._teller.is_member(order.room_id, order.sender):
            filled = PaymentRefused.because(PaymentRefusal.ROOM_UNKNOWN)
        if filled is not None:
            await self._till.write(tell(filled))
            return filled
        admitted = await self._payments.gate.admit(
            Spending(id=order.id, payer=order.sender, money=order.money, authority=order.authority)
        )
        if isinstance(admitted, PaymentRefused):
            # It may have been filled since by the same order, asked for at the same moment.
            filled = await self._earlier(order) or admitted
            await self._till.write(tell(filled))
            return filled
        with closing(admitted):
            return await self._filled(order, admitted, tell)

    async def _filled(self, order: PacketOrder, admission: Admission, tell: TellFilled) -> Filled:
        # A program's call speaks English; the packet is its sender's.
        with speaking(await self._language_of(order.sender)):
            packet = new_packet(order, now_ms=self._clock())
            messages = await self._teller.packed(packet, in_reply_to=order.in_reply_to)
        movement = Movement(
            id=packet.id,
            kind=PaymentKind.RED_PACKET,
            payer=packet.sender,
            payee=self._till.wallet_user,
            money=packet.money,
            debit=user_account(packet.sender, packet.money.currency),
            credit=self._escrow(packet),
            memo=packet.words,
            subject=packet.subject,
        )

        def tell_outcome(outcome: Outcome) -> Sequence[Write]:
            return tell(outcome if isinstance(outcome, PaymentRefused) else packet)

        outcome = await self._till.move(
            movement,
            tell=tell_outcome,
            admission=admission,
            once=[store.insertion(packet_row(packet)), *messages],
        )
        if isinstance(outcome, PaymentRefused):
            return outcome
        return await self._read(packet.id) or packet

    async def packet(self, user: UserId, id: TransferId) -> tuple[RedPacket, tuple[FoundShare, ...]] | None:
        """A packet and who has opened it, for its sender and for members of its room."""
        async with self._database.read() as work:
            row = await store.packet(work, id)
            rows = await store.shares(work, id) if row is not None else []
        if row is None:
            return None
        packet = packet_of(row)
        shares = tuple(share_of(share, packet.money.currency) for share in rows)
        is_known = user == packet.sender or any(share.opener == user for share in shares)
        return (packet, shares) if is_known or await self._teller.is_member(packet.room_id, user) else None

    async def open(self, user: UserId, id: TransferId, *, tell: TellOpened = tell_nobody) -> Opened:
        """Draws the user's share and pays it. Raises LedgerUnavailable; opening again is safe then."""
        opened = await self.draw(user, id, tell=tell)
        if isinstance(opened, Found) and opened.share.state is FoundState.DRAWN:
            await self._pay(opened.packet, opened.share)
        return opened

    async def draw(self, user: UserId, id: TransferId, *, tell: TellOpened = tell_nobody) -> Opened:
        """Draws the user's share, once; its money follows in a moment, with a receipt to the user."""
        packet = await self._read(id)
        if (
            packet is None
            or server_of(user) != server_of(self._till.wallet_user)
            or not await self._teller.is_member(packet.room_id, user)
        ):
            refused = PaymentRefused.because(PaymentRefusal.PACKET_UNKNOWN)
            await self._till.write(tell(refused))
            return refused
        opened = await self._openings.draw(user, id, tell=tell)
        if isinstance(opened, Found) and opened.is_new:
            self._on_change()
        return opened

    async def draw_elsewhere(self, user: UserId, id: TransferId, *, done: Write) -> None:
        """Draws a share for a member of the packet's room whom another wallet serves, once.

        `done` is committed with it. The share goes to that wallet as a payment; why there is none, as a
        word. To whoever is not in the room, or has no such wallet, nothing is said.
        """
        packet = await self._read(id)
        refused = await self.elsewhere.refusals(user) if self.elsewhere is not None else None
        if packet is None or refused is None or not await self._teller.is_member(packet.room_id, user):
            await self._till.write([done])
            return

        def tell(opened: Opened) -> Sequence[Write]:
            if isinstance(opened, PaymentRefused):
                is_empty = opened.refusal is PaymentRefusal.PACKET_EMPTY
                return [done, *refused(id, PACKET_EMPTY if is_empty else PACKET_OVER)]
            return [done] if opened.is_new else [done, *refused(id, PACKET_OPENED)]

        await self._openings.draw(user, id, tell=tell)
        self._on_change()
        assert self.elsewhere is not None
        await self.elsewhere.wake(user)

    async def sweep(self, *, is_first: bool = False) -> None:
        """Moves what was drawn, gives back what is past its time, and renews what messages show."""
        now_ms = self._clock()
        async with self._database.read() as work:
            drawn = await store.drawn(work, limit=SWEEP_PAGE)
            packets = {id: await store.packet(work, id) for id in {row.packet_id for row in drawn}}
            over = await store.over(work, now_ms=now_ms, limit=SWEEP_PAGE)
        went_well = await each(
            self._move_share(packet_of(row), share_of(share, CurrencyCode(row.currency)))
            for share in drawn
            for row in [packets[share.packet_id]]
            if row is not None
        )
        went_well &= await each(self._give_back(TransferId(id)) for id in over)
        async with self._database.read() as work:
            unshown = await store.unshown(work, limit=SWEEP_PAGE)
        went_well &= await each(self._show(TransferId(id)) for id in unshown)
        if went_well and SWEEP_PAGE in (len(drawn), len(over), len(unshown)):
            self._on_change()

    async def _move_share(self, packet: RedPacket, share: FoundShare) -> None:
        if share.state is FoundState.LAPSED:
            await self._give_share_back(packet, share)
        elif server_of(share.opener) != server_of(self._till.wallet_user):
            await self._send(packet, share)
        else:
            await self._pay(packet, share)

    async def _send(self, packet: RedPacket, share: FoundShare) -> None:
        """To the opener's own wallet, whose answer says what becomes of it (clearing/)."""
        if self._payments.elsewhere is None:
            return
        peer = server_of(share.opener)
        id = share.payment_id(packet.id)
        movement = self._out_of(packet, id, PaymentKind.SHARE, share.opener, share.money, peer=peer)

        def tell(outcome: Outcome) -> Sequence[Write]:
            if not isinstance(outcome, PaymentRefused):
                state = FoundState.SENT
            elif self._clock() >= packet.expires_at_ms:
                # Nobody has answered there for as long as the packet lasts.
                state = FoundState.LAPSED
            else:
                return ()
            return store.share_becomes(
                packet.id, share.opener, before=FoundState.DRAWN.value, state=state.value
            )

        await self._payments.elsewhere.move(movement, tell=tell)

    async def _give_share_back(self, packet: RedPacket, share: FoundShare) -> None:
        """What its opener's wallet did not take belongs to whoever filled the packet."""
        id = share.return_id(packet.id)
        movement = self._out_of(packet, id, PaymentKind.RETURN, packet.sender, share.money)

        def tell(outcome: Outcome) -> Sequence[Write]:
            if isinstance(outcome, PaymentRefused):
                return ()
            return store.share_becomes(
                packet.id,
                share.opener,
                before=FoundState.LAPSED.value,
                state=FoundState.RETURNED.value,
            )

        with speaking(packet.language):
            outcome = await self._till.move(movement, tell=tell)
        if isinstance(outcome, PaymentRefused):
            logger.error("a share of red packet %s did not go back: %s", packet.id, outcome.refusal)

    async def _pay(self, packet: RedPacket, share: FoundShare) -> None:
        id = share.payment_id(packet.id)
        movement = self._out_of(packet, id, PaymentKind.SHARE, share.opener, share.money)

        def tell(outcome: Outcome) -> Sequence[Write]:
            return () if isinstance(outcome, PaymentRefused) else store.share_paid(packet.id, share.opener)

        with speaking(packet.language):
            outcome = await self._till.move(movement, tell=tell)
        if isinstance(outcome, PaymentRefused):
            logger.error("a share of red packet %s did not move: %s", packet.id, outcome.refusal)
        self._on_change()

    async def _give_back(self, id: TransferId) -> None:
        async with self._database.begin() as work:
            if await store.begin_return(work, id, now_ms=self._clock()):
                await work.commit()
        packet = await self._read(id)
        if packet is None or packet.state is not PacketState.RETURNING:
            return
        rest = Money(packet.remaining_minor, packet.money.currency)
        movement = self._out_of(packet, packet.return_id(), PaymentKind.RETURN, packet.sender, rest)

        def tell(outcome: Outcome) -> Sequence[Write]:
            return () if isinstance(outcome, PaymentRefused) else store.returned(packet.id)

        with speaking(packet.language):
            outcome = await self._till.move(movement, tell=tell)
        if isinstance(outcome, PaymentRefused):
            logger.error("what is left of red packet %s did not go back: %s", packet.id, outcome.refusal)

    async def _show(self, id: TransferId) -> None:
        async with self._database.read() as work:
            row = await store.packet(work, id)
            rows = await store.shares(work, id)
        if row is None:
            return
        packet = packet_of(row)
        # Only what has moved is shown as found.
        shares = tuple(
            share_of(share, packet.money.currency) for share in rows if share.state == FoundState.PAID.value
        )
        with speaking(packet.language):
            versions = await self._teller.shown(packet, shares)
        async with self._database.begin() as work:
            if await store.mark_shown(work, id, version=packet.version):
                await work.apply(versions)
                work.after_commit(self._till.wake)
                await work.commit()

    async def _read(self, id: TransferId) -> RedPacket | None:
        async with self._database.read() as work:
            row = await store.packet(work, id)
        return packet_of(row) if row is not None else None

    def _out_of(
        self,
        packet: RedPacket,
        id: TransferId,
        kind: PaymentKind,
        payee: UserId,
        money: Money,
        *,
        peer: ServerName | None = None,
    ) -> Movement:
        """Money that leaves the packet, to somebody here or to the wallet of `peer`."""
        currency = money.currency
        return Movement(
            id=id,
            kind=kind,
            payer=self._till.wallet_user,
            payee=payee,
            money=money,
            debit=self._escrow(packet),
            credit=user_account(payee, currency) if peer is None else peer_account(peer, currency),
            memo=packet.words,
            subject=packet.subject,
            of=packet.id,
            peer=peer,
        )

    def _escrow(self, packet: RedPacket) -> NewAccount:
        return escrow_account(self._till.wallet_user, packet.id, packet.money.currency)

    async def _earlier(self, order: PacketOrder) -> Filled | None:
        if not is_ledger_id(order.id):
            return PaymentRefused.because(PaymentRefusal.ID_INVALID)
        packet = await self._read(order.id)
        if packet is None:
            return None
        return packet if is_same(packet, order) else PaymentRefused.because(PaymentRefusal.ID_TAKEN)

    async def _judge(self, order: PacketOrder) -> PaymentRefused | None:
        refused = self._payments.refused
        if server_of(order.sender) != server_of(self._till.wallet_user):
            return refused(PaymentRefusal.PAYER_ELSEWHERE, order.money)
        judged = self._payments.judge_amount(order.money, order.words)
        if judged is not None:
            return judged
        currency = self._payments.currencies[order.money.currency]
        packet_max_minor = self._packet_max * 10**currency.exponent
        if order.money.amount_minor > packet_max_minor:
            words = format_minor(packet_max_minor, currency)
            return refused(PaymentRefusal.PACKET_TOO_LARGE, order.money, packet_max=words)
        if not 1 <= order.count <= PACKET_COUNT_MAX:
            return refused(PaymentRefusal.PACKET_COUNT_INVALID, order.money, count_max=str(PACKET_COUNT_MAX))
        if order.money.amount_minor < order.count:
            return refused(PaymentRefusal.PACKET_TOO_SMALL, order.money)
        async with self._database.read() as work:
            if await store.open_count(work, order.sender) >= OPEN_PACKETS_MAX:
                return refused(PaymentRefusal.OPEN_TOO_MANY, order.money, open_max=str(OPEN_PACKETS_MAX))
        return None
