"""The wallet's chat commands: !balance, !history, !pay."""

from __future__ import annotations

import html
from collections.abc import Sequence

from appservices.chassis.commands import Command, CommandCall
from appservices.chassis.database import Write
from appservices.chassis.page_words import readable_time
from appservices.vocabulary.ids import TransferId, UserId, derived_id, localpart_of, server_of
from appservices.vocabulary.languages import _, isolated, known, listed
from appservices.vocabulary.money import Currencies, format_change, format_minor
from wallet_appservice.chat.reading import NotUnderstood, read_amount, read_user
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.confirmations import OPEN_SECONDS, Confirmations
from wallet_appservice.payments.records import PaymentKind, PaymentOrder, PaymentRecord, PaymentState
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.payments.till import Outcome

HISTORY_DEFAULT = 10
HISTORY_LINES_MAX = 50


class WalletCommands:
    """What the wallet does when it is written to."""

    def __init__(self, payments: Payments, confirmations: Confirmations) -> None:
        self._payments = payments
        self._confirmations = confirmations
        self._currencies: Currencies = payments.currencies
        self._own_server = server_of(payments.wallet_user)

    def commands(self) -> tuple[Command, ...]:
        return (
            Command("balance", "!balance", known("shows your money"), "!balance", self._balance),
            Command(
                "pay",
                known("!pay <user> <amount> [memo]"),
                known("pays somebody"),
                known("!pay bob 12.50 lunch"),
                self._pay,
            ),
            Command(
                "history",
                "!history [n]",
                known("shows your last payments"),
                "!history 5",
                self._history,
            ),
        )

    async def _balance(self, call: CommandCall) -> Sequence[Write]:
        if call.arguments:
            return [
                call.reply(
                    _("{command} takes nothing after it, for example: {example}").format(
                        command=isolated("!balance"), example=isolated("!balance")
                    )
                )
            ]
        amounts = []
        for balance in await self._payments.balances(call.sender):
            currency = self._currencies[balance.currency]
            amount = format_minor(balance.available_minor, currency)
            if balance.pending_minor:
                held = format_minor(balance.pending_minor, currency)
                amount = _("{amount} (and {held} held)").format(amount=amount, held=held)
            amounts.append(amount)
        return call.answer_privately(_("You have {amounts}").format(amounts=listed(amounts)))

    async def _history(self, call: CommandCall) -> Sequence[Write]:
        count = _count(call.arguments)
        if count is None:
            return [
                call.reply(
                    _("{command} takes a number from {lowest} to {highest}, for example: {example}").format(
                        command=isolated("!history"),
                        lowest=1,
                        highest=HISTORY_LINES_MAX,
                        example=isolated("!history 5"),
                    )
                )
            ]
        records = await self._payments.history(call.sender, limit=count)
        if not records:
            return call.answer_privately(_("You have no payments yet."))
        lines = [self._line(record, call.sender) for record in records]
        formatted = "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"
        return call.answer_privately("\n".join(lines), formatted=formatted)

    async def _pay(self, call: CommandCall) -> Sequence[Write] | None:
        try:
            payee, rest = read_user(call.arguments, call.room, own_server=self._own_server)
            read = read_amount(rest, self._currencies)
        except NotUnderstood as problem:
            example = _("Example: {example}").format(example=isolated(self._pay_example()))
            return [call.reply(f"{problem} {example}")]
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

        is_first = await self._payments.is_first(order)

        def tell(outcome: Outcome) -> Sequence[Write]:
            if isinstance(outcome, PaymentRefused):
                if outcome.refusal is PaymentRefusal.CONFIRMATION_NEEDED:
                    return [call.stored.done, *self._ask(call, order, outcome)]
                return [call.stored.done, *self._refusal(call, outcome)]
            return [call.stored.done, *(self._warning(call, order) if is_first else ())]

        await self._payments.pay(order, tell=tell)
        return None

    def _ask(self, call: CommandCall, order: PaymentOrder, refused: PaymentRefused) -> Sequence[Write]:
        """The payer alone is told where to confirm what they asked for."""
        text = _(
            "{amount} to {payee} is more than you pay by chat without a second look ({chat_max}). Confirm it "
            "here within {minutes} minutes, or leave it: {link}"
        ).format(
            amount=self._currencies.format(order.money),
            payee=isolated(order.payee),
            chat_max=refused.words["chat_max"],
            minutes=OPEN_SECONDS // 60,
            link=self._confirmations.link(order.id),
        )
        elsewhere = _("Nothing was paid yet; I have sent you a link to confirm it, in our direct room.")
        return [self._confirmations.asked(order), *call.answer_privately(text, elsewhere=elsewhere)]

    def _warning(self, call: CommandCall, order: PaymentOrder) -> Sequence[Write]:
        """For the payer alone: a mistyped name costs least while it is fresh."""
        text = _(
            "That was your first payment to {payee}. If you meant somebody else, ask them for a refund now."
        ).format(payee=isolated(order.payee))
        return call.answer_privately(text, elsewhere="")

    def _refusal(self, call: CommandCall, refused: PaymentRefused) -> Sequence[Write]:
        if not refused.is_private:
            return [call.reply(refused.sentence)]
        return call.answer_privately(
            refused.sentence, elsewhere=_("Nothing was paid; I have told you why in our direct room.")
        )

    def _pay_example(self) -> str:
        return _("!pay {user} 12.50 {currency} lunch").format(
            user=f"@bob:{self._own_server}", currency=self._currencies.default.code
        )

    def _line(self, record: PaymentRecord, user: UserId) -> str:
        incoming = record.payee == user
        person = localpart_of(record.payer if incoming else record.payee)
        if record.merchant is not None:
            incoming = record.kind is not PaymentKind.PURCHASE
            person = record.merchant.name
        moved_minor = record.money.amount_minor if incoming else -record.money.amount_minor
        line = _history_sentence(record, incoming=incoming).format(
            time=readable_time(record.at_ms),
            amount=format_change(moved_minor, self._currencies[record.money.currency]),
            person=isolated(person),
            server=isolated(server_of(record.payee)),
        )
        return f"{line} · {isolated(record.memo)}" if record.memo else line


def _history_sentence(record: PaymentRecord, *, incoming: bool) -> str:
    if record.crosses_servers and record.state is PaymentState.RETURNED:
        return _("{time}  {amount}  not taken by the wallet of {server}, went back")
    if record.crosses_servers and record.state is PaymentState.PENDING:
        return _("{time}  {amount}  to {person}, held until the wallet of {server} answers")
    if record.state is PaymentState.RETURNED:
        return _("{time}  {amount}  not accepted, went back")
    if record.state is PaymentState.PENDING:
        return (
            _("{time}  {amount}  from {person}, waits for you to accept")
            if incoming
            else _("{time}  {amount}  waits for {person} to accept")
        )
    match record.kind:
        case PaymentKind.DEPOSIT:
            return _("{time}  {amount}  deposit")
        case PaymentKind.WITHDRAWAL:
            return _("{time}  {amount}  withdrawal")
        case PaymentKind.RED_PACKET:
            return _("{time}  {amount}  red packet")
        case PaymentKind.SHARE:
            return _("{time}  {amount}  from a red packet")
        case PaymentKind.RETURN:
            return _("{time}  {amount}  came back")
        case PaymentKind.REFUND:
            return (
                _("{time}  {amount}  refund from {person}")
                if incoming
                else _("{time}  {amount}  refund to {person}")
            )
        case PaymentKind.PAYMENT | PaymentKind.PURCHASE | PaymentKind.PAYOUT:
            return _("{time}  {amount}  from {person}") if incoming else _("{time}  {amount}  to {person}")


def _count(text: str) -> int | None:
    if not text:
        return HISTORY_DEFAULT
    if not text.isdecimal() or len(text) > 3:
        return None
    count = int(text)
    return count if 1 <= count <= HISTORY_LINES_MAX else None
