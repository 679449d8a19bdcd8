"""Peak in box: whether the map of a class peaks inside a true box of that class.

Counted are pairs of an image and a class that is present in it (label 1; an undecided class,
255, is no pair). With one label an image, as in ILSVRC, this is the share of images. A pair is
right if the hottest pixel of the class's map, its centre ``(x + .5, y + .5)``, lies in any true
box of the class, ``x0 <= x < x1`` and ``y0 <= y < y1``. Where a class is present, its difficult
boxes are as good as others; a class that has only difficult ones is undecided. No tolerance.

Excluded images are left out. A pair without a prediction, without a map of the class, or without
a true box of the class is wrong, and the result says how many there are. The value is taken over
all pairs; the mean over classes stands beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsltool.metrics.matching import join, key_of, lacks_true_box, truth_keys
from wsltool.metrics.records import Peaks, Truth, check_peaks
from wsltool.metrics.result import Result, class_mean, class_rows, percent, told
from wsltool.metrics.tally import Tally

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol

__all__ = ["count", "result"]

_LACKING = {
    "num_without_true_box": "classes in images have no true box",
    "num_without_prediction": "classes in images have no prediction",
    "num_without_map": "classes in images have no map",
}


def count(_protocol: ScoreProtocol, predicted: Peaks, truth: Truth) -> Tally:
    """Return the counts of a block of images.

    Raises
    ------
    ProtocolError
        If the records are not sound.
    """
    check_peaks(predicted, truth)
    row_N = truth.row_N.astype(np.int64)
    excluded_N = np.asarray(truth.excluded_N, dtype=bool)
    image_Q, class_Q = np.nonzero((truth.label_NK == 1) & ~excluded_N[:, None])
    same_QS = predicted.map_class_NS[image_Q] == class_Q[:, None]
    mapped_Q = same_QS.any(axis=1)
    image_M, class_M = image_Q[mapped_Q], class_Q[mapped_Q]
    peak_xy_M2 = predicted.peak_xy_NS2[image_M, same_QS[mapped_Q].argmax(axis=1)]
    hit_Q = np.zeros(len(image_Q), dtype=bool)
    hit_Q[mapped_Q] = _inside(peak_xy_M2, image_M, class_M, truth)
    predicted_Q = np.asarray(predicted.has_prediction_N, dtype=bool)[image_Q]
    pair = {
        "row": row_N[image_Q],
        "class": class_Q.astype(np.int32),
        "num_hits": hit_Q,
        "num_without_true_box": lacks_true_box(image_Q, class_Q, truth),
        "num_without_prediction": ~predicted_Q,
        "num_without_map": predicted_Q & ~mapped_Q,
    }
    image = {"row": row_N, "excluded": excluded_N}
    return Tally(truth.num_classes, {"image": image, "pair": pair})


def result(protocol: ScoreProtocol, tally: Tally) -> Result:
    """Return the share of pairs whose map peaks in a true box, in per cent."""
    num_K = {"num_pairs": tally.num_by("pair")}
    for name in ("num_hits", *_LACKING):
        num_K[name] = tally.num_by("pair", where=tally.column("pair", name))
    num = {name: int(one_K[protocol.chosen].sum()) for name, one_K in num_K.items()}
    value_K = percent(num_K["num_hits"], num_K["num_pairs"])
    mean, num_classes = class_mean(value_K, protocol.chosen)
    return Result.of(
        protocol,
        percent(num["num_hits"], num["num_pairs"]).item(),
        per_class=class_rows(value_K, {name: num_K[name] for name in ("num_pairs", "num_hits")}),
        extra={
            "class_mean": mean,
            "num_classes": num_classes["num_classes"],
            "num_excluded": tally.num("image", tally.column("image", "excluded")),
            **num,
        },
        warnings=told(
            (num[name], f"{what} and count as missed.") for name, what in _LACKING.items()
        ),
    )


def _inside(
    peak_xy_M2: npt.NDArray[Any],
    image_M: npt.NDArray[np.intp],
    class_M: npt.NDArray[np.intp],
    truth: Truth,
) -> npt.NDArray[np.bool_]:
    """Return whether a point lies in any true box of a class in an image."""
    query_P, true_P = join(key_of(image_M, class_M, truth.num_classes), truth_keys(truth))
    point_P2, box_P4 = peak_xy_M2[query_P], truth.box_xyxy_B4[true_P]
    inside_P = ((point_P2 >= box_P4[:, :2]) & (point_P2 < box_P4[:, 2:])).all(axis=1)
    inside_M = np.zeros(len(image_M), dtype=bool)
    inside_M[query_P[inside_P]] = True
    return inside_M
