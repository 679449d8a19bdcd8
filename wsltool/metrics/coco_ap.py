"""COCO detection, as ``cocoeval.py`` counts it for boxes (pycocotools 2.0).

In each image and class the 100 best detections are matched to the true boxes, for ten IoU
thresholds from .50 to .95 and four ranges of area (`wsltool.metrics.coco_matching`). Then, for
each class, threshold and range, the detections of all images by falling score (stable: equals in
the order of the images, then of the boxes), those that are ignored left out::

    recall = true / boxes that count,  precision = true / (true + false + 2**-52)

Precision is made monotone from the right and taken where recall first reaches 0, .01, …, 1, 0
where it never does. AP is its mean over thresholds, the 101 recalls, and classes; AR the mean of
the highest recall over thresholds and classes, with only the 1, 10 or 100 best detections of a
class in an image. A class without a box that counts has neither (pycocotools says -1) and is left
out of the mean. Excluded images are left out, with what was detected there.

COCO has no difficult boxes. Where the truth has them, they are ignored like a box whose area lies
outside the range: they take one detection each, with the ordinary IoU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from wsltool.errors import ProtocolError
from wsltool.metrics.coco_curves import RECALLS, precision_and_recall
from wsltool.metrics.coco_matching import (
    AREA_RANGES,
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    Found,
    group_place,
    match,
    within_areas,
)
from wsltool.metrics.iou import box_area
from wsltool.metrics.matching import key_of, truth_keys
from wsltool.metrics.mistakes import DETECTION_MISTAKES, MISTAKES, count_mistakes, mistake_of
from wsltool.metrics.records import Predictions, Truth, check_predictions, image_of_box
from wsltool.metrics.result import Result, class_mean, mean_result
from wsltool.metrics.tally import Tally

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol

__all__ = ["count", "result"]

FloatArray: TypeAlias = npt.NDArray[np.float64]
Indices: TypeAlias = npt.NDArray[np.intp]
Flags: TypeAlias = npt.NDArray[np.bool_]


def count(protocol: ScoreProtocol, predicted: Predictions, truth: Truth) -> Tally:
    """Return the tally of a block of images.

    Table ``detection`` holds the 100 best detections of each class in each image, by image,
    class and falling score: ``class``, ``score`` (as it is stored), ``place`` (from 0, in its
    class and image) and, as in `wsltool.metrics.coco_matching.Found`, ``true`` and ``ignored``.
    Table ``true`` holds the true boxes: ``class``, and ``counts``, whether it counts in each
    range of area.

    Raises
    ------
    ProtocolError
        If the records are not sound, for instance if a score or an area is NaN.
    """
    check_predictions(predicted, truth)
    area_B = _areas(truth)
    excluded_N = np.asarray(truth.excluded_N) != 0
    image_B = image_of_box(truth.box_start)
    own = np.flatnonzero(~excluded_N[image_B])
    crowd_B = _flags(truth.box_crowd_B, len(image_B))
    ignored_B = crowd_B | _flags(truth.box_difficult_B, len(image_B))
    counts_BA = within_areas(area_B) & ~ignored_B[:, None]
    box, key_D, place_D = _best(predicted, truth, excluded_N)
    found = match(
        key_D,
        predicted.box_xyxy_B4[box],
        truth_keys(truth)[own],
        truth.box_xyxy_B4[own],
        crowd_B[own],
        counts_BA[own],
    )
    image_D = key_D // truth.num_classes
    tables = {
        "image": {
            "row": truth.row_N.astype(np.int64),
            "excluded": excluded_N,
            "predicted": np.asarray(predicted.has_prediction_N) != 0,
        },
        "true": {
            "row": truth.row_N[image_B[own]].astype(np.int64),
            "class": truth.box_class_B[own].astype(np.int32),
            "counts": counts_BA[own],
        },
        "detection": {
            "row": truth.row_N[image_D].astype(np.int64),
            "class": predicted.box_class_B[box].astype(np.int32),
            "score": predicted.box_score_B[box],
            "place": place_D.astype(np.uint8),
            "true": found.true_DA,
            "ignored": found.ignored_DA,
            "mistake": _mistakes(predicted, truth, box, image_D, found),
        },
    }
    return Tally(truth.num_classes, tables)


def result(protocol: ScoreProtocol, tally: Tally) -> Result:
    """Return the mean AP in per cent, each class's own, and COCO's twelve numbers.

    ``extra`` has them in per cent: AP, AP50, AP75, APs, APm, APl (small, medium and large
    objects), AR1, AR10, AR100 (so many detections of a class in an image), ARs, ARm, ARl; NaN
    where pycocotools prints -1.
    """
    precision_TRKA, recall_TKA = precision_and_recall(tally)
    chosen = protocol.chosen
    ap_K = 100 * precision_TRKA[..., 0].mean(axis=(0, 1))
    twelve = {"AP": class_mean(ap_K, chosen)[0], **_at_some(precision_TRKA[:, :, chosen])}
    for most in (1, 10):
        _, few_TKA = precision_and_recall(tally, most)
        twelve[f"AR{most}"] = _mean(few_TKA[:, chosen, 0])
    twelve |= _average_recalls(recall_TKA[:, chosen])
    counted_B = tally.column("true", "counts")[:, 0]
    excluded_N = tally.column("image", "excluded")
    num_missing = tally.num("image", ~tally.column("image", "predicted") & ~excluded_N)
    return mean_result(
        protocol,
        ap_K,
        {
            "num_positives": tally.num_by("true", where=counted_B),
            "num_ignored": tally.num_by("true", where=~counted_B),
            "num_detections": tally.num_by("detection"),
        },
        extra={
            **twelve,
            "num_images": tally.num("image", ~excluded_N),
            "num_excluded": tally.num("image", excluded_N),
            "num_without_prediction": num_missing,
        },
        cases=((num_missing, "images have no prediction; their objects count as missed."),),
        without="classes have no object to find",
        mistakes=count_mistakes(
            tally, "detection", DETECTION_MISTAKES, _of_chosen(protocol, tally)
        ),
        curve=_curve(precision_TRKA[:, :, chosen, 0]),
    )


def _areas(truth: Truth) -> FloatArray:
    """Return the area of every true box.

    Raises
    ------
    ProtocolError
        If one is given that is NaN or below 0.
    """
    if truth.box_area_B is None:
        return box_area(truth.box_xyxy_B4)
    area_B = np.asarray(truth.box_area_B, np.float64)
    bad_B = ~(area_B >= 0)
    if bad_B.any():
        box = int(bad_B.argmax())
        row = truth.row_N[image_of_box(truth.box_start)[box]]
        raise ProtocolError(
            f"truth row {row}: a box has area {area_B[box]:g}; expected square pixels, at least 0."
        )
    return area_B


def _flags(flag_B: npt.NDArray[Any] | None, num: int) -> Flags:
    return np.zeros(num, bool) if flag_B is None else np.asarray(flag_B) != 0


def _best(
    predicted: Predictions, truth: Truth, excluded_N: Flags
) -> tuple[Indices, npt.NDArray[np.int64], Indices]:
    """Return the best detections of each image and class, by image, class and falling score.

    With `key_of` their image and class, and their place among those of it.
    """
    image_B = image_of_box(predicted.box_start)
    own = np.flatnonzero(~excluded_N[image_B])
    key_D = key_of(image_B[own], predicted.box_class_B[own], truth.num_classes)
    order_D = np.lexsort((-predicted.box_score_B[own], key_D))  # stable
    own, key_D = own[order_D], key_D[order_D]
    place_D = group_place(key_D)
    kept_D = place_D < MAX_DETECTIONS
    return own[kept_D], key_D[kept_D], place_D[kept_D]


def _at_some(precision_TRKA: FloatArray) -> dict[str, float]:
    """Return the average precision at one threshold, and of objects of one range of area."""
    found = {}
    for threshold in (0.5, 0.75):
        index = int(np.abs(IOU_THRESHOLDS - threshold).argmin())
        found[f"AP{threshold * 100:.0f}"] = _mean(precision_TRKA[index, ..., 0])
    for area, name in enumerate(AREA_RANGES):
        if name != "all":
            found[f"AP{name[0]}"] = _mean(precision_TRKA[..., area])
    return found


def _average_recalls(recall_TKA: FloatArray) -> dict[str, float]:
    names = {"all": str(MAX_DETECTIONS)}
    return {
        f"AR{names.get(name, name[0])}": _mean(recall_TKA[..., area])
        for area, name in enumerate(AREA_RANGES)
    }


def _mean(fraction: FloatArray) -> float:
    """Return the mean of what there is in per cent, NaN of nothing."""
    known = fraction[~np.isnan(fraction)]
    return 100 * float(known.mean()) if known.size else float("nan")


def _curve(precision_TRK: FloatArray) -> dict[str, list[float]]:
    """Return the mean precision of the classes in per cent against recall in [0, 1]."""
    scored_K = ~np.isnan(precision_TRK[0, 0])
    if not scored_K.any():
        return {}
    mean_TR = 100 * precision_TRK[:, :, scored_K].mean(axis=2)
    return {
        "recall": RECALLS.tolist(),
        "precision, IoU .50 to .95": mean_TR.mean(axis=0).tolist(),
        "precision, IoU .50": mean_TR[0].tolist(),
        "precision, IoU .75": mean_TR[5].tolist(),
    }


def _of_chosen(protocol: ScoreProtocol, tally: Tally) -> Flags | None:
    """Return which detections are of the chosen classes, None for all."""
    if not protocol.class_index:
        return None
    return np.isin(tally.column("detection", "class"), protocol.class_index)


def _mistakes(
    predicted: Predictions, truth: Truth, box: Indices, image_D: Indices, found: Found
) -> npt.NDArray[np.int8]:
    """Return what is the matter with each detection at IoU .50, −1 if it is ignored."""
    true_D, ignored_D = (flag_DA[:, 0] & 1 != 0 for flag_DA in found)
    mistake_D = np.where(true_D, np.int8(MISTAKES.index("right")), np.int8(-1))
    false = np.flatnonzero(~true_D & ~ignored_D)
    mistake_F = mistake_of(
        predicted.box_xyxy_B4[box[false]],
        image_D[false],
        predicted.box_class_B[box[false]],
        truth,
        IOU_THRESHOLDS[0],
    )
    mistake_F[mistake_F == MISTAKES.index("right")] = MISTAKES.index("duplicate")
    mistake_D[false] = mistake_F
    return mistake_D
