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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Final

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

ENGLISH: Final = "en"
LANGUAGES: Final[Mapping[str, str]] = MappingProxyType({ENGLISH: "English", "de": "Deutsch", "ar": "العربية"})
"""Language tag (BCP 47) → the language's own name. A language is added by its catalogue and its name here."""
_RIGHT_TO_LEFT: Final = frozenset({"ar"})

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
    catalogue = _catalogue(language())
    return catalogue.ngettext(one, many, count).replace("{count}", str(count))


def known(sentence: str) -> str:
    """Marks a sentence for translation where it is written down and not yet said: `_` says it later."""
    return sentence


@cache
def _catalogue(tag: str) -> _gettext_catalogues.NullTranslations:
    source = files(__package__) / "translations" / f"{tag}.po"
    if not source.is_file():
        return _gettext_catalogues.NullTranslations()
    compiled = io.BytesIO()
    write_mo(compiled, read_po(io.BytesIO(source.read_bytes()), locale=tag))
    compiled.seek(0)
    return _gettext_catalogues.GNUTranslations(compiled)
