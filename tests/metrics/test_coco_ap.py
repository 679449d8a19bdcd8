"""COCO detection, rule by rule, worked by hand."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsltool.errors import ProtocolError
from wsltool.metrics.coco_curves import RECALLS, precision_and_recall
from wsltool.metrics.coco_matching import IOU_THRESHOLDS, within_areas
from wsltool.metrics.protocols import PROTOCOLS
from wsltool.metrics.tally import Tally

from ..parity.coco_cases import Case, coco_case
from .blocks import predictions, truth

COCO = PROTOCOLS["coco-ap"]

A, B, FAR = [0, 0, 10, 10], [20, 0, 30, 10], [60, 60, 70, 70]
HALF, LESS = [0, 0, 10, 5], [0, 0, 10, 4.99]


def _truth(*images, num_classes=1):
    """Boxes as `truth` has them; those flagged "crowd" are a crowd."""
    flags = [flag for image in images for _, _, *flag in image]
    images = [[(c, b, *("difficult" for _ in flag)) for c, b, *flag in image] for image in images]
    true = truth(*images, num_classes=num_classes)
    return dataclasses.replace(true, box_crowd_B=np.array(["crowd" in flag for flag in flags]))


def _one(detections, *true_boxes):
    """Tally of detections ``(box, score)`` and true boxes of one class in one image."""
    predicted = predictions(([0], [(0, box, score) for box, score in detections]))
    return COCO.count(predicted, _truth([(0, *box) for box in true_boxes]))


def _outcomes(detections, *true_boxes, threshold=0.5, area=0):
    """What becomes of each detection, by falling score: + true, - false, . ignored."""
    tally = _one(detections, *true_boxes)
    bit = 1 << int(np.abs(IOU_THRESHOLDS - threshold).argmin())
    true_D = tally.column("detection", "true")[:, area] & bit != 0
    ignored_D = tally.column("detection", "ignored")[:, area] & bit != 0
    assert not (true_D & ignored_D).any()
    return "".join(np.where(true_D, "+", np.where(ignored_D, ".", "-")))


def _extra(tally):
    return COCO.result(tally).extra


class TestMatching:
    @pytest.mark.parametrize(("box", "outcome"), [(A, "+"), (HALF, "+"), (LESS, "-")])
    def test_overlap_of_exactly_half_is_true(self, box, outcome):
        assert _outcomes([(box, 1)], (A,)) == outcome

    def test_a_threshold_that_linspace_does_not_hit(self):
        # The ninth threshold is .8999999999999999, so an IoU of .9 reaches it.
        assert _outcomes([([0, 0, 10, 9], 1)], (A,), threshold=0.9) == "+"
        assert _outcomes([([0, 0, 10, 9], 1)], (A,), threshold=0.95) == "-"

    def test_second_detection_of_an_object_is_false(self):
        assert _outcomes([(A, 0.9), (A, 0.8)], (A,)) == "+-"

    def test_duplicate_falls_back_to_the_second_best_object(self):
        near = [0, 0, 10, 8]
        assert _outcomes([(A, 0.9), (near, 0.8)], (A,), ([0, 0, 10, 5.5],)) == "++"

    def test_last_of_two_equal_overlaps_wins(self):
        left, right = [0, 0, 10, 10], [4, 0, 14, 10]
        middle, further_left = [2, 0, 12, 10], [-2, 0, 8, 10]
        detections = [(middle, 0.9), (further_left, 0.8)]
        assert _outcomes(detections, (left,), (right,)) == "++"
        assert _outcomes(detections, (right,), (left,)) == "+-"

    def test_of_equal_scores_the_first_goes_first(self):
        assert _outcomes([(HALF, 0.5), (A, 0.5)], (A,)) == "+-"

    def test_at_a_higher_threshold_another_detection_is_true(self):
        assert _outcomes([(HALF, 0.9), (A, 0.8)], (A,), threshold=0.55) == "-+"

    def test_an_object_that_counts_comes_before_a_better_crowd(self):
        assert _outcomes([(A, 1)], (A, "crowd"), (HALF,)) == "+"
        assert _outcomes([(A, 1)], (HALF,), (A, "crowd")) == "+"

    def test_any_number_of_detections_of_a_crowd_are_ignored(self):
        crowd = ([0, 0, 100, 100], "crowd")
        # Their IoU is the share of their own area, here 1.
        assert _outcomes([(A, 0.9), (A, 0.8), (B, 0.7)], crowd) == "..."
        assert _outcomes([([-10, 0, 10, 10], 0.9), ([-11, 0, 10, 10], 0.8)], crowd) == ".-"

    def test_a_difficult_object_takes_one_detection_and_by_the_ordinary_overlap(self):
        assert _outcomes([(A, 0.9), (A, 0.8)], (A, "difficult")) == ".-"
        assert _outcomes([(A, 0.9)], ([0, 0, 100, 100], "difficult")) == "-"

    def test_classes_and_images_do_not_mix(self):
        predicted = predictions(([0], [(0, A, 0.9), (1, B, 0.8)]), ([0], [(1, A, 0.7)]))
        tally = COCO.count(predicted, _truth([(0, B), (1, A)], [(0, A)], num_classes=2))
        assert not tally.column("detection", "true").any()

    def test_matches_a_walk_through_all_candidates(self):
        # 30 equal detections and 20 equal objects: each takes one, the rest are false.
        tally = _one([(A, 1)] * 30, *[(A,)] * 20)
        assert (tally.column("detection", "true")[:, 0] == 2**10 - 1).sum() == 20


class TestAreas:
    def test_both_ends_belong_to_a_range(self):
        area_B = np.array([0, 1023.9, 1024, 9216, 9216.1, 1e10, 1.1e10])
        assert within_areas(area_B).astype(int).tolist() == [
            [1, 1, 0, 0],
            [1, 1, 0, 0],
            [1, 1, 1, 0],
            [1, 0, 1, 1],
            [1, 0, 0, 1],
            [1, 0, 0, 1],
            [0, 0, 0, 0],
        ]

    @pytest.mark.parametrize(("area", "outcome"), [(0, "+-"), (1, "+-"), (2, ".."), (3, "..")])
    def test_what_lies_outside_is_ignored(self, area, outcome):
        assert _outcomes([(A, 0.9), (FAR, 0.8)], (A,), area=area) == outcome

    def test_area_of_the_object_not_of_its_box(self):
        predicted = predictions(([0], [(0, A, 1)]))
        true = dataclasses.replace(_truth([(0, A)]), box_area_B=np.array([2000.0]))
        extra = _extra(COCO.count(predicted, true))
        assert math.isnan(extra["APs"])
        assert extra["APm"] == pytest.approx(100)

    @pytest.mark.parametrize("area", [math.nan, -1.0])
    def test_bad_area(self, area):
        true = dataclasses.replace(_truth([], [(0, A)]), box_area_B=np.array([area]))
        line = f"truth row 1: a box has area {area:g}; expected square pixels, at least 0."
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            COCO.count(predictions(None, None), true)


class TestCurve:
    def test_by_hand(self):
        # + - + of two objects: precision 1 up to recall .5, then 2/3.
        tally = _one([(A, 0.9), (FAR, 0.8), (B, 0.7)], (A,), (B,))
        precision_TRKA, recall_TKA = precision_and_recall(tally)
        expected = np.where(RECALLS <= 0.5, 1, 2 / 3)
        np.testing.assert_allclose(precision_TRKA[0, :, 0, 0], expected, rtol=0, atol=1e-15)
        assert recall_TKA[:, 0, 0].tolist() == [1] * 10
        result = COCO.result(tally)
        assert result.value == pytest.approx(100 * (51 + 50 * 2 / 3) / 101, abs=1e-12)
        assert result.value == result.extra["AP"] == result.per_class[0].value
        assert result.curve["precision, IoU .50"] == pytest.approx((100 * expected).tolist())

    def test_one_true_detection_alone_is_just_below_one(self):
        # 1 / (1 + 2**-52), as the reference has it.
        precision_TRKA, _ = precision_and_recall(_one([(A, 1)], (A,)))
        assert precision_TRKA[0, 0, 0, 0] == 1 / (1 + 2.0**-52) < 1

    def test_precision_is_made_monotone(self):
        tally = _one([(FAR, 0.9), (A, 0.8), (B, 0.7)], (A,), (B,))
        precision_TRKA, _ = precision_and_recall(tally)
        assert precision_TRKA[0, :, 0, 0] == pytest.approx([2 / 3] * 101)

    def test_zero_beyond_the_highest_recall(self):
        tally = _one([(A, 0.9)], (A,), (B,), (FAR,))
        precision_TRKA, recall_TKA = precision_and_recall(tally)
        assert (precision_TRKA[0, :, 0, 0] > 0).sum() == 34  # 0, .01, …, .33
        assert recall_TKA[0, 0, 0] == 1 / 3

    @pytest.mark.parametrize("num", [1, 3, 7, 20, 49, 50, 100, 101, 167])
    def test_recalls_are_reached_as_floating_point_has_it(self, num):
        # + - + - …: the n-th true detection has precision n / (2 n - 1), less than the one before.
        # Of 20, 7 / 20 does not reach the recall .35 of linspace, .35000000000000003.
        images = [([0], [(0, A, -2 * n), (0, FAR, -2 * n - 1)]) for n in range(num)]
        tally = COCO.count(predictions(*images), _truth(*[[(0, A)]] * num))
        precision_TRKA, _ = precision_and_recall(tally)
        rank_R = 1 + np.searchsorted(np.arange(1, num + 1) / num, RECALLS)
        expected = rank_R / (2 * rank_R - 1 + np.spacing(1.0))
        np.testing.assert_array_equal(precision_TRKA[0, :, 0, 0], expected)

    def test_most_detections(self):
        detections = [(FAR, 0.9 - n / 1000) for n in range(9)] + [(A, 0.1), (B, 0.05)]
        extra = _extra(_one(detections, (A,), (B,)))
        assert (extra["AR1"], extra["AR10"], extra["AR100"]) == (0, 50, 100)

    def test_only_a_hundred_of_a_class_in_an_image(self):
        tally = _one([(FAR, 0.9)] * 100 + [(A, 0.1)], (A,))
        assert len(tally.column("detection", "row")) == 100
        assert COCO.result(tally).value == 0

    def test_equal_scores_in_the_order_of_the_images(self):
        first, second = ([0], [(0, FAR, 0.5)]), ([0], [(0, A, 0.5)])
        assert COCO.result(COCO.count(predictions(first, second), _truth([], [(0, A)]))).value == 50
        tally = COCO.count(predictions(second, first), _truth([(0, A)], []))
        assert COCO.result(tally).value == pytest.approx(100)

    def test_mistakes(self):
        result = COCO.result(_one([(A, 0.9), (A, 0.8), (FAR, 0.7), (B, 0.6)], (A,), (B, "crowd")))
        assert {name: num for name, num in result.mistakes.items() if num} == {
            "right": 1,
            "duplicate": 1,
            "background": 1,
        }


class TestClasses:
    predicted = predictions(([0, 1], [(0, A, 1), (1, FAR, 1), (2, A, 1)]))
    true = _truth([(0, A), (1, A), (3, B, "crowd")], num_classes=4)

    def test_without_objects_left_out_of_the_mean(self):
        result = COCO.result(COCO.count(self.predicted, self.true))
        assert result.value == pytest.approx(50)
        assert [math.isnan(row.value) for row in result.per_class] == [False, False, True, True]
        assert dict(result.per_class[3].counts) == {
            "num_positives": 0,
            "num_ignored": 1,
            "num_detections": 0,
        }
        assert result.extra["num_classes"] == 2
        assert result.warnings == (
            "2 classes have no object to find and are left out of the mean.",
        )

    def test_chosen(self):
        protocol = dataclasses.replace(COCO, class_index=(0,))
        result = protocol.result(protocol.count(self.predicted, self.true))
        assert result.value == pytest.approx(100)
        assert result.extra["AR100"] == 100
        assert sum(result.mistakes.values()) == 1

    def test_none_with_an_object(self):
        result = COCO.result(COCO.count(predictions(None), _truth([])))
        assert math.isnan(result.value)
        assert all(math.isnan(result.extra[name]) for name in ("AP", "AP50", "APs", "AR1", "ARl"))
        assert result.curve == {}
        assert result.as_dict()["value"] is None


class TestImages:
    def test_excluded_and_missing(self):
        true = truth([(0, A)], {"boxes": [(0, A)], "excluded": True}, num_classes=1)
        tally = COCO.count(predictions(None, ([0], [(0, FAR, 1)])), true)
        result = COCO.result(tally)
        assert result.value == 0
        assert dict(result.per_class[0].counts)["num_detections"] == 0
        assert (result.extra["num_images"], result.extra["num_excluded"]) == (1, 1)
        assert result.warnings == ("1 images have no prediction; their objects count as missed.",)

    def test_nan_score(self):
        line = "boxes row 0: a box has score nan; expected a number."
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            _one([(A, math.nan)], (A,))


class TestLaws:
    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 2**32 - 1))
    def test_blocks_in_any_order(self, seed):
        predicted, true = coco_case(Case(seed, num_images=12))
        said = COCO.result(COCO.count(predicted, true)).as_dict()
        rng = np.random.default_rng(seed)
        parts = [
            COCO.count(predicted.take(part), true.take(part))
            for part in np.array_split(rng.permutation(12), 5)
        ]
        assert COCO.result(Tally.joined(parts)).as_dict() == said

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.sampled_from([2, 9, 1000]))
    def test_images_drawn_are_images_repeated(self, seed, num_levels):
        case = Case(seed, num_images=10, num_classes=2, max_boxes=20, num_levels=num_levels)
        predicted, true = coco_case(case)
        times_N = np.random.default_rng(seed).integers(0, 4, 10)
        image = np.repeat(np.arange(10), times_N)
        again = dataclasses.replace(true.take(image), row_N=np.arange(len(image)))
        repeated = COCO.count(predicted.take(image), again)
        drawn = COCO.count(predicted, true).drawn(times_N)
        for one, other in zip(
            precision_and_recall(drawn), precision_and_recall(repeated), strict=True
        ):
            np.testing.assert_array_equal(one, other)
        assert COCO.result(drawn).as_dict() == COCO.result(repeated).as_dict()

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 2**32 - 1))
    def test_only_the_order_of_scores_matters(self, seed):
        predicted, true = coco_case(Case(seed, num_images=8))
        other = dataclasses.replace(predicted, box_score_B=predicted.box_score_B * 2 - 7)
        said = COCO.result(COCO.count(predicted, true)).as_dict()
        assert COCO.result(COCO.count(other, true)).as_dict() == said
