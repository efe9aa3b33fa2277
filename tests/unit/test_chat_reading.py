"""What people type after a command is read without guessing whom or how much."""

from __future__ import annotations

import pytest

from appservices.chassis.messages import IncomingMessage
from appservices.chassis.rooms import Members, Room
from appservices.vocabulary.ids import RoomId, UserId
from appservices.vocabulary.money import Currencies, iso_currency
from wallet_appservice.chat.reading import NotUnderstood, read_amount, read_packet, read_people, read_user

EUR = iso_currency("EUR")
assert EUR
CURRENCIES = Currencies([EUR])
WALLET = UserId("@wallet:a")


def room(**names: str) -> Room:
    joined: dict[UserId, str | None] = {UserId(f"@{localpart}:a"): name for localpart, name in names.items()}
    return Room(
        RoomId("!r"), Members({**joined, WALLET: "Wallet"}, frozenset(), is_closed=False), frozenset({WALLET})
    )


PEOPLE = room(alice="Alice", bob="Bob", bobby="Bob Smith", eve="  bob\u202e smith ")


@pytest.mark.parametrize(
    ("text", "amount_minor", "memo"),
    [
        ("12.50 EUR lunch", 1250, "lunch"),
        ("EUR 12.50 lunch with Bob", 1250, "lunch with Bob"),
        ("€12,50 lunch", 1250, "lunch"),
        ("€ 12,50 lunch", 1250, "lunch"),
        ("12.50 lunch", 1250, "lunch"),
        ("12 € 2 beers", 1200, "2 beers"),
        ("12 EUR, thanks", 1200, "thanks"),
        ("12", 1200, ""),
    ],
)
def test_an_amount_and_its_memo(text: str, amount_minor: int, memo: str) -> None:
    read = read_amount(text, CURRENCIES)
    assert (read.money.amount_minor, read.memo) == (amount_minor, memo)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "12 USD",
        "12 usd lunch",
        "12 $",
        "12 LUNCH",
        "1 000 EUR",
        "EUR 1 000",
        "12 50 EUR",
        "lunch 12 x",
        "-5 EUR",
        "12 DOGE",
    ],
)
def test_an_amount_that_could_mean_another_is_refused(text: str) -> None:
    with pytest.raises(NotUnderstood):
        read_amount(text, CURRENCIES)


@pytest.mark.parametrize(
    ("text", "user", "rest"),
    [
        ("@bob:a 5 EUR", "@bob:a", "5 EUR"),
        ("@bob:b.example:8448 5 EUR", "@bob:b.example:8448", "5 EUR"),
        ("@bob 5 EUR", "@bob:a", "5 EUR"),
        ("Alice 5 EUR", "@alice:a", "5 EUR"),
        ("alice: 5 EUR", "@alice:a", "5 EUR"),
        ("bob 5 EUR", "@bob:a", "5 EUR"),
        ("bobby 5 EUR", "@bobby:a", "5 EUR"),
        ('"Alice" 5 EUR', "@alice:a", "5 EUR"),
        ("@bob:a\t5 EUR", "@bob:a", "5 EUR"),
        ("@bob:a\u00a05 EUR", "@bob:a", "5 EUR"),
        ("@bob:a: 5 EUR", "@bob:a", "5 EUR"),
    ],
)
def test_a_user_by_id_or_by_a_name_unique_in_the_room(text: str, user: str, rest: str) -> None:
    assert read_user(text, PEOPLE, own_server="a") == (user, rest)


@pytest.mark.parametrize(
    "text", ["", "Bob Smith 5 EUR", "carol 5 EUR", "@ 5 EUR", "5 EUR", '"Bob Smith" 5 EUR']
)
def test_a_name_that_is_nobodys_or_two_peoples_is_refused(text: str) -> None:
    with pytest.raises(NotUnderstood):
        read_user(text, PEOPLE, own_server="a")


def test_a_display_name_that_is_anothers_localpart_is_refused() -> None:
    trap = room(bob="Robert", mallory="bob")
    with pytest.raises(NotUnderstood):
        read_user("bob 5 EUR", trap, own_server="a")


def message(**content: object) -> IncomingMessage | None:
    return IncomingMessage.from_event(
        {
            "type": "m.room.message",
            "event_id": "$e",
            "room_id": "!r",
            "sender": "@alice:a",
            "content": {"msgtype": "m.text", **content},
        }
    )


def test_a_pill_is_read_as_the_user_it_links_to() -> None:
    read = message(
        body="!pay Bob 5 EUR",
        formatted_body='!pay <a href="https://matrix.to/#/%40bob%3Aa">Bob</a> 5 EUR &amp; thanks',
        format="org.matrix.custom.html",
    )
    assert read is not None and read.text == "!pay @bob:a 5 EUR & thanks"


def test_the_quotation_of_a_reply_is_no_part_of_the_command() -> None:
    read = message(
        body="> <@bob:a> how much?\n\n!pay bob 5 EUR",
        **{"m.relates_to": {"m.in_reply_to": {"event_id": "$q"}}},
    )
    assert read is not None and (read.text, read.reply_to) == ("!pay bob 5 EUR", "$q")


@pytest.mark.parametrize(
    "content",
    [
        {"body": "!pay bob 5", "msgtype": "m.notice"},
        {"body": "* !pay bob 5", "m.relates_to": {"rel_type": "m.replace", "event_id": "$e"}},
        {"body": 5},
        {},
    ],
)
def test_notices_edits_and_bodiless_messages_are_no_commands(content: dict[str, object]) -> None:
    assert message(**content) is None


@pytest.mark.parametrize(
    ("text", "people", "memo"),
    [
        ("Alice Bob pizza for two", ["alice", "bob"], "pizza for two"),
        ("@alice:a, @bob:a", ["alice", "bob"], ""),
        ('"Alice", bobby pizza', ["alice", "bobby"], "pizza"),
        ("@carol:a pizza", ["carol"], "pizza"),
    ],
)
def test_the_people_of_a_split_and_its_memo(text: str, people: list[str], memo: str) -> None:
    read = read_people(text, PEOPLE, own_server="a", people_max=5)
    assert read == ([UserId(f"@{name}:a") for name in people], memo)


@pytest.mark.parametrize(
    "text",
    [
        "pizza",
        "Bob and Alice",
        "Bob pizza with @alice:a",
        "Bob Smith",
        "@a:a @b:a @c:a @d:a @e:a @f:a",
    ],
)
def test_people_that_can_not_be_made_out_are_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(NotUnderstood, match=r"[.?]$"):
        read_people(text, PEOPLE, own_server="a", people_max=5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20 EUR 5 happy new year", (2000, 5, False, "happy new year")),
        ("EUR 20 5", (2000, 5, False, "")),
        ("€20 5 Equal for all", (2000, 5, True, "for all")),
        ("20 5", (2000, 5, False, "")),
        ("2.50 200 equals", (250, 200, False, "equals")),
        ("20 € 0", (2000, 0, False, "")),
    ],
)
def test_a_red_packet(text: str, expected: tuple[int, int, bool, str]) -> None:
    read = read_packet(text, CURRENCIES)
    assert (read.money.amount_minor, read.count, read.is_equal, read.words) == expected


@pytest.mark.parametrize(
    "text", ["", "20", "20 EUR", "20 EUR many", "20 EUR 05", "1 000 EUR 5", "1 000 5", "20 EUR 5 6", "x 5"]
)
def test_a_red_packet_that_can_not_be_made_out_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(NotUnderstood, match=r"[.?]$"):
        read_packet(text, CURRENCIES)
