"""Which cases of a result are worth a look: the worst, the best, a few of each class.

Legend: M cases, one a picture and class.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wsltool.errors import UsageError

__all__ = [
    "NUM_CLASSES",
    "NUM_EXTREME",
    "NUM_SAMPLES",
    "sample_class",
    "select_cases",
    "shown_cases",
]

IntArray = NDArray[np.int64]

NUM_EXTREME = 12
"""Cases among the worst, and among the best."""
NUM_SAMPLES = 4
"""Cases of each class: its worst and its best."""
NUM_CLASSES = 40
"""Classes that get samples: those of the lowest mean IoU."""


def select_cases(
    iou_M: ArrayLike, class_M: ArrayLike, num: int = NUM_EXTREME, *, best: bool = False
) -> IntArray:
    """Choose the `num` worst (or best) cases, without one class filling the list.

    A class gets a quarter of the places; only when every class has had its quarter and
    places are left does it get another. So the choice among any rows that hold the chosen
    ones is the same: a gallery can be given the chosen rows alone.

    Parameters
    ----------
    iou_M
        (M,) IoU of each case in [0, 1]; NaN where no box was predicted, which is worse
        than any IoU and never among the best.
    class_M
        (M,) int, the class of each case.
    num
        How many cases are wanted, at least 0; fewer come back when there are fewer.
    best
        The highest IoUs instead of the lowest.

    Returns
    -------
    numpy.ndarray
        (≤ num,) int64, indices of rows, worst (or best) first; ties by row order.

    Raises
    ------
    UsageError
        If `num` is negative, the lengths differ, or an IoU lies outside [0, 1].
    """
    iou, classes = _check_cases(iou_M, class_M, num)
    row_M = np.flatnonzero(~np.isnan(iou)) if best else np.arange(len(iou))
    key_M = -iou[row_M] if best else np.where(np.isnan(iou), -1.0, iou)
    row_M = row_M[np.argsort(key_M, kind="stable")]
    round_M = _rank_in_class(classes[row_M]) // max(1, num // 4)
    place_M = np.argsort(round_M, kind="stable")[:num]
    return row_M[np.sort(place_M)].astype(np.int64)


def _rank_in_class(class_M: IntArray) -> IntArray:
    """How many rows of the same class stand before each row."""
    order_M = np.argsort(class_M, kind="stable")
    sorted_M = class_M[order_M]
    first_M = np.searchsorted(sorted_M, sorted_M, side="left")
    rank_M = np.empty(len(class_M), dtype=np.int64)
    rank_M[order_M] = np.arange(len(class_M)) - first_M
    return rank_M


def sample_class(iou_M: ArrayLike, num: int = NUM_SAMPLES) -> IntArray:
    """Choose cases of one class: the worst half and the best half, worst first.

    NaN counts as worse than any IoU. All cases, in that order, where there are no more
    than `num`. Ties by row order.
    """
    iou = np.asarray(iou_M, dtype=np.float64)
    order_M = np.argsort(np.where(np.isnan(iou), -1.0, iou), kind="stable")
    if len(order_M) > num:
        order_M = np.concatenate([order_M[: num - num // 2], order_M[len(order_M) - num // 2 :]])
    return order_M.astype(np.int64)


def shown_cases(
    iou_M: ArrayLike,
    class_M: ArrayLike,
    *,
    num_extreme: int = NUM_EXTREME,
    num_samples: int = NUM_SAMPLES,
    num_classes: int = NUM_CLASSES,
) -> IntArray:
    """Rows that a gallery shows: the only ones that need a picture.

    Parameters
    ----------
    iou_M, class_M
        As in `select_cases`.
    num_extreme
        Cases among the worst and among the best.
    num_samples
        Cases of each class, half its worst and half its best.
    num_classes
        Classes that get samples: those of the lowest mean IoU, NaN counted as 0.

    Returns
    -------
    numpy.ndarray
        int64 indices in rising order, each once. No cases: empty.

    Raises
    ------
    UsageError
        As `select_cases`.
    """
    iou, classes = _check_cases(iou_M, class_M, min(num_extreme, num_samples, num_classes))
    rows = [select_cases(iou, classes, num_extreme, best=best) for best in (False, True)]
    present_C, place_M = np.unique(classes, return_inverse=True)
    total_C = np.bincount(place_M, weights=np.nan_to_num(iou), minlength=len(present_C))
    mean_C = total_C / np.maximum(1, np.bincount(place_M, minlength=len(present_C)))
    for class_index in np.argsort(mean_C, kind="stable")[:num_classes]:
        row_of_class = np.flatnonzero(place_M == class_index)
        rows.append(row_of_class[sample_class(iou[row_of_class], num_samples)])
    return np.unique(np.concatenate(rows)).astype(np.int64)


def _check_cases(
    iou_M: ArrayLike, class_M: ArrayLike, num: int
) -> tuple[NDArray[np.float64], IntArray]:
    """Both as flat arrays, or a UsageError."""
    iou = np.asarray(iou_M, dtype=np.float64).reshape(-1)
    classes = np.asarray(class_M, dtype=np.int64).reshape(-1)
    if len(iou) != len(classes):
        raise UsageError(f"got {len(iou)} IoUs but {len(classes)} classes; expected one each.")
    if num < 0:
        raise UsageError(f"the number of cases must be at least 0, got {num}.")
    wrong = ~np.isnan(iou) & ~((iou >= 0) & (iou <= 1 + 1e-9))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UsageError(f"case {row}: IoU is {iou[row]}; expected a value in [0, 1], or NaN.")
    return iou, classes
