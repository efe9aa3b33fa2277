"""!request and !split, and the reactions by which people pay, decline and take back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from appservices.chassis.commands import Command, CommandCall
from appservices.chassis.database import Write
from appservices.chassis.reactions import ReactionCall
from appservices.vocabulary.ids import TransferId, UserId, derived_id, server_of
from appservices.vocabulary.languages import _, known
from appservices.vocabulary.money import Money
from wallet_appservice.chat.reading import NotUnderstood, read_amount, read_people, read_user
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.receive import request_link
from wallet_appservice.payments.records import Authority, PaymentRecord
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.payments.request_records import SPLIT_PEOPLE_MAX, RequestOrder, ShareState
from wallet_appservice.payments.requests import Asked, Requests
from wallet_appservice.payments.till import Outcome

YES: Final = "✅"
NO: Final = "❌"
"""The reactions that mean something to the wallet; a thumb, which may mean anything, is none of them."""


class RequestCommands:
    """What the wallet does when somebody asks others for money."""

    def __init__(self, payments: Payments, requests: Requests, *, public_url: str) -> None:
        """`public_url` is where people's browsers find Weft's pages."""
        self._requests = requests
        self._public_url = public_url
        self._currencies = payments.currencies
        self._own_server = server_of(payments.wallet_user)
        code = payments.currencies.default.code
        self._request_example = f"!request @bob:{self._own_server} 12.50 {code} lunch"
        self._split_example = f"!split 30 {code} @bob:{self._own_server} @carol:{self._own_server} pizza"

    def commands(self) -> tuple[Command, ...]:
        return (
            Command(
                "request",
                known("!request <user> <amount> [memo]"),
                known("asks somebody for money"),
                self._request_example,
                self._request,
            ),
            Command(
                "split",
                known("!split <amount> <user…> [memo]"),
                known("asks several people, each for an equal part"),
                self._split_example,
                self._split,
            ),
        )

    async def _request(self, call: CommandCall) -> Sequence[Write] | None:
        if not call.arguments:
            return [_misread(call, _("Whom do you ask, and for how much?"), self._request_example)]
        try:
            asked, rest = read_user(call.arguments, call.room, own_server=self._own_server)
            read = read_amount(rest, self._currencies)
        except NotUnderstood as problem:
            return [_misread(call, str(problem), self._request_example)]
        order = RequestOrder(
            id=_command_id(call),
            requester=call.sender,
            people=(asked,),
            money=read.money,
            memo=read.memo,
            room_id=call.room.room_id,
            in_reply_to=call.message.event_id,
        )
        await self._ask(call, order)
        return None

    async def _split(self, call: CommandCall) -> Sequence[Write] | None:
        if not call.arguments:
            return [_misread(call, _("How much, and among whom?"), self._split_example)]
        try:
            read = read_amount(call.arguments, self._currencies)
            people, memo = read_people(
                read.memo, call.room, own_server=self._own_server, people_max=SPLIT_PEOPLE_MAX
            )
        except NotUnderstood as problem:
            return [_misread(call, str(problem), self._split_example)]
        if not people:
            return [_misread(call, _("Among whom?"), self._split_example)]
        order = RequestOrder(
            id=_command_id(call),
            requester=call.sender,
            people=tuple(people),
            money=read.money,
            memo=memo,
            room_id=call.room.room_id,
            in_reply_to=call.message.event_id,
            is_split=True,
        )
        await self._ask(call, order)
        return None

    async def _ask(self, call: CommandCall, order: RequestOrder) -> None:
        def tell(asked: Asked) -> Sequence[Write]:
            if isinstance(asked, PaymentRefused):
                return [call.stored.done, call.reply(asked.sentence)]
            return [call.stored.done]

        await self._requests.ask(order, tell=tell)

    async def reacted(self, call: ReactionCall) -> Sequence[Write] | None:
        """Whoever is asked pays with ✅ or declines with ❌, the requester takes back with ❌. A reaction of
        anybody else, or any other reaction, is just a reaction."""
        if call.key not in (YES, NO):
            return []
        id = TransferId(call.subject.partition(":")[2])
        request = await self._requests.request(call.sender, id)
        if request is None:
            return []
        share = request.share_of(call.sender)
        is_asked = share is not None and share.state is not ShareState.OWN
        if call.key == YES:
            if is_asked and share is not None:
                await self._pay(call, id, share.money)
                return None
            return []

        def tell(asked: Asked) -> Sequence[Write]:
            if isinstance(asked, PaymentRefused):
                return [call.stored.done, *_privately(call, asked)]
            return [call.stored.done]

        if is_asked:
            await self._requests.decline(call.sender, id, tell=tell)
        else:
            await self._requests.cancel(call.sender, id, tell=tell)
        return None

    async def _pay(self, call: ReactionCall, id: TransferId, money: Money) -> None:
        def tell(outcome: Outcome) -> Sequence[Write]:
            if isinstance(outcome, PaymentRecord):
                return [call.stored.done]
            if outcome.refusal is not PaymentRefusal.CONFIRMATION_NEEDED:
                return [call.stored.done, *_privately(call, outcome)]
            text = _(
                "{amount} is more than you pay by chat without a second look ({chat_max}). Pay it here, or "
                "leave it: {link}"
            ).format(
                amount=self._currencies.format(money),
                chat_max=outcome.words["chat_max"],
                link=request_link(self._public_url, id),
            )
            return [call.stored.done, *call.answer_privately(text, elsewhere="")]

        await self._requests.pay(UserId(call.sender), id, authority=Authority.CHAT, tell=tell)


def _command_id(call: CommandCall) -> TransferId:
    """The same message is the same request, however often it reaches us."""
    return TransferId(derived_id("command", call.room.room_id, call.message.event_id))


def _misread(call: CommandCall, problem: str, example: str) -> Write:
    return call.reply(_("{problem} Example: {example}").format(problem=problem, example=example))


def _privately(call: ReactionCall, refused: PaymentRefused) -> Sequence[Write]:
    """A tap in a group is answered to whoever tapped, not to all."""
    return call.answer_privately(refused.sentence, elsewhere="")
