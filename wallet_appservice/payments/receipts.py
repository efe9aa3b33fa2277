"""Receipts: the signed proof of one transfer, which anyone can verify. Never edited."""

from __future__ import annotations

from typing import Any

from appservices.vocabulary.ids import RoomId, TransferId, UserId
from appservices.vocabulary.money import Money
from appservices.vocabulary.signing import SigningKey, sign_json
from wallet_appservice.payments.records import PaymentKind


def sign_receipt(
    *,
    id: TransferId,
    kind: PaymentKind,
    payer: UserId,
    payee: UserId,
    money: Money,
    memo: str,
    at_ms: int,
    room_id: RoomId | None,
    wallet: UserId,
    key: SigningKey,
) -> dict[str, Any]:
    """The block `dev.weft.receipt` of a posted transfer; memo and room are left out when there is none."""
    receipt: dict[str, Any] = {
        "id": id,
        "kind": kind.value,
        "state": "posted",
        "payer": payer,
        "payee": payee,
        "amount_minor": str(money.amount_minor),
        "currency": money.currency,
        "at_ms": at_ms,
        "wallet": wallet,
    }
    if memo:
        receipt["memo"] = memo
    if room_id is not None:
        receipt["room_id"] = room_id
    return sign_json(receipt, signer=wallet, key=key)
