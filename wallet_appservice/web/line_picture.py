"""How an amount went over time, as numbers that a template draws: a stepped line about a line for nothing.

Pure. All lengths are in the units of the picture's viewBox, upright; texts stand outside of it, in HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 600
HEIGHT: Final = 120
_EDGE: Final = 4
"""Above and below the line, so that its stroke is seen whole."""


@dataclass(frozen=True, slots=True)
class LinePicture:
    """`points` is an SVG path; `zero_y` is where nothing is, always within the picture."""

    path: str
    zero_y: float
    lowest: int
    highest: int
    width: int = WIDTH
    height: int = HEIGHT


def line_picture(values: Sequence[tuple[int, int]], *, until: int) -> LinePicture | None:
    """(time, amount) in the order of time; each holds until the next, the last one `until`. None of none."""
    if not values:
        return None
    begin = values[0][0]
    seconds = max(until - begin, 1)
    lowest, highest = min(0, *(value for _, value in values)), max(0, *(value for _, value in values))
    spread = max(highest - lowest, 1)

    def y_of(value: int) -> float:
        return round(_EDGE + (HEIGHT - 2 * _EDGE) * (highest - value) / spread, 1)

    steps = [f"M0 {y_of(values[0][1])}"]
    for at, value in values[1:]:
        steps.append(f"H{round(WIDTH * (at - begin) / seconds, 1)}V{y_of(value)}")
    steps.append(f"H{WIDTH}")
    return LinePicture("".join(steps), y_of(0), lowest, highest)
