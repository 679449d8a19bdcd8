"""Point localization (Oquab et al. 2015, §6; Kim et al. 2017, §6; Bency et al. 2016, §4.2).

One prediction for each image and class that has a map: the hottest pixel of the map, its centre
``(x + .5, y + .5)`` on the original image. Its confidence is the map's value there
(``confidence`` "map") or the class score ("cls"). Against the label of the class in the image::

    undecided (255)                                       neither true nor false
    absent                                                false
    present, within `tolerance` pixels of a true box      true
    present, further away                                 false ("fp"), or neither ("fn")

The distance to a box is 0 on and within its edges, otherwise the larger ("chebyshev") or the
hypotenuse ("euclidean") of those along x and y; equal to the tolerance is right. For the centre
of a pixel and a box of whole pixels, "chebyshev" is ``xmin - 18 <= x <= xmax + 18``, y alike, in
the inclusive pixels of the devkit. Where a class is present, its difficult boxes are as good as
others.

A class's predictions are ranked over all images by falling confidence, equals in the order of
the images. Recall is over the images that contain the class, so a miss lowers it under "fn" too.
The curve is summed as VOC does from 2010 on; the value is the mean over classes that are present
somewhere. Excluded images are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsltool.errors import ProtocolError
from wsltool.metrics.matching import join, key_of, lacks_true_box, truth_keys
from wsltool.metrics.ranking import (
    FALSE,
    NEITHER,
    TRUE,
    Detections,
    average_precision,
    ranked,
)
from wsltool.metrics.records import (
    Peaks,
    Predictions,
    Truth,
    check_peaks,
    check_predictions,
    image_of_box,
)
from wsltool.metrics.result import ClassRow, Result, class_mean

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol

__all__ = ["PointCounts", "best_box_points", "count", "result"]


@dataclass(frozen=True, slots=True, eq=False)
class PointCounts:
    """What became of the points in some images.

    Attributes
    ----------
    parts : tuple of Detections
        One for each block, in any order.
    num_K : mapping of str to int64 arrays of shape (K,)
        ``positives``: images that contain the class; ``without_true_box`` among them.
        ``decided``: images with a prediction where the class is present or absent;
        ``without_point`` among them.
    num_images, num_excluded, num_without_prediction : int
        Images counted, left out, and counted without a prediction.
    """

    parts: tuple[Detections, ...]
    num_K: Mapping[str, npt.NDArray[np.int64]]
    num_images: int
    num_excluded: int
    num_without_prediction: int

    def __add__(self, other: PointCounts) -> PointCounts:
        return PointCounts(
            self.parts + other.parts,
            {name: number_K + other.num_K[name] for name, number_K in self.num_K.items()},
            self.num_images + other.num_images,
            self.num_excluded + other.num_excluded,
            self.num_without_prediction + other.num_without_prediction,
        )


def best_box_points(predicted: Predictions, truth: Truth) -> Peaks:
    """Return the centre of the best box of each class in each image (Oquab's rule for R-CNN).

    The best is the one of the highest score, the first of equals. It is ranked by its score
    ("map") or by the class's ("cls"). A class without a box has no point.

    Raises
    ------
    ProtocolError
        If the records are not sound, or a box has a class that is not ranked in its image.
    """
    check_predictions(predicted, truth)
    image_B, class_B = image_of_box(predicted.box_start), predicted.box_class_B
    order_B = np.lexsort((-predicted.box_score_B, class_B, image_B))
    key_B = key_of(image_B, class_B, truth.num_classes)[order_B]
    box_P = order_B[np.flatnonzero(np.diff(key_B, prepend=-1))]
    image_P, class_P = image_B[box_P], class_B[box_P]
    slot_P = _slots_of(predicted, image_P, class_P, truth)
    order_P = np.lexsort((slot_P, image_P))
    box_P, slot_P = box_P[order_P], slot_P[order_P]
    image_P, class_P = image_B[box_P], class_B[box_P]
    num_N = np.bincount(image_P, minlength=len(truth))
    place_P = np.arange(len(image_P)) - (np.cumsum(num_N) - num_N)[image_P]
    shape = (len(truth), int(num_N.max(initial=0)))
    peaks = Peaks(
        has_prediction_N=predicted.has_prediction_N,
        map_class_NS=np.full(shape, -1, np.int32),
        map_score_NS=np.full(shape, -np.inf, np.float32),
        peak_xy_NS2=np.zeros((*shape, 2)),
        peak_value_NS=np.full(shape, -np.inf),
    )
    peaks.map_class_NS[image_P, place_P] = class_P
    peaks.map_score_NS[image_P, place_P] = predicted.map_score_NS[image_P, slot_P]
    corner_P22 = predicted.box_xyxy_B4[box_P].reshape(-1, 2, 2)
    peaks.peak_xy_NS2[image_P, place_P] = corner_P22.mean(axis=1)
    peaks.peak_value_NS[image_P, place_P] = predicted.box_score_B[box_P]
    return peaks


def _slots_of(
    predicted: Predictions, image_P: npt.NDArray[Any], class_P: npt.NDArray[Any], truth: Truth
) -> npt.NDArray[np.intp]:
    """Return the first slot of each class in an image."""
    same_PS = predicted.map_class_NS[image_P] == class_P[:, None]
    lacking_P = ~same_PS.any(axis=1)
    if lacking_P.any():
        first = int(lacking_P.argmax())
        raise ProtocolError(
            f"predictions row {truth.row_N[image_P[first]]}: a box has class {class_P[first]}, "
            "which is not ranked in its image; expected a map_class for every box."
        )
    slot_P: npt.NDArray[np.intp] = same_PS.argmax(axis=1)
    return slot_P


def count(protocol: ScoreProtocol, predicted: Peaks, truth: Truth) -> PointCounts:
    """Return the counts of a block of images.

    Raises
    ------
    ProtocolError
        If the records are not sound, or a class has two points in one image.
    """
    check_peaks(predicted, truth)
    counted_N = np.asarray(truth.excluded_N) == 0
    here_N = np.asarray(predicted.has_prediction_N, dtype=bool) & counted_N
    image_D, slot_D = np.nonzero((predicted.map_class_NS >= 0) & counted_N[:, None])
    class_D: npt.NDArray[Any] = predicted.map_class_NS[image_D, slot_D]
    pointed_NK = _pointed(image_D, class_D, truth)
    outcome_D = _outcomes(protocol, predicted.peak_xy_NS2[image_D, slot_D], image_D, class_D, truth)
    confidence = predicted.peak_value_NS if protocol.confidence == "map" else predicted.map_score_NS
    detections = Detections(
        truth.row_N[image_D].astype(np.int64),
        np.zeros(len(image_D), np.int32),
        class_D.astype(np.int32),
        confidence[image_D, slot_D].astype(np.float64),
        outcome_D,
    )
    present_NK = (truth.label_NK == 1) & counted_N[:, None]
    decided_NK = (truth.label_NK != 255) & here_N[:, None]
    image_Q, class_Q = np.nonzero(present_NK)
    lacks_Q = lacks_true_box(image_Q, class_Q, truth)
    num_K = {
        "positives": present_NK.sum(axis=0),
        "without_true_box": np.bincount(class_Q[lacks_Q], minlength=truth.num_classes),
        "decided": decided_NK.sum(axis=0),
        "without_point": (decided_NK & ~pointed_NK).sum(axis=0),
    }
    num_counted = int(counted_N.sum())
    return PointCounts(
        (detections,), num_K, num_counted, len(truth) - num_counted, num_counted - int(here_N.sum())
    )


def result(protocol: ScoreProtocol, counts: PointCounts) -> Result:
    """Return the mean average precision over classes in per cent, and each class's own."""
    num_positives_K = counts.num_K["positives"]
    outcomes = (outcome_D for _, outcome_D in ranked(counts.parts, len(num_positives_K)))
    rows = tuple(
        _class_row(index, int(positives), outcome_D)
        for index, (positives, outcome_D) in enumerate(zip(num_positives_K, outcomes, strict=True))
    )
    mean, num = class_mean(np.array([row.value for row in rows]), protocol.chosen)
    chosen = {name: int(num_K[protocol.chosen].sum()) for name, num_K in counts.num_K.items()}
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
            "num_without_true_box": chosen["without_true_box"],
            "num_without_point": chosen["without_point"],
        },
        warnings=tuple(_warnings(counts, chosen, num["num_classes_without_positives"])),
    )


def _pointed(
    image_D: npt.NDArray[np.intp], class_D: npt.NDArray[Any], truth: Truth
) -> npt.NDArray[np.bool_]:
    """Return which classes have a point in which images, (N, K); refuse two of the same."""
    num_NK = np.zeros(truth.label_NK.shape, np.intp)
    np.add.at(num_NK, (image_D, class_D), 1)
    if (num_NK > 1).any():
        image, index = (int(axis[0]) for axis in np.nonzero(num_NK > 1))
        raise ProtocolError(
            f"predictions row {truth.row_N[image]}: class {index} has {num_NK[image, index]} "
            "points; expected at most one."
        )
    pointed_NK: npt.NDArray[np.bool_] = num_NK > 0
    return pointed_NK


def _outcomes(
    protocol: ScoreProtocol,
    point_xy_D2: npt.NDArray[Any],
    image_D: npt.NDArray[np.intp],
    class_D: npt.NDArray[Any],
    truth: Truth,
) -> npt.NDArray[np.int8]:
    """Return what becomes of each point."""
    query_P, true_P = join(key_of(image_D, class_D, truth.num_classes), truth_keys(truth))
    point_P2, box_P4 = point_xy_D2[query_P], truth.box_xyxy_B4[true_P].astype(np.float64)
    gap_P2 = np.maximum(np.maximum(box_P4[:, :2] - point_P2, point_P2 - box_P4[:, 2:]), 0.0)
    chebyshev = protocol.metric == "chebyshev"
    gap_P = gap_P2.max(axis=1) if chebyshev else np.hypot(gap_P2[:, 0], gap_P2[:, 1])
    hit_D = np.zeros(len(image_D), dtype=bool)
    hit_D[query_P[gap_P <= protocol.tolerance]] = True
    label_D = truth.label_NK[image_D, class_D]
    missed = FALSE if protocol.misses == "fp" else NEITHER
    outcome_D = np.where(label_D == 0, FALSE, np.where(hit_D, TRUE, missed))
    return np.where(label_D == 255, NEITHER, outcome_D).astype(np.int8)


def _class_row(index: int, num_positives: int, outcome_D: npt.NDArray[Any]) -> ClassRow:
    numbers = {
        "num_positives": num_positives,
        "num_points": len(outcome_D),
        "num_true": int((outcome_D == TRUE).sum()),
        "num_false": int((outcome_D == FALSE).sum()),
    }
    return ClassRow(index, average_precision(outcome_D, num_positives), numbers)


def _warnings(
    counts: PointCounts, chosen: Mapping[str, int], num_without_positives: int
) -> list[str]:
    cases = (
        (
            counts.num_without_prediction,
            "images have no prediction; the classes they contain count as not found.",
        ),
        (
            chosen["without_point"],
            f"of {chosen['decided']} pairs of an image and a class have no map (or box) and "
            "predict nothing.",
        ),
        (chosen["without_true_box"], "classes in images have no true box and cannot be found."),
        (num_without_positives, "classes are present in no image and are left out of the mean."),
    )
    return [f"{number} {what}" for number, what in cases if number]
