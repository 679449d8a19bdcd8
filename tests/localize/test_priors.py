"""Boxes and maps that need no method."""

from __future__ import annotations

import numpy as np
import pytest

from wsltool.errors import UsageError
from wsltool.localize.grid import peak_px
from wsltool.localize.priors import centred_box, gaussian_map, random_map, whole_box


def test_boxes_by_hand():
    assert whole_box((500, 375)).tolist() == [0, 0, 500, 375]
    assert centred_box((500, 200), 0.5).tolist() == [125, 50, 375, 150]
    size_wh_N2 = np.array([[10, 20], [1, 1]], np.int32)
    assert centred_box(size_wh_N2, 0.5).tolist() == [[2.5, 5, 7.5, 15], [0.25, 0.25, 0.75, 0.75]]
    assert whole_box(size_wh_N2).dtype == np.float64


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.7, 1])
def test_fraction_of_each_side(fraction):
    x0, y0, x1, y1 = centred_box((640, 481), fraction)
    assert (x1 - x0, y1 - y0) == pytest.approx((640 * fraction, 481 * fraction))
    assert (x0 + x1, y0 + y1) == pytest.approx((640, 481))


@pytest.mark.parametrize("fraction", [0, -0.5, 1.01, np.nan])
def test_bad_fraction(fraction):
    with pytest.raises(UsageError, match=rf"fraction must be in \(0, 1\], got {fraction:g}\."):
        centred_box((10, 10), fraction)


def test_gaussian_by_hand():
    map_HW = gaussian_map((3, 5), 0.4)
    assert map_HW.dtype == np.float32
    assert map_HW[1, 2] == 1
    # One column from the middle is .2 of the width, half a sigma; one row is a third.
    assert map_HW[1, 3] == pytest.approx(np.exp(-0.5 * 0.5**2))
    assert map_HW[0, 0] == pytest.approx(np.exp(-0.5 * ((1 / 3 / 0.4) ** 2 + 1)))
    np.testing.assert_array_equal(map_HW, map_HW[::-1, ::-1])


def test_gaussian_peaks_in_the_middle_of_the_image():
    assert peak_px(gaussian_map((7, 7), 0.25), (0, 0, 35, 21), (35, 21)) == (17.5, 10.5)


@pytest.mark.parametrize("sigma", [0, -1, np.nan, np.inf])
def test_bad_sigma(sigma):
    with pytest.raises(UsageError, match=f"sigma must be a fraction above 0, got {sigma:g}"):
        gaussian_map((3, 3), sigma)


def test_random_is_its_generators():
    first = random_map((4, 6), np.random.default_rng(3))
    again = random_map((4, 6), np.random.default_rng(3))
    assert first.dtype == np.float32
    assert first.shape == (4, 6)
    np.testing.assert_array_equal(first, again)
    assert ((first >= 0) & (first < 1)).all()


def test_bad_grid():
    with pytest.raises(UsageError, match="grid must have at least 1x1 cells, got 0x3"):
        random_map((0, 3), np.random.default_rng(0))
    with pytest.raises(UsageError, match="grid must have at least 1x1 cells, got 3x0"):
        gaussian_map((3, 0), 0.2)
