"""The catalogue of each language as a file, with neither dates nor line numbers, so that branches merge."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

from babel.messages.catalog import Catalog
from babel.messages.plurals import get_plural
from babel.messages.pofile import read_po, write_po

from appservices.vocabulary import languages

FOLDER: Final = Path(languages.__file__).parent / "translations"
LINE_LENGTH: Final = 110
# Babel's own expression for Arabic puts 11 to 99 last, against the order that every other tool expects.
_PLURALS: Final = {
    "ar": (
        "nplurals=6; plural=(n==0 ? 0 : n==1 ? 1 : n==2 ? 2 : n%100>=3 && n%100<=10 ? 3 : n%100>=11 ? 4 : 5);"
    )
}
_HEADER: Final = """\
# {name}. What is here is shown to people; see docs/developers/translations.md.
msgid ""
msgstr ""
"Language: {tag}\\n"
"MIME-Version: 1.0\\n"
"Content-Type: text/plain; charset=UTF-8\\n"
"Content-Transfer-Encoding: 8bit\\n"
"Plural-Forms: {plurals}\\n"

"""


def read_catalogue(tag: str, folder: Path = FOLDER) -> Catalog:
    """The language's catalogue; an empty one when there is no file yet."""
    path = folder / f"{tag}.po"
    text = path.read_text(encoding="utf-8") if path.is_file() else _header(tag)
    return read_po(io.StringIO(text), locale=tag)


def write_catalogue(tag: str, catalogue: Catalog, folder: Path = FOLDER) -> None:
    written = io.BytesIO()
    write_po(
        written,
        catalogue,
        width=LINE_LENGTH,
        omit_header=True,
        include_lineno=False,
        ignore_obsolete=True,
        sort_by_file=True,
    )
    folder.mkdir(exist_ok=True)
    text = written.getvalue().decode("utf-8").strip()
    (folder / f"{tag}.po").write_text(f"{_header(tag)}{text}\n", encoding="utf-8")


def _header(tag: str) -> str:
    plurals = _PLURALS.get(tag) or f"{get_plural(tag)}"
    return _HEADER.format(name=languages.LANGUAGES.get(tag, tag), tag=tag, plurals=plurals)
