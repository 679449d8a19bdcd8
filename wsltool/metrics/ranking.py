"""Detections of all images in one ranking a class, and the average precision of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from wsltool.metrics.average_precision import area_ap, precision_recall

__all__ = [
    "FALSE",
    "NEITHER",
    "TRUE",
    "Detections",
    "Interpolation",
    "average_precision",
    "ranked",
]

FALSE, TRUE, NEITHER = 0, 1, 2

FloatArray: TypeAlias = npt.NDArray[np.float64]
Interpolation: TypeAlias = Callable[[FloatArray, FloatArray], float]


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What became of each detection.

    Attributes
    ----------
    row_D : array of int64
        Row of its image among all that are scored.
    place_D : array of int32
        Its place among the boxes of its image.
    class_D : array of int32
    score_D : array of float64
    outcome_D : array of int8
        `TRUE`, `FALSE` or `NEITHER`.
    """

    row_D: npt.NDArray[np.int64]
    place_D: npt.NDArray[np.int32]
    class_D: npt.NDArray[np.int32]
    score_D: FloatArray
    outcome_D: npt.NDArray[np.int8]


def ranked(
    parts: Sequence[Detections], num_classes: int
) -> Iterator[tuple[FloatArray, npt.NDArray[np.int8]]]:
    """Yield confidences and outcomes of each class in turn, by falling confidence.

    Equal confidences stand in the order of the images, then of the places in an image,
    whatever the order of `parts`.
    """
    row_D, place_D, class_D, score_D, outcome_D = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("row_D", "place_D", "class_D", "score_D", "outcome_D")
    )
    order_D = np.lexsort((place_D, row_D, -score_D, class_D))
    edge_K = np.searchsorted(class_D[order_D], np.arange(num_classes + 1))
    for low, high in pairwise(edge_K):
        yield score_D[order_D[low:high]], outcome_D[order_D[low:high]]


def average_precision(
    outcome_D: npt.NDArray[Any], num_positives: int, interpolation: Interpolation = area_ap
) -> float:
    """Return the average precision of ranked outcomes in per cent, NaN without positives."""
    if not num_positives:
        return float("nan")
    curve = precision_recall(outcome_D == TRUE, outcome_D == FALSE, num_positives)
    return 100 * interpolation(*curve)
