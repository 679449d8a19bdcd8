"""GT-known localization: the label is given, only the box is in question.

The rule of ILSVRC's localization (`wsltool.metrics.clsloc`) with the true label as the one
guess: an image is right if the first box of its label has an IoU ≥ .5 with any true box of the
label. Excluded images are left out. An image without a prediction, without a box of its label,
or without a true box of its label is wrong, and the result says how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wsltool.metrics.matching import hits_true_box, lacks_true_box, nth_box
from wsltool.metrics.records import Predictions, Truth, check_predictions, single_label
from wsltool.metrics.result import ClassRow, Result, percent

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol

__all__ = ["GtKnownCounts", "count", "result"]


@dataclass(frozen=True, slots=True, eq=False)
class GtKnownCounts:
    """Images of each label, and how many were localized; excluded ones are left out.

    Attributes
    ----------
    num_images_K, num_hits_K : arrays of int64
    num_excluded : int
    num_without_true_box : int
        Images whose truth has no box of the label.
    num_without_prediction : int
        Images for which nothing was predicted.
    num_without_map : int
        Images with a prediction, but not for their label: it was not among the classes kept.
    """

    num_images_K: npt.NDArray[np.int64]
    num_hits_K: npt.NDArray[np.int64]
    num_excluded: int
    num_without_true_box: int
    num_without_prediction: int
    num_without_map: int

    def __add__(self, other: GtKnownCounts) -> GtKnownCounts:
        return GtKnownCounts(
            self.num_images_K + other.num_images_K,
            self.num_hits_K + other.num_hits_K,
            self.num_excluded + other.num_excluded,
            self.num_without_true_box + other.num_without_true_box,
            self.num_without_prediction + other.num_without_prediction,
            self.num_without_map + other.num_without_map,
        )


def count(protocol: ScoreProtocol, predicted: Predictions, truth: Truth) -> GtKnownCounts:
    """Return the counts of a block of images.

    Raises
    ------
    ProtocolError
        If an image has not exactly one label, or the records are not sound.
    """
    check_predictions(predicted, truth)
    label_N = single_label(truth, protocol.name)
    image_Q = np.flatnonzero(np.asarray(truth.excluded_N) == 0)
    label_Q = label_N[image_Q]
    box_Q = nth_box(predicted, image_Q, label_Q, np.zeros_like(image_Q))
    boxed = box_Q >= 0
    hit_Q = np.zeros(len(image_Q), dtype=bool)
    hit_Q[boxed] = hits_true_box(
        predicted.box_xyxy_B4[box_Q[boxed]],
        image_Q[boxed],
        label_Q[boxed],
        truth,
        protocol.iou,
    )
    predicted_Q = np.asarray(predicted.has_prediction_N, dtype=bool)[image_Q]
    mapped_Q = (predicted.map_class_NS[image_Q] == label_Q[:, None]).any(axis=1)
    return GtKnownCounts(
        np.bincount(label_Q, minlength=truth.num_classes),
        np.bincount(label_Q[hit_Q], minlength=truth.num_classes),
        len(truth) - len(image_Q),
        int(lacks_true_box(image_Q, label_Q, truth).sum()),
        int((~predicted_Q).sum()),
        int((predicted_Q & ~mapped_Q).sum()),
    )


def result(protocol: ScoreProtocol, counts: GtKnownCounts) -> Result:
    """Return the share of images whose object was localized, in per cent."""
    value_K = percent(counts.num_hits_K, counts.num_images_K)
    return Result(
        protocol=protocol.name,
        value=float(percent(counts.num_hits_K.sum(), counts.num_images_K.sum())),
        unit=protocol.unit,
        higher_is_better=protocol.higher_is_better,
        parameters=protocol.parameters,
        per_class=tuple(
            ClassRow(
                index,
                float(value),
                {
                    "num_images": int(counts.num_images_K[index]),
                    "num_localized": int(counts.num_hits_K[index]),
                },
            )
            for index, value in enumerate(value_K)
        ),
        extra={
            "num_images": int(counts.num_images_K.sum()),
            "num_localized": int(counts.num_hits_K.sum()),
            "num_excluded": counts.num_excluded,
            "num_without_true_box": counts.num_without_true_box,
            "num_without_prediction": counts.num_without_prediction,
            "num_without_map": counts.num_without_map,
        },
        warnings=tuple(_warnings(counts)),
    )


def _warnings(counts: GtKnownCounts) -> list[str]:
    cases = (
        (counts.num_without_true_box, "images have no true box of their own label"),
        (counts.num_without_prediction, "images have no prediction"),
        (counts.num_without_map, "images have no map of their own label"),
    )
    return [f"{number} {what} and count as missed." for number, what in cases if number]
