"""!pending and !accept: what is not over yet, and whether incoming payments wait to be accepted."""

from __future__ import annotations

import html
from collections.abc import Sequence

from appservices.chassis.commands import Command, CommandCall
from appservices.chassis.database import Write
from appservices.chassis.page_words import readable_time
from appservices.chassis.reactions import ReactionCall
from appservices.vocabulary.ids import TransferId, localpart_of
from appservices.vocabulary.languages import _, isolated, known
from wallet_appservice.chat.request_commands import NO, YES
from wallet_appservice.payments.acceptance import Acceptance
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.pending import Pending, PendingItem, PendingKind
from wallet_appservice.payments.records import PaymentRecord
from wallet_appservice.payments.settings import Settings
from wallet_appservice.payments.till import Outcome

PENDING_LINES_MAX = 50


class PendingCommands:
    """What the wallet says of what waits."""

    def __init__(
        self, payments: Payments, pending: Pending, acceptance: Acceptance, settings: Settings
    ) -> None:
        self._payments = payments
        self._currencies = payments.currencies
        self._pending = pending
        self._acceptance = acceptance
        self._settings = settings

    def commands(self) -> tuple[Command, ...]:
        return (
            Command("pending", "!pending", known("shows what is not over yet"), "!pending", self._list),
            Command(
                "accept",
                "!accept on|off",
                known("lets payments to you wait until you accept them"),
                "!accept on",
                self._switch,
            ),
        )

    async def _list(self, call: CommandCall) -> Sequence[Write]:
        page = await self._pending.of(call.sender, limit=PENDING_LINES_MAX)
        if not page.items:
            return call.answer_privately(_("Nothing is pending."))
        lines = [self._line(item) for item in page.items]
        if page.next_after is not None:
            lines.append(_("There is more; what ends soonest is shown here."))
        formatted = "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"
        return call.answer_privately("\n".join(lines), formatted=formatted)

    async def _switch(self, call: CommandCall) -> Sequence[Write]:
        wanted = call.arguments.strip().lower()
        if wanted not in ("on", "off"):
            is_on = await self._settings.waits_for_acceptance(call.sender)
            state = (
                _("Payments to you wait until you accept them. Example: !accept off")
                if is_on
                else _("Payments to you come in at once. Example: !accept on")
            )
            return call.answer_privately(state)
        if wanted == "off" and self._settings.acceptance_of_all:
            sentence = _("On this server all payments wait to be accepted; this can't be switched off.")
            return call.answer_privately(sentence)
        sentence = (
            _("From now on payments to you wait until you accept them with ✅; after 24 hours they go back.")
            if wanted == "on"
            else _("From now on payments to you come in at once.")
        )
        writes = self._settings.acceptance_writes(call.sender, on=wanted == "on")
        return [*writes, *call.answer_privately(sentence)]

    async def reacted(self, call: ReactionCall) -> Sequence[Write] | None:
        """The payee of a payment that waits accepts it with ✅ or declines it with ❌; to any other receipt a
        reaction is just a reaction."""
        id = TransferId(call.subject.partition(":")[2])
        record = await self._payments.payment(call.sender, id)
        if (
            call.key not in (YES, NO)
            or record is None
            or record.payee != call.sender
            or record.expires_at_ms is None
        ):
            return []

        def tell(outcome: Outcome) -> Sequence[Write]:
            if isinstance(outcome, PaymentRecord):
                return [call.stored.done]
            return [call.stored.done, *call.answer_privately(outcome.sentence, elsewhere="")]

        end = self._acceptance.accept if call.key == YES else self._acceptance.decline
        await end(call.sender, id, tell=tell)
        return None

    def _line(self, item: PendingItem) -> str:
        words = {
            "amount": self._currencies.format(item.money),
            "other": isolated(localpart_of(item.other)) if item.other is not None else "",
            "memo": f" · {isolated(item.memo)}" if item.memo else "",
            "end": "" if item.ends_at_ms is None else readable_time(item.ends_at_ms),
        }
        return _sentence(item).format(**words)


def _sentence(item: PendingItem) -> str:
    match item.kind:
        case PendingKind.REQUEST if item.waits_for_me:
            return _("{other} asks you for {amount}{memo} until {end}")
        case PendingKind.REQUEST if item.other is not None:
            return _("You ask {other} for {amount}{memo} until {end}")
        case PendingKind.REQUEST:
            return _("You ask several people for {amount}{memo} until {end}")
        case PendingKind.RED_PACKET:
            return _("{amount} are left in your red packet{memo} until {end}")
        case PendingKind.PAYMENT if item.ends_at_ms is None:
            return _("{amount} are under way between you and {other}{memo}")
        case PendingKind.PAYMENT if item.waits_for_me:
            return _("{amount} from {other} wait until you accept them{memo}, until {end}")
        case PendingKind.PAYMENT:
            return _("{amount} wait until {other} accepts them{memo}, until {end}")
