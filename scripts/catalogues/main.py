"""`scripts/translations`: updates and checks the catalogue of every language but English."""

from __future__ import annotations

import argparse
import sys

from appservices.vocabulary.languages import ENGLISH, LANGUAGES
from scripts.catalogues.check import complaints
from scripts.catalogues.files import FOLDER, read_catalogue, write_catalogue
from scripts.catalogues.sentences import sentences_of_the_code

TRANSLATED = tuple(tag for tag in LANGUAGES if tag != ENGLISH)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/translations", description=__doc__)
    parser.add_argument(
        "what",
        choices=("update", "check"),
        help="update: writes every sentence of the code into the catalogues and takes out what is no longer "
        "said; check: tells what is not translated as it should be, with exit status 1",
    )
    if parser.parse_args().what == "update":
        update()
    else:
        sys.exit(1 if check() else 0)


def update() -> None:
    """Translations that are there stay as they are; a changed sentence is a new one, never a guess."""
    sentences = sentences_of_the_code()
    for tag in TRANSLATED:
        catalogue = read_catalogue(tag)
        catalogue.update(sentences, no_fuzzy_matching=True)
        write_catalogue(tag, catalogue)
        missing = sum(1 for _ in complaints(sentences, catalogue))
        print(f"{FOLDER / tag}.po: {len(catalogue)} sentences, {missing} to look at")


def check() -> list[str]:
    """Prints and returns what is wrong in any language."""
    sentences = sentences_of_the_code()
    found = [
        f"{tag}: {complaint}"
        for tag in TRANSLATED
        for complaint in complaints(sentences, read_catalogue(tag))
    ]
    for complaint in found:
        print(complaint)
    return found


if __name__ == "__main__":
    main()
