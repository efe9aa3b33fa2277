"""Proofs in forms: what a page asks for besides its button, and what a form brought for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final

from fastapi import Request

from appservices.chassis.page_words import browser_name
from appservices.chassis.signed_in import SignedIn
from appservices.chassis.web_sessions import SignInWay
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.passkeys import ANSWER_LENGTH_MAX
from wallet_appservice.payments.proofs import NO_PROOF, Proof, Proofs
from wallet_appservice.payments.records import PaymentOrder
from wallet_appservice.payments.refusals import REFUSALS, PaymentRefusal, PaymentRefused
from wallet_appservice.payments.security import Requester

PIN_FIELD_LENGTH_MAX: Final = 64
PROOF_REFUSALS: Final = frozenset(
    {
        PaymentRefusal.CONFIRMATION_NEEDED,
        PaymentRefusal.PIN_NOT_SET,
        PaymentRefusal.PIN_LOCKED,
        PaymentRefusal.PIN_WRONG,
        PaymentRefusal.PASSKEY_WRONG,
        PaymentRefusal.TOO_BUSY,
    }
)
"""Refusals that are about the proof alone: the same order may be sent again with another."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a page that pays or changes something asks for. `payment` is what a passkey would sign for."""

    needs_proof: bool = False
    has_pin: bool = False
    has_passkey: bool = False
    is_first: bool = False
    payment: str = "null"
    problem: str = ""


NOTHING_ASKED: Final = Asked()


class PaymentReview:
    """What must be shown and proved before a payment by page."""

    def __init__(self, payments: Payments, proofs: Proofs) -> None:
        self._payments = payments
        self._proofs = proofs

    async def asked(self, order: PaymentOrder, *, needs_proof: bool, problem: str = "") -> Asked:
        kinds = await kinds_of_proof(self._proofs, order)
        return replace(
            kinds,
            needs_proof=needs_proof,
            is_first=await self._payments.is_first(order),
            problem=problem,
        )

    async def proven(self, order: PaymentOrder, fields: Mapping[str, Any]) -> PaymentOrder | PaymentRefused:
        """The order with the authority that the form proves."""
        return await self._proofs.proven(order, proof_in(fields))


async def kinds_of_proof(proofs: Proofs, order: PaymentOrder) -> Asked:
    """Which proofs the payer can give for it."""
    return Asked(
        has_pin=await proofs.pins.is_set(order.payer),
        has_passkey=not proofs.passkeys.problem and bool(await proofs.passkeys.of(order.payer)),
        payment=json.dumps(
            {
                "id": order.id,
                "payee": order.payee,
                "amount_minor": str(order.money.amount_minor),
                "currency": order.money.currency,
                "memo": order.memo,
                "room_id": order.room_id,
                "subject": order.subject,
            }
        ),
    )


def proof_in(fields: Mapping[str, Any]) -> Proof:
    """The proof that a form brought, if any."""
    pin, passkey = fields.get("pin"), fields.get("passkey")
    return Proof(
        pin=pin.strip()[:PIN_FIELD_LENGTH_MAX] if isinstance(pin, str) else "",
        passkey=passkey[: ANSWER_LENGTH_MAX + 1] if isinstance(passkey, str) else "",
    )


def requester_of(request: Request, signed_in: SignedIn, proof: Proof = NO_PROOF) -> Requester:
    """Who asks for a change of security."""
    return Requester(
        user=signed_in.user_id,
        is_strong=signed_in.session.signed_in_by is not SignInWay.OPENID,
        where=browser_name(request.headers.get("user-agent", "")),
        proof=proof,
    )


def page_status(refused: PaymentRefused) -> int:
    """The status of a page that shows a refusal. 403 is kept for forms that are not ours."""
    status = REFUSALS[refused.refusal].http_status
    return HTTPStatus.UNPROCESSABLE_ENTITY if status == HTTPStatus.FORBIDDEN else status
