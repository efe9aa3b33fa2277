"""What red packets promise, on a real ledger of either kind of database."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from appservices.vocabulary.events import RED_PACKET
from appservices.vocabulary.ids import RoomId, UserId
from appservices.vocabulary.money import Money
from appservices.vocabulary.schemas import check_block
from appservices.vocabulary.signing import SigningKey, verify_json
from tests.people_wallet import (
    ALICE,
    BOB,
    CAROL,
    DAVE,
    EUR,
    LUNCH,
    WALLET,
    PeopleWallet,
    new_id,
    people_wallet,
)
from wallet_appservice.payments import red_packets as red_packets_module
from wallet_appservice.payments.red_packet_openings import Found, Opened
from wallet_appservice.payments.red_packet_records import (
    PACKET_COUNT_MAX,
    FoundState,
    PacketOrder,
    PacketState,
    RedPacket,
    drawn_minor,
    escrow_account,
)
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused

pytest_plugins = ["tests.database_fixtures"]

CROWD = [UserId(f"@member{number}:a") for number in range(230)]


@pytest.fixture
async def wallet(database_url: str, tmp_path: Path) -> AsyncIterator[PeopleWallet]:
    members = {LUNCH: {WALLET, ALICE, BOB, CAROL, *CROWD}}
    async with people_wallet(database_url, tmp_path, members=members) as wallet:
        await wallet.deposit(ALICE, 20_000)
        yield wallet


def order(name: str = "1", amount_minor: int = 1000, count: int = 3, **changes: Any) -> PacketOrder:
    made = PacketOrder(
        id=new_id(name),
        sender=ALICE,
        room_id=LUNCH,
        money=Money(amount_minor, EUR),
        count=count,
        words="happy new year",
    )
    return replace(made, **changes)


async def filled(wallet: PeopleWallet, wanted: PacketOrder) -> RedPacket:
    packet = await wallet.people.red_packets.fill(wanted)
    assert isinstance(packet, RedPacket), packet
    return packet


async def opened(wallet: PeopleWallet, user: UserId, packet: RedPacket) -> int:
    found = await wallet.people.red_packets.open(user, packet.id)
    assert isinstance(found, Found), found
    return found.share.money.amount_minor


async def in_escrow(wallet: PeopleWallet, packet: RedPacket) -> int:
    account = await wallet.ledger.account(escrow_account(WALLET, packet.id, EUR).id)
    return account.available_minor if account is not None else 0


def draws(total_minor: int, count: int, *, is_equal: bool, seed: int) -> list[int]:
    chance = random.Random(seed)
    remaining = total_minor
    found = []
    for left in range(count, 0, -1):
        share = drawn_minor(
            remaining_minor=remaining,
            remaining_count=left,
            total_minor=total_minor,
            count=count,
            is_equal=is_equal,
            chance=chance,
        )
        if left > 1 and not is_equal:
            assert 1 <= share <= max(1, 2 * remaining / left)
        remaining -= share
        found.append(share)
    return found


@given(
    count=some.integers(1, PACKET_COUNT_MAX),
    more_minor=some.integers(0, 1_000_000),
    seed=some.integers(),
    is_equal=some.booleans(),
)
def test_shares_add_up_and_nobody_is_left_without_the_least_unit(
    count: int, more_minor: int, seed: int, is_equal: bool
) -> None:
    shares = draws(count + more_minor, count, is_equal=is_equal, seed=seed)
    assert sum(shares) == count + more_minor
    assert min(shares) >= 1
    if is_equal:
        assert max(shares) - min(shares) <= 1
        assert shares == sorted(shares, reverse=True)


def test_every_place_finds_as_much_on_the_average() -> None:
    rounds = [draws(10_000, 5, is_equal=False, seed=seed) for seed in range(4_000)]
    for place in range(5):
        assert abs(sum(shares[place] for shares in rounds) / len(rounds) - 2_000) < 100


async def test_a_packet_is_opened_once_by_each_until_it_is_empty(wallet: PeopleWallet) -> None:
    packet = await filled(wallet, order())
    assert await wallet.balance(ALICE) == 19_000
    first = await opened(wallet, BOB, packet)
    assert await opened(wallet, BOB, packet) == first
    shares = [first, await opened(wallet, CAROL, packet), await opened(wallet, ALICE, packet)]
    assert sum(shares) == 1_000
    assert await wallet.balance(BOB) == first
    assert await in_escrow(wallet, packet) == 0
    late = await wallet.people.red_packets.open(CROWD[0], packet.id)
    assert isinstance(late, PaymentRefused) and late.refusal is PaymentRefusal.PACKET_EMPTY
    assert await opened(wallet, BOB, packet) == first
    await wallet.people.sweep()
    lines = (await wallet.told(to=LUNCH))[-1].splitlines()
    assert lines[0] == "🧧 Alice put €10.00 into a red packet for 3 · happy new year"
    assert lines[1] == "It is empty: 3 of 3 have opened it."
    assert lines[2] == f"Bob: €{first / 100:.2f}"
    best = ["Bob", "Carol", "Alice"][shares.index(max(shares))]
    assert lines[5] == f"🍀 {best} was luckiest with €{max(shares) / 100:.2f}"
    assert await wallet.told(to=BOB) == [f"Bob found €{first / 100:.2f} in a red packet · happy new year"]
    assert (await wallet.told(to=ALICE))[0] == "Alice put €10.00 into a red packet · happy new year"


async def test_the_message_has_a_block_that_verifies(wallet: PeopleWallet) -> None:
    packet = await filled(wallet, order())
    await opened(wallet, BOB, packet)
    await wallet.people.sweep()
    first, last = (await wallet.contents(to=LUNCH))[0], (await wallet.contents(to=LUNCH))[-1]
    for content, opened_count in ((first, 0), (last, 1)):
        block = content[RED_PACKET]
        check_block("red_packet", block)
        verify_json(block, signer=WALLET, keys=wallet.payments.keys())
        assert block["opened_count"] == opened_count


async def test_equal_shares_are_equal_and_nobody_is_called_lucky(wallet: PeopleWallet) -> None:
    packet = await filled(wallet, order("1", 1000, 3, is_equal=True))
    assert [await opened(wallet, user, packet) for user in (BOB, CAROL, ALICE)] == [334, 333, 333]
    await wallet.people.sweep()
    assert "🍀" not in (await wallet.told(to=LUNCH))[-1]


async def test_two_hundred_who_open_at_once_take_exactly_what_is_there(wallet: PeopleWallet) -> None:
    packet = await filled(wallet, order("1", 20_000, 200))
    # Some tap twice, and some are too late.
    openers = [*CROWD[:210], *CROWD[:30]]
    answers = await asyncio.gather(*(wallet.people.red_packets.draw(user, packet.id) for user in openers))
    found = {answer.share.opener: answer.share for answer in answers if isinstance(answer, Found)}
    refused = [answer.refusal for answer in answers if isinstance(answer, PaymentRefused)]
    assert len(found) == 200
    assert sum(share.money.amount_minor for share in found.values()) == 20_000
    assert min(share.money.amount_minor for share in found.values()) >= 1
    assert set(refused) == {PaymentRefusal.PACKET_EMPTY}
    assert len(answers) == 240
    await wallet.people.sweep()
    await wallet.people.sweep()
    assert await in_escrow(wallet, packet) == 0
    for user in CROWD[:210]:
        expected = found[user].money.amount_minor if user in found else 0
        assert await wallet.balance(user) == expected
    last = (await wallet.contents(to=LUNCH))[-1]
    assert "🍀" in last["body"] and "It is empty: 200 of 200" in last["body"]
    assert len(str(last)) < 16_000


async def test_two_processes_on_one_database_never_draw_more_than_there_is(
    wallet: PeopleWallet, database_url: str, tmp_path: Path
) -> None:
    key = SigningKey.generate()
    async with people_wallet(database_url, tmp_path, members=wallet.members, key=key) as second:
        packet = await filled(wallet, order("1", 500, 50))

        async def taps(user: UserId, number: int) -> Opened:
            process = (wallet, second)[number % 2]
            await asyncio.sleep(number % 7 / 1000)
            return await process.people.red_packets.open(user, packet.id)

        openers = [*CROWD[:60], *CROWD[1:61]]
        answers = await asyncio.gather(*(taps(user, number) for number, user in enumerate(openers)))
        found = {
            answer.share.opener: answer.share.money.amount_minor
            for answer in answers
            if isinstance(answer, Found)
        }
        assert len(found) == 50
        assert sum(found.values()) == 500
        await asyncio.gather(wallet.people.sweep(), second.people.sweep())
        assert await in_escrow(wallet, packet) == 0
        assert {user: await second.balance(user) for user in found} == found


async def test_what_is_left_goes_back_after_its_time_and_is_told(wallet: PeopleWallet) -> None:
    packet = await filled(wallet, order())
    first = await opened(wallet, BOB, packet)
    second = await opened(wallet, CAROL, packet)
    wallet.clock.forward(hours=24.1)
    late = await wallet.people.red_packets.open(CROWD[0], packet.id)
    assert isinstance(late, PaymentRefused) and late.refusal is PaymentRefusal.PACKET_OVER
    await asyncio.gather(*(wallet.people.sweep() for _ in range(3)))
    await wallet.people.sweep()
    rest = 1_000 - first - second
    assert await wallet.balance(ALICE) == 19_000 + rest
    assert await in_escrow(wallet, packet) == 0
    assert (await wallet.told(to=ALICE))[1:] == [
        f"Alice got €{rest / 100:.2f} back, which nobody had taken · happy new year"
    ]
    assert "Its time is over: 2 of 3 have opened it" in (await wallet.told(to=LUNCH))[-1]
    assert "🍀" in (await wallet.told(to=LUNCH))[-1]
    late = await wallet.people.red_packets.open(CROWD[0], packet.id)
    assert isinstance(late, PaymentRefused) and late.refusal is PaymentRefusal.PACKET_OVER
    found = await wallet.people.red_packets.packet(BOB, packet.id)
    assert found is not None and found[0].state is PacketState.RETURNED


async def test_what_was_drawn_before_a_crash_is_paid_by_the_sweep(wallet: PeopleWallet) -> None:
    packet = await filled(wallet, order())
    drawn = await wallet.people.red_packets.draw(BOB, packet.id)
    assert isinstance(drawn, Found) and drawn.share.state is FoundState.DRAWN
    assert await wallet.balance(BOB) == 0
    # Its time ends before it could move: what was found stays found.
    wallet.clock.forward(hours=25)
    await wallet.people.red_packets.sweep(is_first=True)
    amount_minor = drawn.share.money.amount_minor
    assert await wallet.balance(BOB) == amount_minor
    assert await wallet.balance(ALICE) == 20_000 - amount_minor
    assert await opened(wallet, BOB, packet) == amount_minor


async def test_a_return_that_was_begun_and_left_is_finished(
    wallet: PeopleWallet, monkeypatch: pytest.MonkeyPatch
) -> None:
    packet = await filled(wallet, order())
    wallet.clock.forward(hours=25)

    async def dies(*_arguments: object, **_more: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(wallet.payments.till, "move", dies)
        await wallet.people.red_packets.sweep()
    assert await wallet.balance(ALICE) == 19_000
    late = await wallet.people.red_packets.draw(BOB, packet.id)
    assert isinstance(late, PaymentRefused)
    await wallet.people.red_packets.sweep()
    assert await wallet.balance(ALICE) == 20_000


async def test_only_members_of_its_room_who_have_accounts_here_open_it(wallet: PeopleWallet) -> None:
    stranger = UserId("@eve:b")
    wallet.members[RoomId("!other")] = {WALLET, DAVE}
    wallet.members[LUNCH].add(stranger)
    packet = await filled(wallet, order())
    for user in (DAVE, stranger):
        refused = await wallet.people.red_packets.open(user, packet.id)
        assert isinstance(refused, PaymentRefused)
        assert refused.refusal is PaymentRefusal.PACKET_UNKNOWN
    assert await wallet.people.red_packets.packet(DAVE, packet.id) is None


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"money": Money(20_001, EUR)}, PaymentRefusal.PACKET_TOO_LARGE),
        ({"money": Money(2, EUR)}, PaymentRefusal.PACKET_TOO_SMALL),
        ({"count": 0}, PaymentRefusal.PACKET_COUNT_INVALID),
        ({"count": 201}, PaymentRefusal.PACKET_COUNT_INVALID),
        ({"room_id": RoomId("!elsewhere")}, PaymentRefusal.ROOM_UNKNOWN),
        ({"sender": DAVE}, PaymentRefusal.ROOM_UNKNOWN),
        ({"sender": UserId("@alice:b")}, PaymentRefusal.PAYER_ELSEWHERE),
        ({"sender": BOB}, PaymentRefusal.BALANCE_TOO_LOW),
        ({"words": "x" * 201}, PaymentRefusal.MEMO_TOO_LONG),
        ({"id": "1"}, PaymentRefusal.ID_INVALID),
    ],
)
async def test_a_refused_packet_says_why_and_is_not_there(
    wallet: PeopleWallet, changes: dict[str, Any], refusal: PaymentRefusal
) -> None:
    refused = await wallet.people.red_packets.fill(order(**changes))
    assert isinstance(refused, PaymentRefused)
    assert refused.refusal is refusal
    assert refused.sentence.endswith(".") and "{" not in refused.sentence
    assert await wallet.told() == []
    assert await wallet.balance(ALICE) == 20_000


async def test_the_same_packet_again_is_one_packet(wallet: PeopleWallet) -> None:
    made = await asyncio.gather(*(wallet.people.red_packets.fill(order()) for _ in range(5)))
    assert all(isinstance(packet, RedPacket) for packet in made)
    assert await wallet.balance(ALICE) == 19_000
    assert len(await wallet.told(to=LUNCH)) == 1
    other = await wallet.people.red_packets.fill(order(count=4))
    assert isinstance(other, PaymentRefused) and other.refusal is PaymentRefusal.ID_TAKEN


async def test_nobody_has_more_open_packets_than_the_limit(
    wallet: PeopleWallet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(red_packets_module, "OPEN_PACKETS_MAX", 1)
    await filled(wallet, order("1"))
    refused = await wallet.people.red_packets.fill(order("2"))
    assert isinstance(refused, PaymentRefused) and refused.refusal is PaymentRefusal.OPEN_TOO_MANY
