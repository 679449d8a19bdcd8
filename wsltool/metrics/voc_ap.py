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

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from wsltool.metrics.average_precision import area_ap
from wsltool.metrics.iou import pair_iou
from wsltool.metrics.matching import join, key_of, truth_keys
from wsltool.metrics.ranking import (
    FALSE,
    NEITHER,
    TRUE,
    Detections,
    Interpolation,
    average_precision,
    ranked,
)
from wsltool.metrics.records import Predictions, Truth, check_predictions, image_of_box
from wsltool.metrics.result import ClassRow, Result, class_mean

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol

__all__ = ["VocApCounts", "count", "result"]

FloatArray: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class VocApCounts:
    """Detections of some images, and how many objects there are to be found.

    Attributes
    ----------
    parts : tuple of Detections
        One for each block, in any order.
    num_positives_K, num_difficult_K : arrays of int64
        True boxes of each class.
    num_images, num_excluded, num_without_prediction : int
        Images counted, left out, and counted without a prediction.
    """

    parts: tuple[Detections, ...]
    num_positives_K: npt.NDArray[np.int64]
    num_difficult_K: npt.NDArray[np.int64]
    num_images: int
    num_excluded: int
    num_without_prediction: int

    def __add__(self, other: VocApCounts) -> VocApCounts:
        return VocApCounts(
            self.parts + other.parts,
            self.num_positives_K + other.num_positives_K,
            self.num_difficult_K + other.num_difficult_K,
            self.num_images + other.num_images,
            self.num_excluded + other.num_excluded,
            self.num_without_prediction + other.num_without_prediction,
        )


def count(protocol: ScoreProtocol, predicted: Predictions, truth: Truth) -> VocApCounts:
    """Return the counts of a block of images.

    Raises
    ------
    ProtocolError
        If the records are not sound, for instance if a confidence is NaN.
    """
    check_predictions(predicted, truth)
    counted_N = np.asarray(truth.excluded_N) == 0
    image_D = image_of_box(predicted.box_start)
    place_D = np.arange(len(image_D)) - np.asarray(predicted.box_start)[image_D]
    outcome_D = _outcomes(predicted, truth, image_D, protocol.iou)
    kept_D = counted_N[image_D]
    detections = Detections(
        truth.row_N[image_D[kept_D]].astype(np.int64),
        place_D[kept_D].astype(np.int32),
        predicted.box_class_B[kept_D].astype(np.int32),
        predicted.box_score_B[kept_D].astype(np.float64),
        outcome_D[kept_D],
    )
    true_B = counted_N[image_of_box(truth.box_start)]
    difficult_B = np.asarray(truth.box_difficult_B) != 0
    missing_N = np.asarray(predicted.has_prediction_N) == 0
    return VocApCounts(
        (detections,),
        np.bincount(truth.box_class_B[true_B & ~difficult_B], minlength=truth.num_classes),
        np.bincount(truth.box_class_B[true_B & difficult_B], minlength=truth.num_classes),
        int(counted_N.sum()),
        int((~counted_N).sum()),
        int((missing_N & counted_N).sum()),
    )


def result(
    protocol: ScoreProtocol, counts: VocApCounts, interpolation: Interpolation = area_ap
) -> Result:
    """Return the mean average precision over classes in per cent, and each class's own."""
    rows = tuple(
        _class_row(index, int(positives), outcome_D, interpolation)
        for (index, positives), (_, outcome_D) in zip(
            enumerate(counts.num_positives_K),
            ranked(counts.parts, len(counts.num_positives_K)),
            strict=True,
        )
    )
    mean, num = class_mean(np.array([row.value for row in rows]), protocol.chosen)
    return Result(
        protocol=protocol.name,
        value=mean,
        unit=protocol.unit,
        higher_is_better=protocol.higher_is_better,
        parameters=protocol.parameters,
        per_class=rows,
        extra={
            **num,
            "num_images": counts.num_images,
            "num_excluded": counts.num_excluded,
            "num_without_prediction": counts.num_without_prediction,
        },
        warnings=tuple(_warnings(counts, num["num_classes_without_positives"])),
    )


def _outcomes(
    predicted: Predictions, truth: Truth, image_D: npt.NDArray[np.intp], iou: float
) -> npt.NDArray[np.int8]:
    """Return what becomes of each detection; images do not bear on each other."""
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


def _class_row(
    index: int, num_positives: int, outcome_D: npt.NDArray[Any], interpolation: Interpolation
) -> ClassRow:
    ap = average_precision(outcome_D, num_positives, interpolation)
    numbers = {
        "num_positives": num_positives,
        "num_detections": len(outcome_D),
        "num_true": int((outcome_D == TRUE).sum()),
        "num_false": int((outcome_D == FALSE).sum()),
        "num_difficult_hits": int((outcome_D == NEITHER).sum()),
    }
    return ClassRow(index, ap, numbers)


def _warnings(counts: VocApCounts, num_without_positives: int) -> list[str]:
    found = []
    if counts.num_without_prediction:
        found.append(
            f"{counts.num_without_prediction} images have no prediction; their objects count as "
            "missed."
        )
    if num_without_positives:
        found.append(
            f"{num_without_positives} classes have no object to find and are left out of the mean."
        )
    return found
