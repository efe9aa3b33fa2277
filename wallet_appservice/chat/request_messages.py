"""What people read of requests: the message that asks, its new versions, reminders, and how it ended."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, Final

from appservices.chassis.chosen_languages import LanguageOf, english_for_all
from appservices.chassis.clock import Clock
from appservices.chassis.database import Write
from appservices.chassis.messages import notice, pill, reply_relation
from appservices.chassis.outbox import Outgoing
from appservices.vocabulary.ids import EventId, OutboxId, RoomId, UserId, derived_id, server_of
from appservices.vocabulary.languages import _, isolated, speaking
from appservices.vocabulary.money import Currencies
from wallet_appservice.chat.names import Names
from wallet_appservice.payments.request_records import Request, RequestShare, ShareState
from wallet_appservice.payments.till import RoomNotShared

PILL_LINES_MAX: Final = 22
"""An event holds 64 KiB and a new version all of it twice; with long names more pills would not fit."""


class RequestMessages:
    """Tells of requests: in their room, and directly to whoever is not there. People of other homeservers are
    told by their own wallets."""

    def __init__(
        self,
        names: Names,
        *,
        wallet_user: UserId,
        currencies: Currencies,
        clock: Clock,
        language_of: LanguageOf = english_for_all,
    ) -> None:
        """A room reads a request in the language it was made in; whom it is sent to alone, in theirs."""
        self._names = names
        self._language_of = language_of
        self._wallet_user = wallet_user
        self._currencies = currencies
        self._clock = clock

    async def presence(self, room_id: RoomId, requester: UserId) -> frozenset[UserId]:
        room = await self._names.room(room_id)
        if room is None or requester not in room.members.joined:
            raise RoomNotShared
        return frozenset(room.members.joined)

    async def asked(self, request: Request, *, in_reply_to: EventId | None) -> Sequence[Write]:
        mentions = {"user_ids": [share.asked for share in request.shares if share.is_open]}
        names = await self._people(request)
        writes = []
        for room_id, user in self._places(request):
            content = {**await self._content(request, names, reader=user), "m.mentions": mentions}
            is_answer = room_id is not None and in_reply_to is not None
            there = {**content, **reply_relation(in_reply_to)} if is_answer and in_reply_to else content
            outgoing = Outgoing(
                _message_id(request, room_id or user),
                there,
                room_id=room_id,
                to_user=user,
                subject=request.subject,
            )
            writes.append(outgoing.write(now_ms=self._clock()))
        return writes

    async def shown(self, request: Request) -> Sequence[Write]:
        names = await self._people(request)
        return [
            Outgoing(
                _message_id(request, room_id or user, str(request.version)),
                await self._content(request, names, reader=user),
                room_id=room_id,
                to_user=user,
                replaces=_message_id(request, room_id or user),
            ).write(now_ms=self._clock())
            for room_id, user in self._places(request)
        ]

    async def ended(self, request: Request, shares: Sequence[RequestShare]) -> Sequence[Write]:
        names = await self._people(request)
        writes = []
        expired: list[str] = []
        requesters = await self._language_of(request.requester)
        for share in shares:
            askeds = await self._language_of(share.asked)
            tells_requester = self._is_ours(request.requester)
            tells_asked = self._is_ours(share.asked)
            if share.state is ShareState.DECLINED and tells_requester:
                with speaking(requesters):
                    text = _("{asked} declined to pay the {amount} that you asked for{memo}").format(
                        **self._words(request, share, names)
                    )
                writes.append(self._told(request, request.requester, text, "declined", share.asked))
            elif share.state is ShareState.UNREACHED and tells_requester:
                with speaking(requesters):
                    text = _(
                        "{asked} could not be asked for {amount}: "
                        "the wallet there did not take the request{memo}"
                    ).format(**self._words(request, share, names))
                writes.append(self._told(request, request.requester, text, "unreached", share.asked))
            elif share.state is ShareState.CANCELLED and tells_asked:
                with speaking(askeds):
                    text = _("{requester} does not ask you for {amount} any more{memo}").format(
                        **self._words(request, share, names)
                    )
                writes.append(self._told(request, share.asked, text, "cancelled"))
            elif share.state is ShareState.EXPIRED:
                if tells_asked:
                    with speaking(askeds):
                        text = _(
                            "The time to pay {requester} {amount} is over, and nothing was paid{memo}"
                        ).format(**self._words(request, share, names))
                    writes.append(self._told(request, share.asked, text, "expired"))
                if tells_requester:
                    with speaking(requesters):
                        expired.append(
                            _("{asked} did not pay the {amount} that you asked for in time{memo}").format(
                                **self._words(request, share, names)
                            )
                        )
        if expired:
            people = [share.asked for share in shares]
            writes.append(self._told(request, request.requester, "\n".join(expired), "expired", *people))
        return writes

    async def reminded(self, request: Request) -> Sequence[Write]:
        names = await self._people(request)
        writes = []
        for share in request.shares:
            if share.state is ShareState.OPEN and self._is_ours(share.asked):
                with speaking(await self._language_of(share.asked)):
                    text = _(
                        "A reminder: {requester} asks you for {amount}{memo}\n"
                        "React with ✅ to pay it or with ❌ to decline."
                    ).format(**self._words(request, share, names))
                writes.append(self._told(request, share.asked, text, "reminded", subject=request.subject))
        return writes

    def _is_ours(self, user: UserId) -> bool:
        return server_of(user) == server_of(self._wallet_user)

    def _places(self, request: Request) -> list[tuple[RoomId | None, UserId | None]]:
        """Where its message is: in the room, and with everybody of ours who can't see it there."""
        copies = [share.asked for share in request.shares if share.has_copy]
        if request.room_id is not None:
            return [(request.room_id, None), *((None, user) for user in copies)]
        if self._is_ours(request.requester):
            copies.append(request.requester)
        return [(None, user) for user in copies]

    async def _people(self, request: Request) -> dict[UserId, str]:
        room = await self._names.room(request.room_id)
        return await self._names.of([request.requester, *(share.asked for share in request.shares)], room)

    async def _content(
        self, request: Request, names: Mapping[UserId, str], *, reader: UserId | None
    ) -> dict[str, Any]:
        """The message for its room, or for one reader alone."""
        with speaking(request.language if reader is None else await self._language_of(reader)):
            return self._spoken_content(request, names)

    def _spoken_content(self, request: Request, names: Mapping[UserId, str]) -> dict[str, Any]:
        pills = {user: pill(user, isolated(name)) for user, name in names.items()}
        lines, html_lines = [], []
        for sentence, share in self._lines(request):
            lines.append(sentence.format(**self._words(request, share, names)))
            html_words = self._words(request, share, pills, is_html=True)
            html_lines.append(html.escape(sentence, quote=False).format(**html_words))
        text = "\n".join(lines)
        return notice(text, formatted="<br>".join(html_lines) if len(lines) <= PILL_LINES_MAX else None)

    def _lines(self, request: Request) -> list[tuple[str, RequestShare | None]]:
        """The sentences of its message, their places open, each with whom it is about."""
        if not request.is_split:
            (share,) = request.shares
            lines: list[tuple[str, RequestShare | None]] = [(_request_line(share.state), share)]
            if share.is_open:
                lines.append((self._request_hint(request, share), share))
            return lines
        lines = [(_("{requester} splits {amount}{memo}"), None)]
        lines += [(_split_line(share.state), share) for share in request.shares]
        if request.is_open:
            lines.append(
                (
                    _(
                        "Whoever is named can react with ✅ to pay their part or with ❌ to decline; "
                        "{requester} can take it back with ❌."
                    ),
                    None,
                )
            )
        if any(share.is_open and not self._is_ours(share.asked) for share in request.shares):
            lines.append((_("People of other servers are asked by their own wallets, and pay there."), None))
        return lines

    def _request_hint(self, request: Request, share: RequestShare) -> str:
        if not self._is_ours(request.requester):
            return _("React with ✅ to pay or with ❌ to decline.")
        if not self._is_ours(share.asked):
            return _(
                "{asked} is asked by their own wallet, and pays or declines there; "
                "{requester} can take it back with ❌."
            )
        return _(
            "{asked} can react with ✅ to pay or with ❌ to decline; {requester} can take it back with ❌."
        )

    def _words(
        self,
        request: Request,
        share: RequestShare | None,
        names: Mapping[UserId, str],
        *,
        is_html: bool = False,
    ) -> dict[str, str]:
        memo = f" · {isolated(request.memo)}" if request.memo else ""
        # Pills are isolated already, and markup must not be.
        shown = names if is_html else {user: isolated(name) for user, name in names.items()}
        return {
            "requester": shown[request.requester],
            "asked": shown[share.asked] if share is not None else "",
            "amount": self._currencies.format(share.money if share is not None else request.money),
            "memo": html.escape(memo) if is_html else memo,
        }

    def _told(
        self,
        request: Request,
        user: UserId,
        text: str,
        purpose: str,
        *causes: str,
        subject: str = "",
    ) -> Write:
        outbox_id = OutboxId(derived_id(f"request {purpose}", request.id, user, *causes))
        return Outgoing(outbox_id, notice(text), to_user=user, subject=subject).write(now_ms=self._clock())


def _message_id(request: Request, place: str | None, *version: str) -> OutboxId:
    return OutboxId(derived_id("request", request.id, place or "", *version))


def _request_line(state: ShareState) -> str:
    match state:
        case ShareState.PAID:
            return _("✅ {asked} paid {requester} the {amount} that was asked for{memo}")
        case ShareState.DECLINED:
            return _("❌ {asked} declined to pay {requester} {amount}{memo}")
        case ShareState.CANCELLED:
            return _("🚫 {requester} does not ask {asked} for {amount} any more{memo}")
        case ShareState.EXPIRED:
            return _("⌛ {asked} did not pay {requester} {amount} in time{memo}")
        case ShareState.UNREACHED:
            return _("⚠️ {asked} could not be asked by {requester} for {amount}{memo}")
        case _other:
            return _("{requester} asks {asked} for {amount}{memo}")


def _split_line(state: ShareState) -> str:
    match state:
        case ShareState.PAID:
            return _("✅ {asked}: {amount} paid")
        case ShareState.DECLINED:
            return _("❌ {asked}: {amount} declined")
        case ShareState.CANCELLED:
            return _("🚫 {asked}: {amount} taken back")
        case ShareState.EXPIRED:
            return _("⌛ {asked}: {amount} not paid in time")
        case ShareState.UNREACHED:
            return _("⚠️ {asked}: could not be asked for {amount}")
        case ShareState.OWN:
            return _("👤 {asked}: {amount}, their own part")
        case _other:
            return _("⏳ {asked}: {amount}")
