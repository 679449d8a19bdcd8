"""Coordinates as decimal text come back as the same doubles."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wsltool.datasets.decimals import less, minus, moved, plus, shortest, width_text

doubles = st.floats(-1e18, 1e18)


@given(doubles)
@example(0.1)
@example(5e-324)
@example(2.0**53 + 2)
@example(-0.0)
def test_one_more_and_one_less_is_the_same(value):
    assert less(moved(value, 1), 1) == value
    assert float(moved(value, 0)) == value


@given(doubles, doubles)
@example(0.1, 0.7)
@example(64.00000000000001, 128.00000000000003)
def test_a_corner_and_a_width_are_the_other_corner(one, other):
    low, high = min(one, other), max(one, other)
    assert plus(Decimal(moved(low, 0)), Decimal(width_text(low, high))) == high
    assert minus(shortest(high), Decimal(width_text(low, high))) == low


@pytest.mark.parametrize(
    ("value", "by", "text"),
    [(0.1, 1, "1.1"), (3.0, 1, "4"), (1e-7, 0, "1E-7"), (0.25, -1, "-0.75"), (1e300, 0, "1E+300")],
)
def test_text(value, by, text):
    assert moved(value, by) == text


def test_a_width():
    assert width_text(0.1, 0.3) == "0.2"
    assert width_text(2.0, 5.0) == "3"


def test_numbers_of_files():
    assert less("12", 1) == 11
    assert less("1.1", 1) == 0.1
    assert less("1e2", 1) == 99
    assert less("1e-99999999999999999999", 1) == -1
