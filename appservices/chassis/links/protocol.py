"""What travels on a link, and the rules by which it is judged. Pure: no clock, no database, no Matrix.

A *numbered* message carries items; a *note* carries none and is not numbered: it acknowledges, asks for what
is missing, says how many there are, or that the link has stopped. Numbered messages form a chain: each names
the hash of all before it, so one that was changed, left out or numbered anew does not fit.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from canonicaljson import encode_canonical_json

from appservices.vocabulary.ids import UserId, is_user_id
from appservices.vocabulary.signing import SignatureInvalid, SigningKey, sign_json, verify_json

Item = Mapping[str, Any]
"""One thing that a service tells its peer: a JSON object with a text `kind`."""

MESSAGE_BYTES_MAX: Final = 60 * 1024
"""Of a message's canonical JSON. Matrix allows 64 KiB for the whole event."""
ITEM_BYTES_MAX: Final = 56 * 1024
ITEMS_MAX: Final = 1_000
"""Items of one message."""
WINDOW_MESSAGES_MAX: Final = 20
"""How many numbered messages may be under way unacknowledged: far from the 100 waiting events of a room at
which a homeserver keeps only the last ones."""
AHEAD_MESSAGES_MAX: Final = 4 * WINDOW_MESSAGES_MAX
"""A message further ahead than this is not kept; it will be asked for."""
NUMBER_MAX: Final = 2**53 - 1
_REASON: Final = re.compile(r"[a-z_]{1,64}")


class StopReason(StrEnum):
    """Why a link stopped. Nothing is applied on a stopped link until both operators mend it."""

    SIGNATURE_WRONG = "signature_wrong"
    KEY_CHANGED = "key_changed"
    """The peer shows another key than the one that we know; its operator must say that it is theirs."""
    UNREADABLE = "unreadable"
    """A message that is none, or an item of a kind or form that we don't know."""
    FORKED = "forked"
    """A number came with other content than before, or a message does not follow from those before it."""
    PEER_WENT_BACK = "peer_went_back"
    """The peer does not know any more what it knew: it runs on an older copy of its database."""
    WE_WENT_BACK = "we_went_back"
    """The peer has what we don't know to have sent: we run on an older copy of our database."""
    PEER_BEGAN_ANEW = "peer_began_anew"
    """The peer numbers from the beginning again without our having mended the link."""
    ANSWERED_TWICE = "answered_twice"
    """Two different answers, or two different contents, for one id."""
    ANSWER_UNKNOWN = "answer_unknown"
    """An answer to what was never asked."""
    BALANCES_DIFFER = "balances_differ"
    """The two statements of one day differ."""
    STOPPED_BY_PEER = "stopped_by_peer"
    STOPPED_BY_OPERATOR = "stopped_by_operator"


class MessageUnreadable(ValueError):
    """It is no message of a link; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message as it was read. `seq` is None for a note."""

    sender: UserId
    to: UserId
    epoch: int
    """When the sender began to number, Unix milliseconds; it grows each time the link is mended."""
    at_ms: int
    """By the sender's clock. Only compared with times of the same sender."""
    ack_epoch: int
    """The receiver's epoch that `ack` speaks of; 0 when nothing has come yet."""
    ack: int
    seq: int | None = None
    prev: str = ""
    items: tuple[Item, ...] = ()
    sent: int = 0
    """The number of the sender's last message."""
    resend_from: int | None = None
    wants_ack: bool = False
    stopped: str = ""


@dataclass(frozen=True, slots=True)
class Incoming:
    """What we have of the peer's messages: all up to `seq`, whose chain is `chain`. Epoch 0: none yet."""

    epoch: int = 0
    seq: int = 0
    chain: str = ""
    floor: int = 0
    """Epochs up to this one are over: the link was mended since."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What we have sent: the last number and its chain, and what of it the peer has acknowledged."""

    epoch: int
    seq: int = 0
    chain: str = ""
    acked: int = 0
    acked_at_ms: int = 0
    """The peer's time in the message by which it acknowledged that."""


class Place(StrEnum):
    """Where a numbered message belongs, among those that came before."""

    NEXT = "next"
    KNOWN = "known"
    """A repetition, to be compared with what came under this number."""
    AHEAD = "ahead"
    """Something before it is missing."""
    OVER = "over"
    """Of an earlier epoch."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The link must stop."""

    reason: StopReason
    detail: str = ""


def first_chain(sender: UserId, to: UserId, epoch: int) -> str:
    """The chain before the first message of an epoch."""
    return _digest(f"dev.weft.link\n{sender}\n{to}\n{epoch}".encode())


def next_chain(chain: str, seq: int, items: Sequence[Item]) -> str:
    """The chain after a message: 64 hex digits."""
    return _digest(f"{chain}\n{seq}\n".encode() + encode_canonical_json(list(items)))


def place_of(incoming: Incoming, message: Message) -> Place | Stop:
    """Where a numbered message belongs; a Stop when it contradicts what came before."""
    assert message.seq is not None
    if message.epoch <= incoming.floor or message.epoch < incoming.epoch:
        return Place.OVER
    seq, chain = incoming.seq, incoming.chain
    if incoming.epoch == 0:
        seq, chain = 0, first_chain(message.sender, message.to, message.epoch)
    elif message.epoch > incoming.epoch:
        return Stop(StopReason.PEER_BEGAN_ANEW, f"epoch {message.epoch} after {incoming.epoch}")
    if message.seq <= seq:
        return Place.KNOWN
    if message.seq > seq + 1:
        return Place.AHEAD
    if message.prev != chain:
        return Stop(StopReason.FORKED, f"message {message.seq} does not follow from message {seq}")
    return Place.NEXT


def after(incoming: Incoming, message: Message) -> Incoming:
    """What we have once this message, which is the next one, is applied."""
    assert message.seq is not None
    return Incoming(
        message.epoch, message.seq, next_chain(message.prev, message.seq, message.items), incoming.floor
    )


def acknowledged(outgoing: Outgoing, message: Message) -> Outgoing | Stop:
    """What any message, numbered or a note, says about ours. Messages may come late and in any order, so that
    something is less than before means something only when the peer said it later."""
    if message.ack_epoch not in (0, outgoing.epoch):
        return outgoing
    if message.ack > outgoing.seq:
        return Stop(StopReason.WE_WENT_BACK, f"{message.ack} acknowledged, {outgoing.seq} sent")
    if message.ack > outgoing.acked:
        at_ms = max(outgoing.acked_at_ms, message.at_ms)
        return Outgoing(outgoing.epoch, outgoing.seq, outgoing.chain, message.ack, at_ms)
    missing = message.resend_from is not None and message.resend_from <= outgoing.acked
    if (message.ack < outgoing.acked or missing) and message.at_ms > outgoing.acked_at_ms:
        return Stop(StopReason.PEER_WENT_BACK, f"{message.ack} acknowledged after {outgoing.acked}")
    return outgoing


def wants(outgoing: Outgoing, message: Message) -> int | None:
    """From which of our messages on the peer asks to have them again; None when it does not."""
    if message.resend_from is None or message.ack_epoch not in (0, outgoing.epoch):
        return None
    return message.resend_from if outgoing.acked < message.resend_from <= outgoing.seq else None


def lacks(incoming: Incoming, message: Message) -> bool:
    """Whether the message shows that something of the peer's is missing here."""
    if message.epoch <= incoming.floor or message.epoch < incoming.epoch:
        return False
    return max(message.sent, message.seq or 0) > (incoming.seq if incoming.epoch == message.epoch else 0)


def signed_content(message: Message, key: SigningKey) -> dict[str, Any]:
    """The content of the event that carries the message."""
    content: dict[str, Any] = {
        "to": message.to,
        "epoch": message.epoch,
        "at_ms": message.at_ms,
        "ack_epoch": message.ack_epoch,
        "ack": message.ack,
        "sent": message.sent,
    }
    if message.seq is not None:
        content |= {"seq": message.seq, "prev": message.prev, "items": list(message.items)}
    if message.resend_from is not None:
        content["resend_from"] = message.resend_from
    if message.wants_ack:
        content["wants_ack"] = True
    if message.stopped:
        content["stopped"] = message.stopped
    return sign_json(content, signer=message.sender, key=key)


def check_signature(content: Mapping[str, Any], *, sender: UserId, keys: Mapping[str, str]) -> None:
    """Raises SignatureInvalid unless the sender signed the content with one of these keys."""
    try:
        verify_json(content, signer=sender, keys=keys)
    except SignatureInvalid:
        raise
    except Exception as error:
        # Content that has no canonical form, such as a number that is too big, can't be signed either.
        raise SignatureInvalid(f"the content can't be signed: {type(error).__name__}") from error


def read_message(content: Mapping[str, Any], *, sender: UserId) -> Message:
    """The message in an event's content, its signature not checked. Raises MessageUnreadable."""
    to = content.get("to")
    if not isinstance(to, str) or not is_user_id(to):
        raise MessageUnreadable("it is addressed to nobody")
    stopped = content.get("stopped", "")
    if not isinstance(stopped, str) or (stopped and _REASON.fullmatch(stopped) is None):
        # It is shown to operators, so it must be no more than a name.
        raise MessageUnreadable("“stopped” is no reason")
    message: dict[str, Any] = {
        "sender": sender,
        "to": UserId(to),
        "epoch": _number(content, "epoch", least=1),
        "at_ms": _number(content, "at_ms"),
        "ack_epoch": _number(content, "ack_epoch"),
        "ack": _number(content, "ack"),
        "sent": _number(content, "sent"),
        "resend_from": _number(content, "resend_from", least=1) if "resend_from" in content else None,
        "wants_ack": content.get("wants_ack") is True,
        "stopped": stopped,
    }
    if "seq" not in content:
        return Message(**message)
    prev, items = content.get("prev"), content.get("items")
    if not isinstance(prev, str) or len(prev) != 64:
        raise MessageUnreadable("“prev” is no chain")
    if not isinstance(items, list) or not 0 < len(items) <= ITEMS_MAX:
        raise MessageUnreadable(f"a message has 1 to {ITEMS_MAX} items")
    if not all(isinstance(item, dict) and isinstance(item.get("kind"), str) for item in items):
        raise MessageUnreadable("an item is an object with a kind")
    return Message(**message, seq=_number(content, "seq", least=1), prev=prev, items=tuple(items))


def item_text(item: Item) -> str:
    """The item as canonical JSON. Raises ValueError when it is none or too long to be sent."""
    if not isinstance(item.get("kind"), str):
        raise ValueError("an item has a kind")
    data = encode_canonical_json(dict(item))
    if len(data) > ITEM_BYTES_MAX:
        raise ValueError(f"an item of {len(data)} bytes does not fit into a message")
    return data.decode()


def packed(texts: Sequence[str], *, bytes_max: int = MESSAGE_BYTES_MAX - 2048) -> int:
    """How many of the waiting items, given as canonical JSON, go into the next message. What a message has
    besides its items stays below 2 KiB."""
    size = 0
    for count, text in enumerate(texts[:ITEMS_MAX]):
        size += len(text.encode()) + 1
        if size > bytes_max and count > 0:
            return count
    return min(len(texts), ITEMS_MAX)


def _number(content: Mapping[str, Any], name: str, *, least: int = 0) -> int:
    value = content.get(name)
    if type(value) is not int or not least <= value <= NUMBER_MAX:
        raise MessageUnreadable(f"“{name}” is not a whole number")
    return value


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
