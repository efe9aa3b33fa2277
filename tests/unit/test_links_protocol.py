"""The rules of numbering, pure: in whatever order messages come, each is applied once and in its place."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appservices.chassis.links.protocol import (
    ITEMS_MAX,
    Incoming,
    Message,
    Outgoing,
    Place,
    Stop,
    StopReason,
    acknowledged,
    after,
    first_chain,
    item_text,
    next_chain,
    packed,
    place_of,
    read_message,
    signed_content,
    wants,
)
from appservices.vocabulary.signing import SigningKey
from tests.link_channel import A, B

EPOCH = 1_000


def messages(count: int, *, epoch: int = EPOCH) -> list[Message]:
    """What a correct sender sends."""
    made, chain = [], first_chain(A, B, epoch)
    for seq in range(1, count + 1):
        items = ({"kind": "said", "n": seq},)
        made.append(
            Message(
                sender=A, to=B, epoch=epoch, at_ms=epoch + seq, ack_epoch=0, ack=0,
                seq=seq, prev=chain, items=items, sent=seq,
            )
        )  # fmt: skip
        chain = next_chain(chain, seq, items)
    return made


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(0, n - 1)))))
def test_any_order_with_any_repetitions_applies_each_message_once_and_in_order(
    given_order: tuple[int, list[int]],
) -> None:
    count, order = given_order
    sent, incoming, applied = messages(count), Incoming(), []
    for index in [*order, *range(count)]:
        place = place_of(incoming, sent[index])
        assert not isinstance(place, Stop)
        if place is Place.NEXT:
            incoming = after(incoming, sent[index])
            applied.append(sent[index].seq)
    assert applied == list(range(1, count + 1))


@given(st.integers(1, 8), st.integers(0, 7))
def test_a_sender_that_forgot_some_of_what_it_sent_is_found_out(count: int, kept: int) -> None:
    incoming = Incoming()
    for message in messages(count):
        incoming = after(incoming, message)
    kept = min(kept, count - 1)
    # It goes on from an older copy, and says something else under the numbers that it gave already.
    chain = incoming_chain(kept)
    other = ({"kind": "said", "n": "other"},)
    for seq in range(kept + 1, count + 2):
        message = Message(
            sender=A, to=B, epoch=EPOCH, at_ms=1, ack_epoch=0, ack=0,
            seq=seq, prev=chain, items=other, sent=seq,
        )  # fmt: skip
        chain = next_chain(chain, seq, other)
        place = place_of(incoming, message)
    assert place == Stop(StopReason.FORKED, f"message {count + 1} does not follow from message {count}")


def incoming_chain(count: int) -> str:
    chain = first_chain(A, B, EPOCH)
    for message in messages(count):
        assert message.seq is not None
        chain = next_chain(chain, message.seq, message.items)
    return chain


@given(st.permutations([(number, 100 + number) for number in range(8)]))
def test_acknowledgements_in_any_order_come_to_the_last_one(order: list[tuple[int, int]]) -> None:
    outgoing = Outgoing(EPOCH, seq=10)
    for ack, at_ms in order:
        judged = acknowledged(outgoing, note(ack=ack, at_ms=at_ms))
        assert isinstance(judged, Outgoing)
        outgoing = judged
    assert outgoing.acked == 7


def test_less_than_before_said_later_is_a_peer_that_went_back() -> None:
    outgoing = Outgoing(EPOCH, seq=10, acked=7, acked_at_ms=100)
    judged = acknowledged(outgoing, note(ack=6, at_ms=101))
    assert isinstance(judged, Stop) and judged.reason is StopReason.PEER_WENT_BACK
    judged = acknowledged(outgoing, note(ack=11, at_ms=101))
    assert isinstance(judged, Stop) and judged.reason is StopReason.WE_WENT_BACK


def test_what_is_acknowledged_of_an_earlier_epoch_means_nothing() -> None:
    outgoing = Outgoing(EPOCH, seq=10, acked=7, acked_at_ms=100)
    assert acknowledged(outgoing, note(ack=500, at_ms=101, ack_epoch=EPOCH - 1)) == outgoing
    assert wants(outgoing, note(ack=7, at_ms=101, resend_from=8)) == 8
    assert wants(outgoing, note(ack=7, at_ms=101, resend_from=11)) is None


def note(*, ack: int, at_ms: int, ack_epoch: int = EPOCH, resend_from: int | None = None) -> Message:
    return Message(
        sender=B, to=A, epoch=1, at_ms=at_ms, ack_epoch=ack_epoch, ack=ack, resend_from=resend_from
    )


@given(st.lists(st.integers(1, 56_000), min_size=1, max_size=30))
def test_packing_takes_a_beginning_that_is_never_empty_and_never_too_big(lengths: list[int]) -> None:
    texts = ["x" * length for length in lengths]
    count = packed(texts)
    assert 1 <= count <= min(len(texts), ITEMS_MAX)
    assert count == 1 or sum(len(text) + 1 for text in texts[:count]) <= 58 * 1024
    if count < len(texts):
        assert sum(len(text) + 1 for text in texts[: count + 1]) > 58 * 1024


def test_a_message_is_read_as_it_was_written() -> None:
    (message,) = messages(1)
    assert read_message(signed_content(message, SigningKey.generate()), sender=A) == message
    assert item_text({"kind": "é", "n": 1}) == '{"kind":"é","n":1}'
