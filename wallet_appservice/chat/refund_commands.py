"""!refund: who was paid gives back, by replying to the receipt or by its id."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from appservices.chassis.commands import Command, CommandCall
from appservices.chassis.database import Write
from appservices.vocabulary.ids import EventId, TransferId, derived_id, is_ledger_id
from appservices.vocabulary.languages import _, known
from appservices.vocabulary.money import Money
from wallet_appservice.chat.announcements import PAYMENT_SUBJECT
from wallet_appservice.chat.reading import NotUnderstood, read_amount
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.records import PaymentRecord
from wallet_appservice.payments.refunds import RefundOrder, Refunds
from wallet_appservice.payments.till import Outcome

SubjectOf = Callable[[EventId], Awaitable[str | None]]


class RefundCommands:
    """What the wallet does when somebody gives back."""

    def __init__(self, payments: Payments, refunds: Refunds, *, subject_of: SubjectOf) -> None:
        """`subject_of` tells what one of the wallet's messages is about."""
        self._refunds = refunds
        self._currencies = payments.currencies
        self._subject_of = subject_of
        self._example = f"!refund 9f86d081884c7d659a2feaa0c55ad015 5 {payments.currencies.default.code}"

    def commands(self) -> tuple[Command, ...]:
        return (
            Command(
                "refund",
                known("!refund <receipt id, or as a reply to it> [amount] [memo]"),
                known("gives back what somebody has paid you, all or part"),
                self._example,
                self._refund,
            ),
        )

    async def _refund(self, call: CommandCall) -> Sequence[Write] | None:
        payment_id, rest = await self._payment(call)
        if payment_id is None:
            problem = _("Which payment? Reply to its receipt with !refund, or give the receipt's id.")
            return [self._misread(call, problem)]
        money: Money | None = None
        memo = rest
        if any(character.isdecimal() for word in rest.split()[:2] for character in word):
            try:
                read = read_amount(rest, self._currencies)
            except NotUnderstood as error:
                return [self._misread(call, str(error))]
            money, memo = read.money, read.memo
        order = RefundOrder(
            id=TransferId(derived_id("command", call.room.room_id, call.message.event_id)),
            payment_id=payment_id,
            by=call.sender,
            money=money,
            memo=memo,
            room_id=call.room.room_id,
            in_reply_to=call.message.event_id,
        )

        def tell(outcome: Outcome) -> Sequence[Write]:
            if isinstance(outcome, PaymentRecord):
                return [call.stored.done]
            if not outcome.is_private:
                return [call.stored.done, call.reply(outcome.sentence)]
            elsewhere = _("Nothing was given back; I have told you why in our direct room.")
            return [call.stored.done, *call.answer_privately(outcome.sentence, elsewhere=elsewhere)]

        await self._refunds.refund(order, tell=tell)
        return None

    async def _payment(self, call: CommandCall) -> tuple[TransferId | None, str]:
        """Which payment is meant, and what else was typed."""
        first, _space, rest = call.arguments.partition(" ")
        if is_ledger_id(first.lower()):
            return TransferId(first.lower()), rest.strip()
        if call.message.reply_to is None:
            return None, ""
        kind, _colon, id = (await self._subject_of(call.message.reply_to) or "").partition(":")
        return (TransferId(id), call.arguments) if kind == PAYMENT_SUBJECT else (None, "")

    def _misread(self, call: CommandCall, problem: str) -> Write:
        return call.reply(_("{problem} Example: {example}").format(problem=problem, example=self._example))
