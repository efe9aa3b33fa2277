"""Reads what people type after a command: a user, an amount, a memo. No guess may cost money."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from appservices.chassis.rooms import Room
from appservices.vocabulary.ids import UserId, is_user_id, localpart_of
from appservices.vocabulary.languages import _, counted, isolated, without_directions
from appservices.vocabulary.money import AmountUnreadable, Currencies, Money, iso_currency

NAME_WORDS_MAX = 6
_QUOTED = re.compile(r'["“„«]([^"“”„«»]{1,100})["”“»]\s*')
_CODE_LIKE = re.compile(r"[A-Z]{3,8}")
_TRAILING = ",.;:!?"


class NotUnderstood(ValueError):
    """What was typed can't be read; the message is one sentence for the person who typed it."""


@dataclass(frozen=True, slots=True)
class AmountAndMemo:
    money: Money
    memo: str


def read_user(text: str, room: Room, *, own_server: str) -> tuple[UserId, str]:
    """The user at the text's beginning and what follows: an MXID, or a display name unique in the room.

    A name of several words is taken as long as it fits; it may stand in quotation marks. Raises
    NotUnderstood.
    """
    text = without_directions(text).strip()
    if not text:
        raise NotUnderstood(_("Who should be paid?"))
    if text.startswith("@"):
        word, rest = _first_word(text)
        user_id = _user_id(word, own_server)
        if user_id is not None:
            return user_id, rest
        named = _read_name(text[1:], room)
        if named is not None:
            return named
        raise NotUnderstood(
            _("“{text}” is not a Matrix user, such as {example}.").format(
                text=_shown(word), example=isolated(f"@bob:{own_server}")
            )
        )
    quoted = _QUOTED.match(text)
    if quoted is not None:
        return _one_of(quoted.group(1), room.users_named(quoted.group(1))), text[quoted.end() :]
    named = _read_name(text, room)
    if named is not None:
        return named
    raise _nobody_called(_first_word(text)[0])


def read_amount(text: str, currencies: Currencies) -> AmountAndMemo:
    """The amount at the text's beginning and the memo after it: `12.50 EUR lunch`, `€12,50 lunch`.

    A word that could be a currency is never taken for a memo. Raises NotUnderstood.
    """
    words = text.split()
    if not words:
        raise NotUnderstood(_("How much?"))
    try:
        if len(words) > 1 and _is_currency(words[1], currencies) and _has_digit(words[0]):
            return _checked(currencies.parse(f"{words[0]} {words[1].rstrip(_TRAILING)}"), words[2:], True)
        if len(words) > 1 and not _has_digit(words[0]) and _has_digit(words[1]):
            return _checked(currencies.parse(f"{words[0]} {words[1]}"), words[2:], False)
        return _checked(currencies.parse(words[0]), words[1:], False)
    except AmountUnreadable as error:
        raise NotUnderstood(str(error)) from error


def read_people(text: str, room: Room, *, own_server: str, people_max: int) -> tuple[list[UserId], str]:
    """The users at the text's beginning and the memo after them, which begins with a word that names nobody
    and names nobody later: who stands there would be left out unawares. Raises NotUnderstood."""
    people: list[UserId] = []
    rest = text.strip().lstrip(",")
    while rest:
        names_somebody = rest.startswith("@") or _QUOTED.match(rest) or _read_name(rest, room) is not None
        if people and not names_somebody:
            break
        user, rest = read_user(rest, room, own_server=own_server)
        people.append(user)
        if len(people) > people_max:
            sentence = _("One request can be split among {people_max} people at most.")
            raise NotUnderstood(sentence.format(people_max=people_max))
        rest = rest.strip().lstrip(",").strip()
    words = rest.split()
    for place, word in enumerate(words):
        is_user = word.startswith("@") and _user_id(word, own_server) is not None
        if is_user or _read_name(" ".join(words[place:]), room) is not None:
            sentence = _("“{word}” stands behind other words: please name everybody first.")
            raise NotUnderstood(sentence.format(word=_shown(word)))
    return people, rest


@dataclass(frozen=True, slots=True)
class PacketWords:
    money: Money
    count: int
    is_equal: bool
    words: str


def read_packet(text: str, currencies: Currencies) -> PacketWords:
    """`20 EUR 5 equal happy new year`: an amount, for how many, and what else. Raises NotUnderstood."""
    words = text.split()
    if not words:
        raise NotUnderstood(_("How much, and for how many?"))
    amount_words = 1
    if len(words) > 1 and (
        (_has_digit(words[0]) and _is_currency(words[1], currencies))
        or (not _has_digit(words[0]) and _has_digit(words[1]))
    ):
        amount_words = 2
    try:
        money = currencies.parse(" ".join(word.rstrip(_TRAILING) for word in words[:amount_words]))
    except AmountUnreadable as error:
        raise NotUnderstood(str(error)) from error
    rest = words[amount_words:]
    if not rest or not rest[0].isdecimal() or len(rest[0]) > 4 or (len(rest[0]) > 1 and int(rest[0][0]) == 0):
        raise NotUnderstood(_("For how many people? Please write the number after the amount."))
    if len(rest) > 1 and _has_digit(rest[1][:1]):
        raise NotUnderstood(
            _(
                "“{word}” could belong to the amount: please write the amount in one piece, "
                "and then for how many."
            ).format(word=_shown(rest[1]))
        )
    is_equal = len(rest) > 1 and rest[1].casefold() == "equal"
    return PacketWords(money, int(rest[0]), is_equal, " ".join(rest[2 if is_equal else 1 :]))


def _checked(money: Money, memo_words: list[str], currency_follows: bool) -> AmountAndMemo:
    """Refuses what may be the rest of an amount: `1 000 EUR` is not 1 with the memo “000 EUR”."""
    if memo_words and not currency_follows and _has_digit(memo_words[0][:1]):
        raise NotUnderstood(
            _(
                "“{text}” could belong to the amount: please write the amount in one piece, "
                "and its currency after it."
            ).format(text=_shown(memo_words[0]))
        )
    return AmountAndMemo(money, " ".join(memo_words))


def _is_currency(word: str, currencies: Currencies) -> bool:
    """Whether a word after a number must be meant as its currency, kept here or not."""
    bare = word.rstrip(_TRAILING)
    return (
        currencies.named(bare) is not None
        or iso_currency(bare.upper()) is not None
        or _CODE_LIKE.fullmatch(bare) is not None
        or (bool(bare) and all(unicodedata.category(character) == "Sc" for character in bare))
    )


def _has_digit(word: str) -> bool:
    return any(character.isdecimal() for character in word)


def _user_id(word: str, own_server: str) -> UserId | None:
    candidate = word.rstrip(",;:")
    if is_user_id(candidate):
        return UserId(candidate)
    completed = f"{candidate}:{own_server}"
    return UserId(completed) if ":" not in candidate and is_user_id(completed) else None


def _read_name(text: str, room: Room) -> tuple[UserId, str] | None:
    """The longest run of first words that is somebody's name; None when no run is."""
    words = text.split()
    for count in range(min(NAME_WORDS_MAX, len(words)), 0, -1):
        name = " ".join(words[:count]).rstrip(",:")
        # A display name that is somebody else's localpart is a trap: both count.
        users = sorted({*room.users_named(name), *(_users_with_localpart(name, room) if count == 1 else ())})
        if users:
            return _one_of(name, users), " ".join(words[count:])
    return None


def _users_with_localpart(name: str, room: Room) -> list[UserId]:
    """`bob` for @bob:here, among the room's members of any server."""
    return [user for user in room.members.joined if localpart_of(user) == name.lower()]


def _one_of(name: str, users: list[UserId]) -> UserId:
    if len(users) == 1:
        return users[0]
    if not users:
        raise _nobody_called(name)
    raise NotUnderstood(
        counted(
            "{count} person in this room is called “{name}”: please give the user id.",
            "{count} people in this room are called “{name}”: please give the user id.",
            len(users),
        ).format(name=_shown(name))
    )


def _nobody_called(name: str) -> NotUnderstood:
    return NotUnderstood(_("Nobody in this room is called “{name}”.").format(name=_shown(name)))


def _first_word(text: str) -> tuple[str, str]:
    words = text.split(maxsplit=1)
    return words[0], words[1].strip() if len(words) > 1 else ""


def _shown(text: str) -> str:
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return isolated(printable if len(printable) <= 40 else printable[:39] + "…")
