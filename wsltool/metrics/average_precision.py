"""Precision, recall and average precision of ranked detections (VOC devkit, ``VOCap.m``)."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from wsltool.errors import UsageError

__all__ = ["RECALL_GRIDS", "area_ap", "eleven_point_ap", "precision_recall"]

FloatArray: TypeAlias = npt.NDArray[np.float64]

# MATLAB builds 0:0.1:1 from both ends, so .6 and .7 are exact and only .3 is off; in numpy's
# arange .3, .6 and .7 are off, and a recall of exactly 6/10 does not reach its own step.
RECALL_GRIDS: dict[str, FloatArray] = {
    "devkit": np.concatenate([np.arange(6) * 0.1, 1 - np.arange(4, -1, -1) * 0.1]),
    "numpy": np.arange(0, 1.1, 0.1),
}


def precision_recall(
    true_D: npt.NDArray[np.bool_],
    false_D: npt.NDArray[np.bool_],
    num_positives: int,
    weight_D: npt.NDArray[np.int64] | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Return precision and recall after each detection, best first.

    Parameters
    ----------
    true_D, false_D : arrays of bool
        Whether a detection is a true or a false positive; neither for one of a difficult object.
    num_positives : int
        Objects to be found, difficult ones left out.
    weight_D : array of int64, optional
        How often each detection counts, one directly behind the other; by default once.
        Only the last of them is a point of the curve: the area under it is the same.

    Returns
    -------
    precision_D, recall_D : arrays of float64
        Precision is NaN until the first true or false positive; recall is NaN throughout where
        there is nothing to find.
    """
    if weight_D is None:
        true_sum_D, false_sum_D = np.cumsum(true_D), np.cumsum(false_D)
    else:
        true_sum_D, false_sum_D = np.cumsum(true_D * weight_D), np.cumsum(false_D * weight_D)
    counted_D = true_sum_D + false_sum_D
    precision_D = np.full(len(counted_D), np.nan)
    np.divide(true_sum_D, counted_D, out=precision_D, where=counted_D > 0)
    if num_positives == 0:
        return precision_D, np.full(len(counted_D), np.nan)
    return precision_D, true_sum_D / num_positives


def area_ap(precision_D: FloatArray, recall_D: FloatArray) -> float:
    """Return the area under the curve, as VOC does from 2010 on.

    The curve is prolonged by (recall 0, precision 0) and (1, 0), its precision made monotone
    from the right (a NaN is skipped, as MATLAB's ``max`` does), and summed where recall changes:
    ``Σ (r_i - r_{i-1}) p_i``. Without detections it is 0.
    """
    recall = np.concatenate([[0.0], recall_D, [1.0]])
    precision = np.concatenate([[0.0], precision_D, [0.0]])
    precision = np.fmax.accumulate(precision[::-1])[::-1]
    step = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(np.sum((recall[step] - recall[step - 1]) * precision[step]))


def eleven_point_ap(precision_D: FloatArray, recall_D: FloatArray, grid: str = "devkit") -> float:
    """Return the mean of the best precision at a recall of at least 0, .1, …, 1 (VOC 2007).

    0 counts where no detection reaches the recall; a NaN is skipped. `grid` says how the eleven
    recalls are computed (`RECALL_GRIDS`): as MATLAB does, or as numpy's ``arange``, which
    py-faster-rcnn and its descendants use.

    Raises
    ------
    UsageError
        If `grid` is neither "devkit" nor "numpy".
    """
    if grid not in RECALL_GRIDS:
        raise UsageError(f'grid must be "devkit" or "numpy", got {grid!r}.')
    known_D = ~np.isnan(precision_D)
    best = [
        float(precision_D[known_D & (recall_D >= recall)].max(initial=0.0))
        for recall in RECALL_GRIDS[grid]
    ]
    return sum(best) / len(best)
