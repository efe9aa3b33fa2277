"""!redpacket, and the reaction that opens one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from appservices.chassis.commands import Command, CommandCall
from appservices.chassis.database import Write
from appservices.chassis.reactions import ReactionCall
from appservices.vocabulary.ids import TransferId, derived_id, server_of
from appservices.vocabulary.languages import _, known
from wallet_appservice.chat.reading import NotUnderstood, read_packet
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.receive import red_packet_link
from wallet_appservice.payments.red_packet_openings import Opened
from wallet_appservice.payments.red_packet_records import PacketOrder
from wallet_appservice.payments.red_packets import Filled, RedPackets
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused

OPEN: Final = "🧧"


class RedPacketCommands:
    """What the wallet does with red packets in rooms."""

    def __init__(self, payments: Payments, red_packets: RedPackets, *, public_url: str) -> None:
        """`public_url` is where people's browsers find Weft's pages."""
        self._red_packets = red_packets
        self._public_url = public_url
        self._currencies = payments.currencies
        self._own_server = server_of(payments.wallet_user)
        self._example = f"!redpacket 20 {payments.currencies.default.code} 5 happy new year"

    def commands(self) -> tuple[Command, ...]:
        return (
            Command(
                "redpacket",
                known("!redpacket <total> <count> [equal] [words]"),
                known("puts money into the room, for whoever opens it first"),
                self._example,
                self._fill,
            ),
        )

    async def _fill(self, call: CommandCall) -> Sequence[Write] | None:
        try:
            read = read_packet(call.arguments, self._currencies)
        except NotUnderstood as problem:
            sentence = _("{problem} Example: {example}").format(problem=problem, example=self._example)
            return [call.reply(sentence)]
        if call.is_private:
            return [call.reply(_("Here only you could open it: put it into a room where others are, too."))]
        order = PacketOrder(
            id=TransferId(derived_id("command", call.room.room_id, call.message.event_id)),
            sender=call.sender,
            room_id=call.room.room_id,
            money=read.money,
            count=read.count,
            is_equal=read.is_equal,
            words=read.words,
            in_reply_to=call.message.event_id,
        )

        def tell(filled: Filled) -> Sequence[Write]:
            if not isinstance(filled, PaymentRefused):
                return [call.stored.done]
            if not filled.is_private:
                return [call.stored.done, call.reply(filled.sentence)]
            elsewhere = _("Nothing was put in; I have told you why in our direct room.")
            sentence = filled.sentence
            if filled.refusal is PaymentRefusal.CONFIRMATION_NEEDED:
                sentence = _(
                    "{amount} is more than you put into a red packet by chat without a second look "
                    "({chat_max}). Put it in here, or leave it: {link}"
                ).format(
                    amount=self._currencies.format(order.money),
                    chat_max=filled.words["chat_max"],
                    link=red_packet_link(self._public_url, order, self._currencies),
                )
            return [call.stored.done, *call.answer_privately(sentence, elsewhere=elsewhere)]

        await self._red_packets.fill(order, tell=tell)
        return None

    async def reacted(self, call: ReactionCall) -> Sequence[Write] | None:
        """A member opens the packet; the receipt is the answer. Who opens it again is told what was in it."""
        if call.key != OPEN:
            return []
        id = TransferId(call.subject.partition(":")[2])
        if server_of(call.sender) != self._own_server:
            await self._red_packets.draw_elsewhere(call.sender, id, done=call.stored.done)
            return None

        def tell(opened: Opened) -> Sequence[Write]:
            if isinstance(opened, PaymentRefused):
                return [call.stored.done, *call.answer_privately(opened.sentence, elsewhere="")]
            if opened.is_new:
                return [call.stored.done]
            amount = self._currencies.format(opened.share.money)
            sentence = _("You have opened this red packet already, and found {amount}.").format(amount=amount)
            return [call.stored.done, *call.answer_privately(sentence, elsewhere="")]

        await self._red_packets.draw(call.sender, id, tell=tell)
        return None
