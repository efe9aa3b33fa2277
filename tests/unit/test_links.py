"""What a link promises, between two of them on real databases: each item once and in order, come what may."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appservices.chassis.clock import system_clock
from appservices.chassis.database import open_database
from appservices.chassis.links import link as link_module
from appservices.chassis.links.protocol import (
    MESSAGE_BYTES_MAX,
    Message,
    StopReason,
    first_chain,
    next_chain,
    signed_content,
)
from appservices.chassis.links.storage import MEND, STOPPED, TRUST
from appservices.vocabulary.signing import SigningKey, signed_bytes
from tests import link_channel
from tests.link_channel import NOTHING, A, B, Side, Weather, shorten_pauses, two_sides


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_pauses(monkeypatch)


@pytest.fixture
async def sides(tmp_path: Path) -> AsyncIterator[tuple[Side, Side]]:
    async with two_sides(tmp_path, Weather()) as both:
        yield both


def numbered(*numbers: int) -> list[dict[str, Any]]:
    return [{"kind": "said", "n": number} for number in numbers]


async def until(so: Callable[[], bool], *, seconds_max: float = 60.0) -> None:
    async with asyncio.timeout(seconds_max):
        while not so():
            await asyncio.sleep(0.005)


async def test_items_arrive_once_and_in_order_in_both_directions(sides: tuple[Side, Side]) -> None:
    a, b = sides
    for number in range(30):
        await a.say(*numbered(number))
        await b.say(*numbered(number))
    await until(lambda: len(a.applied) == len(b.applied) == 30)
    assert a.applied == b.applied == numbered(*range(30))
    await until(lambda: a.link.silent_ms == b.link.silent_ms == 0)


async def test_what_waits_at_the_same_time_travels_together_below_the_size_that_matrix_allows(
    sides: tuple[Side, Side],
) -> None:
    a, b = sides
    await a.say(*({"kind": "said", "n": number, "text": "é" * 300} for number in range(500)))
    await until(lambda: len(b.applied) == 500)
    messages = [content for content in a.sent if "seq" in content]
    assert len(messages) <= 7
    assert all(len(signed_bytes(content)) <= MESSAGE_BYTES_MAX for content in messages)


async def test_an_item_that_fits_into_no_message_is_refused_before_it_waits(sides: tuple[Side, Side]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        await sides[0].say({"kind": "said", "n": 1, "text": "x" * 60_000})


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_the_network_loses_repeats_and_reorders_every_item_is_applied_once_and_in_order(
    tmp_path: Path, seed: int
) -> None:
    weather = Weather(seed=seed, lost=0.25, repeated=0.2, delay_seconds_max=0.02)
    async with two_sides(tmp_path, weather) as (a, b):
        for number in range(60):
            await a.say(*numbered(number))
            await b.say(*numbered(number))
            if number % 20 == 19:
                # A kill, at a moment of the network's choosing.
                victim, peer = (a, B) if number % 40 == 19 else (b, A)
                await victim.stop()
                await victim.start(peer)
            await asyncio.sleep(weather.chance.random() * 0.004)
        await until(lambda: len(a.applied) == len(b.applied) == 60)
        assert a.applied == b.applied == numbered(*range(60))
        assert a.link.state.state == b.link.state.state == "open"


async def test_a_cut_network_only_delays(sides: tuple[Side, Side]) -> None:
    a, b = sides
    a.weather.is_cut = True
    await a.say(*numbered(1))
    await asyncio.sleep(0.1)
    assert b.applied == []
    a.weather.is_cut = False
    await until(lambda: b.applied == numbered(1))


async def test_unacknowledged_messages_stay_far_below_what_a_homeserver_prunes(
    sides: tuple[Side, Side],
) -> None:
    a, b = sides
    a.weather.is_cut = True
    for number in range(60):
        await a.say(*numbered(number))
        await asyncio.sleep(0.005)
    assert max(content["seq"] for content in a.sent if "seq" in content) <= 20
    a.weather.is_cut = False
    await until(lambda: b.applied == numbered(*range(60)))


async def test_a_message_with_a_forged_signature_stops_the_link_and_tells_both(
    sides: tuple[Side, Side],
) -> None:
    a, b = sides
    await a.say(*numbered(1))
    await until(lambda: len(b.applied) == 1)
    forged = signed_content(message_of(a, numbered(2)), SigningKey.generate())
    await b.link.receive(forged, done=NOTHING)
    assert b.told == [StopReason.SIGNATURE_WRONG]
    assert b.applied == numbered(1)
    await until(lambda: a.told == [StopReason.STOPPED_BY_PEER])


async def test_a_message_changed_on_its_way_stops_the_link(sides: tuple[Side, Side]) -> None:
    a, b = sides
    await a.say(*numbered(1))
    await until(lambda: len(b.applied) == 1)
    content = signed_content(message_of(a, numbered(2)), a.key)
    content["items"][0]["n"] = 3
    await b.link.receive(content, done=NOTHING)
    assert b.told == [StopReason.SIGNATURE_WRONG]


async def test_a_message_that_was_redacted_on_its_way_is_sent_again(sides: tuple[Side, Side]) -> None:
    a, b = sides
    a.weather.is_cut = True
    await a.say(*numbered(1))
    await asyncio.sleep(0.05)
    await b.link.receive({}, done=NOTHING)
    a.weather.is_cut = False
    await until(lambda: b.applied == numbered(1))
    assert b.link.state.state == "open"


async def test_a_replayed_message_changes_nothing(sides: tuple[Side, Side]) -> None:
    a, b = sides
    await a.say(*numbered(1))
    await until(lambda: len(b.applied) == 1)
    for content in [content for content in a.sent if "seq" in content] * 3:
        await b.link.receive(content, done=NOTHING)
    await b.link.flush_counts()
    assert b.applied == numbered(1)
    assert (await b.storage.all())[0].counts["repeated"] == 3
    assert b.link.state.state == "open"


async def test_a_message_to_another_service_is_not_for_us(sides: tuple[Side, Side]) -> None:
    a, b = sides
    elsewhere = replace(message_of(a, numbered(1)), to=A)
    await b.link.receive(signed_content(elsewhere, a.key), done=NOTHING)
    assert b.applied == [] and b.told == []


async def test_a_number_that_comes_again_with_other_content_stops_the_link(sides: tuple[Side, Side]) -> None:
    a, b = sides
    await a.say(*numbered(1))
    await until(lambda: len(b.applied) == 1)
    chain = first_chain(A, B, a.link.state.outgoing.epoch)
    other = replace(message_of(a, numbered(9)), seq=1, prev=chain)
    await b.link.receive(signed_content(other, a.key), done=NOTHING)
    assert b.told == [StopReason.FORKED]


async def test_a_message_that_does_not_follow_from_those_before_stops_the_link(
    sides: tuple[Side, Side],
) -> None:
    a, b = sides
    await a.say(*numbered(1))
    await until(lambda: len(b.applied) == 1)
    other = replace(message_of(a, numbered(2)), prev="0" * 64)
    await b.link.receive(signed_content(other, a.key), done=NOTHING)
    assert b.told == [StopReason.FORKED]


async def test_an_item_that_is_not_understood_stops_the_link_and_nothing_of_its_message_is_applied(
    sides: tuple[Side, Side],
) -> None:
    a, b = sides
    await a.say(*numbered(1), {"kind": "poison", "n": 2})
    await until(lambda: b.told == [StopReason.UNREADABLE])
    assert b.applied == []
    await until(lambda: a.told == [StopReason.STOPPED_BY_PEER])


@pytest.mark.parametrize(
    "changes",
    [
        {"seq": "1"}, {"seq": 1.5}, {"seq": True}, {"seq": -1}, {"seq": 2**60}, {"items": []}, {"items": {}},
        {"items": [1]}, {"items": [{}]}, {"items": [{"kind": 1}]}, {"items": [{"kind": "x"}] * 1001},
        {"prev": 7}, {"epoch": None}, {"ack": "x"}, {"to": "nobody"}, {"to": 5}, {"stopped": ["x"]},
        {"stopped": "[/]"}, {"stopped": "x\x00"}, {"resend_from": 0},
    ],
)  # fmt: skip
async def test_what_is_no_message_stops_the_link_in_good_order(
    sides: tuple[Side, Side], changes: dict[str, Any]
) -> None:
    a, b = sides
    content = {**signed_content(message_of(a, numbered(1)), a.key), **changes}
    await b.link.receive(content, done=NOTHING)
    assert b.link.state.state == STOPPED and b.told == [StopReason.UNREADABLE]


async def test_a_flood_is_dropped_unread_and_what_was_true_comes_again(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "FLOOD_SECONDS", 0.5)
    a, b = sides
    await a.say(*numbered(1))
    await until(lambda: len(b.applied) == 1)
    note = signed_content(replace(message_of(a, []), seq=None), a.key)
    for _ in range(600):
        await b.link.receive(note, done=NOTHING)
    await a.say(*numbered(2))
    await until(lambda: b.applied == numbered(1, 2))
    await b.link.flush_counts()
    assert (await b.storage.all())[0].counts["flood"] >= 150


async def test_a_clock_that_is_set_back_before_a_restart_does_not_make_us_say_earlier_times(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = sides
    await a.say(*numbered(1))
    await until(lambda: len(b.applied) == 1 and a.link.silent_ms == 0)
    await a.stop()
    monkeypatch.setattr(link_channel, "system_clock", lambda: system_clock() - 3_600_000)
    await a.start(B)
    await a.say(*numbered(2))
    await until(lambda: len(b.applied) == 2)
    times = [content["at_ms"] for content in a.sent]
    assert times == sorted(set(times))


async def test_a_peer_that_claims_what_never_comes_is_asked_ever_more_rarely(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "PAUSE_SECONDS_MAX", 60.0)
    a, b = sides
    await a.say(*numbered(1))
    await until(lambda: len(b.applied) == 1)
    claim = signed_content(replace(message_of(a, []), seq=None, sent=1_000_000), a.key)
    for _ in range(50):
        await b.link.receive(claim, done=NOTHING)
        await asyncio.sleep(0.01)
    assert 0 < sum("resend_from" in content for content in b.sent) <= 6


async def test_a_peer_that_wants_the_same_acknowledged_again_and_again_is_not_answered_each_time(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = sides
    await a.say(*numbered(1))
    await until(lambda: len(b.applied) == 1 and a.link.silent_ms == 0)
    monkeypatch.setattr(link_module, "ACK_AGAIN_SECONDS", 0.2)
    said = len(b.sent)
    wanting = signed_content(replace(message_of(a, []), seq=None, sent=1, wants_ack=True), a.key)
    for _ in range(50):
        await b.link.receive(wanting, done=NOTHING)
        await asyncio.sleep(0.01)
    await until(lambda: len(b.sent) > said)
    assert len(b.sent) - said < 25


async def test_a_peer_that_only_chatters_is_silent(sides: tuple[Side, Side]) -> None:
    a, b = sides
    await a.say(*numbered(1))
    await until(lambda: len(b.applied) == 1 and a.link.silent_ms == 0)
    chatter = signed_content(replace(message_of(b, []), seq=None), b.key)
    a.weather.is_cut = True
    await a.say(*numbered(2))
    await until(lambda: a.link.state.outgoing.seq == 2)
    for _ in range(20):
        await asyncio.sleep(0.01)
        await a.link.receive(chatter, done=NOTHING)
    assert a.link.silent_ms >= 150


async def test_another_key_stops_the_link_until_the_operator_trusts_it_and_mends(
    sides: tuple[Side, Side],
) -> None:
    a, b = sides
    await a.say(*numbered(1))
    await until(lambda: len(b.applied) == 1 and a.link.silent_ms == 0)
    await a.stop()
    a.key = SigningKey.generate("k2")
    await a.start(B)
    await a.say(*numbered(2))
    await until(lambda: b.told == [StopReason.KEY_CHANGED])
    await until(lambda: a.told == [StopReason.STOPPED_BY_PEER])
    await b.link.fulfil_wish(TRUST)
    await b.link.fulfil_wish(MEND)
    await a.link.fulfil_wish(MEND)
    await until(lambda: b.applied == numbered(1, 2))


@pytest.mark.parametrize("restored", ["a", "b"])
async def test_a_side_that_runs_on_an_older_copy_is_noticed_and_both_are_told(
    tmp_path: Path, restored: str
) -> None:
    weather = Weather()
    async with two_sides(tmp_path, weather) as (a, b):
        await a.say(*numbered(1))
        await b.say(*numbered(1))
        await until(
            lambda: len(a.applied) == len(b.applied) == 1 and a.link.silent_ms == b.link.silent_ms == 0
        )
        victim = a if restored == "a" else b
        await victim.stop()
        copy = tmp_path / "copy.db"
        await victim.database.close()
        file = tmp_path / f"{restored}.db"
        shutil.copy(file, copy)
        victim.database = open_database(f"sqlite:///{restored}.db", folder=tmp_path)
        victim.storage = type(victim.storage)(victim.database)
        await victim.start(victim.other.own_user)
        await a.say(*numbered(2))
        await b.say(*numbered(2))
        await until(lambda: len(a.applied) == len(b.applied) == 2)
        await until(lambda: a.link.silent_ms == b.link.silent_ms == 0)
        await victim.stop()
        await victim.database.close()
        remove(tmp_path, f"{restored}.db-*")
        shutil.copy(copy, file)
        victim.database = open_database(f"sqlite:///{restored}.db", folder=tmp_path)
        victim.storage = type(victim.storage)(victim.database)
        victim.applied = victim.applied[:1]
        await victim.start(victim.other.own_user)
        await victim.other.say(*numbered(3))
        await until(lambda: {a.link.state.state, b.link.state.state} == {STOPPED})
        assert a.told and b.told
        assert numbered(3)[0] not in victim.applied
        # Both operators have looked and say so: what waited is sent, numbered anew.
        await a.link.fulfil_wish(MEND)
        await b.link.fulfil_wish(MEND)
        await until(lambda: numbered(3)[0] in victim.applied)
        await a.say(*numbered(4))
        await until(lambda: numbered(4)[0] in b.applied)


async def test_a_peer_that_begins_anew_alone_stops_the_link(sides: tuple[Side, Side]) -> None:
    a, b = sides
    await a.say(*numbered(1))
    await until(lambda: len(b.applied) == 1 and a.link.silent_ms == 0)
    await a.link.fulfil_wish(MEND)
    await a.say(*numbered(2))
    await until(lambda: b.told == [StopReason.PEER_BEGAN_ANEW])
    assert b.applied == numbered(1)
    await b.link.fulfil_wish(MEND)
    await a.link.fulfil_wish(MEND)
    await until(lambda: b.applied == numbered(1, 2))


def remove(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        path.unlink()


def message_of(side: Side, items: list[dict[str, Any]]) -> Message:
    """The message that this side would send next."""
    outgoing = side.link.state.outgoing
    return Message(
        sender=side.own_user,
        to=side.other.own_user,
        epoch=outgoing.epoch,
        at_ms=outgoing.epoch,
        ack_epoch=0,
        ack=0,
        seq=outgoing.seq + 1,
        prev=outgoing.chain,
        items=tuple(items),
        sent=outgoing.seq + 1,
    )


def test_a_chain_tells_apart_what_was_said_in_which_order() -> None:
    chain = first_chain(A, B, 1)
    one, two = {"kind": "a"}, {"kind": "b"}
    chains = {
        next_chain(chain, 1, [one, two]),
        next_chain(chain, 1, [two, one]),
        next_chain(chain, 2, [one, two]),
        next_chain(next_chain(chain, 1, [one]), 2, [two]),
        next_chain(first_chain(B, A, 1), 1, [one, two]),
        next_chain(first_chain(A, B, 2), 1, [one, two]),
    }
    assert len(chains) == 6
