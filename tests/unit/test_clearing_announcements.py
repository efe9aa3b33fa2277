"""What people are told of payments across servers, each in their language."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from appservices.chassis.database import Write
from appservices.chassis.rooms import Members, Rooms
from appservices.vocabulary.events import RECEIPT
from appservices.vocabulary.ids import RoomId, ServerName, TransferId, UserId
from appservices.vocabulary.money import Currencies, CurrencyCode, Money, iso_currency
from wallet_appservice.chat.clearing_announcements import ClearingRoomAnnouncer
from wallet_appservice.clearing.items import RejectReason
from wallet_appservice.clearing.paying import REJECTED, OutgoingPayment
from wallet_appservice.payments.records import PaymentKind, PaymentRecord, PaymentState

ALICE, BOB = UserId("@alice:a"), UserId("@bob:b")
MONEY = Money(1250, CurrencyCode("EUR"))
LANGUAGES = {ALICE: "de", UserId("@amira:a"): "ar", BOB: "en"}


def announcer() -> ClearingRoomAnnouncer:
    euro = iso_currency("EUR")
    assert euro is not None

    async def members(_room_id: RoomId) -> Members:
        raise AssertionError("none of these payments has a room")

    async def language_of(user: UserId) -> str:
        return LANGUAGES[user]

    return ClearingRoomAnnouncer(
        rooms=Rooms(members, service_users=frozenset()),
        language_of=language_of,
        currencies=Currencies([euro]),
        clock=lambda: 1,
    )


def outgoing(payer: UserId, *, reason: str = "") -> OutgoingPayment:
    return OutgoingPayment(
        id=TransferId("1" * 32),
        server=ServerName("b"),
        kind=PaymentKind.PAYMENT,
        payer=payer,
        payee=BOB,
        money=MONEY,
        memo="",
        room_id=None,
        in_reply_to=None,
        subject="",
        of=None,
        state=REJECTED,
        reason=reason,
        created_at_ms=0,
        expires_at_ms=300_000,
    )


def record(payer: UserId, payee: UserId, state: PaymentState, number: int = 2) -> PaymentRecord:
    return PaymentRecord(
        id=TransferId(f"{number:032x}"),
        position=number,
        kind=PaymentKind.PAYMENT,
        state=state,
        payer=payer,
        payee=payee,
        money=MONEY,
        memo="",
        at_ms=60_000,
        room_id=None,
        receipt={"wallet": "@wallet:a", "state": state.value},
        of=TransferId("1" * 32) if state is not PaymentState.PENDING else None,
    )


def told(writes: Sequence[Write]) -> list[tuple[str, Mapping[str, Any]]]:
    """To whom, and the content."""
    found = []
    for write in writes:
        assert isinstance(write.parameters, Mapping)
        found.append((str(write.parameters["to_user"]), json.loads(str(write.parameters["content"]))))
    return found


@pytest.mark.parametrize("reason", [*RejectReason, "of a later version"])
async def test_whoever_gets_money_back_is_told_why_in_their_language(reason: str) -> None:
    for payer in ALICE, UserId("@amira:a"):
        payment = outgoing(payer, reason=reason)
        announce = await announcer().outgoing([payment])
        ((user, content),) = told(announce(payment, record(payer, BOB, PaymentState.RETURNED)))
        assert user == payer and content[RECEIPT]["state"] == "returned"
        assert ("ging an dich zurück" if payer == ALICE else "عادت إليك") in content["body"]
        assert "{" not in content["body"]


async def test_a_payment_that_was_taken_late_is_told_as_paid_and_not_as_accepted() -> None:
    payment = outgoing(ALICE)
    announce = await announcer().outgoing([payment])
    ((user, content),) = told(announce(payment, record(ALICE, BOB, PaymentState.POSTED)))
    assert (user, content["body"]) == (ALICE, "@alice:a hat @bob:b 12,50\u00a0€ gezahlt")


async def test_whoever_waits_long_is_told_that_their_money_is_held() -> None:
    ((user, content),) = told(await announcer().waiting(outgoing(ALICE)))
    assert user == ALICE and "zurückgehalten" in content["body"] and "b" in content["body"]


async def test_a_payee_is_told_of_few_payments_one_by_one_and_of_many_in_one_message() -> None:
    few = [record(BOB, ALICE, PaymentState.POSTED, number) for number in range(3)]
    assert len(told(await announcer().incoming(ALICE, few))) == 3
    many = [record(BOB, ALICE, PaymentState.POSTED, number) for number in range(4)]
    ((user, content),) = told(await announcer().incoming(ALICE, many))
    assert user == ALICE and "4 Zahlungen" in content["body"] and "50,00" in content["body"]
