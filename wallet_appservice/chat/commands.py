"""The wallet's chat commands: !balance, !history, !pay."""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import UTC, datetime

from appservices.chassis.commands import Command, CommandCall
from appservices.chassis.database import Write
from appservices.vocabulary.ids import TransferId, UserId, derived_id, localpart_of, server_of
from appservices.vocabulary.languages import _
from appservices.vocabulary.money import Currencies, format_minor
from wallet_appservice.chat.reading import NotUnderstood, read_amount, read_user
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.records import PaymentKind, PaymentOrder, PaymentRecord, PaymentState
from wallet_appservice.payments.refusals import PaymentRefused
from wallet_appservice.payments.till import Outcome

HISTORY_DEFAULT = 10
HISTORY_LINES_MAX = 50


class WalletCommands:
    """What the wallet does when it is written to."""

    def __init__(self, payments: Payments) -> None:
        self._payments = payments
        self._currencies: Currencies = payments.currencies
        self._own_server = server_of(payments.wallet_user)
        self._pay_example = f"!pay @bob:{self._own_server} 12.50 {self._currencies.default.code} lunch"

    def commands(self) -> tuple[Command, ...]:
        return (
            Command("balance", "!balance", "shows your money", "!balance", self._balance),
            Command("pay", "!pay <user> <amount> [memo]", "pays somebody", self._pay_example, self._pay),
            Command("history", "!history [n]", "shows your last payments", "!history 5", self._history),
        )

    async def _balance(self, call: CommandCall) -> Sequence[Write]:
        if call.arguments:
            return [call.reply("!balance takes nothing after it, for example: !balance")]
        lines = []
        for balance in await self._payments.balances(call.sender):
            currency = self._currencies[balance.currency]
            line = format_minor(balance.available_minor, currency)
            if balance.pending_minor:
                line += f" (and {format_minor(balance.pending_minor, currency)} held)"
            lines.append(line)
        return call.answer_privately("You have " + ", ".join(lines))

    async def _history(self, call: CommandCall) -> Sequence[Write]:
        count = _count(call.arguments)
        if count is None:
            return [
                call.reply(f"!history takes a number from 1 to {HISTORY_LINES_MAX}, for example: !history 5")
            ]
        records = await self._payments.history(call.sender, limit=count)
        if not records:
            return call.answer_privately("You have no payments yet.")
        lines = [self._line(record, call.sender) for record in records]
        formatted = "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"
        return call.answer_privately("\n".join(lines), formatted=formatted)

    async def _pay(self, call: CommandCall) -> Sequence[Write] | None:
        try:
            payee, rest = read_user(call.arguments, call.room, own_server=self._own_server)
            read = read_amount(rest, self._currencies)
        except NotUnderstood as problem:
            return [call.reply(f"{problem} Example: {self._pay_example}")]
        order = PaymentOrder(
            # The same message is the same payment, however often it reaches us.
            id=TransferId(derived_id("command", call.room.room_id, call.message.event_id)),
            payer=call.sender,
            payee=payee,
            money=read.money,
            memo=read.memo,
            room_id=call.room.room_id,
            in_reply_to=call.message.event_id,
        )

        def tell(outcome: Outcome) -> Sequence[Write]:
            if isinstance(outcome, PaymentRefused):
                return [call.stored.done, *self._refusal(call, outcome)]
            return [call.stored.done]

        await self._payments.pay(order, tell=tell)
        return None

    def _refusal(self, call: CommandCall, refused: PaymentRefused) -> Sequence[Write]:
        if not refused.is_private:
            return [call.reply(refused.sentence)]
        return call.answer_privately(
            refused.sentence, elsewhere="Nothing was paid; I have told you why in our direct room."
        )

    def _line(self, record: PaymentRecord, user: UserId) -> str:
        day = datetime.fromtimestamp(record.at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
        amount = self._currencies.format(record.money)
        memo = f" · {record.memo}" if record.memo else ""
        words = {"day": day, "amount": amount, "memo": memo}
        other = localpart_of(record.payee if record.payer == user else record.payer)
        return _history_sentence(record, user).format(**words, other=other)


def _history_sentence(record: PaymentRecord, user: UserId) -> str:
    if record.state is PaymentState.RETURNED:
        return _("{day}  {amount}  not accepted, went back{memo}")
    if record.state is PaymentState.PENDING:
        if record.payer == user:
            return _("{day}  −{amount}  waits for {other} to accept{memo}")
        return _("{day}  +{amount}  from {other}, waits for you to accept{memo}")
    match record.kind:
        case PaymentKind.DEPOSIT:
            return _("{day}  +{amount}  deposit{memo}")
        case PaymentKind.WITHDRAWAL:
            return _("{day}  −{amount}  withdrawal{memo}")
        case PaymentKind.RED_PACKET:
            return _("{day}  −{amount}  red packet{memo}")
        case PaymentKind.SHARE:
            return _("{day}  +{amount}  from a red packet{memo}")
        case PaymentKind.RETURN:
            return _("{day}  +{amount}  came back{memo}")
        case PaymentKind.REFUND if record.payer == user:
            return _("{day}  −{amount}  refund to {other}{memo}")
        case PaymentKind.REFUND:
            return _("{day}  +{amount}  refund from {other}{memo}")
        case PaymentKind.PAYMENT if record.payer == user:
            return _("{day}  −{amount}  to {other}{memo}")
        case PaymentKind.PAYMENT:
            return _("{day}  +{amount}  from {other}{memo}")


def _count(text: str) -> int | None:
    if not text:
        return HISTORY_DEFAULT
    if not text.isdecimal() or len(text) > 3:
        return None
    count = int(text)
    return count if 1 <= count <= HISTORY_LINES_MAX else None
