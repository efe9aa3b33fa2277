"""How pages write people and times."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from babel.core import Locale
from babel.dates import format_skeleton

from appservices.vocabulary.ids import UserId, localpart_of
from appservices.vocabulary.languages import ENGLISH, _, language

AVATAR_COLORS = 6
# Babel's plain English is American.
_LOCALES_OF_DATES = {ENGLISH: "en_GB"}


def display_name(user_id: str) -> str:
    """The localpart, with a capital where it begins with a small letter."""
    name = localpart_of(UserId(user_id)) if ":" in user_id else user_id
    return name[:1].upper() + name[1:]


def initial(user_id: str) -> str:
    """The letter in a person's picture."""
    return next((letter.upper() for letter in display_name(user_id) if letter.isalnum()), "#")


def avatar_color(user_id: str) -> int:
    """1 to AVATAR_COLORS, the same for the same person everywhere."""
    return hashlib.sha256(user_id.encode("utf-8", "replace")).digest()[0] % AVATAR_COLORS + 1


def iso_time(at_ms: int) -> str:
    """For a <time> element: its script shows it in the reader's own time zone."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds")


def readable_time(at_ms: int) -> str:
    """A moment in words, as chat and pages without script show it: `24 Nov 2026, 13:05 UTC`."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    locale = Locale.parse(_LOCALES_OF_DATES.get(language(), language()))
    day = str(format_skeleton("yMMMd", at, locale=locale))
    clock = f"{at:%H:%M} UTC"
    return str(locale.datetime_formats["medium"]).replace("{1}", day).replace("{0}", clock)


def browser_name(user_agent: str) -> str:
    """`Firefox on Android`, as well as it can be told; a program's own name for what is no browser."""
    if "Mozilla/" not in user_agent:
        return user_agent.split("/")[0][:40] or _("An unknown browser")
    browsers = (
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("Element/", "Element"),
        ("Firefox/", "Firefox"),
        ("FxiOS/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("CriOS/", "Chrome"),
        ("Safari/", "Safari"),
    )
    systems = (
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("CrOS", "ChromeOS"),
        ("Linux", "Linux"),
    )
    browser = next((name for mark, name in browsers if mark in user_agent), _("A browser"))
    system = next((name for mark, name in systems if mark in user_agent), None)
    return _("{browser} on {system}").format(browser=browser, system=system) if system else browser
