"""Moments as a person would explain them, in plain sets and sentences: what the service is held against.

It is written from the words of docs/protocol/moments.md, not from the service's code, and imports nothing of
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class World:
    """Everybody's settings; a setting that is missing is empty."""

    people: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, people: Mapping[Any, dict[str, Any]]) -> World:
        return cls({str(person): settings for person, settings in people.items()})

    def contacts(self, one: str, other: str) -> bool:
        """Both share a direct room, and neither ignores the other."""
        if one == other:
            return False
        return (
            other in self.people[one]["direct"]
            and one in self.people[other]["direct"]
            and other not in self.people[one]["ignored"]
            and one not in self.people[other]["ignored"]
        )

    def sees(self, moment: Mapping[str, Any], viewer: str) -> bool:
        author = str(moment["author"])
        if viewer == author:
            return True
        settings = self.people[author]
        if viewer in settings["ignored"] or author in self.people[viewer]["ignored"]:
            return False
        if viewer in settings["not_shown_to"]:
            return False
        if settings["days"] is not None and moment["age_days"] > settings["days"]:
            return False
        if moment["kind"] == "public":
            return True
        if not self.contacts(author, viewer):
            return False
        meant = set(moment["people"])
        for tag in moment["tags"]:
            meant |= settings["tags"].get(tag, set())
        if moment["kind"] == "contacts":
            return True
        if moment["kind"] == "only":
            return viewer in meant
        if moment["kind"] == "except":
            return viewer not in meant
        assert moment["kind"] == "me"
        return False

    def is_fed(self, moment: Mapping[str, Any], viewer: str) -> bool:
        author = str(moment["author"])
        if viewer == author:
            return True
        return (
            self.sees(moment, viewer)
            and self.contacts(author, viewer)
            and author not in self.people[viewer]["hidden"]
        )

    def sees_of(self, moment: Mapping[str, Any], maker: str, viewer: str) -> bool:
        """A like or comment is for the author, for who made it, and for who knows who made it."""
        if not self.sees(moment, viewer):
            return False
        return viewer == moment["author"] or viewer == maker or self.contacts(maker, viewer)
