"""What wallets tell each other of red packets beside the shares themselves, which are payments.

A member opens a packet by a reaction, which the packet's wallet sees in the room whichever homeserver it
comes from: that one has signed it, and lets nobody react who is no member. Who finds something gets it as a
payment; who finds nothing is told by their own wallet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from appservices.chassis.database import Write
from appservices.chassis.links.storage import item_write
from appservices.chassis.links.switchboard import Switchboard
from appservices.vocabulary.ids import TransferId, UserId, server_of
from wallet_appservice.clearing.items import PacketRefused
from wallet_appservice.clearing.known_people import KnownPeople
from wallet_appservice.clearing.paying import ClearingAnnouncer, OutgoingPayment
from wallet_appservice.clearing.peers import Peers
from wallet_appservice.payments.records import PaymentKind
from wallet_appservice.payments.red_packet_records import FoundState
from wallet_appservice.storage import red_packet_store


class PacketAnswers:
    """`PacketsElsewhere` of the wallet's red packets, and what comes of it from other wallets."""

    def __init__(
        self, *, peers: Peers, switchboard: Switchboard, announcer: ClearingAnnouncer, people: KnownPeople
    ) -> None:
        self._peers = peers
        self._switchboard = switchboard
        self._announcer = announcer
        self._people = people

    async def refusals(self, opener: UserId) -> Callable[[TransferId, str], Sequence[Write]] | None:
        wallet = await self._peers.wallet_of(server_of(opener))
        if wallet is None:
            return None

        def refused(packet: TransferId, reason: str) -> Sequence[Write]:
            return [item_write(wallet, PacketRefused(packet=packet, opener=opener, reason=reason).item())]

        return refused

    async def came(self, item: PacketRefused) -> Sequence[Write]:
        """Somebody of ours found nothing. Whoever is not here is not told."""
        if not await self._people.includes(item.opener):
            return []
        return await self._announcer.packet_refused(item.opener, item.packet, item.reason)

    def answered(self, payment: OutgoingPayment, *, is_paid: bool) -> list[Write]:
        """What the other wallet's answer makes of the share that a payment of ours was for."""
        if payment.kind is not PaymentKind.SHARE or payment.of is None:
            return []
        state = FoundState.PAID if is_paid else FoundState.LAPSED
        return red_packet_store.share_becomes(
            payment.of, payment.payee, before=FoundState.SENT.value, state=state.value
        )

    async def wake(self, opener: UserId) -> None:
        """To be called after a commit that has left a refusal for the opener."""
        wallet = await self._peers.wallet_of(server_of(opener))
        if wallet is not None:
            self._switchboard.wake(wallet)
