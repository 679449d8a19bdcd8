"""Point localization (Oquab et al. 2015, §6; Kim et al. 2017, §6; Bency et al. 2016, §4.2).

One prediction for each image and class that has a map: the hottest pixel of the map, its centre
``(x + .5, y + .5)`` on the original image, or (``point_at`` "region") the centre of its region of
maximal response (`wsltool.localize.hottest_region`). Its confidence is the map's value there, or
maximum (``confidence`` "map"), or the class score ("cls"). Against the label of the class in the
image::

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

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsltool.errors import ProtocolError
from wsltool.metrics.matching import join, key_of, lacks_true_box, truth_keys
from wsltool.metrics.ranking import (
    FALSE,
    NEITHER,
    TRUE,
    average_precisions,
    count_outcomes,
    mean_curve,
)
from wsltool.metrics.records import (
    Peaks,
    Predictions,
    Truth,
    check_peaks,
    check_predictions,
    image_of_box,
)
from wsltool.metrics.result import Result, mean_result
from wsltool.metrics.tally import Tally

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol

__all__ = ["best_box_points", "count", "result"]


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


def count(protocol: ScoreProtocol, predicted: Peaks, truth: Truth) -> Tally:
    """Return the counts of a block of images.

    The table ``detection`` has the points, ``pair`` the classes that are present or undecided
    in an image; both leave out excluded images.

    Raises
    ------
    ProtocolError
        If the records are not sound, or a class has two points in one image.
    """
    check_peaks(predicted, truth)
    row_N = truth.row_N.astype(np.int64)
    excluded_N = np.asarray(truth.excluded_N, dtype=bool)
    has_N = np.asarray(predicted.has_prediction_N, dtype=bool)
    image_D, slot_D = np.nonzero((predicted.map_class_NS >= 0) & ~excluded_N[:, None])
    class_D: npt.NDArray[Any] = predicted.map_class_NS[image_D, slot_D]
    _refuse_twice(image_D, class_D, truth)
    confidence = predicted.peak_value_NS if protocol.confidence == "map" else predicted.map_score_NS
    point_xy_D2 = predicted.peak_xy_NS2[image_D, slot_D]
    image_Q, class_Q = np.nonzero((truth.label_NK != 0) & ~excluded_N[:, None])
    return Tally(
        truth.num_classes,
        {
            "image": {"row": row_N, "excluded": excluded_N, "predicted": has_N},
            "detection": {
                "row": row_N[image_D],
                "class": class_D.astype(np.int32),
                "score": confidence[image_D, slot_D],
                "outcome": _outcomes(protocol, point_xy_D2, image_D, class_D, truth),
                "decided": truth.label_NK[image_D, class_D] != 255,
            },
            "pair": {
                "row": row_N[image_Q],
                "class": class_Q.astype(np.int32),
                "present": truth.label_NK[image_Q, class_Q] == 1,
                "predicted": has_N[image_Q],
                "lacks_true_box": lacks_true_box(image_Q, class_Q, truth),
            },
        },
    )


def result(protocol: ScoreProtocol, tally: Tally) -> Result:
    """Return the mean average precision over classes in per cent, and each class's own."""
    num_K = _num_pairs(tally)
    num_DK = count_outcomes(tally)
    excluded_N = tally.column("image", "excluded")
    num_missing = tally.num("image", ~tally.column("image", "predicted") & ~excluded_N)
    chosen = {name: int(one_K[protocol.chosen].sum()) for name, one_K in num_K.items()}
    lacking = f"of {chosen['decided']} pairs of an image and a class have no map (or box) and "
    return mean_result(
        protocol,
        average_precisions(tally, num_K["positives"]),
        {
            "num_positives": num_K["positives"],
            "num_points": num_DK.sum(axis=0),
            "num_true": num_DK[TRUE],
            "num_false": num_DK[FALSE],
        },
        extra={
            "num_images": tally.num("image", ~excluded_N),
            "num_excluded": tally.num("image", excluded_N),
            "num_without_prediction": num_missing,
            "num_without_true_box": chosen["without_true_box"],
            "num_without_point": chosen["without_point"],
        },
        cases=(
            (
                num_missing,
                "images have no prediction; the classes they contain count as not found.",
            ),
            (chosen["without_point"], f"{lacking}predict nothing."),
            (chosen["without_true_box"], "classes in images have no true box and cannot be found."),
        ),
        without="classes are present in no image",
        curve=mean_curve(tally, num_K["positives"], protocol.chosen),
    )


def _num_pairs(tally: Tally) -> dict[str, npt.NDArray[np.int64]]:
    """Return how many pairs there are of each class.

    ``positives``: images that contain it; ``without_true_box`` among them. ``decided``: images
    with a prediction where it is present or absent; ``without_point`` among them.
    """
    present_Q, predicted_Q, lacks_Q = (
        tally.column("pair", name) for name in ("present", "predicted", "lacks_true_box")
    )
    excluded_N, has_N = (tally.column("image", name) for name in ("excluded", "predicted"))
    num_predicted = tally.num("image", has_N & ~excluded_N)
    decided_K = num_predicted - tally.num_by("pair", where=predicted_Q & ~present_Q)
    pointed_K = tally.num_by("detection", where=tally.column("detection", "decided"))
    return {
        "positives": tally.num_by("pair", where=present_Q),
        "without_true_box": tally.num_by("pair", where=present_Q & lacks_Q),
        "decided": decided_K,
        "without_point": decided_K - pointed_K,
    }


def _refuse_twice(image_D: npt.NDArray[np.intp], class_D: npt.NDArray[Any], truth: Truth) -> None:
    """Refuse two points of a class in one image."""
    key, num = np.unique(key_of(image_D, class_D, truth.num_classes), return_counts=True)
    if (num > 1).any():
        first = int((num > 1).argmax())
        image, index = divmod(int(key[first]), truth.num_classes)
        raise ProtocolError(
            f"predictions row {truth.row_N[image]}: class {index} has {num[first]} points; "
            "expected at most one."
        )


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
