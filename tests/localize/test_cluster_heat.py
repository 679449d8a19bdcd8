"""Heat of clusters: equation 1 by hand, and what never changes it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsltool.errors import BadImageError
from wsltool.localize.cluster_heat import best_cluster, cluster_heat, unit_patterns

FEATURES = hnp.arrays(np.float32, (5, 3), elements=st.floats(0, 100, width=32))


def test_heat_is_the_mean_similarity_to_the_patterns_of_a_cluster() -> None:
    pattern_PC = unit_patterns(np.array([[3.0, 4.0], [0.0, 2.0], [5.0, 0.0]]))
    assert pattern_PC.tolist() == [[0.6, 0.8], [0.0, 1.0], [1.0, 0.0]]
    centroid_QC = np.stack([pattern_PC[:2].mean(axis=0), pattern_PC[2]])
    heat_PQ = cluster_heat(np.array([[6.0, 8.0], [0.0, 1.0]]), centroid_QC)
    by_sum_PQ = [
        [(1.0 + 0.8) / 2, 0.6],  # <phi, a> over the two patterns of the first cluster
        [(0.8 + 1.0) / 2, 0.0],
    ]
    np.testing.assert_allclose(heat_PQ, by_sum_PQ, rtol=0, atol=1e-15)
    assert best_cluster(heat_PQ).tolist() == [0, 0]


def test_the_mean_is_not_normalised_so_a_tight_cluster_wins() -> None:
    tight, loose = np.array([1.0, 0.0]), np.array([0.5, 0.5])
    assert cluster_heat(np.array([[2.0, 0.0]]), np.stack([loose, tight])).tolist() == [[0.5, 1.0]]
    assert best_cluster(np.array([[0.5, 0.5], [0.2, 0.3]])).tolist() == [0, 1]


@given(FEATURES, st.floats(0.25, 4))
def test_heat_does_not_depend_on_how_strong_a_cell_is(
    feature_PC: np.ndarray, factor: float
) -> None:
    before_PC = feature_PC.copy()
    centroid_QC = np.eye(2, 3)
    one, other = (cluster_heat(f, centroid_QC) for f in (feature_PC, feature_PC * factor))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-7)
    assert np.array_equal(feature_PC, before_PC)


def test_zeros_are_like_nothing_and_no_cell_is_fine() -> None:
    assert cluster_heat(np.zeros((1, 3)), np.ones((2, 3))).tolist() == [[0.0, 0.0]]
    assert cluster_heat(np.zeros((0, 3)), np.ones((2, 3))).shape == (0, 2)
    large_PC = np.full((1, 2), 60000, np.float16)  # its square is beyond float16
    np.testing.assert_allclose(unit_patterns(large_PC), [[0.5**0.5] * 2])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_told(bad: float) -> None:
    with pytest.raises(BadImageError, match="features of 1 cells are not finite, first cell 1;"):
        unit_patterns(np.array([[1.0, 0.0], [bad, 1.0]]))
