"""What shows that a payment or a change of security is the user's own: the PIN, or a passkey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from appservices.chassis.database import Database, UnitOfWork
from appservices.vocabulary.ids import UserId, derived_id
from wallet_appservice.payments.passkeys import Passkeys, with_passkey
from wallet_appservice.payments.pins import Pins, with_pin
from wallet_appservice.payments.records import Authority, PaymentOrder, clean_memo
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused

SECURITY: Final = "security"
"""The purpose of a proof that lets one change PIN, passkeys and limits."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What somebody gives as a proof: the PIN as typed, or a browser's answer with a passkey, as JSON."""

    pin: str = ""
    passkey: str = ""

    @property
    def is_given(self) -> bool:
        return bool(self.pin or self.passkey)


NO_PROOF: Final = Proof()


class Proofs:
    """Checks proofs, whichever kind they are."""

    def __init__(self, database: Database, *, pins: Pins, passkeys: Passkeys) -> None:
        self.pins = pins
        self.passkeys = passkeys
        self._database = database

    async def has_any(self, user: UserId) -> bool:
        """Whether the user has a PIN or a passkey."""
        async with self._database.read() as work:
            return bool(await with_proof(work, [user]))

    async def check(self, user: UserId, proof: Proof, purpose: str) -> PaymentRefused | None:
        """Whether the proof is right; CONFIRMATION_NEEDED when there is none in it."""
        if proof.passkey:
            return await self.passkeys.check(user, proof.passkey, purpose)
        if proof.pin:
            return await self.pins.check(user, proof.pin)
        return PaymentRefused.because(PaymentRefusal.CONFIRMATION_NEEDED, chat_max="")

    async def proven(self, order: PaymentOrder, proof: Proof) -> PaymentOrder | PaymentRefused:
        """The order with the authority that the proof gives it; as it is when none was given."""
        if not proof.is_given:
            return order
        return await self.check(order.payer, proof, purpose_of(order)) or replace(
            order, authority=Authority.CONFIRMED
        )


async def with_proof(work: UnitOfWork, users: Sequence[UserId]) -> set[UserId]:
    """Those of the users who have a PIN or a passkey."""
    return await with_pin(work, users) | await with_passkey(work, users)


def purpose_of(order: PaymentOrder) -> str:
    """What a passkey signs for when it confirms a payment: all that makes it this one and no other."""
    return derived_id(
        "confirmation",
        order.id,
        order.payer,
        order.payee,
        str(order.money.amount_minor),
        order.money.currency,
        clean_memo(order.memo),
        order.room_id or "",
        order.subject,
    )
