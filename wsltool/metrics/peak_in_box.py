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

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsltool.metrics.matching import join, key_of, lacks_true_box, truth_keys
from wsltool.metrics.records import Peaks, Truth, check_peaks
from wsltool.metrics.result import ClassRow, Result, class_mean, percent

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol

__all__ = ["PeakCounts", "count", "result"]

_LACKING = {
    "num_without_true_box": "classes in images have no true box",
    "num_without_prediction": "classes in images have no prediction",
    "num_without_map": "classes in images have no map",
}


@dataclass(frozen=True, slots=True, eq=False)
class PeakCounts:
    """Pairs of an image and a class present, and how many maps peak in a box.

    Attributes
    ----------
    num_pairs_K, num_hits_K : arrays of int64
        Of each class; excluded images are left out.
    num_excluded : int
        Images that are left out.
    num_without_true_box_K, num_without_prediction_K, num_without_map_K : arrays of int64
        Pairs that could not be right: the truth has no box of the class, nothing was predicted
        for the image, or something, but not for the class.
    """

    num_pairs_K: npt.NDArray[np.int64]
    num_hits_K: npt.NDArray[np.int64]
    num_excluded: int
    num_without_true_box_K: npt.NDArray[np.int64]
    num_without_prediction_K: npt.NDArray[np.int64]
    num_without_map_K: npt.NDArray[np.int64]

    def __add__(self, other: PeakCounts) -> PeakCounts:
        return PeakCounts(
            self.num_pairs_K + other.num_pairs_K,
            self.num_hits_K + other.num_hits_K,
            self.num_excluded + other.num_excluded,
            self.num_without_true_box_K + other.num_without_true_box_K,
            self.num_without_prediction_K + other.num_without_prediction_K,
            self.num_without_map_K + other.num_without_map_K,
        )


def count(_protocol: ScoreProtocol, predicted: Peaks, truth: Truth) -> PeakCounts:
    """Return the counts of a block of images.

    Raises
    ------
    ProtocolError
        If the records are not sound.
    """
    check_peaks(predicted, truth)
    counted_N = np.asarray(truth.excluded_N) == 0
    image_Q, class_Q = np.nonzero((truth.label_NK == 1) & counted_N[:, None])
    same_QS = predicted.map_class_NS[image_Q] == class_Q[:, None]
    mapped_Q = same_QS.any(axis=1)
    image_M, class_M = image_Q[mapped_Q], class_Q[mapped_Q]
    peak_xy_M2 = predicted.peak_xy_NS2[image_M, same_QS[mapped_Q].argmax(axis=1)]
    inside_M = _inside(peak_xy_M2, image_M, class_M, truth)
    predicted_Q = np.asarray(predicted.has_prediction_N, dtype=bool)[image_Q]
    return PeakCounts(
        _tally(class_Q, truth),
        _tally(class_M[inside_M], truth),
        int((~counted_N).sum()),
        _tally(class_Q[lacks_true_box(image_Q, class_Q, truth)], truth),
        _tally(class_Q[~predicted_Q], truth),
        _tally(class_Q[predicted_Q & ~mapped_Q], truth),
    )


def result(protocol: ScoreProtocol, counts: PeakCounts) -> Result:
    """Return the share of pairs whose map peaks in a true box, in per cent."""
    value_K = percent(counts.num_hits_K, counts.num_pairs_K)
    num = {
        name: int(getattr(counts, f"{name}_K")[protocol.chosen].sum())
        for name in ("num_pairs", "num_hits", *_LACKING)
    }
    mean, num_classes = class_mean(value_K, protocol.chosen)
    return Result(
        protocol=protocol.name,
        value=float(percent(num["num_hits"], num["num_pairs"])),
        unit=protocol.unit,
        higher_is_better=protocol.higher_is_better,
        parameters=protocol.parameters,
        per_class=tuple(
            ClassRow(
                index,
                float(value),
                {
                    "num_pairs": int(counts.num_pairs_K[index]),
                    "num_hits": int(counts.num_hits_K[index]),
                },
            )
            for index, value in enumerate(value_K)
        ),
        extra={
            "class_mean": mean,
            "num_classes": num_classes["num_classes"],
            "num_excluded": counts.num_excluded,
            **num,
        },
        warnings=tuple(
            f"{num[name]} {what} and count as missed."
            for name, what in _LACKING.items()
            if num[name]
        ),
    )


def _tally(class_Q: npt.NDArray[np.intp], truth: Truth) -> npt.NDArray[np.int64]:
    return np.bincount(class_Q, minlength=truth.num_classes)


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
