"""Histograms of pixels against the exact average precision."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsltool.errors import ProtocolError
from wsltool.metrics.pixel_histogram import histogram_ap, pixel_histogram

from .blocks import exact_ap


class TestHistogram:
    def test_by_hand(self):
        """Of 6 bins: 0, (0, 1/4), [1/4, 1/2), [1/2, 3/4), [3/4, 1), 1."""
        heat = [[0.0, -3.0, 1e-9], [2.0, 1.99, 8.0], [4.0, 6.0, -np.inf]]
        mask = [[1, 0, 0], [1, 1, 1], [0, 0, 255]]
        found = pixel_histogram(np.array(heat), np.array(mask), 6)
        np.testing.assert_array_equal(found, [[1, 1, 1, 0, 0, 1], [1, 1, 0, 1, 1, 0]])
        assert found.dtype == np.int64

    @pytest.mark.parametrize("heat", [np.zeros((2, 2)), np.full((2, 2), -5.0), None])
    def test_nothing_positive_is_zero_throughout(self, heat):
        found = pixel_histogram(heat, np.array([[1, 0], [0, 255]]), 4)
        np.testing.assert_array_equal(found, [[1, 0, 0, 0], [2, 0, 0, 0]])

    def test_crop_that_saw_nothing_positive(self):
        heat = np.array([[-np.inf, -1.0]])
        np.testing.assert_array_equal(
            pixel_histogram(heat, np.array([[1, 0]]), 3), [[1, 0, 0], [1, 0, 0]]
        )

    def test_constant_map(self):
        found = pixel_histogram(np.full((1, 3), 7.0), np.array([[1, 0, 0]]), 4)
        np.testing.assert_array_equal(found, [[0, 0, 0, 1], [0, 0, 0, 2]])
        assert histogram_ap(found) == pytest.approx(100 / 3)

    @pytest.mark.parametrize("scale", [1e-300, 1e300])
    def test_scale_makes_no_difference(self, scale):
        rng = np.random.default_rng(0)
        heat, mask = rng.random((8, 8)), rng.integers(0, 2, (8, 8))
        np.testing.assert_array_equal(
            pixel_histogram(heat * scale, mask, 64), pixel_histogram(heat, mask, 64)
        )

    @pytest.mark.parametrize(
        ("heat", "line"),
        [
            ([[np.nan, 1]], "heat is nan somewhere; expected finite values, or -inf."),
            ([[np.inf, 1]], "heat is inf somewhere; expected finite values, or -inf."),
            ([[1]], "heat has shape (1, 1), its mask (1, 2); expected the same."),
        ],
    )
    def test_refused(self, heat, line):
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            pixel_histogram(np.array(heat), np.array([[1, 0]]), 4)


class TestAp:
    def test_by_hand(self):
        """Hottest bin 2 of the object, 1 other; then 1 and 1: 2/3 up to 2/3, 3/5 up to 1."""
        counts = np.array([[1, 0, 2], [1, 0, 1]])
        assert histogram_ap(counts) == pytest.approx(100 * (2 / 3 * 2 / 3 + 1 / 3 * 3 / 5))

    def test_optimistic(self):
        """The object first in the bin between: 1 up to 2/3; zeros and maxima stay as they are."""
        counts = np.array([[1, 2, 0], [1, 1, 0]])
        found = histogram_ap(counts, optimistic=True)
        assert found == pytest.approx(100 * (2 / 3 + 1 / 3 * 3 / 5))
        counts = np.array([[1, 0, 2], [1, 0, 1]])
        assert histogram_ap(counts, optimistic=True) == histogram_ap(counts)

    def test_no_object(self):
        assert np.isnan(histogram_ap(np.array([[0, 0], [3, 1]])))

    def test_only_object(self):
        assert histogram_ap(np.array([[2, 1], [0, 0]])) == 100

    @settings(deadline=None, max_examples=200)
    @given(st.integers(0, 2**32), st.integers(3, 40), st.integers(1, 60))
    def test_law_the_exact_value_lies_between(self, seed, num_bins, num_px):
        rng = np.random.default_rng(seed)
        heat = rng.integers(-10, 60, (1, num_px)) * rng.random()
        mask = rng.choice([0, 1, 255], (1, num_px), p=[0.5, 0.4, 0.1])
        mask[0, 0] = 1
        counts = pixel_histogram(heat, mask, num_bins)
        exact = exact_ap(heat, mask)
        assert histogram_ap(counts) <= exact + 1e-9
        assert exact <= histogram_ap(counts, optimistic=True) + 1e-9

    def test_fine_bins_are_exact_where_values_are_apart(self):
        rng = np.random.default_rng(1)
        heat, mask = rng.integers(-5, 100, (40, 50)) / 7, rng.integers(0, 2, (40, 50))
        counts = pixel_histogram(heat, mask, 65536)
        assert histogram_ap(counts) == pytest.approx(exact_ap(heat, mask), abs=1e-9)
