"""All that people do with money among themselves beside paying, put together on one wallet."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from appservices.chassis.chosen_languages import LanguageOf, english_for_all
from appservices.chassis.clock import Clock
from wallet_appservice.payments.acceptance import Acceptance
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.pending import Pending
from wallet_appservice.payments.red_packets import RedPackets, RedPacketTeller
from wallet_appservice.payments.refunds import Refunds
from wallet_appservice.payments.requests import Requests, RequestTeller
from wallet_appservice.payments.settings import Settings
from wallet_appservice.payments.sweeper import Sweep, Sweeper

REQUESTS: Final = "requests"
RED_PACKETS: Final = "red packets"
REFUNDS: Final = "refunds"
ACCEPTANCE: Final = "payments that wait"


@dataclass(frozen=True, slots=True)
class People:
    """The use cases, and what looks after their time."""

    payments: Payments
    settings: Settings
    requests: Requests
    red_packets: RedPackets
    refunds: Refunds
    acceptance: Acceptance
    pending: Pending
    sweeper: Sweeper

    @property
    def chores(self) -> Mapping[str, Sweep]:
        """What the sweeper is to run: by name, for the log."""
        return {
            REQUESTS: self.requests.sweep,
            RED_PACKETS: self.red_packets.sweep,
            REFUNDS: self.refunds.sweep,
            ACCEPTANCE: self.acceptance.sweep,
        }

    def wake_all(self) -> None:
        """To be called when another wallet has said what may change any of them."""
        for name in self.chores:
            self.sweeper.wake(name)

    async def sweep(self) -> None:
        """Every chore once, for whoever runs no sweeper."""
        for chore in self.chores.values():
            await chore()


def build_people(
    payments: Payments,
    settings: Settings,
    *,
    request_teller: RequestTeller,
    red_packet_teller: RedPacketTeller,
    red_packet_max: int,
    clock: Clock,
    chance: random.Random | None = None,
    language_of: LanguageOf = english_for_all,
) -> People:
    """`language_of` says in which language a person's requests and red packets are written.

    `chance` is what red packets are drawn with; without one it is the system's, which nobody foresees.
    """
    sweeper = Sweeper()

    def waker(name: str) -> Callable[[], None]:
        return lambda: sweeper.wake(name)

    return People(
        payments=payments,
        settings=settings,
        requests=Requests(
            payments,
            teller=request_teller,
            clock=clock,
            on_change=waker(REQUESTS),
            language_of=language_of,
        ),
        red_packets=RedPackets(
            payments,
            teller=red_packet_teller,
            packet_max=red_packet_max,
            chance=chance or random.SystemRandom(),
            clock=clock,
            on_change=waker(RED_PACKETS),
            language_of=language_of,
        ),
        refunds=Refunds(payments, clock=clock, on_change=waker(REFUNDS)),
        acceptance=Acceptance(payments, clock=clock, on_change=waker(ACCEPTANCE)),
        pending=Pending(payments.till.database),
        sweeper=sweeper,
    )
