"""A bar chart as numbers that a template draws: stacked bars, round corners, a line for each round amount.

Pure. All lengths are in the units of the picture's viewBox, upright; texts stand outside of it, in HTML.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 600
HEIGHT: Final = 240
_GAP_SHARE: Final = 0.38
_BAR_WIDTH_MAX: Final = 64.0
_LINES_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class Bar:
    """What is drawn: parts from the bottom up, each a style class and an amount. A tap leads to `path`."""

    name: str
    parts: tuple[tuple[str, int], ...]
    spoken: str
    is_chosen: bool = False
    path: str = ""


@dataclass(frozen=True, slots=True)
class DrawnPart:
    style: str
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class DrawnBar:
    bar: Bar
    x: float
    """Where its column begins."""
    column: float
    left: float
    width: float
    top: float
    height: float
    parts: tuple[DrawnPart, ...]


@dataclass(frozen=True, slots=True)
class BarLine:
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class BarPicture:
    bars: tuple[DrawnBar, ...]
    lines: tuple[BarLine, ...]
    is_empty: bool
    width: int = WIDTH
    height: int = HEIGHT


def bar_picture(bars: Sequence[Bar], *, amount: Callable[[int], str]) -> BarPicture:
    """`amount` writes what a line stands for."""
    largest = max((sum(value for _style, value in bar.parts) for bar in bars), default=0)
    step = _round_step(largest)
    lines = -(-largest // step)
    top = max(step * lines, 1)
    column = WIDTH / max(len(bars), 1)
    width = min(column * (1 - _GAP_SHARE), _BAR_WIDTH_MAX)
    return BarPicture(
        bars=tuple(
            _drawn(bar, x=place * column, column=column, width=width, top=top)
            for place, bar in enumerate(bars)
        ),
        lines=tuple(
            BarLine(y=round(HEIGHT - HEIGHT * step * number / top, 1), text=amount(step * number))
            for number in range(lines + 1)
        )
        if largest
        else (),
        is_empty=not largest,
    )


def _drawn(bar: Bar, *, x: float, column: float, width: float, top: int) -> DrawnBar:
    y = float(HEIGHT)
    parts = []
    for style, value in bar.parts:
        height = HEIGHT * value / top
        y -= height
        parts.append(DrawnPart(style, round(y, 1), round(height, 1)))
    return DrawnBar(
        bar=bar,
        x=round(x, 1),
        column=round(column, 1),
        left=round(x + (column - width) / 2, 1),
        width=round(width, 1),
        top=round(y, 1),
        height=round(HEIGHT - y, 1),
        parts=tuple(parts),
    )


def _round_step(largest: int) -> int:
    """1, 2 or 5 and noughts, so that at most _LINES_MAX such steps reach the largest."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if step * factor * _LINES_MAX >= largest:
                return step * factor
        step *= 10
