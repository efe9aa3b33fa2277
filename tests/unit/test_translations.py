"""Every sentence of the code is there in every language that Weft speaks, with all its places."""

from __future__ import annotations

import pytest

from appservices.vocabulary.languages import ENGLISH, LANGUAGES
from scripts.catalogues.check import complaints
from scripts.catalogues.files import read_catalogue
from scripts.catalogues.sentences import sentences_of_the_code
from wallet_appservice.payments.refusals import REFUSALS, PaymentRefusal


@pytest.mark.parametrize("tag", [tag for tag in LANGUAGES if tag != ENGLISH])
def test_every_sentence_is_translated(tag: str) -> None:
    found = list(complaints(sentences_of_the_code(), read_catalogue(tag)))
    assert not found, "scripts/translations update, then translate:\n" + "\n".join(found)


@pytest.mark.parametrize("refusal", PaymentRefusal)
def test_every_refusal_is_a_known_sentence(refusal: PaymentRefusal) -> None:
    assert read_catalogue("de").get(REFUSALS[refusal].sentence), "wrap it into known()"
