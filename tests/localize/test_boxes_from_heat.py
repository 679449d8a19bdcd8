"""Heat to boxes, by hand and by laws."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsltool.errors import BadImageError, UsageError
from wsltool.localize.boxes import boxes_from_heat, heat_level
from wsltool.localize.components import find_components
from wsltool.localize.grid import resample

heats = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=10),
    elements=st.integers(-4, 8).map(float),
)
options = st.fixed_dictionaries(
    {
        "threshold": st.floats(0, 0.99),
        "of": st.sampled_from(["max", "range"]),
        "components": st.sampled_from(["largest", "all"]),
        "connectivity": st.sampled_from([4, 8]),
        "empty": st.sampled_from(["none", "whole"]),
    }
)

# Two blobs: 4 pixels of 10, 2 of 5, and 2 pixels exactly on the default threshold.
HEAT = np.array(
    [
        [0, 0, 2, 2, 0, 0],
        [0, 10, 10, 0, 0, 5],
        [0, 10, 6, 0, 0, 4],
        [-1, 0, 0, 0, 0, 0],
    ],
    dtype=np.float64,
)


def test_by_hand():
    found = boxes_from_heat(HEAT)
    assert found.box_xyxy_B4.tolist() == [[1, 1, 3, 3]]
    assert found.box_xyxy_B4.dtype == np.float64
    assert found.mean_heat_B.tolist() == [9]
    assert found.max_heat_B.tolist() == [10]
    assert found.num_px_B.tolist() == [4]


def test_threshold_is_strict():
    # .2 * 10 = 2 leaves the two pixels of 2 out; anything less takes them in.
    assert boxes_from_heat(HEAT, threshold=0.2).num_px_B.tolist() == [4]
    assert boxes_from_heat(HEAT, threshold=0.199).num_px_B.tolist() == [6]


def test_range_counts_from_the_minimum():
    assert heat_level(HEAT, 0.2, "max") == 2
    assert heat_level(HEAT, 0.2, "range") == pytest.approx(-1 + 0.2 * 11)
    assert boxes_from_heat(HEAT, of="range").num_px_B.tolist() == [6]


def test_all_components():
    found = boxes_from_heat(HEAT, components="all")
    assert found.box_xyxy_B4.tolist() == [[1, 1, 3, 3], [5, 1, 6, 3]]
    assert found.mean_heat_B.tolist() == [9, 4.5]
    assert found.max_heat_B.tolist() == [10, 5]
    assert found.num_px_B.tolist() == [4, 2]
    assert len(found) == 2


def test_heat_of_a_component_is_that_of_its_own_pixels():
    heat_HW = np.full((5, 5), 2.0)
    heat_HW[1:4, 1:4] = 0
    heat_HW[2, 2] = 9  # inside the ring's box, but not of the ring
    found = boxes_from_heat(heat_HW, components="all")
    assert found.box_xyxy_B4.tolist() == [[0, 0, 5, 5], [2, 2, 3, 3]]
    assert found.mean_heat_B.tolist() == [2, 9]
    assert found.max_heat_B.tolist() == [2, 9]
    assert found.box_heat_B.tolist() == [(16 * 2 + 9) / 25, 9]  # of all pixels of the box


def test_largest_has_most_pixels_not_most_heat():
    heat_HW = np.array([[100.0, 0, 30, 30, 30]])
    assert boxes_from_heat(heat_HW).box_xyxy_B4.tolist() == [[2, 0, 5, 1]]


@pytest.mark.parametrize(
    ("heat_HW", "of"),
    [
        (np.zeros((2, 3)), "max"),
        (np.full((2, 3), -1.0), "max"),
        (np.array([[-3.0, -1.0, 0.0]]), "max"),
        (np.full((2, 3), 7.0), "range"),
        (np.full((2, 3), 0.1), "range"),
    ],
)
@pytest.mark.parametrize("threshold", [0, 0.2, 0.9])
def test_no_foreground(heat_HW, of, threshold):
    found = boxes_from_heat(heat_HW, of=of, threshold=threshold)
    assert len(found) == 0
    assert found.box_xyxy_B4.shape == (0, 4)
    whole = boxes_from_heat(heat_HW, of=of, threshold=threshold, empty="whole")
    height, width = heat_HW.shape
    assert whole.box_xyxy_B4.tolist() == [[0, 0, width, height]]
    assert whole.num_px_B.tolist() == [0]
    assert whole.max_heat_B.tolist() == [heat_HW.max()]
    assert whole.mean_heat_B == pytest.approx(heat_HW.mean())


def test_constant_above_zero_is_all_foreground_of_the_maximum():
    assert boxes_from_heat(np.full((2, 3), 7.0)).box_xyxy_B4.tolist() == [[0, 0, 3, 2]]


def test_unknown_pixels_are_no_foreground_and_not_the_minimum():
    heat_HW = np.array([[-np.inf, -1.0, 3.0, -np.inf]])
    assert heat_level(heat_HW, 0.5, "range") == 1
    found = boxes_from_heat(heat_HW, threshold=0.5, of="range", components="all")
    assert found.box_xyxy_B4.tolist() == [[2, 0, 3, 1]]
    whole = boxes_from_heat(np.minimum(heat_HW, -1), empty="whole")
    assert whole.box_xyxy_B4.tolist() == [[0, 0, 4, 1]]
    assert whole.mean_heat_B.tolist() == [-1]


def test_from_map_to_box():
    map_HW = np.zeros((14, 14), np.float32)
    map_HW[3:7, 5:9] = 1
    (box,) = boxes_from_heat(resample(map_HW, (0, 0, 280, 140), (280, 140))).box_xyxy_B4
    # A cell is 20 x 10 pixels. Towards the border the heat falls from 1 to 0 between the centres
    # of cells; it is above .2 from .8 of the way before the outer centre: .3 cells outside.
    assert box.tolist() == [100 - 6, 30 - 3, 180 + 6, 70 + 3]


def test_float32_heat_is_read_too():
    found = boxes_from_heat(HEAT.astype(np.float32), components="all")
    assert found.mean_heat_B.tolist() == [9, 4.5]
    assert found.mean_heat_B.dtype == np.float64


@settings(deadline=None, max_examples=200)
@given(heats, options)
def test_laws(heat_HW, how):
    before = heat_HW.copy()
    found = boxes_from_heat(heat_HW, **how)
    np.testing.assert_array_equal(heat_HW, before)
    above = heat_HW > heat_level(heat_HW, how["threshold"], how["of"])
    height, width = heat_HW.shape
    assert len(found) >= (1 if above.any() or how["empty"] == "whole" else 0)
    assert (np.diff(found.num_px_B) <= 0).all()
    if how["components"] == "all":
        assert found.num_px_B.sum() == above.sum()
        if above.any():
            x0, y0 = found.box_xyxy_B4[:, :2].min(axis=0)
            x1, y1 = found.box_xyxy_B4[:, 2:].max(axis=0)
            rows, cols = np.nonzero(above)
            assert [x0, y0, x1, y1] == [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]
    area = (found.box_xyxy_B4[:, 2:] - found.box_xyxy_B4[:, :2]).prod(axis=1)
    assert (found.num_px_B <= area).all()
    assert (found.max_heat_B >= found.mean_heat_B - 1e-12).all()
    assert (found.box_xyxy_B4 >= 0).all()
    assert (found.box_xyxy_B4 <= [width, height, width, height]).all()


@settings(deadline=None, max_examples=100)
@given(heats, options, st.integers(0, 3))
def test_cold_margins_make_no_difference(heat_HW, how, margin):
    """The order of equal components is that of the whole image."""
    heat_HW = np.pad(heat_HW, margin, constant_values=heat_HW.min())
    mask_HW = heat_HW > heat_level(heat_HW, how["threshold"], how["of"])
    whole = find_components(mask_HW, connectivity=how["connectivity"], which=how["components"])
    found = boxes_from_heat(heat_HW, **how | {"empty": "none"})
    assert found.box_xyxy_B4.tolist() == whole.box_C4.tolist()
    assert found.num_px_B.tolist() == whole.num_px_C.tolist()
    for (x0, y0, x1, y1), mean in zip(whole.box_C4, found.box_heat_B, strict=True):
        assert mean == pytest.approx(heat_HW[y0:y1, x0:x1].mean())


@settings(deadline=None, max_examples=100)
@given(heats, options, st.sampled_from([0.25, 2.0, 1024.0]))
def test_scale_of_the_heat_makes_no_difference(heat_HW, how, scale):
    plain, scaled = boxes_from_heat(heat_HW, **how), boxes_from_heat(heat_HW * scale, **how)
    np.testing.assert_array_equal(scaled.box_xyxy_B4, plain.box_xyxy_B4)
    np.testing.assert_array_equal(scaled.max_heat_B, plain.max_heat_B * scale)


@settings(deadline=None, max_examples=100)
@given(heats, st.integers(1, 4), st.sampled_from([4, 8]))
def test_larger_pixels_make_larger_boxes(heat_HW, factor, connectivity):
    how = {"components": "all", "connectivity": 4} if connectivity == 4 else {"components": "all"}
    larger = boxes_from_heat(np.kron(heat_HW, np.ones((factor, factor))), **how)
    plain = boxes_from_heat(heat_HW, **how)
    np.testing.assert_array_equal(larger.box_xyxy_B4, plain.box_xyxy_B4 * factor)
    np.testing.assert_array_equal(larger.num_px_B, plain.num_px_B * factor**2)


def test_same_bytes_for_any_number_of_threads():
    map_HW = np.random.default_rng(0).normal(size=(40, 50))
    before = cv2.getNumThreads()
    try:
        seen = set()
        for num_threads in (1, 2, 8):
            cv2.setNumThreads(num_threads)
            found = boxes_from_heat(
                resample(map_HW, (0, 0, 500, 375), (500, 375)), components="all"
            )
            arrays = found.box_xyxy_B4, found.mean_heat_B, found.max_heat_B, found.num_px_B
            seen.add(b"".join(array.tobytes() for array in arrays))
        assert len(seen) == 1
    finally:
        cv2.setNumThreads(before)


class TestRefusals:
    @pytest.mark.parametrize(("bad", "told"), [(np.nan, "nan"), (np.inf, "inf")])
    def test_heat_that_is_not_finite(self, bad, told):
        heat_HW = HEAT.copy()
        heat_HW[3, 5] = bad
        with pytest.raises(
            BadImageError, match=f"shape \\(4, 6\\) has the maximum {told}; expected"
        ):
            boxes_from_heat(heat_HW)

    def test_heat_without_a_known_pixel(self):
        for heat_HW in (np.full((2, 2), -np.inf), np.zeros((0, 4))):
            with pytest.raises(BadImageError, match="has the maximum -inf; expected a finite one"):
                boxes_from_heat(heat_HW)

    @pytest.mark.parametrize("threshold", [-0.1, 1, 1.4, np.nan])
    def test_threshold(self, threshold):
        message = rf"threshold must be in \[0, 1\), got {threshold:g}\."
        with pytest.raises(UsageError, match=message):
            boxes_from_heat(HEAT, threshold=threshold)

    def test_words(self):
        with pytest.raises(UsageError, match='threshold must be of "max" or "range", got \'min\''):
            boxes_from_heat(HEAT, of="min")
        with pytest.raises(UsageError, match='empty must be "none" or "whole", got \'all\''):
            boxes_from_heat(HEAT, empty="all")
        with pytest.raises(UsageError, match='components must be "largest" or "all", got \'one\''):
            boxes_from_heat(HEAT, components="one")
        with pytest.raises(UsageError, match="connectivity must be 4 or 8, got 5"):
            boxes_from_heat(HEAT, connectivity=5)
