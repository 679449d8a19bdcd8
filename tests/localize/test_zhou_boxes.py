"""Boxes by the released rule of Zhou et al.: hand-worked maps. Its text: tests/parity."""

from __future__ import annotations

import numpy as np
import pytest

from wsltool.errors import BadImageError
from wsltool.localize.zhou_boxes import zhou_boxes


def plateaus(*rects, size=(40, 60)):
    """Heat that is constant in each rectangle ``(x0, y0, x1, y1, value)``."""
    heat = np.zeros(size)
    for x0, y0, x1, y1, value in rects:
        heat[y0:y1, x0:x1] = value
    return heat


def test_one_rectangle_comes_twice():
    """Its middle is 5 from the background, so pixels at a distance of 1 are at 51 of 255.

    All three thresholds find it. The first removes the second and skips the third.
    """
    assert zhou_boxes(plateaus((10, 10, 30, 20, 3.0))).tolist() == [[10, 10, 30, 20]] * 2


def test_the_foot_is_cut_where_a_broad_top_makes_it_thin():
    """A square of 60 has 30 in its middle: 1 is 8.5 of 255, written 9, and falls; 2 stays."""
    heat = plateaus((10, 10, 70, 70, 1.0), size=(90, 90))
    assert zhou_boxes(heat).tolist() == [[11, 11, 69, 69]] * 2


def test_the_three_levels():
    """Gray 21 and 111 are seen, 20 is not; the inner box is less than half of the outer one."""
    heat = plateaus((5, 5, 45, 30, 21.0), (20, 10, 30, 20, 111.0), (25, 15, 27, 17, 255.0))
    assert zhou_boxes(heat).tolist() == [[5, 5, 45, 30], [20, 10, 30, 20]]
    heat[heat == 21] = 20
    assert zhou_boxes(heat).tolist() == [[20, 10, 30, 20]] * 2


def test_a_later_box_falls_that_is_over_half_of_the_larger_one():
    """25 x 20, then 20 x 20 (removed), then 18 x 20, which is skipped and stays."""
    heat = plateaus((10, 10, 35, 30, 30.0), (10, 10, 30, 30, 105.0), (10, 10, 28, 30, 255.0))
    assert zhou_boxes(heat).tolist() == [[10, 10, 35, 30], [10, 10, 28, 30]]


def test_a_hole_is_a_contour_too():
    """A ring gives its outline, and its hole with the pixels around that."""
    heat = plateaus((5, 5, 45, 35, 1.0), (20, 15, 30, 25, 0.0))
    expected = [[5, 5, 45, 35]] * 2 + [[19, 14, 31, 26]] * 2
    assert zhou_boxes(heat).tolist() == expected


def test_everything_hot_loses_the_border_and_the_margin():
    """x and y from 1, since the border is no foreground; w and h end 5 before the edge."""
    assert zhou_boxes(np.ones((40, 60))).tolist() == [[1, 1, 55, 35]] * 2


def test_what_is_beyond_the_margin_is_turned_round():
    """x = 57 becomes 55 and w = 60 - 57 - 5 = -2, so the corners are 53 and 55."""
    heat = plateaus((57, 10, 59, 20, 1.0))
    assert zhou_boxes(heat).tolist() == [[53, 10, 55, 20]] * 2


def test_a_box_may_be_left_without_area():
    """x = 55 stays and w = 60 - 55 - 5 = 0; nothing overlaps by more than half of no area."""
    heat = plateaus((55, 10, 58, 20, 1.0))
    assert zhou_boxes(heat).tolist() == [[55, 10, 55, 20]] * 3


@pytest.mark.parametrize("heat", [np.zeros((9, 9)), np.full((9, 9), -1.0)])
def test_nothing_above_0_has_no_box(heat):
    assert zhou_boxes(heat).shape == (0, 4)


def test_negative_and_unknown_pixels_are_black():
    heat = plateaus((10, 10, 30, 20, 3.0))
    other = heat.copy()
    other[0], other[-1] = -np.inf, -7
    assert zhou_boxes(other).tolist() == zhou_boxes(heat).tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_refused(value):
    heat = plateaus((10, 10, 30, 20, 3.0))
    heat[3, 3] = value
    with pytest.raises(
        BadImageError, match=rf"^heat map of shape \(40, 60\) has the maximum {value};"
    ):
        zhou_boxes(heat)
