"""CorLoc: is the one box right? Three published meanings.

``wsod`` (weakly supervised detection; ``VOCevaldis`` of Cinbis, Bilen and others): for each class,
over the images that show it, the best box of the class has an IoU >= .5 with any instance of it.
Then the mean over classes.

``discovery`` (LOST, TokenCut): over all images, whatever the classes, the best box of the image has
an IoU >= .5 with any instance of any class. ``discovery-no-hard`` leaves out instances that are
truncated or difficult (``--no_hard`` there), and images that have no other.

An instance is a true box that is not a crowd; difficult ones count. Images without an instance
(of the class) are left out, and so are excluded images; one without a box is wrong. The best box
has the highest score, the first of equals.

LOST's IoU is that of half-open boxes in single precision, the true ones rounded to whole pixels,
with 1e-7 added to each height and to the union: boxes of whole pixels with an IoU of exactly .5
are right, as without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from wsltool.metrics.matching import join, key_of, truth_keys
from wsltool.metrics.mistakes import GUESS_MISTAKES, MISTAKES, count_mistakes, mistake_of
from wsltool.metrics.records import Predictions, Truth, check_predictions, image_of_box
from wsltool.metrics.result import Result, class_rows, mean_result, percent, told
from wsltool.metrics.tally import Tally

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol

__all__ = ["count", "lost_iou", "result"]

Flags: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.integer[Any]]

_RIGHT, _MISPLACED, _NO_BOX, _NO_TRUE_BOX = (
    MISTAKES.index(name) for name in ("right", "misplaced", "no box", "no true box")
)
_NAMES = tuple(name for name in GUESS_MISTAKES if name not in ("wrong class", "no true box"))


def count(protocol: ScoreProtocol, predicted: Predictions, truth: Truth) -> Tally:
    """Return the tally of a block of images.

    Table ``pair`` holds each class with an instance, or present, in each image that is not
    excluded: ``class``, and ``mistake`` of its box (in a discovery, of the image's box). The
    table ``image`` has such a ``mistake`` too, −1 where the image does not count or the
    definition is ``wsod``.

    Raises
    ------
    ProtocolError
        If the records are not sound.
    """
    check_predictions(predicted, truth)
    excluded_N = np.asarray(truth.excluded_N) != 0
    shown = _instances(truth, excluded_N, no_hard=protocol.definition == "discovery-no-hard")
    present_Q = np.flatnonzero((truth.label_NK == 1) & ~excluded_N[:, None])
    shown_Q = np.unique(truth_keys(shown))
    key_Q = np.union1d(present_Q, shown_Q)
    image_Q, class_Q = np.divmod(key_Q, truth.num_classes)
    mistake_N = np.full(len(truth), -1, np.int8)
    if protocol.definition == "wsod":
        mistake_Q = _mistakes(predicted, shown, image_Q, class_Q, protocol)
    else:
        image = np.flatnonzero(np.diff(shown.box_start))
        mistake_N[image] = _mistakes(*_classless(predicted, shown), image, 0 * image, protocol)
        mistake_Q = mistake_N[image_Q]
    mistake_Q[~np.isin(key_Q, shown_Q)] = _NO_TRUE_BOX
    tables = {
        "image": {
            "row": truth.row_N.astype(np.int64),
            "excluded": excluded_N,
            "predicted": np.asarray(predicted.has_prediction_N) != 0,
            "mistake": mistake_N,
        },
        "pair": {
            "row": truth.row_N[image_Q].astype(np.int64),
            "class": class_Q.astype(np.int32),
            "mistake": mistake_Q,
        },
    }
    return Tally(truth.num_classes, tables)


def result(protocol: ScoreProtocol, tally: Tally) -> Result:
    """Return CorLoc in per cent, and each class's own.

    With ``wsod`` the value is the mean over (the chosen) classes. In a discovery it is the share
    of images (that show a chosen class); a class's own is that of the images that show it.
    """
    mistake_Q = tally.column("pair", "mistake")
    num_K = {
        "num_images": tally.num_by("pair", where=mistake_Q != _NO_TRUE_BOX),
        "num_right": tally.num_by("pair", where=mistake_Q == _RIGHT),
        "num_without_box": tally.num_by("pair", where=mistake_Q == _NO_BOX),
    }
    value_K = percent(num_K["num_right"], num_K["num_images"])
    of_entries = _of_classes if protocol.definition == "wsod" else _of_images
    return of_entries(protocol, tally, value_K, num_K)


def lost_iou(box_P4: npt.NDArray[Any], true_P4: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the intersection over union of boxes as LOST's ``bbox_iou`` has it, pair by pair.

    Parameters
    ----------
    box_P4, true_P4 : arrays, (..., 4)
        Half-open boxes ``x0 y0 x1 y1``; the true ones are rounded to whole pixels.

    Returns
    -------
    iou_P : array of float32
        ``shared / (w h' + w h' - shared + 1e-7)`` with ``h' = y1 - y0 + 1e-7``, all in single
        precision.
    """
    eps = np.float32(1e-7)
    a = np.asarray(box_P4, np.float32)
    b = np.rint(np.asarray(true_P4, np.float64)).astype(np.float32)
    side = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.maximum(side, np.float32(0)).prod(axis=-1)
    area_a, area_b = (
        (box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1] + eps) for box in (a, b)
    )
    iou: npt.NDArray[np.float32] = shared / (area_a + area_b - shared + eps)
    return iou


def _of_classes(
    protocol: ScoreProtocol,
    tally: Tally,
    value_K: Floats,
    num_K: Mapping[str, npt.NDArray[np.int64]],
) -> Result:
    chosen_Q = np.isin(tally.column("pair", "class"), np.arange(tally.num_classes)[protocol.chosen])
    mistakes = count_mistakes(tally, "pair", (*_NAMES, "no true box"), chosen_Q)
    num_without_true_box = mistakes.pop("no true box")
    return mean_result(
        protocol,
        value_K,
        num_K,
        extra={
            **_num_images(tally),
            "num_without_box": mistakes["no box"],
            "num_without_true_box": num_without_true_box,
        },
        cases=(
            (mistakes["no box"], "times a class has no box in an image that shows it; wrong."),
            (
                num_without_true_box,
                "times a class is present in an image without a true box; left out.",
            ),
        ),
        without="classes have no object to find",
        mistakes=mistakes,
    )


def _of_images(
    protocol: ScoreProtocol,
    tally: Tally,
    value_K: Floats,
    num_K: Mapping[str, npt.NDArray[np.int64]],
) -> Result:
    counts_N = tally.column("image", "mistake") >= 0
    lacking_N = ~counts_N & ~tally.column("image", "excluded")
    if protocol.class_index:
        shows_Q = np.isin(tally.column("pair", "class"), protocol.class_index)
        shows_Q &= tally.column("pair", "mistake") != _NO_TRUE_BOX
        counts_N &= np.isin(tally.row_N, tally.column("pair", "row")[shows_Q])
    mistakes = count_mistakes(tally, "image", _NAMES, counts_N)
    num_counted, num_lacking = tally.num("image", counts_N), tally.num("image", lacking_N)
    return Result.of(
        protocol,
        float(percent(mistakes["right"], num_counted)),
        per_class=class_rows(value_K, num_K),
        extra={
            **_num_images(tally),
            "num_scored": num_counted,
            "num_right": mistakes["right"],
            "num_without_box": mistakes["no box"],
            "num_without_true_box": num_lacking,
        },
        warnings=told(
            [
                (mistakes["no box"], "images have no box; they are wrong."),
                (num_lacking, "images have no object to find and are left out."),
            ]
        ),
        mistakes=mistakes,
    )


def _num_images(tally: Tally) -> dict[str, int]:
    excluded_N, predicted_N = (tally.column("image", name) for name in ("excluded", "predicted"))
    return {
        "num_images": tally.num("image", ~excluded_N),
        "num_excluded": tally.num("image", excluded_N),
        "num_without_prediction": tally.num("image", ~predicted_N & ~excluded_N),
    }


def _instances(truth: Truth, excluded_N: Flags, *, no_hard: bool) -> Truth:
    """Return the truth with the boxes alone that are to be found."""
    image_B = image_of_box(truth.box_start)
    left_out = [truth.box_crowd_B]
    if no_hard:
        left_out += [truth.box_difficult_B, truth.box_truncated_B]
    kept_B = ~excluded_N[image_B]
    for flag_B in left_out:
        if flag_B is not None:
            kept_B &= np.asarray(flag_B) == 0
    num_N = np.bincount(image_B[kept_B], minlength=len(truth))
    return replace(
        truth,
        box_start=np.concatenate([[0], np.cumsum(num_N)]),
        box_xyxy_B4=truth.box_xyxy_B4[kept_B],
        box_class_B=truth.box_class_B[kept_B],
        box_difficult_B=np.zeros(int(kept_B.sum()), bool),
        box_crowd_B=None,
        box_truncated_B=None,
        box_area_B=None,
    )


def _classless(predicted: Predictions, truth: Truth) -> tuple[Predictions, Truth]:
    """Return both as if there were one class."""
    return (
        replace(predicted, box_class_B=np.zeros_like(predicted.box_class_B)),
        replace(truth, box_class_B=np.zeros_like(truth.box_class_B)),
    )


def _mistakes(
    predicted: Predictions,
    truth: Truth,
    image_Q: Integers,
    class_Q: Integers,
    protocol: ScoreProtocol,
) -> npt.NDArray[np.int8]:
    """Return what is the matter with the best box of a class in an image."""
    box_Q = _best_box(predicted, truth, image_Q, class_Q)
    boxed = np.flatnonzero(box_Q >= 0)
    box_P4 = predicted.box_xyxy_B4[box_Q[boxed]]
    image_P, class_P = image_Q[boxed], class_Q[boxed]
    mistake_P = mistake_of(box_P4, image_P, class_P, truth, protocol.iou)
    if protocol.definition != "wsod":
        query, true = join(image_P, image_of_box(truth.box_start))
        right = lost_iou(box_P4[query], truth.box_xyxy_B4[true]) >= protocol.iou
        # Rounded, the IoU may lie on the other side of the threshold.
        mistake_P[mistake_P == _RIGHT] = _MISPLACED
        mistake_P[query[right]] = _RIGHT
    mistake_Q = np.full(len(image_Q), _NO_BOX, np.int8)
    mistake_Q[boxed] = mistake_P
    return mistake_Q


def _best_box(
    predicted: Predictions, truth: Truth, image_Q: Integers, class_Q: Integers
) -> npt.NDArray[np.intp]:
    """Return the box of the highest score of a class in an image, the first of equals, or −1."""
    image_B = image_of_box(predicted.box_start)
    key_B = key_of(image_B, predicted.box_class_B, truth.num_classes)
    order_B = np.lexsort((-predicted.box_score_B, key_B))  # stable
    found, first = np.unique(key_B[order_B], return_index=True)
    key_Q = key_of(image_Q, class_Q, truth.num_classes)
    at_Q = np.searchsorted(found, key_Q)
    box_Q = np.full(len(key_Q), -1, np.intp)
    has = np.flatnonzero(np.isin(key_Q, found))
    box_Q[has] = order_B[first[at_Q[has]]]
    return box_Q
