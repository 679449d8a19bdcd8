"""Peak distance, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsltool.metrics.peak_distance import PeakPairs
from wsltool.metrics.protocols import PROTOCOLS

from .blocks import peaks, random_peak_pairs, random_truth, truth

DISTANCE = PROTOCOLS["peak-distance"]
BOX = [0, 0, 10, 10]


def _result(one, other, true):
    return DISTANCE.result(DISTANCE.count(PeakPairs(one, other), true))


def test_by_hand():
    """Distances 5, 0 and 10 of cat, cat and dog."""
    true = truth([(1, BOX)], [(1, BOX), (2, BOX)], num_classes=3)
    one = peaks([(1, (0.5, 0.5))], [(2, (10.5, 0.5)), (1, (7.5, 7.5))])
    other = peaks([(0, (1, 1)), (1, (3.5, 4.5))], [(1, (7.5, 7.5)), (2, (0.5, 0.5))])
    result = _result(one, other, true)
    assert result.value == pytest.approx(5)
    assert result.unit == "px"
    assert result.higher_is_better is None
    assert [result.extra[name] for name in ("lower_quartile", "median", "upper_quartile")] == [
        2.5,
        5,
        7.5,
    ]
    assert [row.value for row in result.per_class[1:]] == [2.5, 10]
    assert [row.counts["num_pairs"] for row in result.per_class] == [0, 2, 1]
    assert result.warnings == ()


def test_only_pairs_that_both_have():
    true = truth([(1, BOX)], [(1, BOX)], [(1, BOX)], [(1, BOX)])
    one = peaks([(1, (0, 0))], [(1, (0, 0))], None, [(1, (0, 0))])
    other = peaks([(1, (3, 4))], [(2, (0, 0))], [(1, (0, 0))], None)
    result = _result(one, other, true)
    assert result.value == 5
    assert result.extra["num_pairs"] == 1
    assert result.warnings == ("3 pairs have no map in one of the stores and are left out.",)


def test_absent_undecided_and_excluded_are_no_pairs():
    true = truth([(1, BOX, "difficult")], [], {"boxes": [(1, BOX)], "excluded": True})
    one = peaks(*[[(1, (0, 0))]] * 3)
    result = _result(one, one, true)
    assert np.isnan(result.value)
    assert np.isnan(result.extra["median"])
    assert result.extra["num_excluded"] == 1
    assert result.warnings == ()


def test_no_slots():
    result = _result(peaks(None, num_slots=0), peaks(None, num_slots=0), truth([(1, BOX)]))
    assert np.isnan(result.value)
    assert result.extra["num_pairs_without_map"] == 1


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32))
def test_law_a_metric(seed):
    rng = np.random.default_rng(seed)
    true = random_truth(rng, 15, 4, one_label=False)
    pairs = random_peak_pairs(rng, true)
    there, back = _result(pairs.one, pairs.other, true), _result(pairs.other, pairs.one, true)
    assert there.as_dict() == back.as_dict()
    itself = _result(pairs.one, pairs.one, true)
    assert np.isnan(itself.value) or itself.value == 0
