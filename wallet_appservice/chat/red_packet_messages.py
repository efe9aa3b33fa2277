"""What a room reads of a red packet: the message with the signed block, and who has found how much."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from appservices.chassis.clock import Clock
from appservices.chassis.database import Write
from appservices.chassis.messages import notice, reply_relation
from appservices.chassis.outbox import Outgoing
from appservices.vocabulary.events import RED_PACKET
from appservices.vocabulary.ids import EventId, OutboxId, RoomId, UserId, derived_id
from appservices.vocabulary.languages import _, counted, isolated
from appservices.vocabulary.money import Currencies
from appservices.vocabulary.signing import SigningKey, sign_json
from wallet_appservice.chat.names import Names
from wallet_appservice.payments.red_packet_records import (
    PACKET_SECONDS,
    FoundShare,
    PacketState,
    RedPacket,
    luckiest,
)

LIST_BYTES_MAX: Final = 8 * 1024
"""Of the list of openers, as JSON: an event holds 64 KiB, and a new version holds its text twice."""


class RedPacketMessages:
    """Tells a room of its red packets."""

    def __init__(
        self,
        names: Names,
        *,
        wallet_user: UserId,
        signing_key: SigningKey,
        currencies: Currencies,
        clock: Clock,
    ) -> None:
        self._names = names
        self._wallet_user = wallet_user
        self._signing_key = signing_key
        self._currencies = currencies
        self._clock = clock

    async def is_member(self, room_id: RoomId, user: UserId) -> bool:
        room = await self._names.room(room_id)
        return room is not None and user in room.members.joined

    async def packed(self, packet: RedPacket, *, in_reply_to: EventId | None) -> Sequence[Write]:
        content = await self._content(packet, ())
        if in_reply_to is not None:
            content |= reply_relation(in_reply_to)
        outgoing = Outgoing(_message_id(packet), content, room_id=packet.room_id, subject=packet.subject)
        return [outgoing.write(now_ms=self._clock())]

    async def shown(self, packet: RedPacket, shares: tuple[FoundShare, ...]) -> Sequence[Write]:
        outgoing = Outgoing(
            _message_id(packet, str(packet.version)),
            await self._content(packet, shares),
            room_id=packet.room_id,
            replaces=_message_id(packet),
        )
        return [outgoing.write(now_ms=self._clock())]

    async def _content(self, packet: RedPacket, shares: tuple[FoundShare, ...]) -> dict[str, Any]:
        room = await self._names.room(packet.room_id)
        names = await self._names.of([packet.sender, *(share.opener for share in shares)], room)
        words = f" · {isolated(packet.words)}" if packet.words else ""
        lines = [
            _("🧧 {sender} put {amount} into a red packet for {count}{words}").format(
                sender=isolated(names[packet.sender]),
                amount=self._currencies.format(packet.money),
                count=packet.count,
                words=words,
            ),
            self._state_line(packet, shares),
        ]
        lines += self._list(shares, names)
        best = luckiest(shares) if packet.is_over and not packet.is_equal else None
        if best is not None and (packet.state is not PacketState.EMPTIED or len(shares) == packet.count):
            lines.append(
                _("🍀 {name} was luckiest with {amount}").format(
                    name=isolated(names[best.opener]), amount=self._currencies.format(best.money)
                )
            )
        return {**notice("\n".join(lines)), RED_PACKET: self._block(packet, len(shares))}

    def _state_line(self, packet: RedPacket, shares: tuple[FoundShare, ...]) -> str:
        match packet.state:
            case PacketState.OPEN if not shares:
                return _("React with 🧧 to open it; after {hours} hours it goes back.").format(
                    hours=PACKET_SECONDS // 3600
                )
            case PacketState.OPEN:
                return _("{opened} of {count} have opened it; react with 🧧 to open it too.").format(
                    opened=len(shares), count=packet.count
                )
            case PacketState.EMPTIED:
                return _("It is empty: {opened} of {count} have opened it.").format(
                    opened=len(shares), count=packet.count
                )
            case PacketState.RETURNING | PacketState.RETURNED:
                return _("Its time is over: {opened} of {count} have opened it, the rest went back.").format(
                    opened=len(shares), count=packet.count
                )

    def _list(self, shares: tuple[FoundShare, ...], names: dict[UserId, str]) -> list[str]:
        lines: list[str] = []
        bytes_left = LIST_BYTES_MAX
        for share in shares:
            line = _("{name}: {amount}").format(
                name=isolated(names[share.opener]), amount=self._currencies.format(share.money)
            )
            bytes_left -= len(json.dumps(line))
            if bytes_left < 0:
                lines.append(counted("… and {count} more", "… and {count} more", len(shares) - len(lines)))
                break
            lines.append(line)
        return lines

    def _block(self, packet: RedPacket, opened_count: int) -> dict[str, Any]:
        block: dict[str, Any] = {
            "id": packet.id,
            "sender": packet.sender,
            "amount_minor": str(packet.money.amount_minor),
            "currency": packet.money.currency,
            "count": packet.count,
            "mode": "equal" if packet.is_equal else "random",
            "state": packet.state.value,
            "opened_count": opened_count,
            "at_ms": packet.created_at_ms,
            "expires_at_ms": packet.expires_at_ms,
            "room_id": packet.room_id,
            "wallet": self._wallet_user,
        }
        if packet.words:
            block["words"] = packet.words
        return sign_json(block, signer=self._wallet_user, key=self._signing_key)


def _message_id(packet: RedPacket, *version: str) -> OutboxId:
    return OutboxId(derived_id("red packet", packet.id, *version))
