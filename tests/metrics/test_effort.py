"""The gain of annotating classes: curve by hand, laws, and the paired interval."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsltool.errors import ProtocolError
from wsltool.metrics.bootstrap import bootstrap_difference
from wsltool.metrics.effort import (
    class_parts,
    class_weights,
    effort_curve,
    gain_of,
    has_changed,
    paired_gain,
)
from wsltool.metrics.protocols import PROTOCOLS
from wsltool.metrics.result import ClassRow, Result
from wsltool.metrics.tally import Tally


def test_a_curve_by_hand():
    """Four classes gain 6, 0, 3 and 1 points in the order of annotation."""
    curve = effort_curve([6, 0, 3, 1])
    assert curve.fraction == (0, 0.25, 0.5, 0.75, 1)
    assert curve.gain == (0, 6, 6, 9, 10)
    assert curve.share == (0, 0.6, 0.6, 0.9, 1)
    assert curve.total == 10
    # trapezia of width 1/4: (0 + .6)/2, (.6 + .6)/2, (.6 + .9)/2, (.9 + 1)/2
    assert curve.area == pytest.approx((0.3 + 0.6 + 0.75 + 0.95) / 4)
    assert [curve.fraction_for(one) for one in (0, 0.5, 0.6, 0.85, 1)] == [0, 0.25, 0.25, 0.75, 1]
    assert curve.fraction_for(1.01) is None


def test_a_curve_may_fall_and_exceed_the_whole():
    curve = effort_curve([4, -2])
    assert curve.share == (0, 2, 1)
    assert curve.fraction_for(0.85) == 0.5


@pytest.mark.parametrize("parts", [[1, -3], [0, 0], [5e-10], [0.1, 0.2, -0.3]])
def test_without_a_gain_there_are_no_shares(parts):
    curve = effort_curve(parts)
    assert not curve.has_shares
    assert curve.share is None
    assert curve.area is None
    assert curve.fraction_for(0.5) is None
    assert len(curve.gain) == len(parts) + 1


@pytest.mark.parametrize(
    ("parts", "said"), [([], "0 classes"), ([1, np.nan], "2 .* 1 of them"), ([np.inf], "1 of them")]
)
def test_no_class_and_no_number(parts, said):
    with pytest.raises(ProtocolError, match=rf"{said}.*expected at least one class, and a number"):
        effort_curve(parts)


@given(st.lists(st.integers(-3, 9), min_size=1, max_size=5))
def test_a_random_order_has_an_expected_area_of_one_half(parts):
    curves = [effort_curve(order) for order in itertools.permutations(parts)]
    assert len({round(curve.total, 9) for curve in curves}) == 1
    if curves[0].has_shares:
        assert np.mean([curve.area for curve in curves]) == pytest.approx(0.5)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any), st.integers(1, 1000))
def test_the_best_order_is_no_worse_and_scale_is_nothing(parts, scale):
    best = effort_curve(sorted(parts, reverse=True))
    assert best.area >= effort_curve(parts).area - 1e-12
    scaled = effort_curve(np.array(parts) * scale)
    assert scaled.area == pytest.approx(effort_curve(parts).area)


def test_parts_of_the_gain_add_up():
    gain = np.array([10.0, np.nan, -5, 0])
    weight = np.array([3.0, 7, 1, 1])
    parts = class_parts(gain, weight)
    np.testing.assert_allclose(parts, [6, 0, -1, 0])
    np.testing.assert_array_equal(gain, [10, np.nan, -5, 0])
    assert class_parts(np.array([np.nan]), np.ones(1)).tolist() == [0]


@pytest.mark.parametrize(
    ("protocol", "counts", "weight"),
    [
        ("gt-known", {"num_images": 30}, 30),
        ("ilsvrc-top5", {"num_images": 50, "num_excluded": 2}, 48),
        ("maxboxacc-v3", {"num_images": 3, "num_true_boxes": 7}, 7),
        ("peak-in-box", {"num_pairs": 4}, 4),
        ("corloc", {"num_images": 30}, 1),
        ("voc-ap", {"num_positives": 9}, 1),
    ],
)
def test_what_a_class_counts_with(protocol, counts, weight):
    result = Result.of(PROTOCOLS[protocol], 0, per_class=(ClassRow(0, 1.0, counts),))
    assert class_weights(result).tolist() == [weight]


@pytest.mark.parametrize(("name", "wanted"), [("gt-known", 20.0), ("ilsvrc-top5", -20.0)])
def test_an_error_gains_by_falling(name, wanted):
    assert gain_of(PROTOCOLS[name], 70.0, 50.0) == wanted
    assert str(gain_of(PROTOCOLS[name], 50.0, 50.0)) == "0.0"


def test_changed_at_the_bound():
    # 100 * 8 / 30 - 100 * 6.5 / 30 is 5 but for rounding
    gain = np.array([100 * 8 / 30 - 100 * 6.5 / 30, -5.0, 4.999, np.nan, 0])
    assert has_changed(gain, 5).tolist() == [True, True, False, False, False]


def tally(rows, label, right):
    """What ``gt-known`` counts: images of two classes, right or not."""
    num = len(rows)
    return Tally(
        2,
        {
            "image": {
                "row": np.array(rows, np.int64),
                "label": np.array(label, np.int32),
                "excluded": np.zeros(num, bool),
                "predicted": np.ones(num, bool),
                "mapped": np.ones(num, bool),
                "mistake": np.where(right, _code("right"), _code("background")).astype(np.uint8),
            }
        },
    )


def _code(name):
    from wsltool.metrics import gt_known

    return gt_known._NAMES.index(name)


def test_the_interval_is_that_of_the_paired_difference():
    protocol = PROTOCOLS["gt-known"]
    label = [0, 0, 0, 1, 1]
    before = tally(range(5), label, [1, 0, 0, 1, 0])
    after = tally(range(5), label, [1, 1, 0, 1, 0])
    found = paired_gain(protocol, after, before, 500, seed=3)
    plain = bootstrap_difference(protocol, after, before, 500, seed=3)
    assert (found.low, found.high) == (plain.low, plain.high) == (0, 60)
    assert found.low_K == (0, 0)
    assert found.high_K[0] == 100
    assert found.high_K[1] == 0
    swapped = paired_gain(protocol, before, after, 500, seed=3)
    assert (swapped.low, swapped.high) == (-found.high, -found.low)


def test_other_images_are_not_compared():
    one = tally(range(3), [0, 0, 1], [1, 1, 0])
    two = tally(range(1, 4), [0, 0, 1], [1, 1, 0])
    with pytest.raises(ProtocolError, match=r"^3 and 3 images are compared, which are not the sa"):
        paired_gain(PROTOCOLS["gt-known"], one, two)
