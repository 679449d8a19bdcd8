"""Re-scoring by label pairs against eqs. 2 to 4 of Bency et al., worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsltool.errors import ModelError, UsageError
from wsltool.localize.cooccurrence import (
    check_pair_count,
    combined_scores,
    label_pair_count,
    pair_probability,
    pair_scores,
)

LABELS = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [1, 0, 1], [0, 1, 255], [255, 0, 0]], np.uint8)
"""Person, motorbike, chair: 4, 3 and 1 images; two of person and motorbike, one with a chair."""
COUNT = np.array([[4, 2, 1], [2, 3, 0], [1, 0, 1]])
P = np.array([[0, 2 / 3, 1], [2 / 4, 0, 0], [1 / 4, 0, 0]])

label_arrays = hnp.arrays(
    np.uint8,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=6),
    elements=st.sampled_from([0, 1, 255]),
)
weights = st.floats(0, 10)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Probabilities and pair probabilities of the same classes."""
    label_NK = draw(label_arrays)
    shape = (draw(st.integers(0, 4)), label_NK.shape[1])
    score_NK = draw(hnp.arrays(np.float64, shape, elements=st.floats(0, 1)))
    return score_NK, pair_probability(label_pair_count(label_NK))


def test_the_three_equations_by_hand() -> None:
    count_KK = label_pair_count(LABELS)
    assert count_KK.tolist() == COUNT.tolist()
    assert count_KK.dtype == np.int64
    p_KK = pair_probability(count_KK)
    np.testing.assert_array_equal(p_KK, P)
    score_NK = np.array([[0.9, 0.3, 0.2], [0.0, 0.0, 1.0]])
    found = combined_scores(score_NK, p_KK, 0.5)
    expected = [
        [0.9 + 0.5 * (2 / 3 * 0.3 + 1 * 0.2), 0.3 + 0.5 * (0.5 * 0.9), 0.2 + 0.5 * (0.25 * 0.9)],
        [0.5 * 1, 0, 1],
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-15)


def test_a_class_without_images_says_nothing_and_gets_nothing() -> None:
    p_KK = pair_probability(np.array([[2, 0], [0, 0]]))
    assert p_KK.tolist() == [[0, 0], [0, 0]]


def test_counts_of_many_blocks_are_those_of_one() -> None:
    label_NK = np.random.default_rng(0).integers(0, 2, (10_000, 5)).astype(np.uint8)
    present_NK = label_NK.astype(np.int64)
    assert label_pair_count(label_NK).tolist() == (present_NK.T @ present_NK).tolist()


@given(label_arrays)
def test_counts_are_sound_and_do_not_know_the_order_of_images(label_NK: Any) -> None:
    count_KK = label_pair_count(label_NK)
    assert check_pair_count(count_KK).tolist() == count_KK.tolist()
    assert np.diagonal(count_KK).tolist() == (label_NK == 1).sum(axis=0).tolist()
    assert label_pair_count(label_NK[::-1]).tolist() == count_KK.tolist()
    p_KK = pair_probability(count_KK)
    assert ((p_KK >= 0) & (p_KK <= 1)).all()
    assert not np.diagonal(p_KK).any()


@given(label_arrays, st.randoms())
def test_chosen_classes_have_the_counts_they_had(label_NK: Any, random: Any) -> None:
    chosen = list(range(label_NK.shape[1]))
    random.shuffle(chosen)
    columns = np.array(chosen[: len(chosen) // 2 + 1], np.int64)
    count_KK = label_pair_count(label_NK)[np.ix_(columns, columns)]
    assert count_KK.tolist() == label_pair_count(label_NK[:, columns]).tolist()


@given(cases(), weights)
def test_scores_never_fall_and_rise_with_the_weight(case: Any, alpha: float) -> None:
    score_NK, p_KK = case
    before = score_NK.copy(), p_KK.copy()
    found = combined_scores(score_NK, p_KK, alpha)
    assert found.dtype == np.float64
    assert (found >= score_NK).all()
    assert (combined_scores(score_NK, p_KK, 2 * alpha) >= found).all()
    np.testing.assert_array_equal(combined_scores(score_NK, p_KK, 0), score_NK)
    np.testing.assert_array_equal(combined_scores(score_NK, np.zeros_like(p_KK), alpha), score_NK)
    np.testing.assert_array_equal(score_NK, before[0])
    np.testing.assert_array_equal(p_KK, before[1])


@given(cases(), weights)
def test_an_image_does_not_know_the_others(case: Any, alpha: float) -> None:
    score_NK, p_KK = case
    found = combined_scores(score_NK, p_KK, alpha)
    for n in range(len(score_NK)):
        one = combined_scores(score_NK[n : n + 1], p_KK, alpha)
        assert one.tobytes() == found[n : n + 1].tobytes()


@pytest.mark.parametrize("alpha", [-0.1, float("nan"), float("inf")])
def test_a_weight_out_of_range(alpha: float) -> None:
    with pytest.raises(UsageError, match=rf"alpha must be in \[0, inf\), got {alpha}\."):
        combined_scores(np.zeros((1, 3)), P, alpha)


@pytest.mark.parametrize("value", [-0.5, 1.5, float("nan"), float("-inf")])
def test_a_score_that_is_no_probability(value: float) -> None:
    score_NK = np.array([[0.0, 0, 0], [0, value, 0]])
    with pytest.raises(
        UsageError, match=rf"the score of image 1, class 1 is {value}; expected a probability"
    ):
        pair_scores(score_NK, P)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(
        UsageError, match=r"scores have shape \(2, 4\), pair probabilities \(3, 3\); expected"
    ):
        pair_scores(np.zeros((2, 4)), P)
    with pytest.raises(UsageError, match=r"labels have shape \(3,\); expected \(images, classes"):
        label_pair_count(np.ones(3))


@pytest.mark.parametrize(
    "count_KK",
    [
        np.zeros((2, 3), np.int64),
        np.zeros(3, np.int64),
        np.zeros((2, 2)),
        np.array([[1, -1], [-1, 1]]),
        np.array([[2, 1], [0, 2]]),
        np.array([[1, 2], [2, 5]]),
    ],
    ids=["not-square", "one-axis", "not-whole", "negative", "not-symmetric", "above-its-class"],
)
def test_what_are_no_counts(count_KK: Any) -> None:
    said = rf"label pairs are {count_KK.dtype} of shape {count_KK.shape}; expected a symmetric"
    with pytest.raises(ModelError, match=said.replace("(", r"\(").replace(")", r"\)")):
        pair_probability(count_KK)
