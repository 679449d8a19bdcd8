"""VOC detection, rule by rule, worked by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from wsltool.errors import UsageError
from wsltool.metrics.average_precision import (
    RECALL_GRIDS,
    area_ap,
    eleven_point_ap,
    precision_recall,
)
from wsltool.metrics.protocols import PROTOCOLS
from wsltool.metrics.ranking import FALSE, NEITHER, TRUE, average_precisions, ranked
from wsltool.metrics.tally import Tally

from .blocks import predictions, truth

VOC, VOC07 = PROTOCOLS["voc-ap"], PROTOCOLS["voc07-ap"]

A, B, FAR = [0, 0, 10, 10], [20, 0, 30, 10], [60, 60, 70, 70]
HALF, LESS = [0, 0, 10, 5], [0, 0, 10, 4.99]


def _outcomes(detections, *true_boxes):
    """What becomes of detections ``(box, score)`` of class 1 in one image, as they were given."""
    predicted = predictions(([1], [(1, box, score) for box, score in detections]))
    return _column(predicted, truth([(1, *box) for box in true_boxes]))


def _column(predicted, true, name="outcome"):
    return VOC.count(predicted, true).column("detection", name).tolist()


def _result(predicted, true, protocol=VOC):
    return protocol.result(protocol.count(predicted, true))


def _curve(text, num_positives):
    """Precision and recall of ranked outcomes: + true, - false, . neither."""
    outcome = np.array(list(text))
    return precision_recall(outcome == "+", outcome == "-", num_positives)


class TestOutcomes:
    @pytest.mark.parametrize(("box", "outcome"), [(A, TRUE), (HALF, TRUE), (LESS, FALSE)])
    def test_overlap_of_exactly_half_is_true(self, box, outcome):
        assert _outcomes([(box, 1)], (A,)) == [outcome]

    def test_threshold_can_be_chosen(self):
        predicted, true = predictions(([1], [(1, HALF, 1)])), truth([(1, A)])
        assert _result(predicted, true, VOC.with_options(iou=0.5)).value == 100
        assert _result(predicted, true, VOC.with_options(iou=0.51)).value == 0

    def test_second_detection_of_an_object_is_false(self):
        assert _outcomes([(A, 0.9), (A, 0.8)], (A,)) == [TRUE, FALSE]

    def test_the_more_confident_one_is_true_wherever_it_stands(self):
        assert _outcomes([(HALF, 0.8), (A, 0.9)], (A,)) == [FALSE, TRUE]

    def test_of_equal_confidence_the_first_is_true(self):
        assert _outcomes([(HALF, 0.5), (A, 0.5)], (A,)) == [TRUE, FALSE]

    def test_duplicate_does_not_fall_back_to_the_second_best_object(self):
        near = [0, 0, 10, 8]  # IoU .8 with A; the other true box [0 0 10 6] has .6 and .75
        assert _outcomes([(A, 0.9), (near, 0.8)], (A,), ([0, 0, 10, 5.5],)) == [TRUE, FALSE]

    def test_first_of_two_equal_overlaps_wins(self):
        # Both true boxes overlap equally; the first is difficult, the detection is neither.
        assert _outcomes([(A, 1)], (A, "difficult"), (A,)) == [NEITHER]
        assert _outcomes([(A, 1)], (A,), (A, "difficult")) == [TRUE]
        # The second of two equal objects is never reached.
        assert _outcomes([(A, 0.9), (A, 0.8)], (A,), (A,)) == [TRUE, FALSE]

    def test_any_number_of_detections_of_a_difficult_object_are_neither(self):
        assert _outcomes([(A, 0.9), (A, 0.8), (B, 0.7)], (A, "difficult"), (B,)) == [
            NEITHER,
            NEITHER,
            TRUE,
        ]

    def test_difficult_object_takes_the_detection_from_a_worse_overlap(self):
        assert _outcomes([([0, 0, 10, 9], 1)], (A, "difficult"), ([0, 0, 10, 7],)) == [NEITHER]

    def test_below_the_threshold_a_difficult_object_excuses_nothing(self):
        assert _outcomes([(LESS, 1)], (A, "difficult")) == [FALSE]

    def test_no_overlap_and_no_object(self):
        assert _outcomes([(FAR, 1), (A, 0.5)], (B,)) == [FALSE, FALSE]
        assert _outcomes([(A, 1)]) == [FALSE]

    def test_box_of_another_class_is_no_object(self):
        predicted = predictions(([1], [(1, A, 1)]))
        assert _column(predicted, truth([(2, A)])) == [FALSE]

    def test_box_of_another_image_is_no_object(self):
        predicted = predictions(([1], []), ([1], [(1, A, 1)]))
        assert _column(predicted, truth([(1, A)], [(1, B)])) == [FALSE]

    def test_box_without_area(self):
        assert _outcomes([([3, 3, 3, 3], 1)], (A,)) == [FALSE]


class TestCurves:
    def test_by_hand(self):
        precision, recall = _curve("+-+", 4)
        np.testing.assert_array_equal(precision, [1, 0.5, 2 / 3])
        np.testing.assert_array_equal(recall, [0.25, 0.25, 0.5])
        # Made monotone: 1 up to .25, 2/3 up to .5, then nothing.
        assert area_ap(precision, recall) == pytest.approx(0.25 + 0.25 * 2 / 3, abs=1e-15)
        # 11 points: 0 .1 .2 have 1, .3 .4 .5 have 2/3.
        assert eleven_point_ap(precision, recall) == pytest.approx((3 + 3 * 2 / 3) / 11)

    def test_all_found_first(self):
        curve = _curve("++--", 2)
        assert area_ap(*curve) == 1
        assert eleven_point_ap(*curve) == 1

    def test_precision_is_nan_before_the_first_that_counts(self):
        precision, recall = _curve("..+-", 1)
        np.testing.assert_array_equal(precision, [np.nan, np.nan, 1, 0.5])
        np.testing.assert_array_equal(recall, [0, 0, 1, 1])
        assert area_ap(precision, recall) == 1
        assert eleven_point_ap(precision, recall) == 1

    def test_nothing_but_difficult(self):
        precision, recall = _curve("..", 3)
        assert area_ap(precision, recall) == 0
        assert eleven_point_ap(precision, recall) == 0

    def test_no_detection(self):
        curve = _curve("", 3)
        assert area_ap(*curve) == 0
        assert eleven_point_ap(*curve) == 0

    def test_nothing_to_find_has_no_recall(self):
        precision, recall = _curve("-", 0)
        np.testing.assert_array_equal(precision, [0])
        assert np.isnan(recall).all()

    @pytest.mark.parametrize(("hits", "ours", "numpys"), [(6, 7, 6), (7, 8, 7), (5, 6, 6)])
    def test_recall_of_exactly_six_and_seven_tenths(self, hits, ours, numpys):
        curve = _curve("+" * hits, 10)
        assert eleven_point_ap(*curve) == pytest.approx(ours / 11)
        assert eleven_point_ap(*curve, grid="numpy") == pytest.approx(numpys / 11)

    def test_grids(self):
        devkit, numpys = RECALL_GRIDS["devkit"], RECALL_GRIDS["numpy"]
        assert len(devkit) == len(numpys) == 11
        assert (devkit[6], devkit[7], devkit[10]) == (0.6, 0.7, 1)
        assert devkit[3] == numpys[3] == 0.30000000000000004
        assert (numpys[6], numpys[7]) == (0.6000000000000001, 0.7000000000000001)
        with pytest.raises(UsageError, match='grid must be "devkit" or "numpy", got \'matlab\''):
            eleven_point_ap(np.ones(1), np.ones(1), grid="matlab")


class TestResult:
    def test_ranked_over_images_with_rows(self):
        true = truth([(1, A)], [(1, A), (2, B)], [(1, A, "difficult")])
        predicted = predictions(
            ([1], [(1, FAR, 0.9), (1, A, 0.6)]),
            ([1, 2], [(1, A, 0.7), (2, B, 0.1), (2, B, 0.2)]),
            ([1], [(1, A, 0.95), (1, B, 0.65)]),
        )
        result = _result(predicted, true)
        one, two = result.per_class[1:3]
        # Class 1 ranked: . - + - +  ->  precision . 0 1/2 1/3 2/4, recall 0 0 .5 .5 1
        assert one.value == pytest.approx(50)
        assert one.counts == {
            "num_positives": 2,
            "num_detections": 5,
            "num_true": 2,
            "num_false": 2,
            "num_difficult_hits": 1,
        }
        assert two.value == 100
        assert result.value == pytest.approx(75)
        assert result.extra["num_classes"] == 2
        assert result.extra["num_classes_without_positives"] == 2
        assert result.warnings == (
            "2 classes have no object to find and are left out of the mean.",
        )
        assert _result(predicted, true, VOC07).per_class[1].value == pytest.approx(50)

    def test_ranks_are_stable_over_images_whatever_the_order_of_blocks(self):
        true = truth([(1, A)], [(1, A)], num_classes=2)
        predicted = predictions(([1], [(1, FAR, 0.5)]), ([1], [(1, A, 0.5)]))
        blocks = [VOC.count(predicted.take(n), true.take(n)) for n in np.array([[0], [1]])]
        for parts in (blocks, blocks[::-1]):
            tally = Tally.joined(parts)
            ranking = ranked(tally)
            assert tally.column("detection", "row")[ranking.order_D].tolist() == [0, 1]
            assert ranking.outcome_D.tolist() == [FALSE, TRUE]
            assert ranking.edge_K.tolist() == [0, 0, 2]

    def test_image_with_difficult_objects_only(self):
        true = truth([(1, A, "difficult")], [(1, B)], num_classes=2)
        predicted = predictions(([1], [(1, A, 0.9)]), ([1], [(1, B, 0.8)]))
        result = _result(predicted, true)
        assert result.value == 100
        assert np.isnan(result.per_class[0].value)

    def test_class_with_difficult_objects_only_is_left_out(self):
        result = _result(predictions(([1], [(1, A, 1)])), truth([(1, A, "difficult"), (2, B)]))
        assert np.isnan(result.per_class[1].value)
        assert result.value == 0
        assert result.extra["num_classes"] == 1

    def test_detections_of_a_class_without_objects_change_nothing(self):
        true = truth([(1, A)])
        without = _result(predictions(([1], [(1, A, 1)])), true)
        assert _result(predictions(([1], [(1, A, 1), (3, A, 1)])), true).value == without.value

    def test_no_detections(self):
        result = _result(predictions(([1], []), None), truth([(1, A)], [(1, A), (2, B)]))
        assert result.value == 0
        assert result.warnings[0] == ("1 images have no prediction; their objects count as missed.")

    @pytest.mark.parametrize("protocol", [VOC, VOC07])
    def test_nothing_to_find(self, protocol):
        assert np.isnan(_result(predictions(([1], [(1, A, 1)])), truth([]), protocol).value)
        assert np.isnan(_result(predictions(), truth(), protocol).value)

    def test_excluded_images_are_left_out(self):
        true = truth([(1, A)], {"boxes": [(1, A)], "excluded": True})
        result = _result(predictions(([1], [(1, A, 0.5)]), ([1], [(1, FAR, 0.9)])), true)
        assert result.value == 100
        assert result.extra["num_images"] == 1
        assert result.extra["num_excluded"] == 1

    def test_grid_of_2007_can_be_chosen(self):
        """Six of ten found: a recall of exactly .6 reaches its step in the devkit's grid only."""
        true = truth([(1, [10 * n, 0, 10 * n + 5, 5]) for n in range(10)])
        found = predictions(([1], [(1, [10 * n, 0, 10 * n + 5, 5]) for n in range(6)]))
        assert _result(found, true, VOC07).value == pytest.approx(700 / 11)
        numpys = _result(found, true, VOC07.with_options(grid="numpy"))
        assert numpys.value == pytest.approx(600 / 11)
        assert numpys.parameters == {"iou": 0.5, "grid": "numpy"}

    def test_infinite_confidence(self):
        predicted = predictions(([1], [(1, FAR, -np.inf), (1, A, np.inf)]))
        assert _result(predicted, truth([(1, A)])).value == 100


class TestDrawn:
    """An image taken several times is several images."""

    def test_by_hand(self):
        """Ranked + - once; the first image twice: + + -, of three objects."""
        true = truth([(1, A)], [(1, A)], num_classes=2)
        tally = VOC.count(predictions(([1], [(1, A, 0.9)]), ([1], [(1, FAR, 0.8)])), true)
        assert VOC.result(tally).value == 50
        drawn = VOC.result(tally.drawn(np.array([2, 1])))
        assert drawn.value == pytest.approx(200 / 3)
        assert drawn.per_class[1].counts["num_true"] == 2
        assert VOC.result(tally.drawn(np.array([0, 3]))).value == 0
        assert np.isnan(VOC.result(tally.drawn(np.array([0, 0]))).value)

    def test_equals_of_an_image_stay_together(self):
        """- + of equal confidence, twice: - + - +, of two objects; not - - + +."""
        true = truth([(1, A)], num_classes=2)
        tally = VOC.count(predictions(([1], [(1, FAR, 0.5), (1, A, 0.5)])), true).drawn([2])
        assert average_precisions(tally, np.array([0, 2]))[1] == pytest.approx(50)
        mixed = VOC.count(predictions(([1], [(1, A, 0.5), (1, FAR, 0.5)])), true).drawn([2])
        assert average_precisions(mixed, np.array([0, 2]))[1] == pytest.approx(50 + 50 * 2 / 3)


def test_mistakes_of_false_detections():
    true = truth([(1, A), (2, FAR), (3, B, "difficult")])
    found = [
        (1, A, 0.9),  # right
        (1, A, 0.8),  # a second one
        (1, FAR, 0.7),  # nothing of class 1 there
        (0, FAR, 0.6),  # class 2
        (3, B, 0.5),  # neither
        (1, [0, 0, 4, 4], 0.4),  # a part
    ]
    predicted = predictions(([0, 1, 2, 3], found))
    none = {"several instances": 0, "too large": 0, "misplaced": 0}
    found = {"right": 1, "wrong class": 1, "only a part": 1, "background": 1, "duplicate": 1}
    assert _result(predicted, true).mistakes == none | found
    chosen = dataclasses.replace(VOC, classes=("b",), class_index=(1,))
    assert _result(predicted, true, chosen).mistakes == none | found | {"wrong class": 0}
    text = _result(predicted, true).as_dict()
    assert text["mistakes"]["duplicate"] == 1
    assert len(text["curve"]["recall"]) == 101


def test_the_mean_curve_by_hand():
    """Two classes: (true, false, true) of two objects, and nothing found of one."""
    from wsltool.metrics.ranking import FALSE, TRUE, mean_curve
    from wsltool.metrics.tally import Tally

    detection = {
        "row": np.zeros(3, np.int64),
        "class": np.zeros(3, np.int32),
        "score": np.array([3.0, 2.0, 1.0]),
        "outcome": np.array([TRUE, FALSE, TRUE], np.int8),
    }
    tally = Tally(3, {"image": {"row": np.zeros(1, np.int64)}, "detection": detection})
    curve = mean_curve(tally, np.array([2, 1, 0]), slice(None))
    assert list(curve) == ["recall", "mean precision"]
    assert curve["recall"][50] == 0.5
    assert curve["mean precision"][:51] == [50.0] * 51
    np.testing.assert_allclose(curve["mean precision"][51:], 100 / 3)
    assert mean_curve(tally, np.array([2, 1, 0]), [1])["mean precision"] == [0.0] * 101
    assert mean_curve(tally, np.array([2, 1, 0]), [2]) == {}
    assert mean_curve(tally.drawn(np.array([2])), np.array([4, 2, 0]), slice(None)) == {}
