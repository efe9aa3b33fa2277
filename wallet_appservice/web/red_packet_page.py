"""Red packets: made for a room, opened, and who has found what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request, Response

from appservices.chassis.pages import see_other
from appservices.chassis.signed_in import SignedIn
from appservices.vocabulary.ids import RoomId, TransferId
from appservices.vocabulary.languages import _
from appservices.vocabulary.money import AmountUnreadable, Money, decimal_text
from wallet_appservice.ledger.submissions import LedgerUnavailable
from wallet_appservice.payments.people import People
from wallet_appservice.payments.proofs import Proof
from wallet_appservice.payments.protection import Protection
from wallet_appservice.payments.records import MEMO_LENGTH_MAX, Authority, PaymentOrder, clean_memo
from wallet_appservice.payments.red_packet_records import PACKET_COUNT_MAX, PacketOrder, luckiest
from wallet_appservice.payments.red_packets import Filled
from wallet_appservice.payments.refusals import PaymentRefused
from wallet_appservice.web.owned_merchants import text_of
from wallet_appservice.web.proof_fields import (
    NOTHING_ASKED,
    PROOF_REFUSALS,
    Asked,
    kinds_of_proof,
    page_status,
    proof_in,
)
from wallet_appservice.web.wallet_shell import PATH, WalletShell, asked_id

ROOM_LENGTH_MAX = 255


class RedPacketPage:
    def __init__(self, shell: WalletShell, people: People, protection: Protection) -> None:
        self._shell = shell
        self._proofs = protection.proofs
        self._packets = people.red_packets

    def add_to(self, router: APIRouter) -> None:
        self._shell.show_at(router, "/red-packet", self._new)
        router.post("/red-packet")(self._fill)
        self._shell.show_at(router, "/red-packets/{id}", self._one)
        router.post("/red-packets/{id}/open")(self._open)

    async def _new(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        return await self._form(request, signed_in, request.query_params)

    async def _fill(self, request: Request) -> Response:
        signed_in, fields = await self._shell.guard.require_form(request)
        money, count = self._money(fields), text_of(fields, "count")
        problems: dict[str, str] = {}
        if isinstance(money, str):
            problems["amount"] = money
        if not (count.isascii() and count.isdigit() and 1 <= int(count[:6]) <= PACKET_COUNT_MAX):
            problems["count"] = _("For how many? From 1 to {most}.").format(most=PACKET_COUNT_MAX)
        if problems or isinstance(money, str):
            return await self._form(request, signed_in, fields, problems=problems, status=422)
        room = text_of(fields, "room")
        if not room:
            # Which room is seen where one writes: the command is made here and sent there.
            return await self._form(
                request, signed_in, fields, command=self._command(fields, money, int(count))
            )
        order = PacketOrder(
            id=TransferId(text_of(fields, "id")),
            sender=signed_in.user_id,
            room_id=RoomId(room[:ROOM_LENGTH_MAX]),
            money=money,
            count=int(count),
            is_equal=bool(text_of(fields, "equal")),
            words=clean_memo(text_of(fields, "words")),
            authority=Authority.SESSION,
        )
        proof = proof_in(fields)
        try:
            filled = await self._proven_and_filled(order, proof)
        except LedgerUnavailable:
            sentence = _("The wallet can't answer now; try again in a moment.")
            return await self._form(request, signed_in, fields, problems={"": sentence}, status=409)
        if not isinstance(filled, PaymentRefused):
            return see_other(f"{PATH}/red-packets/{filled.id}")
        if filled.refusal not in PROOF_REFUSALS:
            return await self._form(
                request, signed_in, fields, problems={"": filled.sentence}, status=page_status(filled)
            )
        # Nothing was spent but the proof: the same form again, with the same id.
        kinds = await kinds_of_proof(self._proofs, self._as_payment(order))
        problem = filled.sentence if proof.is_given else ""
        return await self._form(
            request,
            signed_in,
            fields,
            id=order.id,
            asked=replace(kinds, needs_proof=True, problem=problem),
            status=page_status(filled) if proof.is_given else 200,
        )

    async def _proven_and_filled(self, order: PacketOrder, proof: Proof) -> Filled:
        proven = await self._proofs.proven(self._as_payment(order), proof)
        if isinstance(proven, PaymentRefused):
            return proven
        return await self._packets.fill(replace(order, authority=proven.authority))

    def _as_payment(self, order: PacketOrder) -> PaymentOrder:
        return order.as_payment(self._shell.payments.wallet_user)

    async def _form(
        self,
        request: Request,
        signed_in: SignedIn,
        given: Mapping[str, Any],
        *,
        command: str = "",
        id: str = "",
        asked: Asked = NOTHING_ASKED,
        problems: Mapping[str, str] | None = None,
        status: int = 200,
    ) -> Response:
        return await self._shell.page(
            request,
            signed_in,
            "red_packet.html",
            title=_("Red packet"),
            status=status,
            announcement=" ".join((problems or {}).values()),
            problems=problems or {},
            id=id or self._shell.new_id(),
            asked=asked,
            room=text_of(given, "room"),
            amount=text_of(given, "amount"),
            currency=text_of(given, "currency"),
            count=text_of(given, "count") or "5",
            equal=bool(text_of(given, "equal")),
            words=text_of(given, "words"),
            command=command,
            count_max=PACKET_COUNT_MAX,
            words_length_max=MEMO_LENGTH_MAX,
        )

    async def _one(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        return await self._show(request, signed_in)

    async def _open(self, request: Request) -> Response:
        signed_in, _fields = await self._shell.guard.require_form(request)
        id = asked_id(request, "id")
        if id is None:
            return await self._show(request, signed_in)
        try:
            opened = await self._packets.open(signed_in.user_id, id)
        except LedgerUnavailable:
            sentence = _("The wallet can't answer now; try again in a moment.")
            return await self._show(request, signed_in, problem=sentence, status=409)
        if isinstance(opened, PaymentRefused):
            return await self._show(request, signed_in, problem=opened.sentence, status=page_status(opened))
        return see_other(f"{PATH}/red-packets/{id}")

    async def _show(
        self, request: Request, signed_in: SignedIn, *, problem: str = "", status: int = 200
    ) -> Response:
        id = asked_id(request, "id")
        found = await self._packets.packet(signed_in.user_id, id) if id else None
        if found is None:
            return await self._shell.missing(
                request, signed_in, _("There is no such red packet in a room of yours.")
            )
        packet, shares = found
        mine = next((share for share in shares if share.opener == signed_in.user_id), None)
        best = luckiest(shares) if packet.is_over and not packet.is_equal else None
        return await self._shell.page(
            request,
            signed_in,
            "red_packet_one.html",
            title=_("Red packet"),
            status=status,
            announcement=problem,
            problem=problem,
            packet=packet,
            shares=shares,
            mine=mine,
            luckiest=best.opener if best else None,
            may_open=mine is None and not packet.is_over,
        )

    def _command(self, fields: Mapping[str, Any], money: Money, count: int) -> str:
        amount = decimal_text(money, self._shell.payments.currencies[money.currency])
        words = [f"!redpacket {amount} {money.currency} {count}"]
        if text_of(fields, "equal"):
            words.append("equal")
        if text := clean_memo(text_of(fields, "words")):
            words.append(text)
        return " ".join(words)

    def _money(self, fields: Mapping[str, Any]) -> Money | str:
        amount, currency = text_of(fields, "amount"), text_of(fields, "currency")
        currencies = self._shell.payments.currencies
        if not amount:
            return _("How much?")
        try:
            return currencies.parse(f"{amount} {currency}" if currency in currencies else amount)
        except AmountUnreadable as error:
            return str(error)
