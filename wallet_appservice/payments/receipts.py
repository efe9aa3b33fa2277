"""Receipts: the signed proof of one transfer, which anyone can verify. Never edited."""

from __future__ import annotations

from typing import Any

from appservices.vocabulary.ids import UserId
from appservices.vocabulary.signing import SigningKey, sign_json
from wallet_appservice.payments.records import Movement, PaymentState


def sign_receipt(
    movement: Movement, *, state: PaymentState, at_ms: int, wallet: UserId, key: SigningKey
) -> dict[str, Any]:
    """The block `dev.weft.receipt`; memo, room, `of` and `merchant` are left out when there is none."""
    receipt: dict[str, Any] = {
        "id": movement.id,
        "kind": movement.kind.value,
        "state": state.value,
        "payer": movement.payer,
        "payee": movement.payee,
        "amount_minor": str(movement.money.amount_minor),
        "currency": movement.money.currency,
        "at_ms": at_ms,
        "wallet": wallet,
    }
    if movement.memo:
        receipt["memo"] = movement.memo
    if movement.room_id is not None:
        receipt["room_id"] = movement.room_id
    if movement.of is not None:
        receipt["of"] = movement.of
    if movement.merchant is not None:
        receipt["merchant"] = {"id": movement.merchant.id, "name": movement.merchant.name}
    return sign_json(receipt, signer=wallet, key=key)
