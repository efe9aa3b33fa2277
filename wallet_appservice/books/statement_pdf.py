"""A statement as a PDF on A4, in the language that is spoken, also from right to left.

Its letters come from DejaVu, which is fetched at set-up with the browser libraries and has the Latin, Greek,
Cyrillic, Hebrew and Arabic ones; what it lacks (pictures, Chinese) is printed as an empty box.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from fpdf import FPDF
from fpdf.enums import Align

from appservices.vocabulary.languages import _, direction, language
from wallet_appservice.books.periods import day_of
from wallet_appservice.books.user_statements import StatementLine, UserStatement

LINES_MAX: Final = 500
"""A longer one takes too long to set; the CSV has no such limit."""
_FAMILY: Final = "DejaVu"
_GREEN: Final = (0, 122, 97)
_GREY: Final = (101, 109, 119)
_BLACK: Final = (27, 29, 34)
_RULE: Final = (225, 230, 236)
# Hebrew begins here, Arabic and the scripts of India follow.
_FIRST_SHAPED: Final = "\u0590"
_MARGIN_MM: Final = 18
_ROW_MM: Final = 6.2
# Date, what and with whom, amount, balance.
_WIDTHS_MM: Final = (27, 87, 30, 30)

AmountText = Callable[[int], str]


def statement_pdf(
    statement: UserStatement,
    lines: Sequence[StatementLine],
    *,
    amount: AmountText,
    fonts: Path,
    now_ms: int,
) -> bytes:
    """The whole file. `amount` writes minor units of the statement's currency."""
    return _Sheet(statement, amount=amount, fonts=fonts, now_ms=now_ms).made_of(lines)


class _Sheet(FPDF):
    def __init__(self, statement: UserStatement, *, amount: AmountText, fonts: Path, now_ms: int) -> None:
        super().__init__(format="A4", unit="mm")
        self._statement = statement
        self._amount = amount
        self._rtl = direction() == "rtl"
        self._made_on = day_of(now_ms)
        self.set_margin(_MARGIN_MM)
        self.set_auto_page_break(auto=True, margin=20)
        self.add_font(_FAMILY, "", fonts / "DejaVuSans.ttf")
        self.add_font(_FAMILY, "B", fonts / "DejaVuSans-Bold.ttf")
        self.set_title(f"{_('Statement')} {statement.period.name}")
        self.set_lang(language())
        self.set_creation_date(datetime.fromtimestamp(now_ms / 1000, UTC))

    def made_of(self, lines: Sequence[StatementLine]) -> bytes:
        self.add_page()
        self._title()
        self._sums()
        self._column_names()
        for line in lines:
            self._line(line)
        if not lines:
            self._text(_GREY, 9)
            empty = _("Nothing moved in this time.")
            self._shape(empty)
            self.cell(0, 12, empty, align=Align.C)
        return bytes(self.output())

    def footer(self) -> None:
        self.set_y(-14)
        self._text(_GREY, 7.5)
        made = _("Made on {day}. Days are days in UTC.").format(day=self._made_on)
        page = _("Page {number}").format(number=self.page_no())
        self._spread(made, page, height=5)

    def _title(self) -> None:
        for text, colour, size, height in (
            (_("Statement"), _GREEN, 20.0, 10),
            (self._statement.period.name, _BLACK, 11.0, 6),
            (self._statement.user, _GREY, 9.0, 6),
        ):
            self._text(colour, size, bold=colour is _GREEN)
            self._shape(text)
            self.cell(0, height, text, align=self._start)
            self.ln(height)
        self.ln(4)

    def _sums(self) -> None:
        statement = self._statement
        for name, minor, bold in (
            (_("Balance before"), statement.opening_minor, False),
            (_("Money in"), statement.in_minor, False),
            (_("Money out"), -statement.out_minor, False),
            (_("Balance after"), statement.closing_minor, True),
        ):
            self._text(_BLACK, 10, bold=bold)
            self._spread(name, self._amount(minor), height=7)
            self._rule()
        self.ln(6)

    def _column_names(self) -> None:
        self._text(_GREY, 8, bold=True)
        self._row((_("Day"), _("What"), _("Amount"), _("Balance")))

    def _line(self, line: StatementLine) -> None:
        if self.will_page_break(_ROW_MM * 2):
            self.add_page()
            self._column_names()
        self._text(_BLACK, 8.5)
        self._row(
            (
                day_of(line.at_ms),
                self._fitting(line.title, _WIDTHS_MM[1]),
                self._amount(line.amount_minor),
                self._amount(line.balance_minor),
            )
        )
        if line.memo:
            self._text(_GREY, 7.5)
            self._row(("", self._fitting(line.memo, _WIDTHS_MM[1]), "", ""), height=4.6)
        self._rule()

    def _row(self, cells: tuple[str, str, str, str], height: float = _ROW_MM) -> None:
        placed = list(zip(cells, _WIDTHS_MM, (self._start, self._start, self._end, self._end), strict=True))
        for text, width, align in reversed(placed) if self._rtl else placed:
            self._shape(text)
            self.cell(width, height, text, align=align)
        self.ln(height)

    def _spread(self, first: str, last: str, *, height: float) -> None:
        half = self.epw / 2
        placed = [(first, self._start), (last, self._end)]
        for text, align in reversed(placed) if self._rtl else placed:
            self._shape(text)
            self.cell(half, height, text, align=align)
        self.ln(height)

    def _fitting(self, text: str, width: float) -> str:
        """The text, shortened until it fits."""
        self._shape(text)
        room = width - 2 * self.c_margin
        if self.get_string_width(text) <= room:
            return text
        short, long = 0, len(text)
        while short < long:
            middle = (short + long + 1) // 2
            if self.get_string_width(text[:middle] + "…") <= room:
                short = middle
            else:
                long = middle - 1
        return text[:short].rstrip() + "…"

    def _shape(self, text: str) -> None:
        """Joined letters and writing from right to left cost much time: only what has them pays."""
        self.set_text_shaping(use_shaping_engine=any(letter >= _FIRST_SHAPED for letter in text))

    def _rule(self) -> None:
        self.set_draw_color(*_RULE)
        self.set_line_width(0.2)
        self.line(_MARGIN_MM, self.get_y(), self.w - _MARGIN_MM, self.get_y())

    def _text(self, colour: tuple[int, int, int], size: float, *, bold: bool = False) -> None:
        self.set_text_color(*colour)
        self.set_font(_FAMILY, "B" if bold else "", size)

    @property
    def _start(self) -> Align:
        return Align.R if self._rtl else Align.L

    @property
    def _end(self) -> Align:
        return Align.L if self._rtl else Align.R
