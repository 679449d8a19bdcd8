"""From grids to pixels: against OpenCV, torch and a slow loop, and by hand."""

from __future__ import annotations

import itertools
import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsltool.errors import BadImageError
from wsltool.localize.grid import (
    PixelLattice,
    cell_centers_px,
    peak_px,
    peaks_px,
    resample,
    resample_slots,
)

SHAPES = [((14, 14), (500, 375)), ((3, 7), (20, 64)), ((1, 1), (5, 4)), ((9, 4), (1, 1)),
          ((30, 40), (8, 6)), ((2, 5), (1, 33))]  # fmt: skip


def _reference_resample(map_HW, extent_xyxy, size_wh, suppressed_HW=None):
    """Pixel by pixel, straight from the rule."""
    (rows, cols), (width, height) = map_HW.shape, size_wh
    x0, y0, x1, y1 = extent_xyxy
    keep_HW = np.ones((rows, cols), bool) if suppressed_HW is None else suppressed_HW == 0
    if not keep_HW.any():
        keep_HW = ~keep_HW
    heat_HW = np.full((height, width), -np.inf)
    for y, x in itertools.product(range(height), range(width)):
        if not (x0 <= x + 0.5 <= x1 and y0 <= y + 0.5 <= y1):
            continue
        row = min(max((y + 0.5 - y0) / (y1 - y0) * rows - 0.5, 0), rows - 1)
        col = min(max((x + 0.5 - x0) / (x1 - x0) * cols - 0.5, 0), cols - 1)
        total = weight = 0.0
        for r, c in itertools.product(range(rows), range(cols)):
            share = max(0.0, 1 - abs(r - row)) * max(0.0, 1 - abs(c - col)) * keep_HW[r, c]
            total, weight = total + share * map_HW[r, c], weight + share
        nearest = (
            min(rows - 1, int((y + 0.5 - y0) / (y1 - y0) * rows)),
            min(cols - 1, int((x + 0.5 - x0) / (x1 - x0) * cols)),
        )
        heat_HW[y, x] = total / weight if keep_HW[nearest] else min(0.0, map_HW.min())
    return heat_HW


def _whole(size_wh):
    return (0, 0, *size_wh)


def _first_peak(heat_HW):
    y, x = divmod(int(heat_HW.argmax()), heat_HW.shape[1])
    return x + 0.5, y + 0.5


maps = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6),
    elements=st.one_of(
        st.integers(-3, 3).map(float), st.floats(-100, 100, width=32, allow_subnormal=False)
    ),
)
sizes = st.tuples(st.integers(1, 25), st.integers(1, 25))


@st.composite
def cases(draw, with_suppressed=True):
    """A map, an extent that covers at least one pixel, a size, and suppressed cells."""
    map_HW, (width, height) = draw(maps), draw(sizes)
    extent = []
    for side in (width, height):
        center = draw(st.integers(0, side - 1)) + 0.5
        extent.append(
            (center - draw(st.floats(0.1, 2 * side)), center + draw(st.floats(0.1, 2 * side)))
        )
    extent_xyxy = (extent[0][0], extent[1][0], extent[0][1], extent[1][1])
    suppressed = None
    if with_suppressed and draw(st.booleans()):
        suppressed = draw(hnp.arrays(np.uint8, map_HW.shape, elements=st.integers(0, 1)))
    return map_HW, extent_xyxy, (width, height), suppressed


class TestResample:
    @pytest.mark.parametrize(("grid", "size_wh"), SHAPES)
    def test_whole_extent_equals_opencv(self, grid, size_wh):
        map_HW = np.random.default_rng(1).normal(size=grid)
        ours = resample(map_HW, _whole(size_wh), size_wh)
        theirs = cv2.resize(map_HW, size_wh, interpolation=cv2.INTER_LINEAR)
        assert ours.shape == (size_wh[1], size_wh[0])
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, theirs.reshape(ours.shape), atol=3e-6)

    @pytest.mark.parametrize(("grid", "size_wh"), SHAPES)
    def test_whole_extent_equals_torch(self, grid, size_wh):
        torch = pytest.importorskip("torch")
        map_HW = np.random.default_rng(2).normal(size=grid)
        theirs = torch.nn.functional.interpolate(
            torch.from_numpy(map_HW)[None, None],
            size=(size_wh[1], size_wh[0]),
            mode="bilinear",
            align_corners=False,
        )[0, 0].numpy()
        np.testing.assert_allclose(
            resample(map_HW, _whole(size_wh), size_wh), theirs, rtol=1e-12, atol=1e-12
        )

    @settings(deadline=None, max_examples=150)
    @given(cases())
    def test_equals_the_rule_pixel_by_pixel(self, case):
        map_HW, extent_xyxy, size_wh, suppressed_HW = case
        ours = resample(map_HW, extent_xyxy, size_wh, suppressed_HW)
        theirs = _reference_resample(map_HW.astype(np.float64), extent_xyxy, size_wh, suppressed_HW)
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)

    def test_by_hand(self):
        heat_HW = resample(np.array([[0.0, 4.0]]), (0, 0, 4, 1), (4, 1))
        # Centres .5 1.5 2.5 3.5 lie at grid coordinates -.25 .25 .75 1.25.
        np.testing.assert_array_equal(heat_HW, [[0, 1, 3, 4]])

    def test_outside_a_centre_crop_nothing_is_known(self):
        heat_HW = resample(np.array([[2.0]]), (1, 0.5, 3, 2.5), (4, 3))
        inf = np.inf
        # Rows .5 1.5 2.5: the centres on the edge of the extent belong to it.
        row = [-inf, 2, 2, -inf]
        np.testing.assert_array_equal(heat_HW, [row, row, row])

    def test_letterbox_reaches_beyond_the_image(self):
        map_HW = np.arange(16.0).reshape(4, 4)
        padded = resample(map_HW, (0, 0, 8, 8), (8, 8))
        # The same grid over an 8 x 4 image with two rows of padding above and below.
        np.testing.assert_allclose(resample(map_HW, (0, -2, 8, 6), (8, 4)), padded[2:6])

    def test_one_pixel_image(self):
        np.testing.assert_array_equal(resample(np.eye(3), (0, 0, 1, 1), (1, 1)), [[1.0]])

    @pytest.mark.parametrize("value", [0.1, -0.3, 1e30, 0.0])
    @pytest.mark.parametrize("suppressed", [False, True])
    def test_constant_stays_exactly_constant(self, value, suppressed):
        map_HW = np.full((7, 5), value)
        suppressed_HW = np.zeros((7, 5), np.uint8)
        suppressed_HW[2, 1:3] = suppressed
        heat_HW = resample(map_HW, (0, 0, 33, 41), (33, 41), suppressed_HW)
        assert set(np.unique(heat_HW)) <= {value, min(0.0, value)}
        assert heat_HW.max() == value

    def test_suppressed_cells_are_left_out(self):
        map_HW = np.array([[9.0, 1.0, 2.0]])
        heat_HW = resample(map_HW, (0, 0, 12, 1), (12, 1), np.array([[1, 0, 0]]))
        # Pixels 0-3 are the suppressed cell's own area; 4 and 5 would have mixed it in.
        np.testing.assert_allclose(heat_HW, [[0, 0, 0, 0, 1, 1, 1.125, 1.375, 1.625, 1.875, 2, 2]])

    def test_suppressed_area_has_the_floor_of_a_negative_map(self):
        heat_HW = resample(np.array([[-3.0, 5.0]]), (0, 0, 2, 1), (2, 1), np.array([[0, 1]]))
        np.testing.assert_array_equal(heat_HW, [[-3, -3]])

    def test_all_suppressed_keeps_its_scores(self):
        map_HW = np.random.default_rng(0).normal(size=(4, 5))
        plain = resample(map_HW, (0, 0, 20, 10), (20, 10))
        for value in (0, 1):
            other = resample(map_HW, (0, 0, 20, 10), (20, 10), np.full((4, 5), value))
            np.testing.assert_array_equal(other, plain)

    @settings(deadline=None, max_examples=60)
    @given(cases())
    def test_never_leaves_the_range_of_the_map(self, case):
        map_HW = case[0].astype(np.float64)
        heat_HW = resample(*case)
        seen = heat_HW[np.isfinite(heat_HW)]
        slack = 1e-12 * (1 + np.abs(map_HW).max())
        assert seen.size
        assert seen.max() <= map_HW.max() + slack or seen.max() == 0
        assert seen.min() >= min(0, map_HW.min()) - slack

    @settings(deadline=None, max_examples=60)
    @given(cases())
    def test_flipping_the_map_flips_the_heat(self, case):
        map_HW, (x0, y0, x1, y1), (width, height), _ = case
        x0, y0, x1, y1 = (round(edge * 8) / 8 for edge in (x0, y0, x1, y1))
        if x1 <= x0 or y1 <= y0:
            return
        try:
            heat_HW = resample(map_HW, (x0, y0, x1, y1), (width, height))
        except BadImageError:
            return
        flipped = resample(map_HW[:, ::-1], (width - x1, y0, width - x0, y1), (width, height))
        np.testing.assert_allclose(flipped[:, ::-1], heat_HW, atol=1e-9, rtol=1e-9)

    def test_inputs_stay_as_they_are(self):
        map_HW = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float16)
        suppressed_HW = np.eye(4, 5, dtype=np.uint8)
        before = map_HW.copy(), suppressed_HW.copy()
        resample(map_HW, (0, 0, 9, 9), (9, 9), suppressed_HW)
        peak_px(map_HW, (0, 0, 9, 9), (9, 9), suppressed_HW)
        np.testing.assert_array_equal(map_HW, before[0])
        np.testing.assert_array_equal(suppressed_HW, before[1])

    def test_slots_equal_one_by_one(self):
        rng = np.random.default_rng(3)
        map_SHW = rng.normal(size=(4, 5, 6)).astype(np.float32)
        suppressed_SHW = (rng.random((4, 5, 6)) < 0.3).astype(np.uint8)
        extent, size_wh = (2.5, -3, 30, 22), (31, 19)
        for suppressed in (None, suppressed_SHW):
            heat_SHW = resample_slots(map_SHW, extent, size_wh, suppressed)
            peak_S2 = peaks_px(map_SHW, extent, size_wh, suppressed)
            for slot in range(4):
                one = None if suppressed is None else suppressed[slot]
                alone = resample(map_SHW[slot], extent, size_wh, one)
                np.testing.assert_array_equal(heat_SHW[slot], alone)
                assert tuple(peak_S2[slot]) == _first_peak(alone)

    def test_no_slots(self):
        empty = np.zeros((0, 3, 3), np.float32)
        assert resample_slots(empty, (0, 0, 4, 2), (4, 2)).shape == (0, 2, 4)
        assert peaks_px(empty, (0, 0, 4, 2), (4, 2)).shape == (0, 2)

    @pytest.mark.parametrize("suppressed", [False, True])
    def test_memory_is_the_heat_and_little_more(self, suppressed):
        map_HW = np.random.default_rng(0).normal(size=(14, 14))
        suppressed_HW = np.eye(14) if suppressed else None
        size_wh = (3000, 2000)
        tracemalloc.start()
        resample(map_HW, _whole(size_wh), size_wh, suppressed_HW)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 1.1 * 8 * 3000 * 2000


class TestPeak:
    @settings(deadline=None, max_examples=400)
    @given(cases())
    def test_is_the_first_maximum_of_the_heat(self, case):
        assert peak_px(*case) == _first_peak(resample(*case))

    @pytest.mark.parametrize("seed", range(20))
    def test_is_the_first_maximum_on_larger_images(self, seed):
        rng = np.random.default_rng(seed)
        map_HW = np.round(rng.normal(size=(14, 9)), seed % 3)
        case = map_HW, (-3.7, 2.1, 260, 170.5), (231, 187), rng.random((14, 9)) < 0.1 * (seed % 4)
        assert peak_px(*case) == _first_peak(resample(*case))

    def test_constant_map_peaks_in_its_first_pixel(self):
        assert peak_px(np.zeros((3, 3)), (0, 0, 9, 9), (9, 9)) == (0.5, 0.5)
        assert peak_px(np.zeros((3, 3)), (2, 1, 9, 9), (9, 9)) == (2.5, 1.5)

    def test_floor_can_be_the_peak_of_a_map_of_zeros(self):
        suppressed_HW = np.array([[1, 0, 0]])
        assert peak_px(np.zeros((1, 3)), (0, 0, 9, 1), (9, 1), suppressed_HW) == (0.5, 0.5)

    def test_suppressed_peak_gives_way_to_the_next(self):
        map_HW = np.array([[9.0, 0.0, 4.0]])
        assert peak_px(map_HW, (0, 0, 9, 1), (9, 1)) == (0.5, 0.5)
        # Right of the middle of the last cell the heat stays at its score: pixel 7 is first.
        assert peak_px(map_HW, (0, 0, 9, 1), (9, 1), np.array([[1, 0, 0]])) == (7.5, 0.5)

    def test_huge_image_takes_little_memory(self):
        lattice = PixelLattice((0, 0, 50_000, 40_000), (50_000, 40_000), (14, 14))
        map_HW = np.random.default_rng(5).normal(size=(14, 14))
        tracemalloc.start()
        x, y = lattice.peak(map_HW)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        row, col = divmod(int(map_HW.argmax()), 14)
        assert abs(x - (col + 0.5) / 14 * 50_000) <= 1
        assert abs(y - (row + 0.5) / 14 * 40_000) <= 1
        assert peak_bytes < 40e6


class TestRefusals:
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_a_value_that_is_not_finite(self, bad):
        map_HW = np.zeros((3, 4))
        map_HW[1, 2] = map_HW[2, 0] = bad
        message = f"map has 2 values that are not finite, the first at row 1, column 2: {bad};"
        for function in (resample, peak_px):
            with pytest.raises(BadImageError, match=message):
                function(map_HW, (0, 0, 4, 4), (4, 4))

    @pytest.mark.parametrize(
        ("extent", "message"),
        [
            ((0, 0, 0, 4), "map_extent is 0 0 0 4; expected finite x0 < x1 and y0 < y1"),
            ((0, 4, 4, 0), "map_extent is 0 4 4 0; expected finite"),
            ((0, 0, np.nan, 4), "map_extent is 0 0 nan 4; expected finite"),
            ((0, 0, np.inf, 4), "map_extent is 0 0 inf 4; expected finite"),
            ((4, 0, 8, 4), "extent 4 0 8 4 holds the centre of no pixel of the 4x4 image"),
            ((0.6, 0, 1.4, 4), "extent 0.6 0 1.4 4 holds the centre of no pixel"),
        ],
    )
    def test_an_extent_without_pixels(self, extent, message):
        with pytest.raises(BadImageError, match=message):
            resample(np.zeros((3, 3)), extent, (4, 4))

    def test_an_image_without_pixels(self):
        with pytest.raises(BadImageError, match="image size is 0x4 pixels; expected at least 1x1"):
            resample(np.zeros((3, 3)), (0, 0, 4, 4), (0, 4))

    @pytest.mark.parametrize(
        ("shape", "told"), [((0, 3), "0x3"), ((3,), "3"), ((2, 3, 3), "2x3x3")]
    )
    def test_a_map_that_is_no_grid(self, shape, told):
        with pytest.raises(BadImageError, match=f"map grid is {told}; expected rows x columns"):
            resample(np.zeros(shape), (0, 0, 4, 4), (4, 4))

    def test_shapes_that_differ(self):
        lattice = PixelLattice((0, 0, 4, 4), (4, 4), (3, 3))
        with pytest.raises(BadImageError, match=r"map has shape \(2, 3\); expected .* \(3, 3\)"):
            lattice.heat(np.zeros((2, 3)))
        with pytest.raises(BadImageError, match=r"suppressed has shape \(3, 2\); expected"):
            lattice.heat(np.zeros((3, 3)), np.zeros((3, 2)))


class TestCellCenters:
    def test_by_hand(self):
        x_px_W, y_px_H = cell_centers_px((10, -2, 18, 2), (2, 4))
        np.testing.assert_array_equal(x_px_W, [11, 13, 15, 17])
        np.testing.assert_array_equal(y_px_H, [-1, 1])

    def test_a_cell_at_a_pixel_has_the_heat_of_the_cell(self):
        map_HW = np.random.default_rng(0).normal(size=(3, 5))
        heat_HW = resample(map_HW, (0, 0, 15, 9), (15, 9))
        x_px_W, y_px_H = cell_centers_px((0, 0, 15, 9), (3, 5))
        at = np.ix_((y_px_H - 0.5).astype(int), (x_px_W - 0.5).astype(int))
        np.testing.assert_allclose(heat_HW[at], map_HW, atol=1e-15)

    def test_bad_extent(self):
        with pytest.raises(BadImageError, match="map_extent is 0 0 0 1; expected"):
            cell_centers_px((0, 0, 0, 1), (2, 2))
