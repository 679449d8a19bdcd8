"""Which cases are shown."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsltool.errors import UsageError
from wsltool.views.selection import sample_class, select_cases, shown_cases

NAN = float("nan")


def test_worst_first_ties_by_row_order_no_box_is_worst():
    iou = [0.5, 0.1, NAN, 0.1, 0.0, NAN]
    assert select_cases(iou, [0, 1, 2, 3, 4, 5], 4).tolist() == [2, 5, 4, 1]


def test_best_first_without_those_that_have_no_box():
    iou = [0.5, 0.9, NAN, 0.9, 0.0]
    assert select_cases(iou, [0, 1, 2, 3, 4], 10, best=True).tolist() == [1, 3, 0, 4]


def test_one_class_does_not_fill_the_list():
    iou = np.arange(40) / 100
    classes = np.repeat([0, 1, 2, 3], [30, 4, 3, 3])
    # A quarter of eight is two places a class.
    assert select_cases(iou, classes, 8).tolist() == [0, 1, 30, 31, 34, 35, 37, 38]


def test_places_that_others_leave_free_are_filled():
    assert select_cases([0.4, 0.3, 0.2, 0.1], [7, 7, 7, 7], 4).tolist() == [3, 2, 1, 0]
    assert select_cases([0.1, 0.2, 0.3, 0.4, 0.9], [0, 0, 0, 0, 1], 4).tolist() == [0, 1, 2, 4]


def test_nothing_to_choose():
    assert select_cases([], [], 5).tolist() == []
    assert select_cases([0.5], [0], 0).tolist() == []
    assert shown_cases([], []).tolist() == []


def test_sample_has_both_ends_worst_first():
    assert sample_class([0.5, 0.9, 0.1, NAN, 0.7, 0.2], 4).tolist() == [3, 2, 4, 1]
    assert sample_class([0.5, 0.9, 0.1], 4).tolist() == [2, 0, 1]
    assert sample_class([0.5, 0.9, 0.1], 1).tolist() == [2]
    assert sample_class([0.5, 0.9, 0.1], 0).tolist() == []


def test_only_the_weakest_classes_get_samples():
    iou = [0.9, 0.9, 0.1, 0.1, NAN, 0.3]
    classes = [5, 5, 6, 6, 7, 7]
    rows = shown_cases(iou, classes, num_extreme=0, num_samples=2, num_classes=2)
    assert rows.tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("iou", "classes", "num", "message"),
    [
        ([0.1, 0.2], [1], 1, "got 2 IoUs but 1 classes; expected one each"),
        ([0.1, 1.2], [1, 2], 1, r"case 1: IoU is 1\.2; expected a value in \[0, 1\], or NaN"),
        ([0.1, -np.inf], [1, 2], 1, "case 1: IoU is -inf; expected"),
        ([0.1], [1], -1, "the number of cases must be at least 0, got -1"),
    ],
)
def test_refused(iou, classes, num, message):
    with pytest.raises(UsageError, match=message):
        select_cases(iou, classes, num)


cases = st.lists(
    st.tuples(st.sampled_from([NAN, 0.0, 0.2, 0.2, 0.5, 0.7, 1.0]), st.integers(0, 5)), max_size=60
)


@settings(max_examples=200, deadline=None)
@given(cases=cases, num=st.integers(0, 9), num_samples=st.integers(0, 5))
def test_shown_rows_alone_give_the_same_choice(cases, num, num_samples):
    """A gallery sees only the shown rows, and must find the same sections among them."""
    iou = np.array([case[0] for case in cases], dtype=float)
    classes = np.array([case[1] for case in cases], dtype=np.int64)
    rows = shown_cases(iou, classes, num_extreme=num, num_samples=num_samples)
    for best in (False, True):
        whole = select_cases(iou, classes, num, best=best)
        again = rows[select_cases(iou[rows], classes[rows], num, best=best)]
        assert again.tolist() == whole.tolist()
    for class_index in range(6):
        mine, shown = np.flatnonzero(classes == class_index), rows[classes[rows] == class_index]
        whole = mine[sample_class(iou[mine], num_samples)]
        assert shown[sample_class(iou[shown], num_samples)].tolist() == whole.tolist()


@settings(max_examples=100, deadline=None)
@given(cases=cases, num=st.integers(0, 20), best=st.booleans())
def test_laws_of_selection(cases, num, best):
    iou = np.array([case[0] for case in cases], dtype=float)
    classes = np.array([case[1] for case in cases], dtype=np.int64)
    rows = select_cases(iou, classes, num, best=best)
    usable = len(iou) - (np.isnan(iou).sum() if best else 0)
    assert len(set(rows.tolist())) == len(rows) == min(num, usable)
    key = np.nan_to_num(iou[rows], nan=-1.0)
    assert (np.diff(key) <= 0).all() if best else (np.diff(key) >= 0).all()
