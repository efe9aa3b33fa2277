"""What is written at the start and the end of a message says for whom a Moment is, and where it was."""

from __future__ import annotations

import pytest

from appservices.moments.rules import CONTACTS, Audience, AudienceKind
from appservices.moments.writing import WritingUnclear, Written, is_audience_word, read_writing
from appservices.vocabulary.ids import UserId

TAGS = {"family": frozenset({UserId("@bob:here")}), "old friends": frozenset({UserId("@carol:here")})}


def only(*tags: str) -> Audience:
    return Audience(AudienceKind.ONLY, tags=frozenset(tags))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("Hello", Written("Hello", "", CONTACTS)),
        ("/public Hello", Written("Hello", "", Audience(AudienceKind.PUBLIC))),
        ("!ME\nHello", Written("Hello", "", Audience(AudienceKind.ONLY_ME))),
        ("/friends Hello", Written("Hello", "", CONTACTS)),
        ("/tag Family Hello there", Written("Hello there", "", only("family"))),
        ("!only family: Hello", Written("Hello", "", only("family"))),
        ('/tag "old friends" Hello', Written("Hello", "", only("old friends"))),
        (
            "/except family Hello",
            Written("Hello", "", Audience(AudienceKind.EXCEPT, tags=frozenset({"family"}))),
        ),
        ("Hello\n📍 Hamburg", Written("Hello", "Hamburg", CONTACTS)),
        ("📍 Hamburg", Written("", "Hamburg", CONTACTS)),
        ("Meet at 📍 noon", Written("Meet at 📍 noon", "", CONTACTS)),
        ("/meet me", Written("/meet me", "", CONTACTS)),
        ("/publicly known", Written("/publicly known", "", CONTACTS)),
    ],
)
def test_a_message_is_read_as_it_is_meant(text: str, written: Written) -> None:
    assert read_writing(text, TAGS) == written


@pytest.mark.parametrize("text", ["/tag work Hello", "/except", "!only"])
def test_a_tag_that_is_not_there_is_told_instead_of_guessed(text: str) -> None:
    with pytest.raises(WritingUnclear, match="family"):
        read_writing(text, TAGS)


def test_a_command_for_tags_is_no_moment() -> None:
    assert not is_audience_word("!tag family @bob:here")
    assert is_audience_word("!public Hello") and is_audience_word("/tag family Hello")
