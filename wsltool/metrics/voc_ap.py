"""PASCAL VOC detection, as the devkit counts it (``VOCevaldet.m``, ``VOCap.m`` of 2010 and later).

The detections of a class, over all images, by falling confidence (stable: equals in the order of
the images, then of the boxes). Each is compared with *all* true boxes of the class in its image,
also those already found and difficult ones; the best overlap decides, the first of equals, and
only an overlap above 0 counts::

    IoU >= .5 with a difficult box             neither true nor false
    IoU >= .5 with a box that is not found yet true
    IoU >= .5 with a box found before          false; it does not fall back to the second best
    otherwise                                  false

Recall is over the boxes that are not difficult. A class without such a box has no AP (NaN) and is
left out of the mean; the result says how many there are. Excluded images are left out, with what
was detected there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from wsltool.metrics.average_precision import area_ap
from wsltool.metrics.iou import pair_iou
from wsltool.metrics.matching import join, key_of, truth_keys
from wsltool.metrics.mistakes import DETECTION_MISTAKES, MISTAKES, count_mistakes, mistake_of
from wsltool.metrics.ranking import (
    FALSE,
    NEITHER,
    TRUE,
    Interpolation,
    average_precisions,
    count_outcomes,
    mean_curve,
)
from wsltool.metrics.records import Predictions, Truth, check_predictions, image_of_box
from wsltool.metrics.result import Result, mean_result
from wsltool.metrics.tally import Tally

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol

__all__ = ["count", "outcomes", "result"]

FloatArray: TypeAlias = npt.NDArray[np.float64]


def count(protocol: ScoreProtocol, predicted: Predictions, truth: Truth) -> Tally:
    """Return the counts of a block of images.

    The tables ``true`` (objects) and ``detection`` leave out excluded images.

    Raises
    ------
    ProtocolError
        If the records are not sound, for instance if a confidence is NaN.
    """
    check_predictions(predicted, truth)
    row_N = truth.row_N.astype(np.int64)
    excluded_N = np.asarray(truth.excluded_N, dtype=bool)
    image_D, image_B = image_of_box(predicted.box_start), image_of_box(truth.box_start)
    kept_D, kept_B = ~excluded_N[image_D], ~excluded_N[image_B]
    outcome_D = outcomes(predicted, truth, image_D, protocol.iou)
    mistake_D = _mistakes(predicted, truth, image_D, outcome_D, protocol.iou)
    return Tally(
        truth.num_classes,
        {
            "image": {
                "row": row_N,
                "excluded": excluded_N,
                "predicted": np.asarray(predicted.has_prediction_N, dtype=bool),
            },
            "true": {
                "row": row_N[image_B[kept_B]],
                "class": truth.box_class_B[kept_B].astype(np.int32),
                "difficult": np.asarray(truth.box_difficult_B)[kept_B] != 0,
            },
            "detection": {
                "row": row_N[image_D[kept_D]],
                "class": predicted.box_class_B[kept_D].astype(np.int32),
                "score": predicted.box_score_B[kept_D],
                "outcome": outcome_D[kept_D],
                "mistake": mistake_D[kept_D],
            },
        },
    )


def result(protocol: ScoreProtocol, tally: Tally, interpolation: Interpolation = area_ap) -> Result:
    """Return the mean average precision over classes in per cent, and each class's own."""
    difficult_B = tally.column("true", "difficult")
    num_positives_K = tally.num_by("true", where=~difficult_B)
    num_DK = count_outcomes(tally)
    excluded_N = tally.column("image", "excluded")
    num_missing = tally.num("image", ~tally.column("image", "predicted") & ~excluded_N)
    return mean_result(
        protocol,
        average_precisions(tally, num_positives_K, interpolation),
        {
            "num_positives": num_positives_K,
            "num_detections": num_DK.sum(axis=0),
            "num_true": num_DK[TRUE],
            "num_false": num_DK[FALSE],
            "num_difficult_hits": num_DK[NEITHER],
        },
        extra={
            "num_images": tally.num("image", ~excluded_N),
            "num_excluded": tally.num("image", excluded_N),
            "num_without_prediction": num_missing,
        },
        cases=((num_missing, "images have no prediction; their objects count as missed."),),
        without="classes have no object to find",
        mistakes=count_mistakes(
            tally, "detection", DETECTION_MISTAKES, _of_chosen(protocol, tally)
        ),
        curve=mean_curve(tally, num_positives_K, protocol.chosen),
    )


def _of_chosen(protocol: ScoreProtocol, tally: Tally) -> npt.NDArray[np.bool_] | None:
    """Return which detections are of the chosen classes, None for all."""
    if not protocol.class_index:
        return None
    return np.isin(tally.column("detection", "class"), protocol.class_index)


def outcomes(
    predicted: Predictions, truth: Truth, image_D: npt.NDArray[np.intp], iou: float
) -> npt.NDArray[np.int8]:
    """Return what becomes of each detection: `TRUE`, `FALSE` or `NEITHER`, int8 (D,).

    `image_D` are the images of the detections; images do not bear on each other.
    """
    best_D, overlap_D = _best_true_box(predicted, truth, image_D)
    outcome_D = np.full(len(image_D), FALSE, dtype=np.int8)
    hit_H = np.flatnonzero((best_D >= 0) & (overlap_D >= iou))
    difficult_H = np.asarray(truth.box_difficult_B)[best_D[hit_H]] != 0
    outcome_D[hit_H[difficult_H]] = NEITHER
    hit_H = hit_H[~difficult_H]
    hit_H = hit_H[np.argsort(-predicted.box_score_B[hit_H].astype(np.float64), kind="stable")]
    _, first_H = np.unique(best_D[hit_H], return_index=True)
    outcome_D[hit_H[first_H]] = TRUE
    return outcome_D


def _best_true_box(
    predicted: Predictions, truth: Truth, image_D: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """Return the true box of each detection's class that it overlaps most, −1 for none."""
    key_D = key_of(image_D, predicted.box_class_B, truth.num_classes)
    query_P, true_P = join(key_D, truth_keys(truth))
    iou_P = pair_iou(predicted.box_xyxy_B4[query_P], truth.box_xyxy_B4[true_P])
    overlap_D = np.zeros(len(image_D))
    np.maximum.at(overlap_D, query_P, iou_P)
    best_P = np.flatnonzero((iou_P > 0) & (iou_P == overlap_D[query_P]))[::-1]
    best_D = np.full(len(image_D), -1, dtype=np.intp)
    best_D[query_P[best_P]] = true_P[best_P]  # backwards, so that the first of equals stays
    return best_D, overlap_D


def _mistakes(
    predicted: Predictions,
    truth: Truth,
    image_D: npt.NDArray[np.intp],
    outcome_D: npt.NDArray[np.int8],
    iou: float,
) -> npt.NDArray[np.int8]:
    """Return what is the matter with each detection, −1 where it is neither true nor false."""
    mistake_D = np.full(len(image_D), -1, np.int8)
    mistake_D[outcome_D == TRUE] = MISTAKES.index("right")
    false = np.flatnonzero(outcome_D == FALSE)
    mistake_F = mistake_of(
        predicted.box_xyxy_B4[false], image_D[false], predicted.box_class_B[false], truth, iou
    )
    mistake_F[mistake_F == MISTAKES.index("right")] = MISTAKES.index("duplicate")
    mistake_D[false] = mistake_F
    return mistake_D
