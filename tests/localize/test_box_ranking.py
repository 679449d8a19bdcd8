"""What a map holds inside of given boxes, and which boxes are kept apart."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsltool.errors import BadImageError
from wsltool.localize.box_ranking import aggregate_in_boxes, suppress_overlaps

# Two rows and four columns of 10 x 10 pixels.
MAP = np.array([[[1, 2, 3, 4], [5, 6, 7, 0]]], np.float64)
EXTENT, SIZE = (0, 0, 40, 20), (40, 20)
HOWS = ("mean", "sum", "max", "contrast")


def worth(box, how, map_SHW=MAP, extent=EXTENT, size=SIZE, gone=None):
    found = aggregate_in_boxes(map_SHW, extent, size, np.array([box], np.float64), how, gone)
    return found[:, 0].tolist()


@pytest.mark.parametrize(
    ("box", "mean", "total", "top"),
    [
        ((0, 0, 40, 20), 28 / 8, 28, 7),  # the whole picture
        ((10, 0, 20, 10), 2, 2, 2),  # one cell
        ((10, 0, 30, 20), 18 / 4, 18, 7),  # four cells
        ((5, 0, 15, 10), 1.5, 1.5, 2),  # half of one, half of the next
        ((15, 5, 20, 10), 2, 0.5, 2),  # a quarter of a cell
        ((15, 5, 25, 15), 4.5, 4.5, 7),  # a quarter of each of four
        ((35, 15, 80, 90), 0, 0, 0),  # beyond the picture: its part inside
        ((-9, -9, 5, 5), 1, 0.25, 1),
        ((12.5, 2.5, 13, 3), 2, 0.005, 2),  # inside of one cell
    ],
)
def test_worked_out(box, mean, total, top):
    np.testing.assert_allclose(worth(box, "mean"), [mean], atol=1e-12)
    np.testing.assert_allclose(worth(box, "sum"), [total], atol=1e-12)
    assert worth(box, "max") == [top]


@pytest.mark.parametrize(
    ("threshold", "expected"), [(0, [18, -18]), (0.5, [18 - 14, -18]), (0.9, [18 - 25.2, -18])]
)
def test_the_sum_above_a_threshold(threshold, expected):
    """A fraction of the maximum, 7, off each of four cells; nothing off a map below zero."""
    maps = np.concatenate([MAP, -MAP])
    box = np.array([(10, 0, 30, 20)])
    found = aggregate_in_boxes(maps, EXTENT, SIZE, box, "sum", threshold=threshold)
    np.testing.assert_allclose(found[:, 0], expected)
    for how in ("mean", "max", "contrast"):
        plain = aggregate_in_boxes(maps, EXTENT, SIZE, box, how)
        again = aggregate_in_boxes(maps, EXTENT, SIZE, box, how, threshold=threshold)
        np.testing.assert_array_equal(again, plain)


def test_contrast_against_a_ring_of_the_boxes_own_area():
    """A hot cell in the middle of 5 x 5 cells of 10 pixels: its ring reaches 10 (√2 - 1) / 2 px
    into the cold ones, all around, and its mean is theirs."""
    map_SHW = np.full((1, 5, 5), -1.0)
    map_SHW[0, 2, 2] = 3
    size = (50, 50)
    assert worth((20, 20, 30, 30), "contrast", map_SHW, (0, 0, 50, 50), size) == pytest.approx([4])
    # Twice the side: the mean inside is (3 - 15 / 4) / 4; the ring lies in cold cells alone.
    found = worth((15, 15, 35, 35), "contrast", map_SHW, (0, 0, 50, 50), size)
    assert found == pytest.approx([(3 - 3) / 4 + 1])
    # Half the side: the box is all hot, the ring too, up to 10 / √2 < 10.
    assert worth((22.5, 22.5, 27.5, 27.5), "contrast", map_SHW, (0, 0, 50, 50), size) == (
        pytest.approx([0], abs=1e-12)
    )
    # 7.5 of 10 px: the ring has 56.25 px, and 2 * 56.25 - 100 = 12.5 of them are cold.
    found = worth((21.25, 21.25, 28.75, 28.75), "contrast", map_SHW, (0, 0, 50, 50), size)
    assert found == pytest.approx([4 * 12.5 / 56.25])


@pytest.mark.parametrize(
    ("extent", "size"), [((0, 0, 40, 20), (40, 20)), ((0, -10, 40, 30), (40, 20))]
)
def test_what_the_ring_cannot_see_is_as_cold_as_the_coldest_cell(extent, size):
    """The whole picture has no ring to compare with: its mean minus the coldest."""
    map_SHW = np.array([[[5.0, 1], [2, 4]]])
    if extent[1]:  # a letterbox, whose padding is not looked at
        map_SHW = np.array([[[9.0, 9], [5, 1], [2, 4], [9, 9]]])
    assert worth((0, 0, *size), "contrast", map_SHW, extent, size) == pytest.approx([3 - 1])


def test_a_crop_shows_part_of_the_picture():
    """Cells cover pixels 10 to 30; a box beside them has no worth, NaN."""
    map_SHW, extent = np.array([[[1.0, 3.0]]]), (10, 0, 30, 20)
    for how in HOWS:
        assert np.isnan(worth((0, 0, 10, 20), how, map_SHW, extent)).all()
    assert worth((0, 0, 20, 20), "mean", map_SHW, extent) == [1]
    assert worth((0, 0, 40, 20), "mean", map_SHW, extent) == [2]
    assert worth((20, 0, 40, 20), "max", map_SHW, extent) == [3]


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (5, 5, 9, 5), (50, 0, 60, 20), (-9, 0, 0, 20)])
def test_a_box_without_area_has_no_worth(box):
    for how in HOWS:
        assert np.isnan(worth(box, how)).all()


def test_no_boxes_and_no_slots():
    for how in HOWS:
        assert aggregate_in_boxes(MAP, EXTENT, SIZE, np.zeros((0, 4)), how).shape == (1, 0)
        assert aggregate_in_boxes(MAP[:0], EXTENT, SIZE, np.ones((3, 4)), how).shape == (0, 3)


def test_suppressed_cells_hold_the_floor():
    """The floor is min(0, min(map)): 0 here, -2 below; where all cells are, none is."""
    gone = np.zeros(MAP.shape, np.uint8)
    gone[0, 1, 2] = 1
    assert worth((10, 10, 30, 20), "mean", gone=gone) == [3]
    assert worth((10, 10, 30, 20), "max", gone=gone) == [6]
    assert worth((10, 10, 30, 20), "sum", MAP - 2, gone=gone) == [4 - 2]
    assert worth((0, 0, 40, 20), "max", gone=np.ones(MAP.shape)) == [7]


def test_an_edge_that_is_off_by_rounding_touches_no_further_cell():
    """Cells of 333 / 30 pixels; 77.7 is seven of them, and computed a little more."""
    map_SHW = np.arange(30.0)[None, None]
    assert 77.7 / (333 / 30) > 7
    assert worth((0, 0, 77.7, 20), "max", map_SHW, (0, 0, 333, 20), (333, 20)) == [6]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite(value):
    map_SHW = MAP.copy()
    map_SHW[0, 1, 2] = value
    message = f"map has 1 values that are not finite ({value}); expected finite scores."
    with pytest.raises(BadImageError, match=f"^{re.escape(message)}$"):
        worth((0, 0, 1, 1), "mean", map_SHW)


@pytest.mark.parametrize(
    ("box", "told"), [((0, np.nan, 1, 1), "0 nan 1 1"), ((3, 0, 2, 1), "3 0 2 1")]
)
def test_a_box_that_is_none(box, told):
    with pytest.raises(
        BadImageError, match=f"^box 1 is {told}; expected finite x0 <= x1 and y0 <= y1.$"
    ):
        aggregate_in_boxes(MAP, EXTENT, SIZE, np.array([(0, 0, 1, 1), box]), "mean")


def test_an_extent_that_is_empty():
    with pytest.raises(BadImageError, match=r"^map_extent is 5 5 5 9; expected finite x0 < x1"):
        worth((0, 0, 1, 1), "mean", extent=(5, 5, 5, 9))


whole = st.integers(0, 2**32 - 1)


def scene(seed):
    """A map whose cells are whole pixels, anywhere over a picture, and whole boxes."""
    rng = np.random.default_rng(seed)
    slots, rows, cols, wide, high = rng.integers(1, 7, 5)
    x0, y0 = rng.integers((1 - cols * wide, 1 - rows * high), 3)  # a pixel of it is seen
    extent = np.array([x0, y0, x0 + cols * wide, y0 + rows * high])
    size = rng.integers(np.maximum(extent[:2], 0) + 1, 40)
    corner = rng.integers(-5, 40, (12, 2, 2))
    boxes = np.concatenate([corner.min(axis=1), corner.max(axis=1)], axis=1)
    return rng.normal(size=(slots, rows, cols)), extent, size, boxes, (wide, high)


def seen_pixels(map_SHW, extent, size, cell_wh, margin=60):
    """The map at every pixel from -margin on, NaN where nothing is seen."""
    px = np.full((len(map_SHW), 3 * margin, 3 * margin), np.nan)
    x0, y0, x1, y1 = extent + margin
    px[:, y0:y1, x0:x1] = map_SHW.repeat(cell_wh[1], axis=1).repeat(cell_wh[0], axis=2)
    for axis, side in ((1, size[1]), (2, size[0])):
        outside = np.ones(3 * margin, bool)
        outside[margin : margin + side] = False
        np.moveaxis(px, axis, 0)[outside] = np.nan
    return px[:, margin:, margin:], px


@given(whole)
@settings(max_examples=60, deadline=None)
def test_equal_to_a_sum_over_pixels(seed):
    map_SHW, extent, size, boxes, cell_wh = scene(seed)
    seen, _ = seen_pixels(map_SHW, extent, size, cell_wh)
    found = {how: aggregate_in_boxes(map_SHW, extent, size, boxes, how) for how in HOWS[:3]}
    for b, (x0, y0, x1, y1) in enumerate(np.maximum(boxes, 0)):
        for s in range(len(map_SHW)):
            inside = seen[s, y0:y1, x0:x1]
            inside = inside[~np.isnan(inside)]
            if not len(inside):
                assert all(np.isnan(found[how][s, b]) for how in found)
                continue
            assert found["mean"][s, b] == pytest.approx(inside.mean(), abs=1e-9)
            total = inside.sum() / (cell_wh[0] * cell_wh[1])
            assert found["sum"][s, b] == pytest.approx(total, abs=1e-9)
            assert found["max"][s, b] == inside.max()


@given(whole)
@settings(max_examples=40, deadline=None)
def test_laws(seed):
    """Shifted scores, scaled scores, a picture of twice the size; the input stays as it is."""
    map_SHW, extent, size, boxes, _ = scene(seed)
    before = map_SHW.copy()
    for how in HOWS:
        plain = aggregate_in_boxes(map_SHW, extent, size, boxes, how)
        again = aggregate_in_boxes(map_SHW * 4, extent, size, boxes, how)
        np.testing.assert_allclose(again, plain * 4, atol=1e-9)
        large = aggregate_in_boxes(map_SHW, extent * 2, size * 2, boxes * 2, how)
        np.testing.assert_allclose(large, plain, atol=1e-9)
        alone = [aggregate_in_boxes(one[None], extent, size, boxes, how)[0] for one in map_SHW]
        np.testing.assert_array_equal(plain, alone)
        if how != "sum":
            shifted = aggregate_in_boxes(map_SHW + 8, extent, size, boxes, how)
            shift = 0 if how == "contrast" else 8
            np.testing.assert_allclose(shifted, plain + shift, atol=1e-9)
    np.testing.assert_array_equal(map_SHW, before)


@given(whole)
@settings(max_examples=40, deadline=None)
def test_mean_and_contrast_lie_in_the_range_of_the_map(seed):
    map_SHW, extent, size, boxes, _ = scene(seed)
    low, high = (f(map_SHW.reshape(len(map_SHW), -1), axis=1)[:, None] for f in (np.min, np.max))
    mean = aggregate_in_boxes(map_SHW, extent, size, boxes, "mean")
    top = aggregate_in_boxes(map_SHW, extent, size, boxes, "max")
    contrast = aggregate_in_boxes(map_SHW, extent, size, boxes, "contrast")
    good = ~np.isnan(mean)
    assert (mean <= top + 1e-9)[good].all()
    assert (mean >= low - 1e-9)[good].all()
    assert (np.abs(contrast) <= high - low + 1e-9)[good].all()


# ------------------------------------------------------------- non-maximum suppression


def test_greedy_suppression_by_hand():
    """B overlaps A by 8 / 12, C overlaps B by 8 / 12 and A by 6 / 14; D is far away."""
    boxes = np.array([[0, 0, 10, 1], [2, 0, 12, 1], [4, 0, 14, 1], [50, 0, 60, 1]])
    scores = np.array([4.0, 3, 2, 1])
    kept = [suppress_overlaps(boxes, scores, iou=i, most=9).tolist() for i in (0.4, 0.5, 0.7, 1)]
    assert kept == [[0, 3], [0, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]
    assert suppress_overlaps(boxes, scores, iou=0.5, most=2).tolist() == [0, 2]
    assert suppress_overlaps(boxes, -scores, iou=0.5, most=9).tolist() == [3, 2, 0]


def test_an_overlap_of_just_the_limit_stays_and_equals_keep_their_order():
    boxes = np.array([[0, 0, 3, 1], [1, 0, 4, 1], [0, 0, 3, 1]])  # 2 / 4
    scores = np.zeros(3)
    assert suppress_overlaps(boxes, scores, iou=0.5, most=9).tolist() == [0, 1]
    assert suppress_overlaps(boxes, scores, iou=0.4999, most=9).tolist() == [0]
    assert suppress_overlaps(boxes, scores, iou=1, most=9).tolist() == [0, 1, 2]
    assert suppress_overlaps(boxes[:0], scores[:0], iou=0.5, most=9).tolist() == []


@given(whole, st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]))
@settings(max_examples=60, deadline=None)
def test_torchvisions_suppression(seed, iou):
    import torch
    from torchvision.ops import nms

    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 12, (30, 2, 2))
    boxes = np.concatenate([corner.min(axis=1), corner.max(axis=1) + 1], axis=1).astype(np.float64)
    scores = rng.permutation(30).astype(np.float64)
    expected = nms(torch.from_numpy(boxes), torch.from_numpy(scores), iou).tolist()
    assert suppress_overlaps(boxes, scores, iou=iou, most=30).tolist() == expected
    assert suppress_overlaps(boxes, scores, iou=iou, most=5).tolist() == expected[:5]
