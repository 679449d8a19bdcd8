"""Intersection over union: by hand, by laws, and against the devkits' inclusive form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsltool.metrics.iou import iou_matrix, pair_iou

corner = st.tuples(st.integers(1, 60), st.integers(1, 60))
inclusive = st.builds(lambda a, b: [*np.minimum(a, b), *np.maximum(a, b)], corner, corner)


def _reference_inclusive_iou(a, b):
    """As VOCevaldet.m and compute_overlap.m: inclusive pixels, + 1 everywhere."""
    left, top = max(a[0], b[0]), max(a[1], b[1])
    right, bottom = min(a[2], b[2]), min(a[3], b[3])
    width, height = right - left + 1, bottom - top + 1
    if width <= 0 or height <= 0:
        return 0.0
    union = (
        (a[2] - a[0] + 1) * (a[3] - a[1] + 1)
        + (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
        - width * height
    )
    return width * height / union


@given(inclusive, inclusive)
def test_half_open_equals_inclusive_plus_one_to_the_last_bit(a, b):
    shift = np.array([1, 1, 0, 0])
    assert pair_iou(np.array(a) - shift, np.array(b) - shift) == _reference_inclusive_iou(a, b)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([0, 0, 10, 10], [0, 0, 10, 10], 1),
        ([0, 0, 10, 10], [0, 0, 10, 5], 0.5),
        ([0, 0, 10, 10], [5, 5, 15, 15], 25 / 175),
        ([0, 0, 10, 10], [10, 0, 20, 10], 0),  # they touch
        ([0, 0, 10, 10], [11, 0, 20, 10], 0),
        ([0, 0, 10, 10], [30, 30, 31, 31], 0),
        ([5, 5, 5, 5], [5, 5, 5, 5], 0),  # no area
        ([5, 0, 5, 9], [0, 0, 9, 9], 0),
        ([9, 9, 1, 1], [0, 0, 10, 10], 0),  # upside down
        ([0, 0, 0.5, 0.5], [0, 0, 1, 1], 0.25),
    ],
)
def test_by_hand(a, b, expected):
    assert pair_iou(np.array(a), np.array(b)) == expected
    assert pair_iou(np.array(b), np.array(a)) == expected


boxes = hnp.arrays(np.int32, st.tuples(st.integers(0, 6), st.just(4)), elements=st.integers(-9, 9))


@given(boxes, boxes)
def test_laws(a_A4, b_B4):
    before = a_A4.copy()
    iou_AB = iou_matrix(a_A4, b_B4)
    assert iou_AB.shape == (len(a_A4), len(b_B4))
    assert iou_AB.dtype == np.float64
    assert ((iou_AB >= 0) & (iou_AB <= 1)).all()
    np.testing.assert_array_equal(iou_AB, iou_matrix(b_B4, a_A4).T)
    np.testing.assert_array_equal(iou_AB, iou_matrix(a_A4 * 4, b_B4 * 4))
    np.testing.assert_array_equal(iou_AB, iou_matrix(a_A4 + 3, b_B4 + 3))
    np.testing.assert_array_equal(a_A4, before)
    for i, j in np.ndindex(iou_AB.shape):
        assert iou_AB[i, j] == pair_iou(a_A4[i], b_B4[j])


def test_half_is_exact():
    # (0 0 3 1) in (0 0 6 1): 3/6; and a third of pixels short of it is below.
    assert pair_iou(np.array([0, 0, 3, 1]), np.array([0, 0, 6, 1])) >= 0.5
    assert pair_iou(np.array([0, 0, 3, 1]), np.array([0, 0, 6 + 1e-9, 1])) < 0.5
