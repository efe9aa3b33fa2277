"""What two wallets tell each other on their link. Pure.

An item that has not exactly the form that it should have is none of ours: the link stops rather than guess.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from canonicaljson import encode_canonical_json

from appservices.vocabulary.ids import RoomId, TransferId, UserId, is_ledger_id, is_user_id
from appservices.vocabulary.money import AMOUNT_MINOR_MAX, CurrencyCode, Money

TEXT_LENGTH_MAX: Final = 255
MEMO_LENGTH_MAX: Final = 2_000
"""Of what is read at all; wallets reject what is longer than people may write."""
_AMOUNT_DIGITS_MAX: Final = 16
_TIME_MAX: Final = 2**53 - 1
PREPARE, FULFILL, REJECT, INQUIRE = "prepare", "fulfill", "reject", "inquire"
STATEMENT, SETTLE = "statement", "settle"
REQUEST, REQUEST_END = "request", "request_end"
PACKET_REFUSED = "packet_refused"


class RejectReason(StrEnum):
    """Why a wallet rejects what another one prepared, most fundamental reason first."""

    NOT_A_PEER = "not_a_peer"
    UNSUPPORTED = "unsupported"
    """It has a condition, a fee or a route, which we don't know yet."""
    CURRENCY_UNKNOWN = "currency_unknown"
    AMOUNT_TOO_LARGE = "amount_too_large"
    MEMO_TOO_LONG = "memo_too_long"
    PAYER_ELSEWHERE = "payer_elsewhere"
    """The payer is not a user of the wallet's own server."""
    PAYEE_ELSEWHERE = "payee_elsewhere"
    PAYEE_UNKNOWN = "payee_unknown"
    REQUEST_UNKNOWN = "request_unknown"
    """The receiver has asked the payer for no such amount."""
    REQUEST_OVER = "request_over"
    """It was paid, declined or taken back, or its time is over."""
    EXPIRED = "expired"
    OVER_LIMIT = "over_limit"
    """More than the credit that the payee's operator grants the payer's wallet."""
    PAYEE_FULL = "payee_full"
    ID_TAKEN = "id_taken"
    UNKNOWN = "unknown"
    """It was asked about and had never come."""


class RequestEnd(StrEnum):
    """How a request ends without payment, as one wallet tells the other."""

    CANCELLED = "cancelled"
    """Said by the requester's wallet."""
    DECLINED = "declined"
    UNREACHED = "unreached"
    """Said, as `declined` is, by the wallet of whoever is asked: they were not told of it."""


class ItemUnreadable(ValueError):
    """It is no item that wallets exchange; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """Will you credit the payee? The sender holds the payer's money until it is told."""

    id: TransferId
    payer: UserId
    payee: UserId
    money: Money
    expires_at_ms: int
    memo: str = ""
    room_id: RoomId | None = None
    """Where the receipt will be, when the payee is there too."""
    payment_kind: str = "payment"
    of: TransferId | None = None
    request: TransferId | None = None
    """The receiver's request that this pays."""
    further: tuple[str, ...] = ()
    """Names of what it has besides: conditions, fees and routes of a later version."""

    def item(self) -> dict[str, Any]:
        item: dict[str, Any] = {
            "kind": PREPARE,
            "id": self.id,
            "payer": self.payer,
            "payee": self.payee,
            "amount_minor": str(self.money.amount_minor),
            "currency": self.money.currency,
            "expires_at_ms": self.expires_at_ms,
        }
        if self.memo:
            item["memo"] = self.memo
        if self.room_id is not None:
            item["room_id"] = self.room_id
        if self.payment_kind != "payment":
            item["payment_kind"] = self.payment_kind
        if self.of is not None:
            item["of"] = self.of
        if self.request is not None:
            item["request"] = self.request
        return item

    @property
    def content(self) -> str:
        """A hash of all of it, which tells another content for the same id."""
        return hashlib.sha256(encode_canonical_json([self.item(), list(self.further)])).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The one final answer to a prepare."""

    id: TransferId
    fulfilled: bool
    reason: str = ""

    def item(self) -> dict[str, Any]:
        if self.fulfilled:
            return {"kind": FULFILL, "id": self.id}
        return {"kind": REJECT, "id": self.id, "reason": self.reason}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquire:
    """What did you answer?"""

    id: TransferId

    def item(self) -> dict[str, Any]:
        return {"kind": INQUIRE, "id": self.id}


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What was fulfilled in one direction: how many, how much, and a hash over ids and amounts."""

    count: int
    sum_minor: int
    hash: str

    def item(self) -> dict[str, Any]:
        return {"count": self.count, "sum_minor": str(self.sum_minor), "hash": self.hash}


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What the sender's books say of payments whose time ended in a period, and of the balance since ever."""

    currency: CurrencyCode
    from_ms: int
    to_ms: int
    paid: Side
    """From the sender's people to the receiver's."""
    received: Side

    def item(self) -> dict[str, Any]:
        return {
            "kind": STATEMENT,
            "currency": self.currency,
            "from_ms": self.from_ms,
            "to_ms": self.to_ms,
            "paid": self.paid.item(),
            "received": self.received.item(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """The sender's operator has received this money from the receiver's operator outside.

    Whoever got the money says so: a false word would only lessen what its sender is owed.
    """

    id: TransferId
    money: Money
    reference: str

    def item(self) -> dict[str, Any]:
        return {
            "kind": SETTLE,
            "id": self.id,
            "amount_minor": str(self.money.amount_minor),
            "currency": self.money.currency,
            "reference": self.reference,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AskItem:
    """Somebody of the sender's asks somebody of the receiver's for money."""

    id: TransferId
    requester: UserId
    asked: UserId
    money: Money
    expires_at_ms: int
    memo: str = ""

    def item(self) -> dict[str, Any]:
        item: dict[str, Any] = {
            "kind": REQUEST,
            "id": self.id,
            "requester": self.requester,
            "asked": self.asked,
            "amount_minor": str(self.money.amount_minor),
            "currency": self.money.currency,
            "expires_at_ms": self.expires_at_ms,
        }
        if self.memo:
            item["memo"] = self.memo
        return item

    @property
    def content(self) -> str:
        return hashlib.sha256(encode_canonical_json(self.item())).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class AskEndItem:
    """A request has ended otherwise than by payment or by its time."""

    id: TransferId
    end: RequestEnd

    def item(self) -> dict[str, Any]:
        return {"kind": REQUEST_END, "id": self.id, "end": self.end.value}


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketRefused:
    """Why somebody of the receiver's got nothing from a red packet of the sender's."""

    packet: TransferId
    opener: UserId
    reason: str
    """empty, over, or opened (before)."""

    def item(self) -> dict[str, Any]:
        return {
            "kind": PACKET_REFUSED,
            "packet": self.packet,
            "opener": self.opener,
            "reason": self.reason,
        }


ClearingItem = Prepare | Answer | Inquire | Statement | Settle | AskItem | AskEndItem | PacketRefused


def read_item(item: Mapping[str, Any]) -> ClearingItem:
    """Raises ItemUnreadable."""
    kind = item.get("kind")
    if kind == PREPARE:
        return _prepare(item)
    if kind == FULFILL:
        return Answer(id=_id(item), fulfilled=True)
    if kind == REJECT:
        return Answer(id=_id(item), fulfilled=False, reason=_text(item, "reason", length_max=32))
    if kind == INQUIRE:
        return Inquire(id=_id(item))
    if kind == STATEMENT:
        return _statement(item)
    if kind == SETTLE:
        reference = _text(item, "reference", length_max=200, may_be_empty=True)
        return Settle(id=_id(item), money=_money(item), reference=reference)
    if kind == REQUEST:
        return AskItem(
            id=_id(item),
            requester=_user(item, "requester"),
            asked=_user(item, "asked"),
            money=_money(item),
            expires_at_ms=_time(item, "expires_at_ms"),
            memo=_text(item, "memo", length_max=2_000, may_be_empty=True) if "memo" in item else "",
        )
    if kind == REQUEST_END:
        end = _text(item, "end", length_max=16)
        if end not in set(RequestEnd):
            raise ItemUnreadable("“end” is cancelled, declined or unreached")
        return AskEndItem(id=_id(item), end=RequestEnd(end))
    if kind == PACKET_REFUSED:
        return PacketRefused(
            packet=_id(item, "packet"),
            opener=_user(item, "opener"),
            reason=_text(item, "reason", length_max=16),
        )
    raise ItemUnreadable("an item of a kind that wallets don't exchange")


_PREPARE_NAMES: Final = frozenset(
    {
        "kind", "id", "payer", "payee", "amount_minor", "currency", "expires_at_ms", "memo", "room_id",
        "payment_kind", "of", "request",
    }
)  # fmt: skip


def _prepare(item: Mapping[str, Any]) -> Prepare:
    room_id = _text(item, "room_id") if "room_id" in item else None
    kind = _text(item, "payment_kind", length_max=16) if "payment_kind" in item else "payment"
    if kind not in ("payment", "refund", "share"):
        raise ItemUnreadable("“payment_kind” is payment, refund or share")
    return Prepare(
        id=_id(item),
        payer=_payer(item),
        payee=_user(item, "payee"),
        money=_money(item),
        expires_at_ms=_time(item, "expires_at_ms"),
        memo=_memo(item) if "memo" in item else "",
        room_id=RoomId(room_id) if room_id is not None else None,
        payment_kind=kind,
        of=_id(item, "of") if "of" in item else None,
        request=_id(item, "request") if "request" in item else None,
        further=tuple(sorted(item.keys() - _PREPARE_NAMES)),
    )


def _statement(item: Mapping[str, Any]) -> Statement:
    from_ms, to_ms = _time(item, "from_ms"), _time(item, "to_ms")
    if from_ms >= to_ms:
        raise ItemUnreadable("the statement's period ends before it begins")
    return Statement(
        currency=_currency(item),
        from_ms=from_ms,
        to_ms=to_ms,
        paid=_side(item, "paid"),
        received=_side(item, "received"),
    )


def _id(item: Mapping[str, Any], name: str = "id") -> TransferId:
    value = item.get(name)
    if not isinstance(value, str) or not is_ledger_id(value):
        raise ItemUnreadable(f"“{name}” is not 32 hex digits")
    return TransferId(value)


def _user(item: Mapping[str, Any], name: str) -> UserId:
    value = item.get(name)
    if not isinstance(value, str) or not is_user_id(value):
        raise ItemUnreadable(f"“{name}” is no user id")
    return UserId(value)


def _payer(item: Mapping[str, Any]) -> UserId:
    """Is shown to people and in terminals, unlike a payee, whom we know or reject."""
    payer = _user(item, "payer")
    if not payer.isprintable():
        raise ItemUnreadable("“payer” is not printable")
    return payer


def _money(item: Mapping[str, Any]) -> Money:
    return Money(_amount(item, "amount_minor", least=1), _currency(item))


def _amount(item: Mapping[str, Any], name: str, *, least: int = 0) -> int:
    value = item.get(name)
    if not isinstance(value, str) or not value.isascii() or not value.isdecimal():
        raise ItemUnreadable(f"“{name}” is not a text of digits")
    if len(value) > 2 * _AMOUNT_DIGITS_MAX or (len(value) > 1 and value.startswith("0")):
        raise ItemUnreadable(f"“{name}” has too many digits")
    amount = int(value)
    if amount < least or (least and amount > AMOUNT_MINOR_MAX):
        raise ItemUnreadable(f"“{name}” is out of bounds")
    return amount


def _currency(item: Mapping[str, Any]) -> CurrencyCode:
    value = item.get("currency")
    if (
        not isinstance(value, str)
        or not 3 <= len(value) <= 8
        or not (value.isascii() and value.isalpha() and value.isupper())
    ):
        raise ItemUnreadable("“currency” is no currency code")
    return CurrencyCode(value)


def _time(item: Mapping[str, Any], name: str) -> int:
    value = item.get(name)
    if type(value) is not int or not 0 <= value <= _TIME_MAX:
        raise ItemUnreadable(f"“{name}” is no time")
    return value


def _text(
    item: Mapping[str, Any], name: str, *, length_max: int = TEXT_LENGTH_MAX, may_be_empty: bool = False
) -> str:
    value = item.get(name)
    if not isinstance(value, str) or len(value) > length_max or not (value or may_be_empty):
        raise ItemUnreadable(f"“{name}” is no text of at most {length_max} characters")
    if not value.isprintable():
        raise ItemUnreadable(f"“{name}” is not printable on one line")
    return value


def _memo(item: Mapping[str, Any]) -> str:
    """What people wrote, so that one that can't be shown is rejected and does not stop the link."""
    value = item.get("memo")
    if not isinstance(value, str) or len(value) > MEMO_LENGTH_MAX:
        raise ItemUnreadable(f"“memo” is no text of at most {MEMO_LENGTH_MAX} characters")
    if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ItemUnreadable("“memo” can't be kept as text")
    return value


def _side(item: Mapping[str, Any], name: str) -> Side:
    value = item.get(name)
    if not isinstance(value, Mapping):
        raise ItemUnreadable(f"“{name}” is no object")
    return Side(
        count=_time(value, "count"),
        sum_minor=_amount(value, "sum_minor"),
        hash=_text(value, "hash", length_max=64),
    )
