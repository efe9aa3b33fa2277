"""What a payment is, to those who ask for one, read one, or show one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from appservices.vocabulary.ids import EventId, RoomId, TransferId, UserId
from appservices.vocabulary.money import CurrencyCode, Money

MEMO_LENGTH_MAX = 200


class PaymentKind(StrEnum):
    """What a record is of. A deposit's payer and a withdrawal's payee is the wallet itself."""

    PAYMENT = "payment"
    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"


@dataclass(frozen=True, slots=True)
class PaymentOrder:
    """A payment that somebody wants. The id makes it safe to ask again."""

    id: TransferId
    payer: UserId
    payee: UserId
    money: Money
    memo: str = ""
    room_id: RoomId | None = None
    in_reply_to: EventId | None = None
    """The command in that room which the receipt answers; no part of what makes the order itself."""


@dataclass(frozen=True, slots=True)
class PaymentRecord:
    """A payment that was made. `position` grows with time and pages through a history."""

    id: TransferId
    position: int
    kind: PaymentKind
    state: str
    payer: UserId
    payee: UserId
    money: Money
    memo: str
    at_ms: int
    room_id: RoomId | None
    receipt: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Balance:
    """A user's money in one currency, in minor units. `pending_minor` is held and not available."""

    user: UserId
    currency: CurrencyCode
    posted_minor: int
    pending_minor: int

    @property
    def available_minor(self) -> int:
        return self.posted_minor - self.pending_minor


def clean_memo(text: str) -> str:
    """A memo on one line, without what can't be shown."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())
