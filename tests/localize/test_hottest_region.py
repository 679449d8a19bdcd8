"""The region of maximal response, by hand and by laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsltool.errors import BadImageError
from wsltool.localize.grid import peak_px
from wsltool.localize.hottest_region import hottest_region

WHOLE = (0, 0, 60, 40)
SIZE = (60, 40)


def centre(map_HW, extent=WHOLE, size=SIZE, suppressed=None):
    found = hottest_region(np.asarray(map_HW, np.float64), extent, size, suppressed)
    return found.x_px, found.y_px, found.value, found.num_cells


def test_a_plateau_by_hand():
    """Cells of 10 x 10 pixels; six of them, columns 2 to 4 of rows 1 and 2, share the maximum."""
    map_HW = np.zeros((4, 6))
    map_HW[1:3, 2:5] = 2
    map_HW[3, 0] = 1.9
    assert centre(map_HW) == (35, 20, 2, 6)
    assert peak_px(map_HW, WHOLE, SIZE) == (25.5, 15.5)


def test_a_region_that_is_no_rectangle():
    """An L of three cells: centres 5 15 5 and 5 5 15."""
    map_HW = np.zeros((4, 6))
    map_HW[0, :2] = map_HW[1, 0] = 1
    assert centre(map_HW) == (pytest.approx(25 / 3), pytest.approx(25 / 3), 1, 3)


def test_cells_that_touch_at_a_corner_are_one_region():
    map_HW = np.zeros((4, 6))
    map_HW[0, 0] = map_HW[1, 1] = 1
    assert centre(map_HW) == (10, 10, 1, 2)


def test_of_equal_regions_the_upper_then_the_left_one():
    map_HW = np.zeros((4, 6))
    map_HW[0, 5] = map_HW[1:3, 0:2] = map_HW[0, 3] = 1
    assert centre(map_HW) == (35, 5, 1, 1)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_millionth_is_rounding_and_no_more(sign):
    map_HW = np.full((1, 6), -5.0)
    map_HW[0, :3] = [sign, sign - 0.9e-6, sign - 1.1e-6]
    assert centre(map_HW) == (10, 20, sign, 2)


def test_rounding_does_not_choose_between_regions():
    """The later region is higher by a rounding error."""
    map_HW = np.zeros((1, 6), np.float32)
    map_HW[0, 1], map_HW[0, 4] = 1, np.nextafter(np.float32(1), np.float32(2))
    assert centre(map_HW)[:2] == (15, 20)


def test_a_constant_map_is_its_middle():
    for value in (0.0, 3.0, -3.0):
        assert centre(np.full((4, 6), value)) == (30, 20, value, 24)


def test_around_a_hole_the_centre_may_lie_in_it():
    map_HW = np.ones((4, 6))
    map_HW[:, 0] = map_HW[3] = map_HW[1, 2:5] = 0
    assert centre(map_HW)[1] == pytest.approx((5 * 5 + 15 * 2 + 25 * 5) / 12)


class TestWhichCellsCount:
    def test_suppressed_ones_do_not(self):
        """The floor 0 of a suppressed cell is above every other cell of this map."""
        map_HW, gone = np.full((4, 6), -2.0), np.zeros((4, 6), np.uint8)
        map_HW[0, 0], gone[0, 0] = 0, 1
        map_HW[2, 2:4] = -1
        assert centre(map_HW, suppressed=gone) == (30, 25, -1, 2)

    def test_where_all_are_suppressed_all_do(self):
        map_HW = np.zeros((4, 6))
        map_HW[2, 2:4] = 1
        assert centre(map_HW, suppressed=np.ones((4, 6), np.uint8)) == (30, 25, 1, 2)

    def test_those_in_the_padding_of_a_letterbox_do_not(self):
        """A 60 x 40 picture in a square of 60: 10 pixels above and below, rows 0 and 5."""
        map_HW = np.zeros((6, 6))
        map_HW[0] = 9
        map_HW[1:3, 4:] = 1
        assert centre(map_HW, (0, -10, 60, 50)) == (50, 10, 1, 4)

    def test_where_no_centre_is_in_the_image_all_do(self):
        """One pixel of an image, one cell of 40 x 40 around it."""
        assert centre([[3.0]], (-30, -30, 10, 10), (1, 1)) == (-10, -10, 3, 1)

    def test_a_crop_knows_only_its_extent(self):
        map_HW = np.zeros((2, 2))
        map_HW[:, 1] = 1
        assert centre(map_HW, (10, 0, 50, 40)) == (40, 20, 1, 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_is_refused(bad):
    map_HW = np.zeros((2, 3))
    map_HW[1, 2] = bad
    with pytest.raises(BadImageError, match=r"^map has 1 values .* first at row 1, column 2: "):
        centre(map_HW)


def test_empty_ones_are_refused():
    with pytest.raises(BadImageError, match=r"^map grid is 0x3; expected rows x columns"):
        centre(np.zeros((0, 3)))
    with pytest.raises(BadImageError, match=r"^map_extent is 0 0 0 40; expected finite x0 < x1"):
        centre(np.zeros((2, 3)), (0, 0, 0, 40))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([1e-3, 1.0, 1e4]))
def test_laws(seed, scale):
    """Input unchanged; scale is indifferent; a mirrored map has the mirrored centre."""
    rng = np.random.default_rng(seed)
    map_HW = rng.integers(-3, 4, tuple(rng.integers(1, 9, 2))).astype(np.float32)
    gone = (rng.random(map_HW.shape) < 0.2).astype(np.uint8)
    before = map_HW.copy()
    x, y, value, num = centre(map_HW, suppressed=gone)
    np.testing.assert_array_equal(map_HW, before)
    kept = map_HW[gone == 0] if (gone == 0).any() else map_HW
    assert value == kept.max()
    assert centre(map_HW * scale, suppressed=gone)[:2] == (x, y)
    assert centre(map_HW + 7.0, suppressed=gone)[:2] == (x, y)
    if num == (kept == value).sum():  # one region
        flipped = centre(map_HW[::-1, ::-1], suppressed=gone[::-1, ::-1])
        assert flipped[:2] == pytest.approx((60 - x, 40 - y))
