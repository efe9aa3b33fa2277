"""Red packets that members of other homeservers open: drawn once, paid by clearing, nothing lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from appservices.chassis.links.storage import item_write
from appservices.vocabulary.ids import RoomId, TransferId, UserId, derived_id
from appservices.vocabulary.money import Money
from appservices.vocabulary.signing import verify_json
from tests.clearing_wallets import EUR, Wallet, wallets
from tests.link_channel import NOTHING, Weather, shorten_pauses
from wallet_appservice.payments.records import PaymentKind
from wallet_appservice.payments.red_packet_records import FoundShare, FoundState, PacketOrder, RedPacket

PARTY = RoomId("!party")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_pauses(monkeypatch)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[list[Wallet]]:
    """Alice of a, who has 100 euros, is in a room with a's wallet and people of both."""
    async with wallets(tmp_path, "a", "b") as both:
        invite(*both)
        yield both


def invite(a: Wallet, b: Wallet) -> None:
    people = {a.user("alice"), a.user("bob"), b.user("bob"), b.user("carol")}
    a.network.rooms[PARTY] = {a.user_id, *people}


async def fill(wallet: Wallet, minor: int = 1_000, count: int = 3, *, name: str = "1") -> TransferId:
    order = PacketOrder(
        id=TransferId(derived_id("packet", name)),
        sender=wallet.user("alice"),
        room_id=PARTY,
        money=Money(minor, EUR),
        count=count,
        words="happy new year",
    )
    filled = await wallet.people.red_packets.fill(order)
    assert isinstance(filled, RedPacket), filled
    return filled.id


async def tap(wallet: Wallet, opener: UserId, id: TransferId) -> None:
    await wallet.people.red_packets.draw_elsewhere(opener, id, done=NOTHING)


async def shares(wallet: Wallet, id: TransferId) -> dict[UserId, FoundShare]:
    found = await wallet.people.red_packets.packet(wallet.user("alice"), id)
    assert found is not None
    return {share.opener: share for share in found[1]}


async def until(so: Callable[[], Awaitable[Any]], *, seconds_max: float = 15.0) -> Any:
    async with asyncio.timeout(seconds_max):
        while not (found := await so()):
            await asyncio.sleep(0.01)
        return found


async def becomes(wallet: Wallet, id: TransferId, opener: UserId, state: FoundState) -> FoundShare:
    async def look() -> FoundShare | None:
        await wallet.people.red_packets.sweep()
        share = (await shares(wallet, id)).get(opener)
        return share if share is not None and share.state is state else None

    share: FoundShare = await until(look)
    return share


async def test_a_member_of_another_server_finds_a_share_and_gets_it_from_their_own_wallet(
    pair: list[Wallet],
) -> None:
    a, b = pair
    id = await fill(a)
    await tap(a, b.user("bob"), id)
    share = await becomes(a, id, b.user("bob"), FoundState.PAID)
    assert await b.balance("bob") == (share.money.amount_minor, 0)
    assert await b.owed_minor("a") == share.money.amount_minor == -await a.owed_minor("b")
    (got,) = await b.payments.history(b.user("bob"), limit=5)
    assert (got.kind, got.payer, got.of, got.memo) == (
        PaymentKind.SHARE, a.user_id, id, "happy new year",
    )  # fmt: skip
    verify_json(got.receipt, signer=b.user_id, keys=b.payments.keys())


async def test_members_of_both_servers_empty_it_and_it_adds_up(pair: list[Wallet]) -> None:
    a, b = pair
    id = await fill(a)
    await tap(a, b.user("bob"), id)
    await a.people.red_packets.open(a.user("bob"), id)
    await tap(a, b.user("carol"), id)
    await becomes(a, id, b.user("bob"), FoundState.PAID)
    await becomes(a, id, b.user("carol"), FoundState.PAID)
    found = await shares(a, id)
    assert sum(share.money.amount_minor for share in found.values()) == 1_000
    assert await a.people_minor() + await b.people_minor() == 20_000


async def test_nobody_opens_twice_and_who_tries_is_told_by_their_own_wallet(pair: list[Wallet]) -> None:
    a, b = pair
    id = await fill(a)
    await asyncio.gather(*(tap(a, b.user("bob"), id) for _ in range(8)))
    share = await becomes(a, id, b.user("bob"), FoundState.PAID)
    await tap(a, b.user("bob"), id)
    assert await b.balance("bob") == (share.money.amount_minor, 0)

    async def told() -> bool:
        return len(b.announcer.refused) >= 2

    await until(told)
    assert set(b.announcer.refused) == {(b.user("bob"), id, "opened")}


async def test_who_comes_to_an_empty_packet_is_told_so(pair: list[Wallet]) -> None:
    a, b = pair
    id = await fill(a, count=1)
    await tap(a, b.user("bob"), id)
    await tap(a, b.user("carol"), id)

    async def told() -> bool:
        return b.announcer.refused == [(b.user("carol"), id, "empty")]

    await until(told)
    assert await b.balance("carol") == (0, 0)


@pytest.mark.parametrize("opener", ["@dave:b", "@bob:stranger", "@wallet:b"])
async def test_who_is_not_in_the_room_or_has_no_wallet_here_opens_nothing(
    pair: list[Wallet], opener: str
) -> None:
    a, _b = pair
    a.network.rooms[PARTY].add(UserId("@bob:stranger"))
    id = await fill(a)
    await tap(a, UserId(opener), id)
    assert await shares(a, id) == {}


async def test_a_share_that_the_other_wallet_does_not_take_goes_back_to_the_sender(tmp_path: Path) -> None:
    async with wallets(tmp_path, "a", "b", limit_minor=10) as (a, b):
        invite(a, b)
        id = await fill(a, count=1)
        await tap(a, b.user("bob"), id)
        await becomes(a, id, b.user("bob"), FoundState.RETURNED)
        assert (await a.balance("alice"), await b.balance("bob")) == ((10_000, 0), (0, 0))
        await tap(a, b.user("bob"), id)
        assert len(await shares(a, id)) == 1


@pytest.mark.parametrize("stopped", ["a", "b"])
async def test_a_wallet_that_dies_on_the_way_loses_nothing_and_pays_once(
    tmp_path: Path, stopped: str
) -> None:
    weather = Weather(seed=5, lost=0.2, repeated=0.3, delay_seconds_max=0.02)
    async with wallets(tmp_path, "a", "b", weather=weather) as (a, b):
        invite(a, b)
        victim = a if stopped == "a" else b
        id = await fill(a)
        await tap(a, b.user("bob"), id)
        sweeping = asyncio.create_task(a.people.red_packets.sweep())
        await asyncio.sleep(0.02)
        await victim.stop()
        await asyncio.gather(sweeping, return_exceptions=True)
        await victim.start()
        share = await becomes(a, id, b.user("bob"), FoundState.PAID)
        assert await b.balance("bob") == (share.money.amount_minor, 0)
        assert await a.owed_minor("b") == -share.money.amount_minor


async def test_another_wallets_word_about_a_packet_moves_nothing(pair: list[Wallet]) -> None:
    a, b = pair
    id = await fill(a)
    word = {"kind": "packet_refused", "packet": id, "opener": "@alice:a", "reason": "opened"}
    share = {
        "kind": "prepare", "id": derived_id("lies", "1"), "payer": "@carol:b", "payee": "@alice:a",
        "amount_minor": "5", "currency": "EUR", "expires_at_ms": 2**52, "payment_kind": "share", "of": id,
    }  # fmt: skip
    await b.switchboard.link(a.user_id)
    await b.switchboard.storage.write([item_write(a.user_id, item) for item in (word, word, share)])

    async def heard() -> bool:
        return bool(a.announcer.refused)

    await until(heard)
    assert a.announcer.refused == [(a.user("alice"), id, "opened")]
    # A share comes from a wallet, not from a person.
    assert await a.balance("alice") == (9_000, 0)
    assert await shares(a, id) == {}
