"""Languages: which one is spoken at this moment, and what a sentence is in it.

A sentence is written in English where it is said, and looked up by that English in the catalogues beside this
file (gettext, read from their .po files). What is not translated is said in English. The language belongs to
the task that runs: whoever speaks to a person does so inside `speaking(their language)`.

    with speaking("de"):
        _("{payer} paid {payee} {amount}").format(payer=…, payee=…, amount=…)

Sentences are whole, with named places, so that another language may order them as it must.
"""

from __future__ import annotations

import gettext as _gettext_catalogues
import io
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Final

from babel.core import Locale
from babel.lists import format_list
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

ENGLISH: Final = "en"
LANGUAGES: Final[Mapping[str, str]] = MappingProxyType({ENGLISH: "English", "de": "Deutsch", "ar": "العربية"})
"""Language tag (BCP 47) → the language's own name. A language is added by its catalogue and its name here."""
_RIGHT_TO_LEFT: Final = frozenset({"ar"})
# Characters that reorder or hide the text around them: marks, embeddings, overrides, isolates.
_DIRECTIONS: Final = re.compile("[\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]")
_ARTICLE: Final = "ال"
_STRONG_LEFT: Final = frozenset({"L"})
_STRONG_RIGHT: Final = frozenset({"R", "AL"})

_spoken: ContextVar[str] = ContextVar("weft language", default=ENGLISH)


def language() -> str:
    """The tag of the language that is spoken now."""
    return _spoken.get()


def direction() -> str:
    """How the language that is spoken now is written: `ltr` or `rtl`, as HTML's `dir` has it."""
    return "rtl" if language() in _RIGHT_TO_LEFT else "ltr"


@contextmanager
def speaking(tag: str | None) -> Iterator[None]:
    """Speaks that language meanwhile; English when we don't know it."""
    token = _spoken.set(tag if tag is not None and tag in LANGUAGES else ENGLISH)
    try:
        yield
    finally:
        _spoken.reset(token)


def _(sentence: str) -> str:
    """The sentence in the language that is spoken now, its places in braces still open."""
    return sentence if language() == ENGLISH else _catalogue(language()).gettext(sentence)


def counted(one: str, many: str, count: int) -> str:
    """The form of a sentence that a number asks for, with `{count}` filled in."""
    return form_for(one, many, count).replace("{count}", str(count))


def form_for(one: str, many: str, count: int) -> str:
    """The form of a sentence that a number asks for, its places open: for templates, which fill them."""
    return _catalogue(language()).ngettext(one, many, count)


def known(sentence: str) -> str:
    """Marks a sentence for translation where it is written down and not yet said: `_` says it later."""
    return sentence


def listed(items: Sequence[str]) -> str:
    """The items as a sentence lists them: `a, b and c`."""
    return str(format_list(list(items), locale=language()))


def isolated(text: str) -> str:
    """What stands in a sentence, kept from disordering it when it is written in the other direction.

    For plain text, where no markup can say so: first-strong isolate and its end (Unicode UAX #9).
    """
    other = _STRONG_LEFT if direction() == "rtl" else _STRONG_RIGHT
    disorders = any(unicodedata.bidirectional(character) in other for character in text)
    return f"\u2068{text}\u2069" if disorders else text


def without_directions(text: str) -> str:
    """The text without marks of direction, which come along when something is copied from a sentence."""
    return _DIRECTIONS.sub("", text)


def named(text: str) -> str | None:
    """The tag of the language that a person names by its tag or its name in any of our languages."""
    written = _plain_name(text)
    tag = text.strip().lower().replace("_", "-").split("-")[0]
    return tag if tag in LANGUAGES else _tags_by_name().get(written)


@cache
def _tags_by_name() -> Mapping[str, str]:
    names = {_plain_name(own_name): tag for tag, own_name in LANGUAGES.items()}
    for speaker in LANGUAGES:
        in_its_words = Locale.parse(speaker).languages
        names |= {_plain_name(in_its_words[tag]): tag for tag in LANGUAGES if tag in in_its_words}
    # `المانية`, as many write ألمانية, seems to begin with the article.
    return {name.removeprefix(_ARTICLE): tag for name, tag in names.items()} | names


def _plain_name(name: str) -> str:
    """A name without what people leave out writing it: capitals, marks, Arabic's article and ending."""
    decomposed = unicodedata.normalize("NFKD", name.strip().removeprefix(_ARTICLE)).casefold()
    letters = "".join(character for character in decomposed if not unicodedata.combining(character))
    return "".join(letters.split()).removesuffix("ة")


@cache
def _catalogue(tag: str) -> _gettext_catalogues.NullTranslations:
    source = files(__package__) / "translations" / f"{tag}.po"
    if not source.is_file():
        return _gettext_catalogues.NullTranslations()
    compiled = io.BytesIO()
    write_mo(compiled, read_po(io.BytesIO(source.read_bytes()), locale=tag))
    compiled.seek(0)
    return _gettext_catalogues.GNUTranslations(compiled)
