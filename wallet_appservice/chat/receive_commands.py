"""!receive: a picture and a link to be paid by."""

from __future__ import annotations

import html
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from appservices.chassis.commands import Command, CommandCall
from appservices.chassis.database import Write
from appservices.chassis.homeserver import MatrixRefused
from appservices.chassis.outbox import Outgoing
from appservices.vocabulary.ids import OutboxId, RoomId, derived_id
from appservices.vocabulary.languages import _, known
from appservices.vocabulary.money import Money
from wallet_appservice.chat.reading import NotUnderstood, read_amount
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.code_pictures import qr_png
from wallet_appservice.payments.receive import RECEIVE_MEMO_LENGTH_MAX, WayToPay, way_to_pay
from wallet_appservice.payments.records import clean_memo

logger = logging.getLogger(__name__)

PNG: Final = "image/png"
Upload = Callable[[RoomId, bytes, str, str], Awaitable[Mapping[str, Any]]]
"""Puts a file of that type and name where the room's members can read it; `url`, or `file` where the room is
encrypted."""


class ReceiveCommands:
    """What the wallet does when somebody wants to be paid by a QR code."""

    def __init__(self, payments: Payments, *, upload: Upload, public_url: str) -> None:
        self._currencies = payments.currencies
        self._upload = upload
        self._public_url = public_url
        self._example = f"!receive 12.50 {payments.currencies.default.code} lunch"

    def commands(self) -> tuple[Command, ...]:
        return (
            Command(
                "receive",
                known("!receive [amount] [memo]"),
                known("shows a QR code and a link to be paid by"),
                self._example,
                self._receive,
            ),
        )

    async def _receive(self, call: CommandCall) -> Sequence[Write]:
        money: Money | None = None
        memo = ""
        if call.arguments:
            try:
                read = read_amount(call.arguments, self._currencies)
            except NotUnderstood as problem:
                return [self._misread(call, str(problem))]
            money, memo = read.money, clean_memo(read.memo)
        if len(memo) > RECEIVE_MEMO_LENGTH_MAX:
            too_long = _("In a QR code a memo has {memo_length_max} characters at most.").format(
                memo_length_max=RECEIVE_MEMO_LENGTH_MAX
            )
            return [self._misread(call, too_long)]
        way = way_to_pay(
            call.sender, money=money, memo=memo, public_url=self._public_url, currencies=self._currencies
        )
        picture, side_pixels = qr_png(way.link)
        name = call.room.name_of(call.sender)
        text = self._text(way, name)
        link = f'<a href="{html.escape(way.link)}">{html.escape(way.link)}</a>'
        command = f"<code>{html.escape(way.command)}</code>"
        # Their places are kept by characters that no text has, since what stands there is HTML already.
        formatted = html.escape(self._text(replace(way, link="\x00", command="\x01"), name))
        formatted = formatted.replace("\x00", link).replace("\x01", command)
        answer = call.reply(text, formatted=formatted)
        try:
            place = await self._upload(call.room.room_id, picture, PNG, "pay.png")
        except MatrixRefused as refused:
            logger.warning("a QR code is left out: %s", refused)
            return [answer]
        content = {
            "msgtype": "m.image",
            "body": text,
            "filename": "pay.png",
            "info": {"mimetype": PNG, "size": len(picture), "w": side_pixels, "h": side_pixels},
            "m.mentions": {},
            **place,
        }
        outgoing = Outgoing(
            OutboxId(derived_id("receive", call.room.room_id, call.event_id)),
            content,
            room_id=call.room.room_id,
        )
        return [outgoing.write(now_ms=call.now_ms), answer]

    def _text(self, way: WayToPay, name: str) -> str:
        if way.money is None:
            return _("Pay {name}: {link} or write {command} and the amount").format(
                name=name, link=way.link, command=way.command
            )
        return _("Pay {name} {amount}: {link} or write {command}").format(
            name=name, amount=self._currencies.format(way.money), link=way.link, command=way.command
        )

    def _misread(self, call: CommandCall, problem: str) -> Write:
        return call.reply(_("{problem} Example: {example}").format(problem=problem, example=self._example))
