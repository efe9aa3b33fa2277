"""The chat side of money between people: all its commands, and what reactions to its messages do."""

from __future__ import annotations

from appservices.chassis.commands import Command
from appservices.chassis.reactions import ReactionHandler
from wallet_appservice.chat.announcements import PAYMENT_SUBJECT
from wallet_appservice.chat.pending_commands import PendingCommands
from wallet_appservice.chat.receive_commands import ReceiveCommands, Upload
from wallet_appservice.chat.red_packet_commands import RedPacketCommands
from wallet_appservice.chat.refund_commands import RefundCommands, SubjectOf
from wallet_appservice.chat.request_commands import RequestCommands
from wallet_appservice.payments import red_packet_records, request_records
from wallet_appservice.payments.people import People


class PeopleChat:
    """What the wallet does when people deal with one another in rooms."""

    def __init__(self, people: People, *, subject_of: SubjectOf, upload: Upload, public_url: str) -> None:
        payments = people.payments
        self._requests = RequestCommands(payments, people.requests, public_url=public_url)
        self._red_packets = RedPacketCommands(payments, people.red_packets, public_url=public_url)
        self._refunds = RefundCommands(payments, people.refunds, subject_of=subject_of)
        self._receive = ReceiveCommands(payments, upload=upload, public_url=public_url)
        self._pending = PendingCommands(payments, people.pending, people.acceptance, people.settings)

    def commands(self) -> tuple[Command, ...]:
        return (
            *self._requests.commands(),
            *self._red_packets.commands(),
            *self._receive.commands(),
            *self._refunds.commands(),
            *self._pending.commands(),
        )

    def reactions(self) -> dict[str, ReactionHandler]:
        """By the kind of what the message is about."""
        return {
            request_records.SUBJECT: self._requests.reacted,
            red_packet_records.SUBJECT: self._red_packets.reacted,
            PAYMENT_SUBJECT: self._pending.reacted,
        }
