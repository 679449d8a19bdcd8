"""Records: taking images out of them, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from wsltool.errors import ProtocolError
from wsltool.metrics.protocols import PROTOCOLS
from wsltool.metrics.records import check_peaks, check_predictions, image_of_box

from .blocks import peaks, predictions, truth

A, B = [0, 0, 10, 10], [20, 0, 30, 10]


def _predictions():
    return predictions(([1, 2], [(1, A, 0.5), (2, B, 0.4)]), None, ([3], [(3, A, 0.3)]))


def _truth():
    return truth([(1, A)], [(1, A), (2, B, "difficult")], [])


def test_take():
    taken = _predictions().take(np.array([2, 0, 1]))
    assert taken.map_class_NS[:, 0].tolist() == [3, 1, -1]
    assert taken.box_start.tolist() == [0, 1, 3, 3]
    assert taken.box_class_B.tolist() == [3, 1, 2]
    assert taken.box_xyxy_B4.tolist() == [A, A, B]
    assert taken.has_prediction_N.tolist() == [True, True, False]
    true = _truth().take(np.array([1, 2, 1]))
    assert true.row_N.tolist() == [1, 2, 1]
    assert true.box_start.tolist() == [0, 2, 2, 4]
    assert true.box_difficult_B.tolist() == [False, True, False, True]
    assert len(peaks([(1, (3, 4))], None).take(np.array([1]))) == 1


def test_image_of_box():
    assert image_of_box(np.array([0, 2, 2, 3])).tolist() == [0, 0, 2]
    assert image_of_box(np.array([0])).tolist() == []


def _changed(record, name, index, value):
    array = getattr(record, name).copy()
    array[index] = value
    return dataclasses.replace(record, **{name: array})


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        (
            "box_xyxy_B4",
            (2, 0),
            np.nan,
            r"boxes row 2: a box has \[nan, 0.0, 10.0, 10.0\]; expected",
        ),
        (
            "box_xyxy_B4",
            (1, 2),
            np.inf,
            r"boxes row 0: a box has \[20.0, 0.0, inf, 10.0\]; expected",
        ),
        ("box_xyxy_B4", (1, 2), 19, r"boxes row 0: a box has .*; expected finite x0 <= x1 and y0"),
        ("box_xyxy_B4", (2, 3), -1, r"boxes row 2: a box has .*; expected finite x0 <= x1 and y0"),
        ("box_class_B", 2, 4, "boxes row 2: a box has class 4; expected 0 to 3"),
        ("box_class_B", 0, -1, "boxes row 0: a box has class -1; expected 0 to 3"),
        ("box_score_B", 1, np.nan, "boxes row 0: a box has score nan; expected a number"),
        ("map_class_NS", (2, 0), 9, "row 2: map_class is 9, but the truth has 4 classes"),
        (
            "map_score_NS",
            (0, 1),
            7,
            r"row 0: the scores of the ranked classes are \[1.0, 7.0\]; exp",
        ),
        (
            "map_score_NS",
            (0, 0),
            np.nan,
            r"row 0: the scores of the ranked classes are \[nan, 0.5\]",
        ),
        (
            "map_class_NS",
            (1, 0),
            2,
            "row 1: marked as without prediction, but has 1 classes or box",
        ),
        ("has_prediction_N", 0, False, "row 0: marked as without prediction, but has 2 classes"),
        ("box_start", 3, 2, "boxes: box_start of 4 offsets does not divide 3 boxes among 3 images"),
        ("box_start", 0, 1, "boxes: box_start of 4 offsets does not divide 3 boxes among 3 images"),
        ("box_start", 1, 9, "boxes: box_start of 4 offsets does not divide 3 boxes among 3 images"),
    ],
)
def test_unsound_predictions(name, index, value, message):
    check_predictions(_predictions(), _truth())
    with pytest.raises(ProtocolError, match=message):
        check_predictions(_changed(_predictions(), name, index, value), _truth())


def test_box_where_nothing_was_predicted():
    predicted = dataclasses.replace(_predictions(), box_start=np.array([0, 1, 2, 3]))
    with pytest.raises(ProtocolError, match="row 1: marked as without prediction, but has 1 class"):
        check_predictions(predicted, _truth())


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("box_xyxy_B4", (2, 1), np.nan, "truth row 1: a box has .*nan.*; expected finite x0 <= x1"),
        ("box_class_B", 0, 4, "truth row 0: a box has class 4; expected 0 to 3"),
        (
            "label_NK",
            (2, 3),
            2,
            r"truth row 2: label is 2; expected 1 \(present\), 0 \(absent\) or",
        ),
        ("box_start", 3, 4, "truth: box_start of 4 offsets does not divide 3 boxes among 3 images"),
    ],
)
def test_unsound_truth(name, index, value, message):
    with pytest.raises(ProtocolError, match=message):
        check_predictions(_predictions(), _changed(_truth(), name, index, value))


def test_other_images():
    with pytest.raises(
        ProtocolError, match="3 images are predicted, but the truth has 1; expected"
    ):
        check_predictions(_predictions(), truth([(1, A)]))
    with pytest.raises(
        ProtocolError, match="1 images are predicted, but the truth has 3; expected"
    ):
        check_peaks(peaks([]), _truth())


def test_messages_name_the_row_of_the_whole_set():
    block = np.array([2])
    predicted = _changed(_predictions(), "box_score_B", 2, np.nan).take(block)
    with pytest.raises(ProtocolError, match="boxes row 2: a box has score nan"):
        PROTOCOLS["voc-ap"].count(predicted, _truth().take(block))


def test_unsound_peaks():
    with pytest.raises(
        ProtocolError, match=r"maps row 1: slot 0 peaks at \(nan, 3.0\); expected pix"
    ):
        check_peaks(peaks([(1, (1, 1))], [(2, (np.nan, 3))], None), _truth())
    with pytest.raises(ProtocolError, match="map_class is 5, but the truth has 4 classes"):
        check_peaks(peaks([(5, (1, 1))], None, None), _truth())
