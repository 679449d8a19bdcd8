"""Maps on wsolevaluation's grid: its rule, and what is done where it has none."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest

from wsltool.errors import BadImageError
from wsltool.localize.grid import resample
from wsltool.localize.grid_heat import grid_heat

WHOLE, SIZE = (0, 0, 50, 30), (50, 30)


def _rule(map_HW, side):
    """Resize, then shift and scale."""
    heat_HW = cv2.resize(map_HW.astype(np.float64), (side, side), interpolation=cv2.INTER_CUBIC)
    heat_HW = heat_HW - heat_HW.min()
    return heat_HW / heat_HW.max()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_cubic_in_float64_then_normalised(dtype):
    map_HW = np.random.default_rng(0).normal(size=(14, 9)).astype(dtype)
    heat_HW, plain = grid_heat(map_HW, WHOLE, SIZE, 224)
    assert plain
    assert heat_HW.dtype == np.float64
    np.testing.assert_array_equal(heat_HW, _rule(map_HW, 224))
    assert (heat_HW.min(), heat_HW.max()) == (0, 1)


def test_what_is_zero_does_not_stay_zero():
    """The cubic kernel reaches −0.11 beside an impulse."""
    map_HW = np.zeros((14, 14))
    map_HW[7, 7] = 1
    heat_HW, _ = grid_heat(map_HW, WHOLE, SIZE, 224)
    assert heat_HW[0, 0] == pytest.approx(0.111 / (0.996 + 0.111), abs=1e-3)


def test_map_of_the_grid_is_not_resampled():
    map_HW = np.random.default_rng(1).random((8, 8))
    map_HW.flat[:2] = 0, 1
    heat_HW, plain = grid_heat(map_HW, WHOLE, SIZE, 8)
    assert plain
    np.testing.assert_array_equal(heat_HW, map_HW)


@pytest.mark.parametrize("map_HW", [np.full((3, 3), 7.5), np.array([[0.0, np.nan], [1, 2]])])
def test_constant_or_nan_is_zero_throughout(map_HW):
    heat_HW, plain = grid_heat(map_HW, WHOLE, SIZE, 6)
    assert plain
    np.testing.assert_array_equal(heat_HW, np.zeros((6, 6)))


def test_the_input_stays_as_it_is():
    map_HW = np.arange(16, dtype=np.float64).reshape(4, 4)
    for side in (4, 8):
        grid_heat(map_HW, WHOLE, SIZE, side)
        grid_heat(map_HW, (10, 0, 40, 30), SIZE, side)
    np.testing.assert_array_equal(map_HW, np.arange(16).reshape(4, 4))


def test_a_crop_is_put_in_its_place():
    """The middle of an image of 40 x 40: outside it is as cold as the coldest pixel."""
    map_HW = np.random.default_rng(2).random((5, 5))
    heat_HW, plain = grid_heat(map_HW, (10, 10, 30, 30), (40, 40), 20)
    assert not plain
    there_HW = resample(map_HW, (5, 5, 15, 15), (20, 20))
    inside_HW = np.isfinite(there_HW)
    assert inside_HW.sum() == 100
    expected = there_HW[inside_HW]
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    np.testing.assert_allclose(heat_HW[inside_HW], expected, atol=1e-12)
    assert (heat_HW[~inside_HW] == 0).all()


def test_suppressed_cells_are_left_out():
    map_HW = np.array([[9.0, 1, 2, 3], [9, 1, 2, 3], [9, 1, 2, 3], [9, 1, 2, 3]])
    gone_HW = np.zeros((4, 4), np.uint8)
    gone_HW[:, 0] = 1
    heat_HW, plain = grid_heat(map_HW, WHOLE, SIZE, 8, gone_HW)
    assert not plain
    assert (heat_HW[:, :2] == 0).all()
    assert (heat_HW[:, 7] == 1).all()
    for none_HW in (np.zeros((4, 4)), np.ones((4, 4))):  # all of them count as none
        same_HW, plain = grid_heat(map_HW, WHOLE, SIZE, 8, none_HW)
        assert plain
        np.testing.assert_array_equal(same_HW, _rule(map_HW, 8))


@pytest.mark.parametrize(
    ("map_HW", "extent", "line"),
    [
        (
            np.array([[0, np.inf], [0, 0]]),
            WHOLE,
            "map has 1 values that are not finite, the first at row 0, column 1: inf; expected "
            "finite scores.",
        ),
        (np.zeros((0, 3)), WHOLE, "map grid is 0x3; expected rows x columns, at least 1x1."),
        (
            np.zeros((2, 2)),
            (0, 0, 0, 30),
            "map_extent is 0 0 0 30; expected finite x0 < x1 and y0 < y1.",
        ),
    ],
)
def test_unusable(map_HW, extent, line):
    with pytest.raises(BadImageError, match=f"^{re.escape(line)}$"):
        grid_heat(map_HW, extent, SIZE, 224)
