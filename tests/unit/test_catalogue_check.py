"""What `scripts/translations check` finds wrong, and that what it writes is read back."""

from __future__ import annotations

from pathlib import Path

import pytest
from babel.messages.catalog import Catalog

from scripts.catalogues.check import complaints
from scripts.catalogues.files import read_catalogue, write_catalogue
from scripts.catalogues.sentences import ROOT, sentences_of_the_code

ONE, MANY = "{count} day for {name}", "{count} days for {name}"


def found(
    sentence: str | tuple[str, str],
    translation: str | tuple[str, ...] | None,
    *,
    file: str = "a.py",
    fuzzy: bool = False,
    tag: str = "de",
) -> list[str]:
    code, catalogue = Catalog(), read_catalogue(tag, Path("nowhere"))
    code.add(sentence, locations=[(file, 1)])
    if translation is not None:
        catalogue.add(sentence, translation, flags=("fuzzy",) if fuzzy else ())
    return list(complaints(code, catalogue))


@pytest.mark.parametrize(
    ("sentence", "translation"),
    [
        ("Hello, {name}", "Hallo, {name}"),
        ("{a} paid {b}", "{b} bekam von {a}"),
        ("Hello, %(name)s", "Hallo, %(name)s"),
        ("Nothing", "Nichts"),
        ((ONE, MANY), ("einen Tag für {name}", "{count} Tage für {name}")),
    ],
)
def test_a_translation_with_the_same_places_is_right(
    sentence: str | tuple[str, str], translation: str | tuple[str, ...]
) -> None:
    assert found(sentence, translation) == []


@pytest.mark.parametrize(
    ("sentence", "translation", "complaint"),
    [
        ("Hello", None, "is not in the catalogue"),
        ("Hello", "", "is not translated"),
        ("Hello", "  ", "is not translated"),
        ("Hello, {name}", "Hallo", "lacks the place {name}"),
        ("Hello, {name}", "Hallo, {nmae}", "knows no place {nmae}"),
        ("Hello, {name}", "Hallo, {name", "a brace that is not closed"),
        ("Hello, %(name)s", "Hallo, %(mane)s", "knows no place {mane}"),
        ((ONE, MANY), ("{count} Tag für {name}", ""), "is not translated"),
        ((ONE, MANY), ("{count} Tag", "{count} Tage für {name}"), "lacks the place {name}"),
    ],
)
def test_what_is_missing_or_wrong_is_told(
    sentence: str | tuple[str, str], translation: str | tuple[str, ...] | None, complaint: str
) -> None:
    assert any(complaint in line for line in found(sentence, translation))


def test_a_guess_is_told() -> None:
    assert "fuzzy" in found("Hello", "Hallo", fuzzy=True)[0]


def test_html_in_a_template_must_be_the_same_and_elsewhere_is_only_text() -> None:
    sentence, wrong = "Open <b>%(name)s</b>", "Öffne <script>%(name)s</script>"
    assert "not the same HTML" in found(sentence, wrong, file="a.html")[0]
    assert found("!pay <user>", "!pay <Person>") == []


def test_arabic_needs_six_forms() -> None:
    assert "has 2 forms" in found((ONE, MANY), ("{count} {name}",) * 2, tag="ar")[0]
    assert found((ONE, MANY), ("{name}", "{name}", "{name}", *("{count} {name}",) * 3), tag="ar") == []


def test_a_catalogue_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    for tag in ("de", "ar"):
        catalogue = read_catalogue(tag)
        write_catalogue(tag, catalogue, tmp_path)
        first = (tmp_path / f"{tag}.po").read_text(encoding="utf-8")
        write_catalogue(tag, read_catalogue(tag, tmp_path), tmp_path)
        assert (tmp_path / f"{tag}.po").read_text(encoding="utf-8") == first


def test_a_changed_sentence_is_a_new_one_and_no_guess(tmp_path: Path) -> None:
    catalogue = read_catalogue("de", tmp_path)
    catalogue.add("How much do you pay?", "Wie viel zahlst du?")
    code = Catalog()
    code.add("How much did you pay?", locations=[("a.py", 1)])
    catalogue.update(code, no_fuzzy_matching=True)
    write_catalogue("de", catalogue, tmp_path)
    text = (tmp_path / "de.po").read_text(encoding="utf-8")
    assert "fuzzy" not in text and "zahlst" not in text and "did you pay" in text


def test_sentences_are_found_in_code_and_in_templates() -> None:
    sentences = sentences_of_the_code(ROOT)
    for said in ("How much?", "Without a password: your Matrix account vouches for you.", "shows your money"):
        assert sentences.get(said) is not None, said
    counted = sentences.get("Signed out of {count} session.")
    assert counted is not None and counted.pluralizable
