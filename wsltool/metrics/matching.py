"""Which boxes belong together: joins by image and class, without loops."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from wsltool.metrics.iou import pair_iou
from wsltool.metrics.records import Predictions, Truth, image_of_box

__all__ = ["hits_true_box", "join", "key_of", "lacks_true_box", "nth_box", "truth_keys"]

Integers: TypeAlias = npt.NDArray[np.integer[Any]]
Indices: TypeAlias = npt.NDArray[np.intp]


def key_of(image: Integers, class_: Integers, num_classes: int) -> npt.NDArray[np.int64]:
    """Return one number for each image and class: ``image * num_classes + class``."""
    return np.asarray(image, dtype=np.int64) * num_classes + class_


def truth_keys(truth: Truth) -> npt.NDArray[np.int64]:
    """Return `key_of` every true box."""
    return key_of(image_of_box(truth.box_start), truth.box_class_B, truth.num_classes)


def join(key_Q: Integers, key_B: Integers) -> tuple[Indices, Indices]:
    """Return every pair of a query and a box of the same key.

    Returns
    -------
    query_P, box_P : arrays of intp
        In the order of the queries, then of the boxes. A query without a box is in no pair.
    """
    order_B = np.argsort(key_B, kind="stable")
    sorted_B = key_B[order_B]
    low_Q = np.searchsorted(sorted_B, key_Q, side="left")
    num_Q = np.searchsorted(sorted_B, key_Q, side="right") - low_Q
    query_P = np.repeat(np.arange(len(key_Q)), num_Q)
    within_P = np.arange(len(query_P)) - np.repeat(np.cumsum(num_Q) - num_Q, num_Q)
    return query_P, order_B[low_Q[query_P] + within_P]


def nth_box(predicted: Predictions, image_Q: Integers, class_Q: Integers, n_Q: Integers) -> Indices:
    """Return the n-th (from 0) predicted box of a class in an image, −1 where there is none."""
    num_classes = 1 + int(max(predicted.box_class_B.max(initial=0), class_Q.max(initial=0)))
    key_B = key_of(image_of_box(predicted.box_start), predicted.box_class_B, num_classes)
    key_Q = key_of(image_Q, class_Q, num_classes)
    order_B = np.argsort(key_B, kind="stable")
    sorted_B = key_B[order_B]
    at_Q = np.searchsorted(sorted_B, key_Q, side="left") + n_Q
    found_Q = at_Q < np.searchsorted(sorted_B, key_Q, side="right")
    box_Q = np.full(len(key_Q), -1, dtype=np.intp)
    box_Q[found_Q] = order_B[at_Q[found_Q]]
    return box_Q


def hits_true_box(
    box_Q4: npt.NDArray[Any], image_Q: Integers, class_Q: Integers, truth: Truth, iou: float
) -> npt.NDArray[np.bool_]:
    """Return whether a box reaches `iou` (``>=``) with any true box of a class in an image."""
    query_P, true_P = join(key_of(image_Q, class_Q, truth.num_classes), truth_keys(truth))
    right_P = pair_iou(box_Q4[query_P], truth.box_xyxy_B4[true_P]) >= iou
    hit_Q = np.zeros(len(image_Q), dtype=bool)
    hit_Q[query_P[right_P]] = True
    return hit_Q


def lacks_true_box(image_Q: Integers, class_Q: Integers, truth: Truth) -> npt.NDArray[np.bool_]:
    """Return whether an image has no true box of a class."""
    return ~np.isin(key_of(image_Q, class_Q, truth.num_classes), truth_keys(truth))
