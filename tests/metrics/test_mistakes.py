"""What is the matter with a box, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from wsltool.metrics.mistakes import DETECTION_MISTAKES, GUESS_MISTAKES, MISTAKES, mistake_of

from .blocks import random_boxes, random_predictions, random_truth, truth

TRUE, FAR = [0, 0, 10, 10], [60, 60, 70, 70]


def _mistake(box, *true, class_=1, iou=0.5):
    """Name what is the matter with one box."""
    found = mistake_of(
        np.array([box], float), np.array([0]), np.array([class_]), truth(list(true)), iou
    )
    assert found.dtype == np.int8
    return MISTAKES[found[0]]


@pytest.mark.parametrize(
    ("box", "mistake"),
    [
        (TRUE, "right"),
        ([0, 0, 10, 5], "right"),  # IoU 1/2
        ([0, 0, 10, 4.99], "only a part"),
        ([0, 0, 1, 1], "only a part"),  # IoU 1/100
        ([5, 0, 14.9, 10], "only a part"),  # 50 of 99
        ([0, 0, 10, 20.1], "too large"),
        ([0, 0, 100, 80], "too large"),
        ([2.9, 0, 30, 10], "too large"),  # 71 of 100
        ([3, 0, 30, 10], "misplaced"),  # 70 of 100, not more
        ([5, 0, 15, 10], "misplaced"),  # half of either, IoU 1/3
        ([8, 0, 20, 10], "misplaced"),  # IoU 1/10
        ([8.1, 0, 20, 10], "background"),
        ([8, 0, 10, 10.1], "only a part"),
        ([10, 0, 20, 10], "background"),  # beside it
        (FAR, "background"),
        ([3, 3, 3, 3], "background"),  # has no area
    ],
)
def test_one_true_box(box, mistake):
    assert _mistake(box, (1, TRUE)) == mistake
    assert _mistake(box, (2, FAR), (1, TRUE), (0, TRUE)) == mistake


def test_several_instances():
    other = (1, [10, 0, 20, 10])
    assert _mistake([6.9, 0, 13.1, 10], (1, TRUE), other) == "several instances"
    assert _mistake([7, 0, 13.1, 10], (1, TRUE), other) == "only a part"  # .3, not more, of one
    assert _mistake([0, 0, 20, 10.1], (1, TRUE), other) == "several instances"
    assert _mistake([0, 0, 20, 10], (1, TRUE), other) == "right"  # IoU 1/2 with each
    assert _mistake([0, 0, 20, 30], (1, TRUE), (2, [10, 0, 20, 10])) == "too large"


def test_wrong_class():
    assert _mistake(TRUE, (2, TRUE)) == "wrong class"
    assert _mistake([0, 0, 10, 4.99], (2, TRUE)) == "background"
    assert _mistake([0, 0, 10, 4.99], (2, TRUE), iou=0.3) == "wrong class"
    # Its own class is there, elsewhere.
    assert _mistake(TRUE, (2, TRUE), (1, FAR)) == "background"
    assert _mistake(TRUE) == "background"


def test_difficult_boxes_are_as_good_as_others():
    assert _mistake(TRUE, (1, TRUE, "difficult")) == "right"


def test_true_box_without_area():
    assert _mistake([0, 0, 10, 10], (1, [3, 3, 3, 3])) == "background"


def test_threshold():
    assert _mistake([0, 0, 10, 4], (1, TRUE), iou=0.4) == "right"
    assert _mistake([0, 0, 10, 9], (1, TRUE), iou=0.95) == "only a part"


def test_names():
    assert MISTAKES[0] == "right"
    assert set(DETECTION_MISTAKES) | set(GUESS_MISTAKES) == set(MISTAKES)
    assert len(set(MISTAKES)) == len(MISTAKES) < 127


def test_no_boxes():
    none = np.zeros(0, int)
    assert mistake_of(np.zeros((0, 4)), none, none, truth([(1, TRUE)]), 0.5).shape == (0,)


def _reference(box, class_, image, true, iou):
    """The rule, box by box and case by case."""

    def area(one):
        return max(one[2] - one[0], 0) * max(one[3] - one[1], 0)

    def shared(one):
        corner = [
            max(one[0], box[0]),
            max(one[1], box[1]),
            min(one[2], box[2]),
            min(one[3], box[3]),
        ]
        return area(corner) if corner[0] < corner[2] and corner[1] < corner[3] else 0

    def ious(boxes):
        return [shared(one) / (area(one) + area(box) - shared(one)) for one in boxes]

    places = range(true.box_start[image], true.box_start[image + 1])
    own = [true.box_xyxy_B4[p] for p in places if true.box_class_B[p] == class_]
    others = [true.box_xyxy_B4[p] for p in places if true.box_class_B[p] != class_]
    if any(one >= iou for one in ious(own)):
        return "right"
    if not own and any(one >= iou for one in ious(others)):
        return "wrong class"
    if sum(shared(one) / area(one) > 0.3 for one in own) >= 2:
        return "several instances"
    if any(shared(one) / area(box) > 0.5 for one in own):
        return "only a part"
    if any(shared(one) / area(one) > 0.7 for one in own):
        return "too large"
    return "misplaced" if any(one >= 0.1 for one in ious(own)) else "background"


def test_against_the_rule_box_by_box():
    rng = np.random.default_rng(0)
    true = random_truth(rng, 400, 3, one_label=False)
    predicted = random_predictions(rng, true)
    box_Q4 = np.vstack([predicted.box_xyxy_B4, random_boxes(rng, 3000)])
    image_Q = rng.permutation(len(box_Q4)) % 400
    class_Q = rng.integers(0, 3, len(box_Q4))
    found = [MISTAKES[code] for code in mistake_of(box_Q4, image_Q, class_Q, true, 0.5)]
    expected = [
        _reference(box, class_, image, true, 0.5)
        for box, class_, image in zip(box_Q4.tolist(), class_Q, image_Q, strict=True)
    ]
    assert found == expected
    assert set(found) == set(MISTAKES[:7])
