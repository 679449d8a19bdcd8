"""How far apart the maps of two stores peak (Kim et al. 2017, §6.2).

For each image and class present in it (label 1) that both have a map of: the Euclidean distance
between the centres of the two hottest pixels, in pixels of the original image. The value is the
mean over pairs. No true box is needed. Pairs that one of the two has no map of, or no prediction
for the image, are left out and counted; excluded images are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from wsltool.metrics.records import Peaks, Truth, check_peaks
from wsltool.metrics.result import Result, class_rows, told
from wsltool.metrics.tally import Tally

if TYPE_CHECKING:
    from wsltool.metrics.protocols import ScoreProtocol

__all__ = ["PeakPairs", "count", "result"]


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


def count(_protocol: ScoreProtocol, predicted: PeakPairs, truth: Truth) -> Tally:
    """Return the counts of a block of images.

    The table ``pair`` has the distance of each pair in pixels, NaN where a map is lacking.

    Raises
    ------
    ProtocolError
        If the records are not sound.
    """
    check_peaks(predicted.one, truth)
    check_peaks(predicted.other, truth)
    row_N = truth.row_N.astype(np.int64)
    excluded_N = np.asarray(truth.excluded_N, dtype=bool)
    image_Q, class_Q = np.nonzero((truth.label_NK == 1) & ~excluded_N[:, None])
    one_xy_Q2, other_xy_Q2 = (
        _peak_of(peaks, image_Q, class_Q) for peaks in (predicted.one, predicted.other)
    )
    gap_Q2 = one_xy_Q2 - other_xy_Q2
    pair: dict[str, npt.NDArray[Any]] = {
        "row": row_N[image_Q],
        "class": class_Q.astype(np.int32),
        "distance_px": np.hypot(gap_Q2[:, 0], gap_Q2[:, 1]),
    }
    image = {"row": row_N, "excluded": excluded_N}
    return Tally(truth.num_classes, {"image": image, "pair": pair})


def result(protocol: ScoreProtocol, tally: Tally) -> Result:
    """Return the mean distance in pixels, the median and quartiles, and each class's mean."""
    edge_K, class_D, distance_px_D, order_D = tally.once("by class", lambda: _by_class(tally))
    weight_D = tally.weight("pair")[order_D]
    chosen_K = np.zeros(tally.num_classes, bool)
    chosen_K[protocol.chosen] = True
    of_chosen = chosen_K[class_D]
    chosen_px = np.repeat(distance_px_D[of_chosen], weight_D[of_chosen])
    num_pairs = int(tally.num_by("pair")[chosen_K].sum())
    num_lacking = num_pairs - len(chosen_px)
    lower, median, upper = _quartiles(chosen_px)
    mean_K = [_mean(distance_px_D[low:high], weight_D[low:high]) for low, high in pairwise(edge_K)]
    both_Q = ~np.isnan(tally.column("pair", "distance_px"))
    return Result.of(
        protocol,
        _mean(distance_px_D[of_chosen], weight_D[of_chosen]),
        per_class=class_rows(
            np.array(mean_K, np.float64), {"num_pairs": tally.num_by("pair", where=both_Q)}
        ),
        extra={
            "median": median,
            "lower_quartile": lower,
            "upper_quartile": upper,
            "num_pairs": len(chosen_px),
            "num_pairs_without_map": num_lacking,
            "num_excluded": tally.num("image", tally.column("image", "excluded")),
        },
        warnings=told(((num_lacking, "pairs have no map in one of the stores and are left out."),)),
    )


def _by_class(
    tally: Tally,
) -> tuple[list[int], npt.NDArray[np.int32], npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """Return the pairs that both stores have, by class: edges, classes, distances, entries."""
    class_Q, distance_px_Q = (tally.column("pair", name) for name in ("class", "distance_px"))
    order_D = np.argsort(class_Q, kind="stable")
    order_D = order_D[~np.isnan(distance_px_Q[order_D])]
    edge_K = np.searchsorted(class_Q[order_D], np.arange(tally.num_classes + 1))
    return edge_K.tolist(), class_Q[order_D], distance_px_Q[order_D], order_D


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


def _mean(distance_px_D: npt.NDArray[np.float64], weight_D: npt.NDArray[np.int64]) -> float:
    """Return the mean, the same in any order; NaN of nothing."""
    num = int(weight_D.sum())
    return math.fsum((distance_px_D * weight_D).tolist()) / num if num else float("nan")


def _quartiles(distance_px: npt.NDArray[np.float64]) -> list[float]:
    """Return the 25th, 50th and 75th percentile (linear between neighbours); NaN of nothing."""
    if not len(distance_px):
        return [float("nan")] * 3
    found: list[float] = np.quantile(np.sort(distance_px), [0.25, 0.5, 0.75]).tolist()
    return found
