"""ILSVRC classification with localization, as the devkit counts it (``eval_clsloc.m``).

An image has one label. Guess j (of at most 5, in falling score) is right if its class is the
label, and localizes if also its box has an IoU ≥ .5 with any true box *of the label*. An image
is an error at k unless one of its first k guesses is right::

    clsloc_error(k) = sum of errors / (N - number excluded)     excluded images add 0
    cls_error(k)    = sum of errors / N                         excluded images stay in

The guesses are the ranked classes, each with the first box of its class. Nothing forbids the
same class twice; its second guess takes the second box of the class, and so on. A class without
a box is a guess without a box: right as a class, never localized. An image without a prediction
is an error at every k. So is one whose truth has no box of its own label (an empty minimum in
MATLAB), and the result says how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wsltool.errors import ProtocolError
from wsltool.metrics.matching import hits_true_box, lacks_true_box, nth_box
from wsltool.metrics.records import Predictions, Truth, check_predictions, single_label
from wsltool.metrics.result import ClassRow, Result, percent

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol

__all__ = ["MAX_GUESSES", "ClsLocCounts", "count", "result"]

MAX_GUESSES = 5


@dataclass(frozen=True, slots=True, eq=False)
class ClsLocCounts:
    """Images of each label, and how many were right within k guesses.

    Attributes
    ----------
    depth : int
        The number of guesses that images had room for, at most 5.
    num_images_K, num_excluded_K : arrays of int64
        Images whose label is the class, and the excluded ones among them.
    cls_hit_RK, loc_hit_RK : arrays of int64, (5, K)
        Images classified and localized within row + 1 guesses; the excluded ones only among
        the first.
    num_without_true_box, num_without_prediction : int
        Images that could not be localized: the truth has no box of the label (excluded ones
        left out), or nothing was predicted.
    """

    depth: int
    num_images_K: npt.NDArray[np.int64]
    num_excluded_K: npt.NDArray[np.int64]
    cls_hit_RK: npt.NDArray[np.int64]
    loc_hit_RK: npt.NDArray[np.int64]
    num_without_true_box: int
    num_without_prediction: int

    def __add__(self, other: ClsLocCounts) -> ClsLocCounts:
        return ClsLocCounts(
            min(self.depth, other.depth),
            self.num_images_K + other.num_images_K,
            self.num_excluded_K + other.num_excluded_K,
            self.cls_hit_RK + other.cls_hit_RK,
            self.loc_hit_RK + other.loc_hit_RK,
            self.num_without_true_box + other.num_without_true_box,
            self.num_without_prediction + other.num_without_prediction,
        )


def count(protocol: ScoreProtocol, predicted: Predictions, truth: Truth) -> ClsLocCounts:
    """Return the counts of a block of images.

    Raises
    ------
    ProtocolError
        If an image has not exactly one label, if fewer classes are ranked than the protocol
        needs (and there are more), or if the records are not sound.
    """
    check_predictions(predicted, truth)
    label_N = single_label(truth, protocol.name)
    depth = _checked_depth(protocol, predicted, truth)
    counted_N = ~np.asarray(truth.excluded_N, dtype=bool)
    right_NR = predicted.map_class_NS[:, :depth] == label_N[:, None]
    located_NR = _located(protocol, predicted, truth, right_NR) & counted_N[:, None]
    lacking_N = lacks_true_box(np.arange(len(truth)), label_N, truth) & counted_N
    num_classes = truth.num_classes
    return ClsLocCounts(
        depth,
        np.bincount(label_N, minlength=num_classes),
        np.bincount(label_N[~counted_N], minlength=num_classes),
        _hits_by_rank(right_NR, label_N, num_classes),
        _hits_by_rank(located_NR, label_N, num_classes),
        int(lacking_N.sum()),
        int((np.asarray(predicted.has_prediction_N) == 0).sum()),
    )


def result(protocol: ScoreProtocol, counts: ClsLocCounts) -> Result:
    """Return the localization error at the protocol's k in per cent, and both errors at every k."""
    counted_K = counts.num_images_K - counts.num_excluded_K
    loc_error_RK = counted_K - counts.loc_hit_RK
    cls_error_RK = counts.num_images_K - counts.cls_hit_RK
    loc_error_R = percent(loc_error_RK.sum(axis=1), counted_K.sum())
    cls_error_R = percent(cls_error_RK.sum(axis=1), counts.num_images_K.sum())
    rank = min(protocol.rank_depth, counts.depth) - 1
    error_K = percent(loc_error_RK[rank], counted_K)
    return Result(
        protocol=protocol.name,
        value=float(loc_error_R[rank]),
        unit=protocol.unit,
        higher_is_better=protocol.higher_is_better,
        parameters=protocol.parameters,
        per_class=tuple(
            ClassRow(index, float(error), _class_counts(counts, rank, index))
            for index, error in enumerate(error_K)
        ),
        extra={
            "loc_error": loc_error_R[: counts.depth].tolist(),
            "cls_error": cls_error_R[: counts.depth].tolist(),
            "num_images": int(counts.num_images_K.sum()),
            "num_excluded": int(counts.num_excluded_K.sum()),
            "num_without_true_box": counts.num_without_true_box,
            "num_without_prediction": counts.num_without_prediction,
        },
        warnings=tuple(_warnings(counts)),
    )


def _checked_depth(protocol: ScoreProtocol, predicted: Predictions, truth: Truth) -> int:
    num_slots = int(predicted.map_class_NS.shape[1])
    needed = min(protocol.rank_depth, truth.num_classes)
    if num_slots < needed:
        raise ProtocolError(
            f"{protocol.name} needs {needed} ranked classes an image, but only {num_slots} were "
            f"kept. Make the maps with --classes top{needed} or more."
        )
    return min(num_slots, MAX_GUESSES)


def _located(
    protocol: ScoreProtocol,
    predicted: Predictions,
    truth: Truth,
    right_NR: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    """Return which guesses of the right class have a box that is right."""
    image_Q, rank_Q = np.nonzero(right_NR)
    class_Q = predicted.map_class_NS[image_Q, rank_Q]
    earlier_Q = right_NR.cumsum(axis=1)[image_Q, rank_Q] - 1
    box_Q = nth_box(predicted, image_Q, class_Q, earlier_Q)
    boxed_Q = box_Q >= 0
    image_Q, rank_Q, class_Q = image_Q[boxed_Q], rank_Q[boxed_Q], class_Q[boxed_Q]
    box_Q4 = predicted.box_xyxy_B4[box_Q[boxed_Q]]
    located_NR = np.zeros(right_NR.shape, dtype=bool)
    located_NR[image_Q, rank_Q] = hits_true_box(box_Q4, image_Q, class_Q, truth, protocol.iou)
    return located_NR


def _hits_by_rank(
    right_NR: npt.NDArray[np.bool_], label_N: npt.NDArray[np.intp], num_classes: int
) -> npt.NDArray[np.int64]:
    """Return how many images of each class were right within row + 1 guesses, (5, K)."""
    hit_RK = np.zeros((MAX_GUESSES, num_classes), dtype=np.int64)
    for rank, hit_N in enumerate(np.logical_or.accumulate(right_NR, axis=1).T):
        hit_RK[rank] = np.bincount(label_N[hit_N], minlength=num_classes)
    return hit_RK


def _class_counts(counts: ClsLocCounts, rank: int, index: int) -> dict[str, int]:
    return {
        "num_images": int(counts.num_images_K[index]),
        "num_excluded": int(counts.num_excluded_K[index]),
        "num_localized": int(counts.loc_hit_RK[rank, index]),
        "num_classified": int(counts.cls_hit_RK[rank, index]),
    }


def _warnings(counts: ClsLocCounts) -> list[str]:
    found = []
    if counts.num_without_true_box:
        found.append(
            f"{counts.num_without_true_box} images have no true box of their own label and "
            "count as localization errors."
        )
    if counts.num_without_prediction:
        found.append(
            f"{counts.num_without_prediction} images have no prediction and count as errors."
        )
    return found
