"""Point localization by a detector's boxes (Oquab et al. 2015: the centre of the best box)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsltool.metrics.point import best_box_points
from wsltool.metrics.protocols import PROTOCOLS

from .blocks import predictions, random_predictions, random_truth, truth

POINT = PROTOCOLS["point"]
BOX = [40, 40, 60, 60]
NEAR = [12, 40, 32, 60]  # centre (22, 50): 18 px to the left of BOX
FAR = [11, 40, 32, 60]  # centre (21.5, 50)


def _values(found, true, **options):
    protocol = POINT.with_options(**options)
    result = protocol.result(protocol.count(best_box_points(found, true), true))
    return [row.value for row in result.per_class], result


def test_the_centre_of_the_best_box_is_the_point():
    """Overlap does not matter: NEAR does not touch the true box."""
    true = truth([(1, BOX)])
    worse_first = predictions(([1], [(1, FAR, 0.5), (1, NEAR, 0.9), (1, BOX, 0.8)]))
    assert _values(worse_first, true)[0][1] == 100
    best_is_far = predictions(([1], [(1, FAR, 0.9), (1, NEAR, 0.5), (1, BOX, 0.8)]))
    assert _values(best_is_far, true)[0][1] == 0


@pytest.mark.parametrize(("boxes", "value"), [([NEAR, FAR], 100), ([FAR, NEAR], 0)])
def test_the_first_of_equals(boxes, value):
    found = predictions(([1], [(1, box, 0.7) for box in boxes]))
    assert _values(found, truth([(1, BOX)]))[0][1] == value


def test_one_point_a_class_and_image_ranked_by_the_score_of_its_box():
    """Ranked .9 right, .8 absent, .7 right: 1 at recall 1/2, 2/3 at recall 1.

    That the second image has three boxes makes no difference; by the class scores, which are
    all 1, equals stand in the order of the images: right, absent, right again.
    """
    true = truth([(1, BOX)], [(2, BOX)], [(1, BOX)])
    found = predictions(
        ([1], [(1, NEAR, 0.9), (1, FAR, 0.1)]),
        ([1], [(1, BOX, 0.8), (1, BOX, 0.8), (1, FAR, 0.3)]),
        ([1], [(1, FAR, 0.2), (1, NEAR, 0.7)]),
    )
    values, result = _values(found, true)
    assert values[1] == pytest.approx(100 * (1 / 2 + 1 / 2 * 2 / 3))
    assert result.per_class[1].counts["num_points"] == 3
    assert _values(found, true, confidence="cls")[0][1] == values[1]


def test_a_class_without_a_box_predicts_nothing():
    true = truth([(1, BOX)], [(1, BOX)])
    values, result = _values(predictions(([1, 2], [(2, BOX, 0.9)]), ([1], [(1, BOX, 0.1)])), true)
    assert values[1] == 50
    assert result.per_class[1].counts["num_points"] == 1


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32))
def test_law_the_order_of_boxes_of_other_scores_makes_no_difference(seed):
    """Against a search through all boxes of an image."""
    rng = np.random.default_rng(seed)
    true = random_truth(rng, 15, 3, one_label=False)
    found = random_predictions(rng, true)
    points = best_box_points(found, true)
    for n in range(len(true)):
        boxes = range(found.box_start[n], found.box_start[n + 1])
        best = {}
        for b in boxes:
            held = best.setdefault(int(found.box_class_B[b]), b)
            if found.box_score_B[b] > found.box_score_B[held]:
                best[int(found.box_class_B[b])] = b
        slots = {int(k): s for s, k in enumerate(points.map_class_NS[n]) if k >= 0}
        assert slots.keys() == best.keys()
        for index, b in best.items():
            x0, y0, x1, y1 = found.box_xyxy_B4[b]
            centre = [(x0 + x1) / 2, (y0 + y1) / 2]
            assert points.peak_xy_NS2[n, slots[index]].tolist() == centre
            assert points.peak_value_NS[n, slots[index]] == found.box_score_B[b]
