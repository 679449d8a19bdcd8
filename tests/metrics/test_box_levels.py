"""Boxes of contours at every threshold: worked by hand, and against OpenCV at each of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsltool.metrics.box_levels import contour_boxes, largest_boxes

from .evaluator_rule import boxes_at

TENTHS = np.arange(0, 1, 0.1)


def _at(boxes, image, threshold):
    """The boxes of one map at one threshold, sorted."""
    level = boxes.level_NT[image, threshold]
    here = (boxes.image_B == image) & (boxes.level_B == level)
    return sorted(map(tuple, boxes.box_4B.T[here].tolist()))


def _check(heats, thresholds):
    contours, largest = contour_boxes(heats, thresholds), largest_boxes(heats, thresholds)
    for image, heat_HW in enumerate(heats):
        for place, threshold in enumerate(thresholds):
            expected = boxes_at(heat_HW, threshold, largest=False)
            assert _at(contours, image, place) == expected
            expected = boxes_at(heat_HW, threshold, largest=True)
            assert _at(largest, image, place) == expected


def _picture(*rows):
    """A map of hexadecimal-like digits: a dot is 0, a digit that many ninths."""
    return np.array([[0 if one == "." else int(one) / 9 for one in row] for row in rows])


def _one(picture, threshold=0.0, *, largest=False):
    boxes = (largest_boxes if largest else contour_boxes)(picture[None], np.array([threshold]))
    return _at(boxes, 0, 0)


def test_boxes_are_a_pixel_too_large_but_at_the_edge():
    picture = _picture(".....", ".99..", ".99..", ".....", "....9")
    assert _one(picture) == [(1, 1, 3, 3), (4, 4, 4, 4)]


def test_pixels_that_touch_at_a_corner_are_one():
    assert _one(_picture("9...", ".9..", "....", "...9")) == [(0, 0, 2, 2), (3, 3, 3, 3)]


def test_a_hole_is_a_contour_on_the_pixels_around_it():
    picture = _picture(".......", ".99999.", ".9...9.", ".9...9.", ".99999.", ".......", ".......")
    assert _one(picture) == [(1, 1, 6, 5), (1, 1, 6, 5)]
    picture = _picture("99999", "99999", "99.99", "99999", "99999")
    assert _one(picture) == [(0, 0, 4, 4), (1, 1, 4, 4)]


def test_holes_that_touch_at_a_corner_are_two():
    picture = _picture("99999", "9.999", "99.99", "99999", "99999")
    assert _one(picture) == [(0, 0, 3, 3), (0, 0, 4, 4), (1, 1, 4, 4)]


def test_background_that_touches_the_edge_is_no_hole():
    assert _one(_picture("99999", "9...9", "9.9.9", "9...9", "9.999")) == [
        (0, 0, 4, 4),
        (2, 2, 3, 3),
    ]


def test_the_ring_is_larger_than_the_block_with_more_pixels():
    """A ring 1 px thick, 116 px and area 841, beats 324 px of area 289."""
    heat_HW = np.zeros((64, 64))
    heat_HW[2:32, 2:32] = 1
    heat_HW[3:31, 3:31] = 0
    heat_HW[40:58, 40:58] = 1
    assert _one(heat_HW, largest=True) == [(2, 2, 32, 32)]


def test_a_line_has_no_area():
    heat_HW = np.zeros((16, 16))
    heat_HW[1, 1:15] = 1
    heat_HW[10:12, 3:5] = 1
    assert _one(heat_HW, largest=True) == [(3, 10, 5, 12)]


@pytest.mark.parametrize(
    ("corners", "first"),
    [
        ([(1, 9), (6, 1)], (1, 6, 3, 8)),  # the lower one
        ([(4, 1), (4, 9)], (9, 4, 11, 6)),  # in the same row the right one
    ],
)
def test_of_equal_areas_opencv_returns_the_last_in_reading_order_first(corners, first):
    heat_HW = np.zeros((14, 14))
    for row, col in corners:
        heat_HW[row : row + 2, col : col + 2] = 1
    assert _one(heat_HW, largest=True) == [first]
    assert boxes_at(heat_HW, 0.0, largest=True) == [first]


def test_the_right_one_of_equal_areas_though_the_left_one_is_hotter():
    heat_HW = np.zeros((14, 14))
    heat_HW[4:6, 1:3], heat_HW[4:6, 9:11] = 1, 0.5
    assert _one(heat_HW, largest=True) == [(9, 4, 11, 6)]
    assert boxes_at(heat_HW, 0.0, largest=True) == [(9, 4, 11, 6)]


def test_strictly_above_the_truncated_threshold():
    """127 of 255 at .5: floor(.5 * 255) = 127, and 127 is not above it."""
    heat_HW = np.zeros((4, 4))
    heat_HW[0, 0], heat_HW[2, 2] = 1, 127.5 / 255
    assert _one(heat_HW, 0.5) == [(0, 0, 1, 1)]
    heat_HW[2, 2] = 128 / 255
    assert _one(heat_HW, 0.5) == [(0, 0, 1, 1), (2, 2, 3, 3)]


@pytest.mark.parametrize("heat", [0.0, 0.003])
def test_without_foreground_one_box_at_the_corner(heat):
    """.003 is less than one level of 255."""
    picture = np.full((8, 8), heat)
    assert _one(picture, 0.3) == _one(picture, 0.3, largest=True) == [(0, 0, 0, 0)]


def test_nearly_flat_map_is_foreground_throughout():
    assert _one(np.full((8, 8), 0.5), 0.9) == [(0, 0, 7, 7)]


def test_at_most_255_levels():
    rng = np.random.default_rng(0)
    heat_NHW = rng.random((1, 32, 32))
    heat_NHW[0, 0, 0] = 1
    boxes = contour_boxes(heat_NHW, np.arange(0, 1, 0.001))
    assert len(np.unique(boxes.level_NT)) == 255
    _check(heat_NHW, np.arange(0, 1, 0.001))


def test_maps_of_one_stack_do_not_touch():
    """Full maps one below the other, and the same maps alone."""
    rng = np.random.default_rng(1)
    heat_NHW = np.concatenate([np.ones((2, 6, 6)), rng.integers(0, 3, (5, 6, 6)) / 2])
    _check(heat_NHW, TENTHS)
    together = contour_boxes(heat_NHW, TENTHS)
    for image in range(len(heat_NHW)):
        alone = contour_boxes(heat_NHW[image : image + 1], TENTHS)
        for place in range(len(TENTHS)):
            assert _at(together, image, place) == _at(alone, 0, place)


def test_nothing_at_all():
    boxes = contour_boxes(np.zeros((0, 8, 8)), TENTHS)
    assert boxes.box_4B.shape == (4, 0)
    assert boxes.level_NT.shape == (0, 10)


_SIDES = st.integers(1, 12)
_FEW_LEVELS = st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
_ANY = st.floats(0, 1, width=32)


@settings(max_examples=150)
@given(st.data())
def test_as_opencv_has_it_at_every_threshold(data):
    side, num = data.draw(_SIDES), data.draw(st.integers(1, 3))
    values = data.draw(st.sampled_from([_FEW_LEVELS, _ANY]))
    heats = data.draw(hnp.arrays(np.float64, (num, side, side), elements=values))
    kept = heats.copy()
    _check(heats, TENTHS)
    np.testing.assert_array_equal(heats, kept)


@pytest.mark.parametrize("seed", range(6))
def test_as_opencv_has_it_on_larger_maps(seed):
    """Noise, blocks and coarse plateaus, with hundreds of components and holes."""
    rng = np.random.default_rng(seed)
    noise = rng.random((1, 48, 48))
    blocks = np.kron(rng.integers(0, 5, (1, 12, 12)) / 4, np.ones((1, 4, 4)))
    sparse = (rng.random((1, 48, 48)) < 0.1) * rng.integers(1, 4, (1, 48, 48)) / 3
    dense = 1 - sparse
    _check(np.concatenate([noise, blocks, sparse, dense]), TENTHS)


@pytest.mark.parametrize("seed", range(4))
def test_where_only_right_and_wrong_matter(seed):
    """The boxes may then be others, but are as right as the largest ones."""
    rng = np.random.default_rng(seed)
    heat_NHW = rng.integers(0, 6, (3, 24, 24)) / 5

    def right(_, box_4B):
        return box_4B[0] + box_4B[1] > 16

    some, all_of_them = (largest_boxes(heat_NHW, TENTHS, one) for one in (right, None))
    for image in range(3):
        for place in range(10):
            one, other = (np.array(_at(b, image, place)).T for b in (some, all_of_them))
            np.testing.assert_array_equal(right(None, one), right(None, other))
