"""Classification AP, by hand and against the ranking written out."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsltool.errors import ProtocolError
from wsltool.metrics.cls_map import classification_ap
from wsltool.metrics.protocols import PROTOCOLS
from wsltool.metrics.records import ClassScores

from .blocks import random_class_scores, random_truth, truth

CLS = PROTOCOLS["cls-map"]
BOX = [0, 0, 10, 10]


def _scores(*rows):
    """Make class scores of images, None for one without a prediction."""
    wide = max(len(row) for row in rows if row is not None)
    values = [[np.nan] * wide if row is None else row for row in rows]
    return ClassScores(
        has_prediction_N=np.array([row is not None for row in rows]),
        class_score_NK=np.array(values, np.float32),
    )


def _result(scores, true):
    return CLS.result(CLS.count(scores, true))


def _ap(score, label):
    ap_K, mean = classification_ap(np.array(score)[:, None], np.array(label)[:, None])
    assert mean == ap_K[0] or np.isnan(mean)
    return ap_K[0]


class TestCore:
    def test_by_hand(self):
        """Ranked T F T: precision 1 at recall 1/2, 2/3 at recall 1."""
        assert _ap([3.0, 1.0, 2.0], [1, 1, 0]) == pytest.approx(100 * (0.5 + 0.5 * 2 / 3))

    def test_undecided_is_neither(self):
        assert _ap([9.0, 3.0, 8.0, 1.0], [255, 1, 255, 0]) == 100

    def test_equals_stand_in_the_order_of_the_images(self):
        assert _ap([1.0, 1.0], [1, 0]) == 100
        assert _ap([1.0, 1.0], [0, 1]) == 50

    def test_infinities_are_ranked(self):
        assert _ap([-np.inf, 0.0, np.inf], [0, 1, 1]) == 100

    @pytest.mark.parametrize("label", [[0, 0], [255, 0], [255, 255]])
    def test_class_that_is_present_nowhere(self, label):
        assert np.isnan(_ap([1.0, 2.0], label))

    def test_mean_is_over_classes_with_positives(self):
        score = np.array([[2, 1, 0], [1, 2, 0]], float)
        ap_K, mean = classification_ap(score, np.array([[1, 1, 0], [0, 0, 255]]))
        np.testing.assert_array_equal(ap_K, [100, 50, np.nan])
        assert mean == 75

    def test_no_images_and_no_classes(self):
        ap_K, mean = classification_ap(np.zeros((0, 2)), np.zeros((0, 2), np.uint8))
        assert np.isnan([*ap_K, mean]).all()
        ap_K, mean = classification_ap(np.zeros((3, 0)), np.zeros((3, 0), np.uint8))
        assert ap_K.shape == (0,)
        assert np.isnan(mean)

    @pytest.mark.parametrize(
        ("score", "label", "line"),
        [
            ([[1.0, np.nan]], [[0, 1]], "the score of image 0, class 1 is nan; expected a number."),
            (
                [[1.0]],
                [[2]],
                "a label is 2; expected 1 (present), 0 (absent) or 255 (undecided).",
            ),
            (
                [1.0, 2.0],
                [0, 1],
                "scores have shape (2,), labels (2,); expected two of (images, classes).",
            ),
            (
                [[1.0, 2.0]],
                [[0]],
                "scores have shape (1, 2), labels (1, 1); expected two of (images, classes).",
            ),
        ],
    )
    def test_refused(self, score, label, line):
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            classification_ap(np.array(score), np.array(label))

    @settings(deadline=None)
    @given(st.integers(0, 2**32), st.integers(1, 30))
    def test_law_area_under_the_best_precisions(self, seed, num):
        """The sum over positives of the best precision from there on, divided by their number."""
        rng = np.random.default_rng(seed)
        score, label = rng.permutation(num), rng.choice([0, 1, 255], num)
        ranking = [one for one in label[np.argsort(-score)] if one != 255]
        points = [sum(one == 1 for one in ranking[:k]) / k for k in range(1, len(ranking) + 1)]
        best = [max(points[k:]) for k, one in enumerate(ranking) if one == 1]
        found = _ap(score.astype(float), label)
        if best:
            assert found == pytest.approx(100 * sum(best) / len(best))
        else:
            assert np.isnan(found)


class TestProtocol:
    def test_is_the_core(self):
        rng = np.random.default_rng(0)
        true = random_truth(rng, 50, 4, one_label=False)
        scores = random_class_scores(rng, true)
        here = scores.has_prediction_N[:, None]
        ap_K, mean = classification_ap(
            np.where(here, scores.class_score_NK, -np.inf), true.label_NK
        )
        result = _result(scores, true)
        assert result.value == mean
        assert [row.value for row in result.per_class] == ap_K.tolist()

    def test_without_prediction_stands_last_and_counts(self):
        """Cat in images 0 and 2, image 0 was skipped: T F T at recall 1/2, 1/2, 1."""
        true = truth([(0, BOX)], [(1, BOX)], [(0, BOX)], num_classes=2)
        result = _result(_scores(None, [1, 9], [5, 0]), true)
        assert result.per_class[0].value == pytest.approx(100 * (0.5 + 0.5 * 2 / 3))
        assert result.per_class[1].value == 100
        assert result.extra["num_without_prediction"] == 1
        assert result.warnings == ("1 images have no prediction and stand last in the ranking.",)

    def test_counts_of_labels(self):
        true = truth([(0, BOX)], [(0, BOX, "difficult")], [(1, BOX)], num_classes=3)
        result = _result(_scores([1, 2, 3], [1, 2, 3], [1, 2, 3]), true)
        assert result.per_class[0].counts == {
            "num_positives": 1,
            "num_negatives": 1,
            "num_undecided": 1,
        }
        assert result.extra["num_classes"] == 2
        assert result.warnings == (
            "1 classes are present in no image and are left out of the mean.",
        )

    def test_excluded_images_stay(self):
        true = truth({"boxes": [(0, BOX)], "excluded": True}, [(1, BOX)], num_classes=2)
        assert _result(_scores([1, 0], [2, 9]), true).per_class[0].value == 50

    def test_nan_is_refused(self):
        true = truth([(0, BOX)], [(1, BOX)], num_classes=2)
        line = "predictions row 1: the score of class 0 is nan; expected a number."
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            CLS.count(_scores([0, 1], [np.nan, 1]), true)

    def test_other_classes_are_refused(self):
        line = (
            "class_score has shape (1, 3), but the truth (1, 2); expected the same images and "
            "classes."
        )
        with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
            CLS.count(_scores([0, 1, 2]), truth([(0, BOX)], num_classes=2))
