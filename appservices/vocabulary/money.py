"""Money: integer minor units and a currency. Never a float.

Reading what people type is strict where a guess could cost them: `1,250` is refused rather than read as
either 1.25 or 1250. Formatting follows CLDR through Babel.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import NewType

from babel.core import Locale
from babel.numbers import (
    format_currency,
    get_currency_precision,
    get_currency_symbol,
    list_currencies,
)

from appservices.vocabulary.languages import _, counted, isolated, language, without_directions

CurrencyCode = NewType("CurrencyCode", str)
"""An ISO 4217 code or one that an operator defines: 3 to 8 capitals."""

AMOUNT_MINOR_MAX = 2**53 - 1
"""The largest amount anywhere in Weft: what canonical JSON's integers can carry."""
AMOUNT_TEXT_LENGTH_MAX = 40
EXPONENT_MAX = 8

_CURRENCY_CODE = re.compile(r"[A-Z]{3,8}")
_NUMBER = re.compile(r"[0-9][0-9.,'\u2019\u00a0\u202f\u066b\u066c]*")
_ARABIC_DECIMAL = "\u066b"
_GROUP_MARKS = "'\u2019\u00a0\u202f\u066c"
_MINUS = "\u2212"
_RIGHT_TO_LEFT_MARK, _LEFT_TO_RIGHT_MARK = "\u200f", "\u200e"


class AmountUnreadable(ValueError):
    """What was written is not an amount; the message is one sentence for the person who wrote it."""


@dataclass(frozen=True, slots=True)
class Currency:
    """A currency that this wallet keeps. `exponent` = number of decimals of its minor unit."""

    code: CurrencyCode
    exponent: int
    symbol: str

    def __post_init__(self) -> None:
        if not _CURRENCY_CODE.fullmatch(self.code):
            raise ValueError(f"a currency code is 3 to 8 capital letters, not {self.code!r}")
        if not 0 <= self.exponent <= EXPONENT_MAX:
            raise ValueError(f"a currency's exponent is 0 to {EXPONENT_MAX}, not {self.exponent}")


def iso_currency(code: str) -> Currency | None:
    """The ISO 4217 currency of that code with its CLDR exponent and symbol; None when there is none."""
    if not _CURRENCY_CODE.fullmatch(code) or code not in list_currencies():
        return None
    return Currency(
        code=CurrencyCode(code),
        exponent=get_currency_precision(code),
        symbol=str(get_currency_symbol(code, locale="en")),
    )


@dataclass(frozen=True, slots=True)
class Money:
    """An amount of one currency in minor units; zero and negative amounts are not money."""

    amount_minor: int
    currency: CurrencyCode

    def __post_init__(self) -> None:
        if type(self.amount_minor) is not int:
            raise TypeError("an amount is a whole number of minor units")
        if not 0 < self.amount_minor <= AMOUNT_MINOR_MAX:
            raise ValueError("an amount is more than nothing and at most 2^53-1 minor units")


class Currencies(Mapping[CurrencyCode, Currency]):
    """The currencies a wallet keeps, the first being the default one."""

    def __init__(self, currencies: Iterable[Currency]) -> None:
        self._by_code = {currency.code: currency for currency in currencies}
        if not self._by_code:
            raise ValueError("a wallet keeps at least one currency")
        self.default = next(iter(self._by_code.values()))

    def __getitem__(self, code: CurrencyCode) -> Currency:
        return self._by_code[code]

    def __iter__(self) -> Iterator[CurrencyCode]:
        return iter(self._by_code)

    def __len__(self) -> int:
        return len(self._by_code)

    def named(self, text: str) -> Currency | None:
        """The currency of this code (in any case) or symbol; None when unknown or not unique."""
        code = self._by_code.get(CurrencyCode(text.upper()))
        if code is not None:
            return code
        having_symbol = [currency for currency in self._by_code.values() if currency.symbol == text]
        return having_symbol[0] if len(having_symbol) == 1 else None

    def parse(self, text: str) -> Money:
        """The money a person wrote: `12.50 EUR`, `EUR 12.50`, `€12,50`, `12.50`, other scripts' digits.

        Raises AmountUnreadable with one sentence when the text is no amount, names a currency that is not
        kept here, has more decimals than the currency, is zero, negative, or more than the largest amount.
        """
        return _parse(text, self)

    def format(self, money: Money) -> str:
        """For people, as the language that is spoken writes it: `€12.50`, `12,50 €`, `1.5 HOUR`."""
        return format_minor(money.amount_minor, self._by_code[money.currency])


def format_minor(amount_minor: int, currency: Currency) -> str:
    """An amount for people, also zero or negative (a balance): `€12.50`, `-€12.50`, `12.50 HOUR`."""
    return _formatted(amount_minor, currency, plus="", minus="-")


def format_change(amount_minor: int, currency: Currency) -> str:
    """What came in or went out, always with its sign: `+€12.50`, `−€12.50`."""
    return _formatted(amount_minor, currency, plus="+", minus=_MINUS)


def _formatted(amount_minor: int, currency: Currency, *, plus: str, minus: str) -> str:
    number = Decimal(amount_minor).scaleb(-currency.exponent)
    decimals = "." + "0" * currency.exponent if currency.exponent else ""
    pattern = _pattern(language(), is_iso=currency.symbol != currency.code).replace(".00", decimals)
    return str(
        format_currency(
            number,
            currency.code,
            format=f"{_signed(pattern, plus)};{_signed(pattern, minus)}",
            locale=language(),
            currency_digits=False,
        )
    )


@cache
def _pattern(tag: str, *, is_iso: bool) -> str:
    """Where the language writes the currency of a positive amount; a code always stands behind the number."""
    standard = str(Locale.parse(tag).currency_formats["standard"].pattern).split(";")[0]
    if is_iso:
        return standard
    mark = _RIGHT_TO_LEFT_MARK if standard.startswith(_RIGHT_TO_LEFT_MARK) else ""
    # The second mark keeps the code behind its number, also where a sign makes that read left to right.
    return f"{mark}#,##0.00{mark} ¤"


def _signed(pattern: str, sign: str) -> str:
    if not sign or not pattern.startswith(_RIGHT_TO_LEFT_MARK):
        return sign + pattern
    # The mark keeps the sign in front of its number, as CLDR has it for these languages.
    return f"{_RIGHT_TO_LEFT_MARK}{_LEFT_TO_RIGHT_MARK}{sign}{pattern.removeprefix(_RIGHT_TO_LEFT_MARK)}"


def decimal_text(money: Money, currency: Currency) -> str:
    """An amount as a person types it, with a point and no grouping: `12.50`."""
    return f"{Decimal(money.amount_minor).scaleb(-currency.exponent):f}"


def _parse(text: str, currencies: Currencies) -> Money:
    written = without_directions(unicodedata.normalize("NFC", text)).strip()
    default = currencies.default
    example = isolated(f"12.50 {default.code}" if default.exponent else f"12 {default.code}")
    if not written or len(written) > AMOUNT_TEXT_LENGTH_MAX:
        raise AmountUnreadable(
            _("An amount is a number and a currency, for example {example}.").format(example=example)
        )
    if written[0] in "-\u2212\u2013" or re.search(r"[-\u2212]\s*[\d]", written):
        raise AmountUnreadable(_("An amount can't be negative."))
    ascii_digits = "".join(_ascii_digit(character) for character in written)
    match = _NUMBER.search(ascii_digits)
    if match is None:
        raise _no_amount(written, example)
    number = match.group().rstrip(_GROUP_MARKS)
    before = ascii_digits[: match.start()].strip()
    after = ascii_digits[match.start() + len(number) :].strip()
    if before and after:
        raise _no_amount(written, example)
    currency = _currency_written(before or after, currencies)
    return _money(_decimal(number, currency), currency, written)


def _no_amount(written: str, example: str) -> AmountUnreadable:
    return AmountUnreadable(
        _("“{text}” is not an amount, for example {example}.").format(text=_shown(written), example=example)
    )


def _no_number(number: str) -> AmountUnreadable:
    return AmountUnreadable(_("“{text}” is not a number.").format(text=_shown(number)))


def _ascii_digit(character: str) -> str:
    """Any script's decimal digit as an ASCII one; full-width punctuation likewise."""
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    if "\uff01" <= character <= "\uff5e":
        return chr(ord(character) - 0xFEE0)
    return character


def _currency_written(name: str, currencies: Currencies) -> Currency:
    if not name:
        return currencies.default
    currency = currencies.named(name)
    if currency is None:
        kept = isolated(", ".join(currencies._by_code))
        raise AmountUnreadable(
            _("“{text}” is not a currency of this wallet, which keeps {currencies}.").format(
                text=_shown(name), currencies=kept
            )
        )
    return currency


def _decimal(number: str, currency: Currency) -> Decimal:
    """The number, with its decimal mark made out; raises AmountUnreadable when it could mean two things."""
    for mark in _GROUP_MARKS:
        if mark in number:
            _check_groups(number.replace(_ARABIC_DECIMAL, ".").split(".")[0].split(mark), number)
            number = number.replace(mark, "")
    number = number.replace(_ARABIC_DECIMAL, ".")
    marks = [character for character in number if character in ".,"]
    if not marks:
        return Decimal(number)
    last = marks[-1]
    other = "," if last == "." else "."
    whole, _mark, fraction = number.rpartition(last)
    if marks.count(last) > 1:
        if other in marks:
            raise _no_number(number)
        _check_groups(number.split(last), number)
        return Decimal(number.replace(last, ""))
    if other in marks:
        _check_groups(whole.split(other), number)
        return Decimal(f"{whole.replace(other, '')}.{fraction or '0'}")
    if not fraction:
        raise _no_number(number)
    if len(fraction) == 3 and currency.exponent != 3 and whole != "0" and len(whole) <= 3:
        raise AmountUnreadable(
            _("“{text}” could mean {large} or {small}: please write it without a thousands mark.").format(
                text=_shown(number), large=whole + fraction, small=f"{whole}.{fraction}"
            )
        )
    return Decimal(f"{whole}.{fraction}")


def _check_groups(groups: list[str], number: str) -> None:
    if not (1 <= len(groups[0]) <= 3 and all(len(group) == 3 and group.isdigit() for group in groups[1:])):
        raise _no_number(number)


def _money(number: Decimal, currency: Currency, written: str) -> Money:
    minor = number.scaleb(currency.exponent)
    if minor != minor.to_integral_value():
        raise AmountUnreadable(
            counted(
                "{currency} has {count} decimal; “{text}” has more.",
                "{currency} has {count} decimals; “{text}” has more.",
                currency.exponent,
            ).format(currency=isolated(currency.code), text=_shown(written))
            if currency.exponent
            else _("{currency} has no decimals; “{text}” has some.").format(
                currency=isolated(currency.code), text=_shown(written)
            )
        )
    if minor == 0:
        raise AmountUnreadable(_("An amount must be more than zero."))
    if minor > AMOUNT_MINOR_MAX:
        raise AmountUnreadable(_("“{text}” is more than any payment can be.").format(text=_shown(written)))
    return Money(int(minor), currency.code)


def _shown(text: str) -> str:
    """What a person wrote, safe to repeat in a sentence: printable, short."""
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return isolated(printable if len(printable) <= 24 else printable[:23] + "…")
