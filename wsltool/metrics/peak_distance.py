"""How far apart the maps of two stores peak (Kim et al. 2017, §6.2).

For each image and class present in it (label 1) that both have a map of: the Euclidean distance
between the centres of the two hottest pixels, in pixels of the original image. The value is the
mean over pairs. No true box is needed. Pairs that one of the two has no map of, or no prediction
for the image, are left out and counted; excluded images are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from wsltool.metrics.records import Peaks, Truth, check_peaks
from wsltool.metrics.result import ClassRow, Result

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol

__all__ = ["DistanceCounts", "PeakPairs", "count", "result"]


@dataclass(frozen=True, slots=True, eq=False)
class PeakPairs:
    """Peaks of the same N images in two stores."""

    one: Peaks
    other: Peaks

    def __len__(self) -> int:
        return len(self.one)

    def take(self, image: npt.NDArray[np.integer[Any]]) -> Self:
        """Return the given images (indices, in any order) as a record of their own."""
        return type(self)(self.one.take(image), self.other.take(image))


@dataclass(frozen=True, slots=True, eq=False)
class DistanceCounts:
    """Distances of pairs in some images.

    Attributes
    ----------
    distance_px_parts : tuple of float64 arrays
        Of each pair that both stores have a map of, in any order.
    class_parts : tuple of int arrays
        Their classes.
    num_pairs_K : array of int64
        Pairs of each class, whether or not both stores have a map.
    num_excluded : int
        Images that are left out.
    """

    distance_px_parts: tuple[npt.NDArray[np.float64], ...]
    class_parts: tuple[npt.NDArray[np.intp], ...]
    num_pairs_K: npt.NDArray[np.int64]
    num_excluded: int

    def __add__(self, other: DistanceCounts) -> DistanceCounts:
        return DistanceCounts(
            self.distance_px_parts + other.distance_px_parts,
            self.class_parts + other.class_parts,
            self.num_pairs_K + other.num_pairs_K,
            self.num_excluded + other.num_excluded,
        )


def count(_protocol: ScoreProtocol, predicted: PeakPairs, truth: Truth) -> DistanceCounts:
    """Return the counts of a block of images.

    Raises
    ------
    ProtocolError
        If the records are not sound.
    """
    check_peaks(predicted.one, truth)
    check_peaks(predicted.other, truth)
    counted_N = np.asarray(truth.excluded_N) == 0
    image_Q, class_Q = np.nonzero((truth.label_NK == 1) & counted_N[:, None])
    one_xy_Q2, other_xy_Q2 = (
        _peak_of(peaks, image_Q, class_Q) for peaks in (predicted.one, predicted.other)
    )
    gap_Q2 = one_xy_Q2 - other_xy_Q2
    distance_Q = np.hypot(gap_Q2[:, 0], gap_Q2[:, 1])
    both_Q = ~np.isnan(distance_Q)
    return DistanceCounts(
        (distance_Q[both_Q],),
        (class_Q[both_Q],),
        np.bincount(class_Q, minlength=truth.num_classes),
        int((~counted_N).sum()),
    )


def result(protocol: ScoreProtocol, counts: DistanceCounts) -> Result:
    """Return the mean distance in pixels, the median and quartiles, and each class's mean."""
    distance_px = np.concatenate(counts.distance_px_parts)
    class_ = np.concatenate(counts.class_parts)
    num_K = counts.num_pairs_K
    chosen_K = np.zeros(len(num_K), bool)
    chosen_K[protocol.chosen] = True
    chosen_px = distance_px[chosen_K[class_]]
    num_lacking = int(num_K[chosen_K].sum()) - len(chosen_px)
    lower, median, upper = _quartiles(chosen_px)
    warnings = []
    if num_lacking:
        warnings.append(f"{num_lacking} pairs have no map in one of the stores and are left out.")
    return Result(
        protocol=protocol.name,
        value=_mean(chosen_px),
        unit=protocol.unit,
        higher_is_better=protocol.higher_is_better,
        parameters=protocol.parameters,
        per_class=tuple(
            ClassRow(index, _mean(of_class), {"num_pairs": len(of_class)})
            for index, of_class in (
                (index, distance_px[class_ == index]) for index in range(len(num_K))
            )
        ),
        extra={
            "median": median,
            "lower_quartile": lower,
            "upper_quartile": upper,
            "num_pairs": len(chosen_px),
            "num_pairs_without_map": num_lacking,
            "num_excluded": counts.num_excluded,
        },
        warnings=tuple(warnings),
    )


def _peak_of(
    peaks: Peaks, image_Q: npt.NDArray[np.intp], class_Q: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    """Return the peak of a class in an image, float64 (Q, 2), NaN where it has no map."""
    if not peaks.map_class_NS.shape[1]:
        return np.full((len(image_Q), 2), np.nan)
    same_QS = peaks.map_class_NS[image_Q] == class_Q[:, None]
    peak_xy_Q2: npt.NDArray[np.float64] = peaks.peak_xy_NS2[image_Q, same_QS.argmax(axis=1)].astype(
        np.float64
    )
    peak_xy_Q2[~same_QS.any(axis=1)] = np.nan
    return peak_xy_Q2


def _mean(distance_px: npt.NDArray[np.float64]) -> float:
    """Return the mean, the same in any order; NaN of nothing."""
    num = len(distance_px)
    return math.fsum(distance_px.tolist()) / num if num else float("nan")


def _quartiles(distance_px: npt.NDArray[np.float64]) -> list[float]:
    """Return the 25th, 50th and 75th percentile (linear between neighbours); NaN of nothing."""
    if not len(distance_px):
        return [float("nan")] * 3
    found: list[float] = np.quantile(np.sort(distance_px), [0.25, 0.5, 0.75]).tolist()
    return found
