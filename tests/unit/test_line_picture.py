"""The picture of an amount over time: within its frame, stepped, and with a line where nothing is."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from wallet_appservice.web.line_picture import HEIGHT, WIDTH, line_picture


def test_of_nothing_there_is_no_picture() -> None:
    assert line_picture([], until=5) is None


def test_an_amount_holds_until_the_next() -> None:
    picture = line_picture([(0, 0), (50, 100), (75, -100)], until=100)
    assert picture is not None
    assert picture.path == "M0 60.0H300.0V4.0H450.0V116.0H600"
    assert (picture.zero_y, picture.lowest, picture.highest) == (60.0, -100, 100)


@given(st.lists(st.integers(-(10**15), 10**15), min_size=1, max_size=50))
def test_all_is_within_the_frame(values: list[int]) -> None:
    picture = line_picture(list(enumerate(values)), until=len(values))
    assert picture is not None
    assert all(0 <= float(x) <= WIDTH for x in re.findall(r"H([\d.]+)", picture.path))
    assert all(0 <= float(y) <= HEIGHT for y in re.findall(r"V([\d.]+)", picture.path))
    assert 0 <= picture.zero_y <= HEIGHT
