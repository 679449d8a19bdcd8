"""Peak in box, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from wsltool.metrics.protocols import PROTOCOLS

from .blocks import peaks, truth

PEAK = PROTOCOLS["peak-in-box"]
BOX, OTHER = [10, 20, 30, 40], [50, 50, 60, 60]


def _result(predicted, true):
    return PEAK.result(PEAK.count(predicted, true))


@pytest.mark.parametrize(
    ("point", "value"),
    [
        ((10.5, 20.5), 100),
        ((29.5, 39.5), 100),
        ((10, 20), 100),
        ((30, 30), 0),  # half-open: the right and the lower edge are outside
        ((20, 40), 0),
        ((9.5, 30), 0),
        ((30.5, 39.5), 0),
        ((20, 19.5), 0),
    ],
)
def test_edges(point, value):
    assert _result(peaks([(1, point)]), truth([(1, BOX)])).value == value


def test_pairs_of_image_and_class():
    true = truth([(1, BOX), (2, OTHER)], [(1, BOX)])
    predicted = peaks([(2, (55, 55)), (1, (55, 55))], [(0, (55, 55)), (1, (15, 25))])
    result = _result(predicted, true)
    assert result.value == pytest.approx(100 * 2 / 3)
    assert result.extra["class_mean"] == pytest.approx((50 + 100) / 2)
    assert [row.counts["num_pairs"] for row in result.per_class] == [0, 2, 1, 0]
    assert [row.value for row in result.per_class[1:3]] == [50, 100]
    assert np.isnan(result.per_class[0].value)
    assert result.warnings == ()


def test_any_box_of_the_class():
    assert _result(peaks([(1, (55, 55))]), truth([(1, BOX), (1, OTHER)])).value == 100


def test_difficult_boxes_are_as_good_where_the_class_is_present():
    true = truth([(1, BOX), (1, OTHER, "difficult")])
    assert _result(peaks([(1, (55, 55))]), true).value == 100


def test_undecided_class_is_no_pair():
    result = _result(
        peaks([(1, (0, 0)), (2, (55, 55))]), truth([(1, BOX, "difficult"), (2, OTHER)])
    )
    assert result.value == 100
    assert result.extra["num_pairs"] == 1


def test_excluded_images_are_left_out():
    true = truth([(1, BOX)], {"boxes": [(1, BOX)], "excluded": True})
    result = _result(peaks([(1, (15, 25))], [(1, (0, 0))]), true)
    assert result.value == 100
    assert result.extra["num_excluded"] == 1


def test_what_could_not_be_right_is_missed_and_told():
    true = truth([(1, BOX)], [(1, BOX)], {"boxes": [(2, BOX)], "labels": [1]}, [(1, BOX)])
    predicted = peaks(None, [(2, (15, 25))], [(1, (15, 25))], [(1, (15, 25))])
    result = _result(predicted, true)
    assert result.value == 25
    assert result.warnings == (
        "1 classes in images have no true box and count as missed.",
        "1 classes in images have no prediction and count as missed.",
        "1 classes in images have no map and count as missed.",
    )


def test_no_images():
    result = _result(peaks(), truth())
    assert np.isnan(result.value)
    assert np.isnan(result.extra["class_mean"])
