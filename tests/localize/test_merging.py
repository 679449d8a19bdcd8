"""Several maps of one class: eq. 5 by hand, laws, and one grid onto another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsltool.errors import BadImageError, UsageError
from wsltool.localize.grid import resample
from wsltool.localize.merging import (
    align_map,
    finest_grid,
    merge_class_scores,
    merge_maps,
    probability_of,
)

NONE = -np.inf
WHOLE = (0, 0, 40, 20)


def test_weighted_map_voting_by_hand():
    """Kim et al. 2017, eq. 5: .5 · (2, −4, 0) against .25 · (8, −4, −1)."""
    first, second = np.array([[2.0, -4, 0]]), np.array([[8.0, -4, -1]])
    merged = merge_maps([first, second], "weighted-max", [0.5, 0.25])
    assert merged.tolist() == [[2, -1, 0]]  # below zero the less sure network's value
    assert merge_maps([first, second], "max").tolist() == [[8, -4, 0]]
    assert merge_maps([first, second], "mean").tolist() == [[5, -4, -0.5]]


def test_three_inputs_by_hand():
    maps = [np.array([[1.0, 6]]), np.array([[2.0, 0]]), np.array([[3.0, 3]])]
    assert merge_maps(maps, "mean").tolist() == [[2, 3]]
    assert merge_maps(maps, "max").tolist() == [[3, 6]]
    assert merge_maps(maps, "weighted-max", [0.25, 1, 0.5]).tolist() == [[2, 1.5]]


def test_a_sure_first_network_alone_decides():
    maps = [np.array([[1.0, 2]]), np.array([[9.0, 9]])]
    assert merge_maps(maps, "weighted-max", [1, 0]).tolist() == [[1, 2]]


@pytest.mark.parametrize("how", ["weighted-max", "mean", "max"])
def test_who_has_no_say_does_not_count(how):
    maps = [np.array([[2.0, NONE, NONE]]), np.array([[4.0, -4, NONE]])]
    merged = merge_maps(maps, how, [1, 1])
    assert merged.tolist() == [[3 if how == "mean" else 4, -4, NONE]]


values = st.floats(-100, 100, width=32)


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(np.float64, (3, 2, 3), elements=values),
    st.lists(st.floats(0, 1), min_size=3, max_size=3),
    st.permutations(range(3)),
)
def test_laws(map_MHW, chance_M, order):
    chance_M = np.array(chance_M)
    for how in ("weighted-max", "mean", "max"):
        merged = merge_maps(map_MHW, how, chance_M)
        again = merge_maps(map_MHW[order], how, chance_M[order])
        np.testing.assert_allclose(again, merged, rtol=1e-12, atol=1e-12)
        alone = merge_maps(map_MHW[:1], how, [1])
        np.testing.assert_array_equal(alone, map_MHW[0])
    same = merge_maps(map_MHW, "weighted-max", [1, 1, 1])
    np.testing.assert_array_equal(same, merge_maps(map_MHW, "max"))
    np.testing.assert_array_equal(same, np.maximum.reduce(map_MHW))
    np.testing.assert_array_equal(merge_maps(map_MHW, "mean").shape, (2, 3))


def test_values_that_are_not_finite_and_probabilities_that_are_none():
    with pytest.raises(BadImageError, match=r"^map has values that are not finite \(nan\); exp"):
        merge_maps([np.array([[np.nan]])], "max")
    with pytest.raises(BadImageError, match=r"^map has values that are not finite \(inf\); exp"):
        merge_maps([np.array([[np.inf]])], "mean")
    for chance in ([0.5], [0.5, 1.5], [0.5, np.nan], None):
        with pytest.raises(UsageError, match=r"^weighted-max needs 2 probabilities in \[0, 1\], g"):
            merge_maps([np.ones((1, 1))] * 2, "weighted-max", chance)
    with pytest.raises(UsageError, match=r'^how must be weighted-max, mean or max, got "min"\.$'):
        merge_maps([np.ones((1, 1))], "min")


# Scores


def test_scores_of_all_classes():
    scores = np.array([[1.0, NONE, 4], [3.0, 2, 4]])
    assert merge_class_scores(scores, "mean").tolist() == [2, NONE, 4]
    assert merge_class_scores(scores, "max").tolist() == [3, 2, 4]
    assert merge_class_scores(scores, "weighted-max").tolist() == [3, 2, 4]
    with pytest.raises(
        BadImageError, match=r"^the scores of class 1 are \[nan, 2\.0\]; expected num"
    ):
        merge_class_scores(np.array([[1.0, np.nan], [1, 2.0]]), "max")


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(np.float64, (3, 6), elements=st.floats(-9, 9), unique=True),
    st.integers(1, 6),
)
def test_the_best_of_the_maximum_are_among_the_best_of_the_inputs(score_MK, k):
    best = set(np.argsort(-merge_class_scores(score_MK, "max"))[:k].tolist())
    inputs = {int(c) for row in score_MK for c in np.argsort(-row)[:k]}
    assert best <= inputs


def test_the_best_of_the_mean_need_not_be():
    scores = np.array([[9.0, 5, 0], [0, 5, 9.0]])
    assert merge_class_scores(scores, "mean").argmax() == 1
    assert 1 not in scores.argmax(axis=1)


def test_probabilities_by_hand():
    logit = np.array([0, np.log(3), NONE])
    np.testing.assert_allclose(probability_of(logit, "sigmoid"), [0.5, 0.75, 0])
    np.testing.assert_allclose(probability_of(logit, "softmax"), [0.25, 0.75, 0])
    assert probability_of(np.array([0, 0.5, NONE]), "probability").tolist() == [0, 0.5, 0]
    far = np.array([1e4, -1e4])
    assert probability_of(far, "sigmoid").tolist() == [1, 0]
    assert probability_of(far, "softmax").tolist() == [1, 0]


@pytest.mark.parametrize(
    ("scores", "link", "line"),
    [
        ([1.0, np.nan], "sigmoid", r"^the score of class 0 is 1\.0, which is no logit"),
        ([np.inf, 1.0], "softmax", r"^the score of class 0 is inf, which is no logit"),
        ([NONE, NONE], "softmax", r"^the score of class 0 is -inf, which is no logit"),
        ([0.5, 7.0], "probability", r"^the score of class 1 is 7\.0, which is no probability in"),
        ([np.nan], "probability", r"^the score of class 0 is nan, which is no probability in"),
    ],
)
def test_scores_that_are_no_scores(scores, link, line):
    with pytest.raises(BadImageError, match=line):
        probability_of(np.array(scores), link)


# Grids


def test_the_finest_grid_has_the_smallest_cells_in_the_image():
    assert finest_grid([WHOLE, WHOLE], [(7, 7), (14, 14)]) == 1
    assert finest_grid([WHOLE, WHOLE], [(7, 7), (7, 7)]) == 0
    assert finest_grid([WHOLE, (0, 0, 20, 10)], [(7, 7), (6, 6)]) == 1  # a crop, fewer cells
    assert finest_grid([(0, 0, np.nan, 1), WHOLE], [(7, 7), (6, 6)]) == 1


def test_on_its_own_grid_a_map_is_itself_to_the_last_bit():
    extent = np.array([1 / 3, 0.1, 37.7, 19.3], np.float32)
    map_HW = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    np.testing.assert_array_equal(align_map(map_HW, extent, extent, (7, 5)), map_HW)


def test_a_coarse_map_on_a_fine_grid_by_hand():
    """Two cells over 40 px onto four: centres at 5, 15, 25, 35 of cells at 10 and 30."""
    found = align_map(np.array([[0.0, 4]]), WHOLE, WHOLE, (1, 4))
    np.testing.assert_allclose(found, [[0, 1, 3, 4]], atol=1e-12)


def test_cells_as_pixels_are_pixels():
    """A grid with a cell for each pixel: what `resample` gives."""
    map_HW = np.random.default_rng(1).normal(size=(3, 4))
    for extent in (WHOLE, (4.5, 0, 31, 20), (-8, -3, 60, 20)):
        np.testing.assert_allclose(
            align_map(map_HW, extent, WHOLE, (20, 40)), resample(map_HW, extent, (40, 20))
        )


def test_outside_its_extent_a_map_has_no_say():
    found = align_map(np.array([[1.0, 2]]), (20, 0, 40, 20), WHOLE, (1, 4))
    np.testing.assert_allclose(found, [[NONE, NONE, 1, 2]])


def test_suppressed_cells_have_no_say():
    map_HW, gone_HW = np.array([[-5.0, 2, 4]]), np.array([[1, 0, 0]])
    own = align_map(map_HW, WHOLE, WHOLE, (1, 3), gone_HW)
    assert own.tolist() == [[NONE, 2, 4]]
    fine = align_map(map_HW, WHOLE, WHOLE, (1, 6), gone_HW)
    np.testing.assert_allclose(fine, [[NONE, NONE, 2, 2.5, 3.5, 4]])
    every = align_map(map_HW, WHOLE, WHOLE, (1, 3), np.ones((1, 3)))
    assert every.tolist() == map_HW.tolist()
    tiny = align_map(map_HW * 1e-30, WHOLE, WHOLE, (1, 6), gone_HW)
    np.testing.assert_allclose(tiny * 1e30, [[NONE, NONE, 2, 2.5, 3.5, 4]])
    zero = align_map(np.zeros((1, 3)), WHOLE, WHOLE, (1, 6), gone_HW)
    assert zero.tolist() == [[NONE, NONE, 0, 0, 0, 0]]


def test_maps_and_extents_that_cannot_be_used():
    with pytest.raises(BadImageError, match=r"^map has values that are not finite \(-inf\); exp"):
        align_map(np.array([[NONE]]), WHOLE, WHOLE, (1, 1))
    with pytest.raises(BadImageError, match=r"^map_extent is 3 0 3 2; expected finite x0 < x1 a"):
        align_map(np.ones((1, 1)), WHOLE, (3, 0, 3, 2), (1, 1))
    with pytest.raises(BadImageError, match=r"^map_extent is nan "):
        align_map(np.ones((1, 1)), (np.nan, 0, 1, 1), WHOLE, (1, 1))
