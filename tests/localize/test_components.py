"""Connected components against scipy, and their order by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsltool.errors import UsageError
from wsltool.localize.components import find_components

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


def _mask(*rows):
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def _reference_components(mask_HW, connectivity):
    """By scipy: (pixels, first pixel, box) of each, sorted."""
    structure = np.ones((3, 3)) if connectivity == 8 else None
    label_HW, num = scipy.ndimage.label(mask_HW, structure)
    found = []
    for index, (rows, cols) in enumerate(scipy.ndimage.find_objects(label_HW), start=1):
        here = label_HW == index
        box = [cols.start, rows.start, cols.stop, rows.stop]
        found.append((-int(here.sum()), int(here.argmax()), box))
    assert len(found) == num
    return sorted(found)


@settings(deadline=None, max_examples=200)
@given(masks, st.sampled_from([4, 8]))
def test_equals_scipy(mask_HW, connectivity):
    expected = _reference_components(mask_HW, connectivity)
    found = find_components(mask_HW, connectivity=connectivity)
    assert found.num_px_C.tolist() == [-size for size, _, _ in expected]
    assert found.box_C4.tolist() == [box for _, _, box in expected]
    for label, (size, first, _) in zip(found.label_C, expected, strict=True):
        here = found.label_HW == label
        assert (int(here.sum()), int(here.argmax())) == (-size, first)
    largest = find_components(mask_HW, connectivity=connectivity, which="largest")
    assert largest.box_C4.tolist() == found.box_C4.tolist()[:1]
    assert largest.label_C.tolist() == found.label_C.tolist()[:1]


@pytest.mark.parametrize("density", [0.1, 0.45, 0.6])
@pytest.mark.parametrize("connectivity", [4, 8])
def test_equals_scipy_on_an_image_and_for_any_number_of_threads(density, connectivity):
    mask_HW = np.random.default_rng(7).random((230, 317)) < density
    expected = _reference_components(mask_HW, connectivity)
    before = cv2.getNumThreads()
    try:
        for num_threads in (1, 2, 8):
            cv2.setNumThreads(num_threads)
            found = find_components(mask_HW, connectivity=connectivity)
            assert found.num_px_C.tolist() == [-size for size, _, _ in expected]
            assert found.box_C4.tolist() == [box for _, _, box in expected]
    finally:
        cv2.setNumThreads(before)


def test_corners_join_only_at_8():
    mask_HW = _mask("#..", ".#.", "..#")
    assert find_components(mask_HW).num_px_C.tolist() == [3]
    assert find_components(mask_HW, connectivity=4).num_px_C.tolist() == [1, 1, 1]


def test_of_equals_the_upper_then_the_left_comes_first():
    mask_HW = _mask("....##", "##....", "....##")
    boxes = find_components(mask_HW, connectivity=4).box_C4.tolist()
    assert boxes == [[4, 0, 6, 1], [0, 1, 2, 2], [4, 2, 6, 3]]
    mask_HW = _mask("......", ".#.#.#", ".#.#.#")  # three bars: the left one
    assert find_components(mask_HW, which="largest").box_C4.tolist() == [[1, 1, 2, 3]]


def test_first_pixel_and_not_the_corner_of_the_box_breaks_a_tie():
    # 11 pixels each; the hook's box begins further left, but its first pixel comes later.
    mask_HW = _mask(".###.#", ".###.#", ".###.#", ".##..#", ".....#", "######")
    found = find_components(mask_HW)
    assert found.num_px_C.tolist() == [11, 11]
    assert found.box_C4.tolist() == [[1, 0, 4, 4], [0, 0, 6, 6]]
    assert find_components(mask_HW, which="largest").box_C4.tolist() == [[1, 0, 4, 4]]


def test_a_ring_counts_its_own_pixels_only():
    ring = np.ones((9, 9), bool)
    ring[1:-1, 1:-1] = False
    mask_HW = np.zeros((9, 20), bool)
    mask_HW[:, :9] = ring
    mask_HW[1:8, 12:18] = True  # 42 pixels against the ring's 32
    found = find_components(mask_HW)
    assert found.num_px_C.tolist() == [42, 32]
    assert found.box_C4.tolist() == [[12, 1, 18, 8], [0, 0, 9, 9]]


def test_nothing():
    for which in ("largest", "all"):
        found = find_components(np.zeros((3, 4), bool), which=which)
        assert found.box_C4.shape == (0, 4)
        assert len(found.num_px_C) == len(found.label_C) == 0


def test_not_contiguous_mask_stays_as_it_is():
    mask_HW = np.random.default_rng(0).random((8, 10)) < 0.5
    view = mask_HW.T[::2]
    before = view.copy()
    assert find_components(view).num_px_C.sum() == view.sum()
    np.testing.assert_array_equal(view, before)


def test_refusals():
    mask_HW = np.ones((2, 2), bool)
    with pytest.raises(UsageError, match="connectivity must be 4 or 8, got 6"):
        find_components(mask_HW, connectivity=6)
    with pytest.raises(UsageError, match='components must be "largest" or "all", got \'best\''):
        find_components(mask_HW, which="best")
