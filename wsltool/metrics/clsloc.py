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

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsltool.errors import ProtocolError
from wsltool.metrics.matching import hits_true_box, lacks_true_box, nth_box
from wsltool.metrics.mistakes import GUESS_MISTAKES, MISTAKES, count_mistakes, mistake_of
from wsltool.metrics.records import Predictions, Truth, check_predictions, single_label
from wsltool.metrics.result import Result, class_rows, percent, told
from wsltool.metrics.tally import Tally

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol

__all__ = ["MAX_GUESSES", "count", "result"]

MAX_GUESSES = 5

_LACKING = "images have no true box of their own label and count as localization errors."
_MISSING = "images have no prediction and count as errors."


def count(protocol: ScoreProtocol, predicted: Predictions, truth: Truth) -> Tally:
    """Return the counts of a block of images.

    The table ``image`` says within how many guesses an image is classified (``cls_rank``, from
    0) and localized (``loc_rank``), `MAX_GUESSES` for never; how many guesses there is room for
    (``depth``); and what is the matter at the protocol's k (``mistake``).

    Raises
    ------
    ProtocolError
        If an image has not exactly one label, if fewer classes are ranked than the protocol
        needs (and there are more), or if the records are not sound.
    """
    check_predictions(predicted, truth)
    label_N = single_label(truth, protocol.name)
    depth = _checked_depth(protocol, predicted, truth)
    right_NR = predicted.map_class_NS[:, :depth] == label_N[:, None]
    box_NR = _guessed_boxes(predicted, right_NR)
    located_NR = _located(protocol, predicted, truth, box_NR)
    image: dict[str, npt.NDArray[Any]] = {
        "row": truth.row_N.astype(np.int64),
        "label": label_N.astype(np.int32),
        "excluded": np.asarray(truth.excluded_N, dtype=bool),
        "predicted": np.asarray(predicted.has_prediction_N, dtype=bool),
        "lacks_true_box": lacks_true_box(np.arange(len(truth)), label_N, truth),
        "depth": np.full(len(truth), depth, np.int8),
        "cls_rank": _first(right_NR),
        "loc_rank": _first(located_NR),
    }
    image["mistake"] = _mistakes(protocol, predicted, truth, box_NR, right_NR, image)
    return Tally(truth.num_classes, {"image": image})


def result(protocol: ScoreProtocol, tally: Tally) -> Result:
    """Return the localization error at the protocol's k in per cent, and both errors at every k."""
    excluded_N = tally.column("image", "excluded")
    num_images_K = tally.num_by("image", "label")
    num_excluded_K = tally.num_by("image", "label", excluded_N)
    counted_K = num_images_K - num_excluded_K
    cls_hit_RK = _hits_by_rank(tally, "cls_rank")
    loc_hit_RK = _hits_by_rank(tally, "loc_rank", ~excluded_N)
    loc_error_RK = counted_K - loc_hit_RK
    loc_error_R = percent(loc_error_RK.sum(axis=1), counted_K.sum())
    cls_error_R = percent((num_images_K - cls_hit_RK).sum(axis=1), num_images_K.sum())
    depth = int(tally.column("image", "depth").min(initial=MAX_GUESSES))
    rank = min(protocol.rank_depth, depth) - 1
    num_lacking = tally.num("image", tally.column("image", "lacks_true_box") & ~excluded_N)
    num_missing = tally.num("image", ~tally.column("image", "predicted"))
    return Result.of(
        protocol,
        loc_error_R[rank],
        per_class=class_rows(
            percent(loc_error_RK[rank], counted_K),
            {
                "num_images": num_images_K,
                "num_excluded": num_excluded_K,
                "num_localized": loc_hit_RK[rank],
                "num_classified": cls_hit_RK[rank],
            },
        ),
        extra={
            "loc_error": loc_error_R[:depth].tolist(),
            "cls_error": cls_error_R[:depth].tolist(),
            "num_images": int(num_images_K.sum()),
            "num_excluded": int(num_excluded_K.sum()),
            "num_without_true_box": num_lacking,
            "num_without_prediction": num_missing,
        },
        warnings=told(((num_lacking, _LACKING), (num_missing, _MISSING))),
        mistakes=count_mistakes(tally, "image", GUESS_MISTAKES),
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


def _guessed_boxes(predicted: Predictions, right_NR: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Return the box of each guess of the right class, −1 for none and for other guesses."""
    image_Q, rank_Q = np.nonzero(right_NR)
    class_Q = predicted.map_class_NS[image_Q, rank_Q]
    earlier_Q = right_NR.cumsum(axis=1)[image_Q, rank_Q] - 1
    box_NR = np.full(right_NR.shape, -1, dtype=np.intp)
    box_NR[image_Q, rank_Q] = nth_box(predicted, image_Q, class_Q, earlier_Q)
    return box_NR


def _located(
    protocol: ScoreProtocol, predicted: Predictions, truth: Truth, box_NR: npt.NDArray[np.intp]
) -> npt.NDArray[np.bool_]:
    """Return which guesses of the right class have a box that is right."""
    image_Q, rank_Q = np.nonzero(box_NR >= 0)
    box_Q = box_NR[image_Q, rank_Q]
    box_Q4, class_Q = predicted.box_xyxy_B4[box_Q], predicted.box_class_B[box_Q]
    located_NR = np.zeros(box_NR.shape, dtype=bool)
    located_NR[image_Q, rank_Q] = hits_true_box(box_Q4, image_Q, class_Q, truth, protocol.iou)
    return located_NR


def _first(hit_NR: npt.NDArray[np.bool_]) -> npt.NDArray[np.int8]:
    """Return the first rank that hits, `MAX_GUESSES` where none does."""
    if not hit_NR.shape[1]:
        return np.full(len(hit_NR), MAX_GUESSES, np.int8)
    return np.where(hit_NR.any(axis=1), hit_NR.argmax(axis=1), MAX_GUESSES).astype(np.int8)


def _mistakes(
    protocol: ScoreProtocol,
    predicted: Predictions,
    truth: Truth,
    box_NR: npt.NDArray[np.intp],
    right_NR: npt.NDArray[np.bool_],
    image: dict[str, npt.NDArray[Any]],
) -> npt.NDArray[np.int8]:
    """Return what is the matter with each image within k guesses, −1 for an excluded one.

    Judged is the first guess of the right class.
    """
    k = protocol.rank_depth
    guess_N = _first(right_NR[:, :k])
    guessed = np.flatnonzero(guess_N < MAX_GUESSES)
    mistake_N = np.full(len(truth), MISTAKES.index("wrong class"), np.int8)
    mistake_N[guessed] = MISTAKES.index("no box")
    box_Q = box_NR[guessed, guess_N[guessed]]
    guessed, box_Q = guessed[box_Q >= 0], box_Q[box_Q >= 0]
    mistake_N[guessed] = mistake_of(
        predicted.box_xyxy_B4[box_Q], guessed, image["label"][guessed], truth, protocol.iou
    )
    mistake_N[~image["predicted"]] = MISTAKES.index("no box")
    mistake_N[image["lacks_true_box"]] = MISTAKES.index("no true box")
    mistake_N[image["loc_rank"] < k] = MISTAKES.index("right")
    mistake_N[image["excluded"]] = -1
    return mistake_N


def _hits_by_rank(
    tally: Tally, name: str, where_N: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.int64]:
    """Return how many images of each label were right within row + 1 guesses, (5, K)."""
    rank_N, label_N = tally.column("image", name), tally.column("image", "label")
    weight_N = tally.weight("image") if where_N is None else tally.weight("image") * where_N
    num = np.bincount(
        rank_N.astype(np.int64) * tally.num_classes + label_N,
        weight_N,
        minlength=(MAX_GUESSES + 1) * tally.num_classes,
    )
    hit_RK = num.astype(np.int64).reshape(MAX_GUESSES + 1, -1).cumsum(axis=0)
    return hit_RK[:MAX_GUESSES]
