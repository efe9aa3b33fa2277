"""Tells the operators what only they can mend or decide: a link that stopped, a credit limit nearly used."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from appservices.chassis.chosen_languages import LanguageOf, english_for_all
from appservices.chassis.clock import Clock
from appservices.chassis.database import Write
from appservices.chassis.links.protocol import StopReason
from appservices.vocabulary.ids import UserId, server_of
from appservices.vocabulary.languages import _, isolated, speaking
from wallet_appservice.clearing.peers import Position
from wallet_appservice.payments.pins import told_privately


class OperatorNews:
    """Direct messages to the operators whom the config names; the log says the same in any case."""

    def __init__(
        self, operators: Sequence[UserId], *, clock: Clock, language_of: LanguageOf = english_for_all
    ) -> None:
        self._operators = operators
        self._clock = clock
        self._language_of = language_of

    async def link_stopped(self, peer: UserId, reason: StopReason, detail: str) -> Sequence[Write]:
        """To be committed with the stop."""
        what = f"{reason.value}: {detail}" if detail else reason.value

        def sentence() -> str:
            return _(
                "The link with {peer} has stopped ({reason}). No payments go to {server} or come from there "
                "until it is mended; nothing is lost. See {page}."
            ).format(
                peer=isolated(peer),
                reason=isolated(what),
                server=isolated(server_of(peer)),
                page=isolated("docs/operators/peers.md"),
            )

        return await self._told(sentence, "link stopped", peer, what)

    async def limit_used(self, position: Position) -> Sequence[Write]:
        """To be committed with the note that it was told."""

        def sentence() -> str:
            return _(
                "{server} uses {percent} % of its credit limit in {currency}: settle with its operator, or "
                "raise the limit by {command}."
            ).format(
                server=isolated(position.server),
                percent=position.used_percent,
                currency=position.currency,
                command=isolated(f"weft wallet peer set {position.server} --credit-limit …"),
            )

        return await self._told(sentence, "limit used", position.server, position.currency)

    async def _told(self, sentence: Callable[[], str], *cause: str) -> Sequence[Write]:
        now_ms = self._clock()
        writes = []
        for operator in self._operators:
            with speaking(await self._language_of(operator)):
                text = sentence()
            told = told_privately(operator, text, now_ms=now_ms, cause=(*cause, operator, str(now_ms)))
            writes.append(told)
        return writes
