"""Cells of distractors leave a map: eq. 1 and argmax by hand, the three fills, laws."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsltool.errors import BadImageError, UsageError
from wsltool.localize.grid import resample
from wsltool.localize.refinement import distractor_cells, refine_map

FILLS = ["masked", "floor", "zero"]


class TestDistractorCells:
    def test_the_best_of_each_side_decides(self):
        """Two channels; clusters east (kept), north-east and north (distractors).

        Heat of a cell at angle a: cos a, (cos a + sin a) / 2, sin a.
        """
        centroid_QC = np.array([[1, 0], [0.5, 0.5], [0, 1]])
        feature_PC = np.array([[5, 0], [3, 2.9], [3, 3], [2.9, 3], [0, 0.1], [0, 0]])
        found = distractor_cells(feature_PC, centroid_QC, np.array([0, 1, 1]))
        assert found.tolist() == [False, False, False, True, True, False]  # equals are kept

    def test_argmax_not_argmin(self):
        """The text of the paper says minimum; the cell of the distractor must go, not the other."""
        found = distractor_cells(np.eye(2), np.eye(2), np.array([True, False]))
        assert found.tolist() == [True, False]

    def test_a_longer_mean_wins(self):
        """The mean is not re-normalised: of two clusters in the same direction the tight one."""
        found = distractor_cells(np.array([[1.0, 0]]), np.array([[0.9, 0], [0.8, 0]]), [1, 0])
        assert found.tolist() == [True]

    def test_none_and_all(self):
        feature_PC = np.array([[1.0, 2], [0, 0]])
        assert distractor_cells(feature_PC, np.eye(2), [0, 0]).tolist() == [False, False]
        assert distractor_cells(feature_PC, np.eye(2), [1, 1]).tolist() == [True, True]

    def test_no_cells(self):
        found = distractor_cells(np.zeros((0, 2)), np.eye(2), [1, 0])
        assert found.shape == (0,)
        assert found.dtype == bool

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_the_length_of_a_pattern_does_not_matter(self, dtype):
        feature_PC = np.array([[3e-3, 4e-3], [300, 400], [4, 3]], dtype)
        assert distractor_cells(feature_PC, np.eye(2), [0, 1]).tolist() == [True, True, False]

    def test_features_that_are_not_finite(self):
        with pytest.raises(BadImageError, match="features of 1 cells are not finite, first cell 1"):
            distractor_cells(np.array([[1.0, 0], [np.nan, 0]]), np.eye(2), [0, 1])


class TestRefineMap:
    MAP = np.array([[3.0, -1, 2], [0.5, 1, 0]])
    GONE = np.array([[1, 0, 0], [0, 0, 1]])

    def test_by_hand(self):
        masked = refine_map(self.MAP, self.GONE)
        assert masked.map_HW.tolist() == [[-1, -1, 2], [0.5, 1, -1]]
        assert masked.suppressed_HW.tolist() == self.GONE.tolist()
        assert masked.suppressed_HW.dtype == np.uint8
        assert not masked.is_everywhere
        floor = refine_map(self.MAP, self.GONE, "floor")
        assert floor.map_HW.tolist() == masked.map_HW.tolist()
        assert floor.suppressed_HW.tolist() == [[0] * 3] * 2
        zero = refine_map(self.MAP, self.GONE, "zero")
        assert zero.map_HW.tolist() == [[0, -1, 2], [0.5, 1, 0]]
        assert zero.suppressed_HW.tolist() == [[0] * 3] * 2

    def test_the_floor_of_a_positive_map_is_zero(self):
        assert refine_map(self.MAP + 5, self.GONE).map_HW.tolist() == [[0, 4, 7], [5.5, 6, 0]]

    def test_the_floor_counts_the_cells_that_go(self):
        gone_HW = np.array([[0, 1, 1], [0, 0, 0]])
        assert refine_map(self.MAP, gone_HW).map_HW.tolist() == [[3, -1, -1], [0.5, 1, 0]]

    @pytest.mark.parametrize("fill", FILLS)
    def test_what_was_suppressed_before_stays(self, fill):
        before_HW = np.array([[0, 1, 0], [1, 0, 0]])
        gone_HW = np.array([[1, 1, 0], [0, 0, 0]])
        found = refine_map(self.MAP, gone_HW, fill, before_HW)
        filled = 0 if fill == "zero" else -1
        assert found.map_HW.tolist() == [[filled, -1, 2], [0.5, 1, 0]]
        both = (before_HW | gone_HW) if fill == "masked" else before_HW
        assert found.suppressed_HW.tolist() == both.tolist()

    @pytest.mark.parametrize("fill", FILLS)
    def test_a_map_suppressed_everywhere_keeps_its_scores(self, fill):
        found = refine_map(self.MAP, np.ones((2, 3)), fill)
        assert found.map_HW.tolist() == self.MAP.tolist()
        assert found.suppressed_HW.all()
        assert found.is_everywhere
        assert not np.shares_memory(found.map_HW, self.MAP)
        heat_HW = resample(found.map_HW, (0, 0, 6, 4), (6, 4), found.suppressed_HW)
        np.testing.assert_array_equal(heat_HW, resample(self.MAP, (0, 0, 6, 4), (6, 4)))

    @pytest.mark.parametrize("fill", FILLS)
    def test_what_is_left_of_an_earlier_suppression_counts(self, fill):
        found = refine_map(self.MAP, 1 - self.GONE, fill, self.GONE)
        assert found.is_everywhere
        assert found.suppressed_HW.all()
        assert found.map_HW.tolist() == self.MAP.tolist()

    def test_refusals(self):
        with pytest.raises(UsageError, match=r'^fill must be masked, floor or zero, got "mean"\.$'):
            refine_map(self.MAP, self.GONE, "mean")
        for bad in (np.nan, np.inf):
            message = f"map has the value {bad}; expected finite scores of at least one cell."
            with pytest.raises(BadImageError, match=re.escape(message)):
                refine_map(np.where(self.GONE, bad, self.MAP), self.GONE)
        with pytest.raises(BadImageError, match=r"map has the shape \(0, 3\); expected finite"):
            refine_map(np.zeros((0, 3)), np.zeros((0, 3)))
        message = "distractor cells have the shape (1, 3), the map (2, 3); expected the same rows"
        with pytest.raises(BadImageError, match=re.escape(message)):
            refine_map(self.MAP, self.GONE[:1])
        with pytest.raises(BadImageError, match=r"suppressed have the shape \(2, 2\), the map"):
            refine_map(self.MAP, self.GONE, "masked", self.GONE[:, :2])


SHAPE = st.tuples(st.integers(1, 4), st.integers(1, 4))


@st.composite
def cases(draw):
    shape = draw(SHAPE)
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    map_HW = draw(hnp.arrays(dtype, shape, elements=st.floats(-100, 100, width=16)))
    gone_HW, before_HW = (
        draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 1), fill=st.nothing()))
        for _ in "ab"
    )
    return map_HW, gone_HW, draw(st.sampled_from(FILLS)), draw(st.sampled_from([None, before_HW]))


@settings(max_examples=100, deadline=None)
@given(cases())
def test_laws_of_a_refined_map(case):
    """Inputs unchanged; twice is once; cells that are not a distractor's keep score and flag."""
    map_HW, gone_HW, fill, before_HW = case
    copies = [None if one is None else one.copy() for one in (map_HW, gone_HW, before_HW)]
    found = refine_map(*case)
    for one, copy in zip((map_HW, gone_HW, before_HW), copies, strict=True):
        np.testing.assert_array_equal(one, copy)
    assert found.map_HW.dtype == map_HW.dtype
    again = refine_map(found.map_HW, gone_HW, fill, found.suppressed_HW)
    np.testing.assert_array_equal(again.map_HW, found.map_HW)
    np.testing.assert_array_equal(again.suppressed_HW, found.suppressed_HW)
    assert again.is_everywhere == found.is_everywhere
    before_HW = np.zeros_like(gone_HW) if before_HW is None else before_HW
    assert (found.suppressed_HW >= before_HW).all()
    kept_HW = gone_HW == 0
    np.testing.assert_array_equal(found.map_HW[kept_HW], map_HW[kept_HW])
    if not found.is_everywhere:
        np.testing.assert_array_equal(found.suppressed_HW[kept_HW], before_HW[kept_HW])


@settings(max_examples=50, deadline=None)
@given(cases())
def test_no_distractor_cells_change_nothing(case):
    map_HW, _, fill, before_HW = case
    found = refine_map(map_HW, np.zeros_like(map_HW, bool), fill, before_HW)
    np.testing.assert_array_equal(found.map_HW, map_HW)
    assert found.suppressed_HW.tolist() == np.zeros_like(map_HW).tolist() or before_HW is not None


@settings(max_examples=50, deadline=None)
@given(cases())
def test_a_masked_cell_is_never_the_hottest(case):
    """The maximum at the image's pixels is that of the cells that are left."""
    map_HW, gone_HW, _, _ = case
    found = refine_map(map_HW, gone_HW)
    high, wide = map_HW.shape
    heat_HW = resample(found.map_HW, (0, 0, 5 * wide, 5 * high), (5 * wide, 5 * high), found[1])
    left_HW = found.suppressed_HW == 0 if not found.is_everywhere else np.ones_like(map_HW, bool)
    assert heat_HW.max() == map_HW[left_HW].max() or np.isclose(
        heat_HW.max(), map_HW[left_HW].max(), rtol=0, atol=1e-12
    )
    row, col = np.unravel_index(heat_HW.argmax(), heat_HW.shape)
    floor = min(0, map_HW.min())
    assert left_HW[row // 5, col // 5] or heat_HW.max() <= floor


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(np.float64, (6, 3), elements=st.floats(0, 10)),
    hnp.arrays(np.float64, (4, 3), elements=st.floats(0, 1)),
    hnp.arrays(np.uint8, 4, elements=st.integers(0, 1)),
    st.permutations(range(4)),
    st.permutations(range(6)),
)
def test_laws_of_distractor_cells(feature_PC, centroid_QC, distractor_Q, clusters, cells):
    """The order of clusters and cells does not matter; fewer distractors, fewer cells."""
    found_P = distractor_cells(feature_PC, centroid_QC, distractor_Q)
    turned_P = distractor_cells(
        feature_PC[cells], centroid_QC[list(clusters)], distractor_Q[list(clusters)]
    )
    np.testing.assert_array_equal(turned_P, found_P[cells])
    for q in np.flatnonzero(distractor_Q):
        fewer_Q = distractor_Q.copy()
        fewer_Q[q] = 0
        fewer_P = distractor_cells(feature_PC, centroid_QC, fewer_Q)
        assert (fewer_P <= found_P).all()
