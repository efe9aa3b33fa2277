"""What a sentence is in each language, how amounts and days are written, and how languages are named."""

from __future__ import annotations

import asyncio

import pytest

from appservices.chassis.page_language import ACCEPTED_LENGTH_MAX, accepted_language
from appservices.chassis.page_words import readable_time
from appservices.vocabulary.languages import (
    LANGUAGES,
    _,
    counted,
    direction,
    isolated,
    language,
    listed,
    named,
    speaking,
    without_directions,
)
from appservices.vocabulary.money import (
    Currencies,
    Currency,
    CurrencyCode,
    format_change,
    format_minor,
    iso_currency,
)
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused

EUR = iso_currency("EUR") or Currency(CurrencyCode("EUR"), 2, "€")
HOUR = Currency(CurrencyCode("HOUR"), 1, "HOUR")
NOVEMBER_MS = 1_795_521_600_000


def test_a_sentence_is_said_in_the_language_that_is_spoken() -> None:
    assert _("You have no payments yet.") == "You have no payments yet."
    with speaking("de"):
        assert _("You have no payments yet.") == "Du hast noch keine Zahlungen."
        with speaking("ar"):
            assert (language(), direction()) == ("ar", "rtl")
            assert _("You have no payments yet.") == "ليس لديك مدفوعات بعد."
        assert (language(), direction()) == ("de", "ltr")
    assert language() == "en"


@pytest.mark.parametrize("tag", [None, "", "xx", "de-AT", "../de"])
def test_what_is_not_spoken_is_said_in_english(tag: str | None) -> None:
    with speaking("de"), speaking(tag):
        assert _("How much?") == "How much?"
    with speaking("de"):
        assert _("a sentence that nobody has translated") == "a sentence that nobody has translated"


async def test_tasks_speak_side_by_side() -> None:
    async def ask(tag: str) -> str:
        with speaking(tag):
            await asyncio.sleep(0)
            return _("How much?")

    said = await asyncio.gather(*(ask(tag) for tag in ("en", "de", "ar")))
    assert said == ["How much?", "Wie viel?", "كم المبلغ؟"]


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "لم تُنهَ أي جلسة."),
        (1, "أُنهيت جلسة واحدة."),
        (2, "أُنهيت جلستان."),
        (3, "أُنهيت 3 جلسات."),
        (10, "أُنهيت 10 جلسات."),
        (11, "أُنهيت 11 جلسة."),
        (99, "أُنهيت 99 جلسة."),
        (100, "أُنهيت 100 جلسة."),
        (103, "أُنهيت 103 جلسات."),
    ],
)
def test_arabic_has_a_form_for_every_number(count: int, said: str) -> None:
    with speaking("ar"):
        assert counted("Signed out of {count} session.", "Signed out of {count} sessions.", count) == said


@pytest.mark.parametrize(("count", "said"), [(1, "1 Sitzung"), (2, "2 Sitzungen"), (0, "0 Sitzungen")])
def test_german_has_a_form_for_one(count: int, said: str) -> None:
    with speaking("de"):
        assert said in counted("Signed out of {count} session.", "Signed out of {count} sessions.", count)


def test_a_refusal_is_told_in_the_language_in_which_it_is_read() -> None:
    refused = PaymentRefused.because(PaymentRefusal.PAYEE_UNKNOWN, payee="@bob:here")
    with speaking("de"):
        assert refused.sentence == "@bob:here gibt es hier nicht, also kannst du dorthin nicht zahlen."
    with speaking("ar"):
        assert "\u2068@bob:here\u2069" in refused.sentence
    assert refused.sentence == "There is no user @bob:here here to pay."


@pytest.mark.parametrize(
    ("tag", "amount", "change", "hours"),
    [
        ("en", "€1,250.50", "−€1,250.50", "+3.5 HOUR"),
        ("de", "1.250,50 €", "−1.250,50 €", "+3,5 HOUR"),
        ("ar", "\u200f1,250.50 €", "\u200f\u200e−1,250.50 €", "\u200f\u200e+3.5\u200f HOUR"),
    ],
)
def test_amounts_are_written_as_each_language_does(tag: str, amount: str, change: str, hours: str) -> None:
    with speaking(tag):
        written = [format_minor(125_050, EUR), format_change(-125_050, EUR), format_change(35, HOUR)]
    assert [text.replace("\u00a0", " ") for text in written] == [amount, change, hours]


@pytest.mark.parametrize("tag", LANGUAGES)
def test_an_amount_can_be_copied_back_from_a_sentence(tag: str) -> None:
    with speaking(tag):
        for minor in (1, 1250, 125_050, 123_456_789):
            assert Currencies([EUR]).parse(format_minor(minor, EUR)).amount_minor == minor


@pytest.mark.parametrize(
    ("tag", "written"),
    [
        ("en", "24 Nov 2026, 12:00 UTC"),
        ("de", "24. Nov. 2026, 12:00 UTC"),
        ("ar", "24 نوفمبر 2026، 12:00 UTC"),
    ],
)
def test_moments_are_written_as_each_language_does(tag: str, written: str) -> None:
    with speaking(tag):
        assert readable_time(NOVEMBER_MS) == written


def test_only_what_is_written_the_other_way_is_isolated() -> None:
    assert isolated("@bob:here") == "@bob:here"
    assert isolated("قهوة") == "\u2068قهوة\u2069"
    with speaking("ar"):
        assert isolated("@bob:here") == "\u2068@bob:here\u2069"
        assert isolated("قهوة 12.50") == "قهوة 12.50"
    assert without_directions("\u2068@bob:here\u2069\u200f\u202e") == "@bob:here"


def test_things_are_listed_as_each_language_lists_them() -> None:
    assert listed(["a"]) == "a" and listed(["a", "b"]) == "a and b"
    with speaking("de"):
        assert listed(["a", "b", "c"]) == "a, b und c"


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("de", "de"), ("DE", "de"), ("de-AT", "de"), ("de_CH", "de"), ("Deutsch", "de"), ("German", "de"),
        (" german ", "de"), ("ألمانية", "de"), ("الألمانية", "de"), ("المانية", "de"), ("العربية", "ar"),
        ("عربي", "ar"), ("Arabisch", "ar"), ("arabic", "ar"), ("English", "en"), ("englisch", "en"),
        ("انجليزي", "en"), ("Klingon", None), ("", None), ("deutsch bitte", None), ("x" * 4000, None),
    ],
)  # fmt: skip
def test_a_language_is_named_in_any_of_ours(text: str, tag: str | None) -> None:
    assert named(text) == tag


@pytest.mark.parametrize(
    ("header", "tag"),
    [
        ("de", "de"),
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("fr,en;q=0.5,de;q=0.7", "de"),
        ("fr-FR, ar-EG;q=0.4", "ar"),
        ("en;q=0.5,de;q=0.5", "en"),
        ("de;q=0,en;q=0.1", "en"),
        ("de ; Q=0.2 , ar ; q=0.3", "ar"),
        ("fr", None),
        ("*", None),
        ("", None),
        ("de;q=2,en;q=many,ar;level=1", "ar"),
        (";;;,,,==", None),
        ("x," * ACCEPTED_LENGTH_MAX + "de", None),
    ],
)
def test_of_what_a_browser_accepts_the_best_liked_is_taken(header: str, tag: str | None) -> None:
    assert accepted_language(header) == tag
