"""ILSVRC localization and GT-known, rule by rule, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from wsltool.errors import ProtocolError
from wsltool.metrics.protocols import PROTOCOLS

from .blocks import predictions, random_predictions, random_truth, truth

TOP1, TOP5, GT_KNOWN = (PROTOCOLS[name] for name in ("ilsvrc-top1", "ilsvrc-top5", "gt-known"))

GOOD, HALF, LESS, BAD = [0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4.99], [50, 50, 60, 60]


def _score(protocol, predicted, true):
    return protocol.result(protocol.count(predicted, true))


def _errors(predicted, true):
    extra = _score(TOP5, predicted, true).extra
    return extra["loc_error"], extra["cls_error"]


def test_error_at_every_k():
    true = truth([(2, GOOD)])
    loc, cls = _errors(predictions(([0, 1, 2, 3], [(2, GOOD), (0, GOOD)])), true)
    assert cls == [100, 100, 0, 0, 0]
    assert loc == [100, 100, 0, 0, 0]
    assert _score(TOP1, predictions(([0, 2], [(2, GOOD)])), true).value == 100
    assert _score(TOP5, predictions(([0, 2], [(2, GOOD)])), true).value == 0


@pytest.mark.parametrize(("box", "error"), [(GOOD, 0), (HALF, 0), (LESS, 100), (BAD, 100)])
def test_iou_of_exactly_half_is_right(box, error):
    result = _score(TOP1, predictions(([2], [(2, box)])), truth([(2, GOOD)]))
    assert result.value == error
    assert result.unit == "%"
    assert not result.higher_is_better
    assert _score(GT_KNOWN, predictions(([2], [(2, box)])), truth([(2, GOOD)])).value == 100 - error


def test_iou_threshold_can_be_chosen():
    predicted, true = predictions(([2], [(2, HALF)])), truth([(2, GOOD)])
    assert _score(TOP1.with_options(iou=0.51), predicted, true).value == 100
    assert _score(GT_KNOWN.with_options(iou=0.51), predicted, true).value == 0
    assert _score(GT_KNOWN.with_options(iou=0.3), predicted, true).parameters == {"iou": 0.3}


def test_right_box_of_the_wrong_class_is_wrong():
    loc, cls = _errors(predictions(([1, 0], [(1, GOOD)])), truth([(2, GOOD)]))
    assert loc == cls == [100] * 5


def test_box_of_another_class_in_the_truth_does_not_help():
    # Class 3 stands there, too, but the label is 2.
    true = truth({"boxes": [(2, BAD), (3, GOOD)], "labels": [2]})
    loc, cls = _errors(predictions(([2], [(2, GOOD)])), true)
    assert (loc[0], cls[0]) == (100, 0)


def test_any_instance_of_the_label_will_do():
    loc, _ = _errors(predictions(([2], [(2, GOOD)])), truth([(2, BAD), (2, GOOD)]))
    assert loc[0] == 0


def test_only_the_first_box_of_a_class_is_guessed():
    true = truth([(2, GOOD)])
    for protocol, error in ((TOP5, 100), (GT_KNOWN, 0)):
        assert _score(protocol, predictions(([2], [(2, BAD), (2, GOOD)])), true).value == error
        right = _score(protocol, predictions(([2], [(2, GOOD), (2, BAD)])), true).value
        assert right == 100 - error


def test_same_class_twice_guesses_its_second_box():
    loc, cls = _errors(predictions(([2, 1, 2], [(2, BAD), (2, GOOD)])), truth([(2, GOOD)]))
    assert cls == [0] * 5
    assert loc == [100, 100, 0, 0, 0]


def test_class_without_a_box_is_a_guess_without_a_box():
    loc, cls = _errors(predictions(([2, 1], [])), truth([(2, GOOD)]))
    assert cls == [0] * 5
    assert loc == [100] * 5


def test_at_most_five_guesses():
    predicted = predictions(([0, 1, 4, 5, 6, 2], [(2, GOOD)]), num_slots=6)
    loc, cls = _errors(predicted, truth([(2, GOOD)], num_classes=8))
    assert loc == cls == [100] * 5


def test_excluded_images_leave_localization_but_not_classification():
    true = truth(
        [(2, GOOD)],
        [(2, GOOD)],
        {"boxes": [(2, GOOD)], "excluded": True},
        {"boxes": [], "labels": [1], "excluded": True},
    )
    right, wrong = ([2], [(2, GOOD)]), ([0], [])
    result = _score(TOP5, predictions(right, wrong, wrong, wrong), true)
    assert result.extra["loc_error"] == [50] * 5  # 1 of 2
    assert result.extra["cls_error"] == [75] * 5  # 3 of 4
    assert result.extra["num_excluded"] == 2
    assert result.warnings == ()
    # A hit on an excluded image adds nothing to localization either.
    result = _score(TOP5, predictions(wrong, wrong, right, wrong), true)
    assert result.extra["loc_error"] == [100] * 5
    assert result.extra["cls_error"] == [75] * 5
    known = _score(GT_KNOWN, predictions(right, wrong, right, wrong), true)
    assert known.value == 50
    assert known.extra["num_images"] == 2
    assert known.extra["num_excluded"] == 2


def test_truth_without_a_box_of_its_label_is_an_error_and_told():
    true = truth({"boxes": [(3, GOOD)], "labels": [2]}, [(2, GOOD)])
    predicted = predictions(*[([2], [(2, GOOD)])] * 2)
    result = _score(TOP5, predicted, true)
    assert result.value == 50
    assert result.extra["cls_error"][0] == 0
    assert result.warnings == (
        "1 images have no true box of their own label and count as localization errors.",
    )
    known = _score(GT_KNOWN, predicted, true)
    assert known.value == 50
    assert known.warnings == ("1 images have no true box of their own label and count as missed.",)


def test_image_without_prediction_is_an_error_and_told():
    true = truth([(2, GOOD)], [(2, GOOD)])
    predicted = predictions(None, ([2], [(2, GOOD)]))
    result = _score(TOP5, predicted, true)
    assert result.extra["loc_error"] == result.extra["cls_error"] == [50] * 5
    assert result.warnings == ("1 images have no prediction and count as errors.",)
    assert _score(GT_KNOWN, predicted, true).warnings == (
        "1 images have no prediction and count as missed.",
    )


def test_gt_known_looks_at_no_rank():
    predicted = predictions(([0, 1, 3, 2], [(0, BAD), (2, GOOD)]))
    result = _score(GT_KNOWN, predicted, truth([(2, GOOD)]))
    assert result.value == 100
    assert result.higher_is_better
    assert result.warnings == ()


def test_gt_known_tells_of_classes_that_were_not_kept():
    result = _score(GT_KNOWN, predictions(([0], [(0, GOOD)]), ([2], [])), truth(*[[(2, GOOD)]] * 2))
    assert result.value == 0
    assert result.warnings == ("1 images have no map of their own label and count as missed.",)


def test_difficult_boxes_are_as_good_as_others():
    true = truth({"boxes": [(2, GOOD, "difficult")], "labels": [2]})
    assert _score(TOP1, predictions(([2], [(2, GOOD)])), true).value == 0


def test_rows_of_classes():
    true = truth([(2, GOOD)], [(2, GOOD)], [(0, GOOD)], {"boxes": [], "labels": [0], "excluded": 1})
    predicted = predictions(*[([2, 0], [(2, GOOD)])] * 4)
    rows = _score(TOP5, predicted, true).per_class
    assert [row.class_index for row in rows] == [0, 1, 2, 3]
    assert rows[2].value == 0
    assert rows[2].counts == {
        "num_images": 2,
        "num_excluded": 0,
        "num_localized": 2,
        "num_classified": 2,
    }
    assert rows[0].value == 100
    assert rows[0].counts == {
        "num_images": 2,
        "num_excluded": 1,
        "num_localized": 0,
        "num_classified": 2,
    }
    assert np.isnan(rows[1].value)


def test_fewer_classes_than_five():
    true = truth([(1, GOOD)], num_classes=2)
    result = _score(TOP5, predictions(([0, 1], [(1, GOOD)]), num_slots=2), true)
    assert result.value == 0
    assert result.extra["loc_error"] == [100, 0]


def test_too_few_ranked_classes():
    predicted = predictions(([2], [(2, GOOD)]), num_slots=3)
    message = (
        "ilsvrc-top5 needs 4 ranked classes an image, but only 3 were kept. "
        "Make the maps with --classes top4 or more."
    )
    with pytest.raises(ProtocolError, match=message):
        TOP5.count(predicted, truth([(2, GOOD)]))
    assert _score(TOP1, predicted, truth([(2, GOOD)])).extra["loc_error"] == [0, 0, 0]


@pytest.mark.parametrize("protocol", [TOP1, TOP5, GT_KNOWN], ids=lambda protocol: protocol.name)
def test_exactly_one_label(protocol):
    two = truth([(2, GOOD)], [(2, GOOD), (3, GOOD)])
    message = rf"truth row 1: 2 classes are present \(2, 3\); {protocol.name} expects exactly one"
    with pytest.raises(ProtocolError, match=message):
        protocol.count(predictions(([2], []), ([2], [])), two)
    none = truth({"boxes": [], "undecided": [3]})
    with pytest.raises(ProtocolError, match=r"truth row 0: 0 classes are present; .* exactly one"):
        protocol.count(predictions(([2], [])), none)


@pytest.mark.parametrize("protocol", [TOP1, TOP5, GT_KNOWN], ids=lambda protocol: protocol.name)
def test_no_images(protocol):
    tally = protocol.count(predictions(), truth())
    assert np.isnan(protocol.result(tally).value)
    assert sum(protocol.result(tally).mistakes.values()) == 0
    more = protocol.count(predictions(([2], [(2, GOOD)])), truth([(2, GOOD)]))
    assert protocol.result(tally + more).value == protocol.result(more).value


def test_mistakes():
    """Each counted image once: what is the matter with the first guess of its label."""
    part = [0, 0, 4, 4]
    true = truth(
        *[[(2, GOOD)]] * 6,
        {"boxes": [], "labels": [2]},
        {"boxes": [(2, GOOD)], "excluded": True},
    )
    predicted = predictions(
        ([2], [(2, GOOD)]),
        ([1, 2], [(1, GOOD), (2, part)]),
        ([1], [(1, GOOD)]),
        ([2], []),
        None,
        ([2], [(2, BAD)]),
        ([2], [(2, GOOD)]),
        ([1], []),
    )
    names = {"several instances": 0, "too large": 0, "misplaced": 0}
    known = names | {"right": 1, "only a part": 1, "background": 1, "no box": 3, "no true box": 1}
    assert _score(GT_KNOWN, predicted, true).mistakes == known
    guessed = known | {"wrong class": 1, "no box": 2}
    assert _score(TOP5, predicted, true).mistakes == guessed
    assert _score(TOP1, predicted, true).mistakes == guessed | {"wrong class": 2, "only a part": 0}
    # The second guess of the class is the right one.
    twice = predictions(([2, 2], [(2, BAD), (2, GOOD)]))
    assert _score(TOP5, twice, truth([(2, GOOD)])).mistakes["right"] == 1
    assert _score(TOP1, twice, truth([(2, GOOD)])).mistakes["background"] == 1


@pytest.mark.parametrize("protocol", [TOP1, TOP5, GT_KNOWN], ids=lambda protocol: protocol.name)
def test_mistakes_agree_with_the_value(protocol):
    rng = np.random.default_rng(5)
    true = random_truth(rng, 300, 6, one_label=True)
    result = _score(protocol, random_predictions(rng, true), true)
    num_counted = result.extra["num_images"] - (
        0 if protocol is GT_KNOWN else result.extra["num_excluded"]
    )
    assert sum(result.mistakes.values()) == num_counted
    right = 100 * result.mistakes["right"] / num_counted
    assert result.value == pytest.approx(right if protocol is GT_KNOWN else 100 - right)
    assert result.mistakes["no true box"] == result.extra["num_without_true_box"]
