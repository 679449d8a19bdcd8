"""Point localization, by hand."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsltool.errors import ProtocolError
from wsltool.metrics.baselines import centre_peaks
from wsltool.metrics.point import best_box_points
from wsltool.metrics.protocols import PROTOCOLS
from wsltool.metrics.ranking import TRUE

from .blocks import peaks, predictions, random_peaks, random_truth, truth

POINT = PROTOCOLS["point"]
BOX, OTHER = [40, 40, 60, 60], [80, 60, 90, 70]
IN, OUT = (50, 50), (5, 5)


def _result(predicted, true, **options):
    protocol = POINT.with_options(**options)
    return protocol.result(protocol.count(predicted, true))


def _ap(predicted, true, **options):
    return _result(predicted, true, **options).per_class[1].value


class TestTolerance:
    @pytest.mark.parametrize(
        ("point", "value"),
        [
            ((22, 50), 100),  # 18 px to the left
            ((21.9999, 50), 0),
            ((78, 50), 100),
            ((78.0001, 50), 0),
            ((50, 22), 100),
            ((50, 78.0001), 0),
            ((22, 22), 100),  # by 18 both ways
            ((60, 60), 100),
        ],
    )
    def test_chebyshev(self, point, value):
        assert _ap(peaks([(1, point)]), truth([(1, BOX)])) == value

    @pytest.mark.parametrize(
        ("point", "value"),
        [
            ((22, 50), 100),
            ((21.9999, 50), 0),
            ((22, 22), 0),
            ((78, 60.0001), 0),
        ],
    )
    def test_euclidean(self, point, value):
        assert _ap(peaks([(1, point)]), truth([(1, BOX)]), metric="euclidean") == value

    @pytest.mark.parametrize(("point", "value"), [((63, 64), 100), ((63, 64.0001), 0)])
    def test_euclidean_off_a_corner(self, point, value):
        found = _ap(peaks([(1, point)]), truth([(1, BOX)]), metric="euclidean", tolerance=5)
        assert found == value

    def test_devkit_pixels(self):
        """Inclusive pixels 41 to 60 counted from 1: those from 23 to 78 are right."""
        for pixel in range(1, 101):
            found = _ap(peaks([(1, (pixel - 0.5, 50.5))]), truth([(1, BOX)]))
            assert (found == 100) == (41 - 18 <= pixel <= 60 + 18)

    def test_a_box_at_the_edge_of_the_image_is_enlarged_beyond_it_without_harm(self):
        assert _ap(peaks([(1, (0.5, 0.5))]), truth([(1, [0, 0, 100, 80])])) == 100
        assert _ap(peaks([(1, (99.5, 79.5))]), truth([(1, [0, 0, 5, 5])])) == 0

    def test_any_box_of_the_class_but_of_no_other(self):
        assert _ap(peaks([(1, (85, 65))]), truth([(1, BOX), (1, OTHER)]), tolerance=0) == 100
        assert _ap(peaks([(1, (85, 65))]), truth([(1, BOX), (2, OTHER)]), tolerance=0) == 0

    @settings(deadline=None, max_examples=50)
    @given(st.integers(0, 2**32))
    def test_law_without_tolerance_it_is_peak_in_box(self, seed):
        rng = np.random.default_rng(seed)
        true = random_truth(rng, 20, 3, one_label=False)
        predicted = random_peaks(rng, true, num_slots=3)
        inside = PROTOCOLS["peak-in-box"]
        hits = inside.result(inside.count(predicted, true)).per_class
        for metric in ("chebyshev", "euclidean"):
            points = _result(predicted, true, tolerance=0, metric=metric).per_class
            assert [row.counts["num_true"] for row in points] == [
                row.counts["num_hits"] for row in hits
            ]


class TestRanking:
    """Images 0 and 1 contain the class, 2 does not."""

    TRUTH = truth([(1, BOX)], [(1, BOX)], [(2, BOX)])

    def test_by_hand(self):
        """Values 5 right, 4 absent, 3 right: precision 1 at recall 1/2, 2/3 at recall 1."""
        found = peaks([(1, IN, 5)], [(1, IN, 3)], [(1, IN, 4)])
        assert _ap(found, self.TRUTH) == pytest.approx(100 * (0.5 + 0.5 * 2 / 3))

    def test_a_miss_is_false_and_lowers_recall(self):
        """Values 5 missed, 4 right: precision 1/2 at recall 1/2, never more."""
        found = peaks([(1, OUT, 5)], [(1, IN, 4)], None)
        assert _ap(found, self.TRUTH) == 25
        assert _result(found, self.TRUTH).per_class[1].counts == {
            "num_positives": 2,
            "num_points": 2,
            "num_true": 1,
            "num_false": 1,
        }

    def test_or_lowers_recall_only(self):
        found = peaks([(1, OUT, 5)], [(1, IN, 4)], None)
        assert _ap(found, self.TRUTH, misses="fn") == 50
        assert _ap(peaks(None, None, [(1, IN)]), self.TRUTH, misses="fn") == 0  # absent is false

    def test_confidence(self):
        """By map: image 2 (absent) first. By class score: images 0, 1 first."""
        found = peaks([(1, IN, 1)], [(1, IN, 1)], [(0, IN, 0), (1, IN, 9)])
        assert _ap(found, self.TRUTH) == pytest.approx(200 / 3)
        assert _ap(found, self.TRUTH, confidence="cls") == 100

    def test_equals_stand_in_the_order_of_the_images(self):
        found = peaks([(1, OUT, 1)], [(1, IN, 1)], None)
        assert _ap(found, self.TRUTH) == 25
        found = peaks([(1, IN, 1)], [(1, OUT, 1)], None)
        assert _ap(found, self.TRUTH) == 50

    def test_mean_over_classes_that_are_present(self):
        found = _result(peaks([(1, IN)], [(1, OUT, 0)], [(2, OUT)]), self.TRUTH)
        assert [row.value for row in found.per_class[1:3]] == [50, 0]
        assert found.value == 25
        assert np.isnan([found.per_class[0].value, found.per_class[3].value]).all()

    @settings(deadline=None, max_examples=50)
    @given(st.integers(0, 2**32))
    def test_law_a_wider_tolerance_is_never_worse(self, seed):
        rng = np.random.default_rng(seed)
        true = random_truth(rng, 20, 3, one_label=False)
        predicted = random_peaks(rng, true)
        rows = [_result(predicted, true, tolerance=one).per_class for one in (0, 3, 18, 1e9)]
        true_K = np.array([[row.counts["num_true"] for row in one] for one in rows])
        assert (np.diff(true_K, axis=0) >= 0).all()
        fn = _result(predicted, true, misses="fn").value
        assert np.isnan(fn) or fn >= _result(predicted, true).value


class TestLabels:
    def test_class_with_difficult_objects_only_is_neither(self):
        true = truth([(1, BOX, "difficult")], [(1, BOX)])
        result = _result(peaks([(1, OUT, 9)], [(1, IN, 1)]), true)
        assert result.per_class[1].value == 100
        assert result.per_class[1].counts["num_positives"] == 1
        assert result.per_class[1].counts["num_false"] == 0
        assert _ap(peaks([(1, IN, 9)], [(1, OUT, 1)]), true) == 0

    def test_difficult_boxes_are_as_good_where_the_class_is_present(self):
        assert _ap(peaks([(1, (85, 65))]), truth([(1, BOX), (1, OTHER, "difficult")])) == 100

    def test_excluded_images_are_left_out(self):
        true = truth({"boxes": [(1, BOX)], "excluded": True}, [(1, BOX)])
        result = _result(peaks([(1, OUT, 9)], [(1, IN, 1)]), true)
        assert result.per_class[1].value == 100
        assert result.extra["num_excluded"] == 1

    def test_what_is_lacking_is_told(self):
        true = truth([(1, BOX)], [(1, BOX), (2, OTHER, "difficult")], {"boxes": [], "labels": [1]})
        result = _result(peaks(None, [(2, IN)], [(1, IN)]), true)
        assert result.value == 0
        assert result.warnings == (
            "1 images have no prediction; the classes they contain count as not found.",
            "6 of 7 pairs of an image and a class have no map (or box) and predict nothing.",
            "1 classes in images have no true box and cannot be found.",
            "3 classes are present in no image and are left out of the mean.",
        )

    def test_and_of_the_chosen_classes_only(self):
        true = truth([(1, BOX)], [(1, BOX)])
        protocol = dataclasses.replace(POINT, classes=("b",), class_index=(1,))
        result = protocol.result(protocol.count(peaks([(1, IN)], [(1, IN)]), true))
        assert result.value == 100
        assert result.warnings == ()

    def test_no_images(self):
        assert np.isnan(_result(peaks(), truth()).value)


def test_centre_is_ranked_the_same_way():
    """Both confidences stay; the centre (50, 40) of 100 x 80 lies in BOX, not in OTHER's."""
    true = truth([(1, BOX)], [(1, OTHER)], [(2, BOX)])
    found = peaks([(1, OUT, 1)], [(1, (85, 65), 9)], [(1, IN, 2)])
    centre = centre_peaks(found, true.size_wh_N2)
    np.testing.assert_array_equal(centre.peak_value_NS, found.peak_value_NS)
    assert _ap(centre, true, tolerance=0) == pytest.approx(100 / 6)
    assert _ap(centre, true, tolerance=0, confidence="cls") == 50


class TestRefused:
    def test_two_points_of_a_class(self):
        line = "predictions row 1: class 1 has 2 points; expected at most one."
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            POINT.count(peaks([(1, IN)], [(1, IN), (1, OUT)]), truth([(1, BOX)], [(1, BOX)]))

    def test_nan(self):
        with pytest.raises(ProtocolError, match=r"^maps row 0: slot 0 is nan at its peak; exp"):
            POINT.count(peaks([(1, IN, np.nan)]), truth([(1, BOX)]))
        with pytest.raises(ProtocolError, match=r"^maps row 0: slot 0 peaks at \(nan, 1\.0\); exp"):
            POINT.count(peaks([(1, (np.nan, 1))]), truth([(1, BOX)]))


class TestBoxes:
    """The centre of the best box of each class."""

    def test_best_first_of_equals(self):
        found = predictions(
            ([2, 1], [(1, [0, 0, 2, 2], 0.5), (1, [4, 4, 8, 6], 0.9), (1, [9, 9, 9, 9], 0.9)]),
            None,
            ([3], []),
        )
        points = best_box_points(found, truth([], [], []))
        np.testing.assert_array_equal(points.map_class_NS, [[1], [-1], [-1]])
        np.testing.assert_array_equal(points.peak_xy_NS2[0, 0], [6, 5])
        assert points.peak_value_NS[0, 0] == pytest.approx(0.9)
        assert points.map_score_NS[0, 0] == 0.5  # of the second ranked class
        np.testing.assert_array_equal(points.has_prediction_N, [True, False, True])

    def test_classes_stand_in_falling_class_score(self):
        ranked = [3, 0, 2, 1]
        boxes = [(k, [k, k, k + 2, k + 2], k / 10) for k in (0, 1, 3)]
        points = best_box_points(predictions((ranked, boxes)), truth([]))
        np.testing.assert_array_equal(points.map_class_NS, [[3, 0, 1]])
        np.testing.assert_array_equal(points.peak_xy_NS2[0], [[4, 4], [1, 1], [2, 2]])
        protocol = POINT.with_options(tolerance=0)
        tally = protocol.count(points, truth([(3, [0, 0, 5, 5])]))
        assert tally.column("detection", "outcome").tolist() == [TRUE, 0, 0]

    def test_no_boxes_at_all(self):
        points = best_box_points(predictions(([1], []), None), truth([], []))
        assert points.map_class_NS.shape == (2, 0)
        assert _result(points, truth([(1, BOX)], [])).value == 0

    def test_box_of_a_class_that_is_not_ranked(self):
        line = (
            "predictions row 0: a box has class 2, which is not ranked in its image; expected a "
            "map_class for every box."
        )
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            best_box_points(predictions(([1], [(2, BOX)])), truth([]))

    def test_nan_score(self):
        with pytest.raises(ProtocolError, match=r"^boxes row 0: a box has score nan; expected"):
            best_box_points(predictions(([1], [(1, BOX, np.nan)])), truth([]))
