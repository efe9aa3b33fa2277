"""The sentences that people read, as the code has them: Babel's extraction from Python and templates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_file

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDERS: Final = ("appservices", "bridges", "wallet_appservice")
KEYWORDS: Final[dict[str, Any]] = {
    "_": None,
    "known": None,
    "counted": (1, 2),
    # What `{% trans %}` becomes.
    "gettext": None,
    "ngettext": (1, 2),
}
# As appservices/chassis/pages.py sets the templates' environment.
_TEMPLATE_OPTIONS: Final = {
    "extensions": "jinja2.ext.i18n",
    "trimmed": "true",
    "trim_blocks": "true",
    "lstrip_blocks": "true",
    "newstyle_gettext": "true",
    "silent": "false",
}
NOTE_FOR_TRANSLATORS: Final = "Translators:"


def sentences_of_the_code(root: Path = ROOT) -> Catalog:
    """Every sentence, each with the files it is said in; nothing is translated."""
    catalogue = Catalog()
    for folder in FOLDERS:
        for path, method, options in _files(root / folder):
            name = str(path.relative_to(root))
            for line, sentence, notes, _context in extract_from_file(
                method, str(path), KEYWORDS, (NOTE_FOR_TRANSLATORS,), options, strip_comment_tags=True
            ):
                catalogue.add(sentence, locations=[(name, line)], auto_comments=notes)
    return catalogue


def _files(folder: Path) -> Iterator[tuple[Path, str, dict[str, str]]]:
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".py":
            yield path, "python", {}
        elif path.suffix == ".html" and path.parent.name == "templates":
            yield path, "jinja2", dict(_TEMPLATE_OPTIONS)
