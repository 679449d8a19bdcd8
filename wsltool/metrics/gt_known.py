"""GT-known localization: the label is given, only the box is in question.

The rule of ILSVRC's localization (`wsltool.metrics.clsloc`) with the true label as the one
guess: an image is right if the first box of its label has an IoU ≥ .5 with any true box of the
label. Excluded images are left out. An image without a prediction, without a box of its label,
or without a true box of its label is wrong, and the result says how many there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wsltool.metrics.matching import lacks_true_box, nth_box
from wsltool.metrics.mistakes import GUESS_MISTAKES, MISTAKES, count_mistakes, mistake_of
from wsltool.metrics.records import Predictions, Truth, check_predictions, single_label
from wsltool.metrics.result import Result, class_rows, percent, told
from wsltool.metrics.tally import Tally

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol

__all__ = ["count", "result"]

_RIGHT, _NO_BOX, _NO_TRUE_BOX = (
    MISTAKES.index(name) for name in ("right", "no box", "no true box")
)
_NAMES = tuple(name for name in GUESS_MISTAKES if name != "wrong class")


def count(protocol: ScoreProtocol, predicted: Predictions, truth: Truth) -> Tally:
    """Return the counts of a block of images.

    Raises
    ------
    ProtocolError
        If an image has not exactly one label, or the records are not sound.
    """
    check_predictions(predicted, truth)
    label_N = single_label(truth, protocol.name)
    image_N = np.arange(len(truth))
    lacks_N = lacks_true_box(image_N, label_N, truth)
    box_N = nth_box(predicted, image_N, label_N, np.zeros_like(image_N))
    boxed = np.flatnonzero(box_N >= 0)
    mistake_N = np.full(len(truth), _NO_BOX, np.int8)
    mistake_N[boxed] = mistake_of(
        predicted.box_xyxy_B4[box_N[boxed]], boxed, label_N[boxed], truth, protocol.iou
    )
    mistake_N[lacks_N] = _NO_TRUE_BOX
    image = {
        "row": truth.row_N.astype(np.int64),
        "label": label_N.astype(np.int32),
        "excluded": np.asarray(truth.excluded_N, dtype=bool),
        "predicted": np.asarray(predicted.has_prediction_N, dtype=bool),
        "mapped": (predicted.map_class_NS == label_N[:, None]).any(axis=1),
        "mistake": mistake_N,
    }
    return Tally(truth.num_classes, {"image": image})


def result(protocol: ScoreProtocol, tally: Tally) -> Result:
    """Return the share of images whose object was localized, in per cent."""
    excluded_N, predicted_N, mapped_N, mistake_N = (
        tally.column("image", name) for name in ("excluded", "predicted", "mapped", "mistake")
    )
    counted_N = ~excluded_N
    num_images_K = tally.num_by("image", "label", counted_N)
    num_hits_K = tally.num_by("image", "label", counted_N & (mistake_N == _RIGHT))
    num = {
        "num_images": int(num_images_K.sum()),
        "num_localized": int(num_hits_K.sum()),
        "num_excluded": tally.num("image", excluded_N),
        "num_without_true_box": tally.num("image", counted_N & (mistake_N == _NO_TRUE_BOX)),
        "num_without_prediction": tally.num("image", counted_N & ~predicted_N),
        "num_without_map": tally.num("image", counted_N & predicted_N & ~mapped_N),
    }
    cases = (
        ("num_without_true_box", "images have no true box of their own label"),
        ("num_without_prediction", "images have no prediction"),
        ("num_without_map", "images have no map of their own label"),
    )
    return Result.of(
        protocol,
        percent(num["num_localized"], num["num_images"]).item(),
        per_class=class_rows(
            percent(num_hits_K, num_images_K),
            {"num_images": num_images_K, "num_localized": num_hits_K},
        ),
        extra=num,
        warnings=told((num[name], f"{what} and count as missed.") for name, what in cases),
        mistakes=count_mistakes(tally, "image", _NAMES, counted_N),
    )
