"""What is missing or wrong in a catalogue. Pure: sentences in, complaints out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from string import Formatter

from babel.messages.catalog import Catalog, Message

_SHOWN_LENGTH_MAX = 70
_TAG = re.compile(r"<[^<>]+>")
_TEMPLATE_PLACE = re.compile(r"%\(([a-z_]+)\)s")
_COUNT = "count"


def complaints(sentences: Catalog, catalogue: Catalog) -> Iterator[str]:
    """One line for each sentence of the code that the catalogue does not translate as it should."""
    for sentence in sentences:
        if not sentence.id:
            continue
        translated = catalogue.get(sentence.id)
        for complaint in _complaints_of(sentence, translated, forms=catalogue.num_plurals):
            yield f"“{_shown(sentence)}” {complaint}"


def _complaints_of(sentence: Message, translated: Message | None, *, forms: int) -> Iterator[str]:
    if translated is None:
        yield "is not in the catalogue: run scripts/translations update"
        return
    texts = _texts(translated.string)
    if translated.fuzzy:
        yield "is marked fuzzy: look at it and take the mark away"
    if not texts or not all(text.strip() for text in texts):
        yield "is not translated"
        return
    if sentence.pluralizable and len(texts) != forms:
        yield f"has {len(texts)} forms, and this language has {forms}"
    original = _texts(sentence.id)[-1]
    # Templates believe their translations; nothing else of HTML may come in by them.
    is_html = any(file.endswith(".html") for file, _line in sentence.locations)
    # A form such as “one day” or “two days” may leave the number out.
    optional = {_COUNT} if sentence.pluralizable else set()
    for text in texts:
        try:
            places = _places(text)
        except ValueError:
            yield f"is translated with a brace that is not closed: “{text}”"
            continue
        unknown, lacking = places - _places(original), _places(original) - places - optional
        if unknown:
            yield f"knows no place {_named(unknown)}: “{text}”"
        if lacking:
            yield f"lacks the place {_named(lacking)}: “{text}”"
        if is_html and Counter(_TAG.findall(text)) != Counter(_TAG.findall(original)):
            yield f"has not the same HTML in it: “{text}”"


def _texts(string: str | tuple[str, ...] | list[str] | None) -> list[str]:
    if string is None:
        return []
    return [string] if isinstance(string, str) else list(string)


def _places(text: str) -> set[str]:
    """The places of a sentence: `{name}` in Python's, `%(name)s` in templates'. Raises ValueError."""
    in_braces = {name for _text, name, _format, _conversion in Formatter().parse(text) if name}
    return in_braces | set(_TEMPLATE_PLACE.findall(text))


def _named(places: set[str]) -> str:
    return ", ".join(f"{{{place}}}" for place in sorted(places))


def _shown(sentence: Message) -> str:
    text = _texts(sentence.id)[0]
    return text if len(text) <= _SHOWN_LENGTH_MAX else text[: _SHOWN_LENGTH_MAX - 1] + "…"
