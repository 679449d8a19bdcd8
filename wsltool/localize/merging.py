"""Several maps of one class in one image become one map.

Weighted map voting (Kim et al. 2017, "Two-Phase Learning for Weakly Supervised Object
Localization", eq. 5) takes at every cell u of class c

    H_u^c = max(p_1^c · H_1,u^c, p_2^c · H_2,u^c),

p the probability that each network gives the class; here for any number of networks. The
paper normalises nothing, and neither does this: H is the raw map. Below zero the product of
the surer network is the lower one, so that the maximum takes the less sure network's value;
a cell where every map is negative stays negative.

Legend: M inputs, K classes, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from wsltool.errors import BadImageError, UsageError
from wsltool.localize.grid import Numbers, resample

__all__ = [
    "How",
    "align_map",
    "finest_grid",
    "merge_class_scores",
    "merge_maps",
    "probability_of",
]

FloatArray: TypeAlias = npt.NDArray[np.float64]
RealArray: TypeAlias = npt.NDArray[np.floating[Any]]
Flags: TypeAlias = npt.NDArray[np.bool_ | np.integer[Any]]
How: TypeAlias = Literal["weighted-max", "mean", "max"]


def merge_maps(
    map_MHW: Sequence[RealArray] | RealArray, how: How, probability_M: Numbers | None = None
) -> FloatArray:
    """Merge the maps of one class, which lie on one grid.

    Parameters
    ----------
    map_MHW : M arrays of float, (rows, cols)
        Raw maps, M at least 1; −inf where an input has no say (a cell that it suppressed or
        did not see): the others decide there.
    how : {"weighted-max", "mean", "max"}
        Eq. 5 of Kim et al., the arithmetic mean, or the maximum.
    probability_M : M numbers in [0, 1]
        The class's probability by each input; read by ``weighted-max`` alone.

    Returns
    -------
    merged_HW : array of float64
        −inf where no input has a say. The order of the inputs does not matter to the
        maximum, nor beyond rounding to the mean.

    Raises
    ------
    UsageError
        `how` is unknown, or the probabilities do not fit.
    BadImageError
        A map holds NaN or +inf.
    """
    value_MHW = np.array([np.asarray(map_HW, np.float64) for map_HW in map_MHW])
    said_MHW = ~np.isneginf(value_MHW)
    bad_MHW = said_MHW & ~np.isfinite(value_MHW)
    if bad_MHW.any():
        raise BadImageError(
            f"map has values that are not finite ({value_MHW[bad_MHW][0]}); expected finite scores."
        )
    if how == "weighted-max":
        weight_M = _checked_probability(probability_M, len(value_MHW))
        value_MHW = np.where(said_MHW, weight_M[:, None, None] * _silenced(value_MHW), -np.inf)
    elif how == "mean":
        count_HW = said_MHW.sum(axis=0)
        mean_HW = _silenced(value_MHW).sum(axis=0) / np.maximum(count_HW, 1)
        return np.where(count_HW > 0, mean_HW, -np.inf)
    elif how != "max":
        raise UsageError(f'how must be weighted-max, mean or max, got "{how}".')
    merged_HW: FloatArray = value_MHW.max(axis=0)
    return merged_HW


def _silenced(value_MHW: FloatArray) -> FloatArray:
    """Return the values with 0 where there is none, so that products and sums are finite."""
    return np.where(np.isneginf(value_MHW), 0.0, value_MHW)


def _checked_probability(probability_M: Numbers | None, num: int) -> FloatArray:
    weight_M = np.asarray([] if probability_M is None else probability_M, np.float64)
    if weight_M.shape != (num,) or not ((weight_M >= 0) & (weight_M <= 1)).all():
        raise UsageError(
            f"weighted-max needs {num} probabilities in [0, 1], got {weight_M.tolist()}."
        )
    return weight_M


def merge_class_scores(score_MK: RealArray, how: How) -> FloatArray:
    """Return the scores of all classes of one image after merging.

    The mean for ``mean``, the maximum otherwise. Under the maximum the k best classes of the
    merged scores are among the k best of the inputs, so that maps of the inputs' k best
    classes are enough to have maps of the merged k best; of the mean that is not true.

    Parameters
    ----------
    score_MK : array of float, (inputs, classes)
        −inf for a class whose score an input does not tell.
    how : {"weighted-max", "mean", "max"}
        As in `merge_maps`.

    Returns
    -------
    score_K : array of float64
        −inf where the mean lacks an input's score, or the maximum lacks all.

    Raises
    ------
    BadImageError
        A score is NaN or +inf.
    """
    score = np.asarray(score_MK, np.float64)
    if np.isnan(score).any() or np.isposinf(score).any():
        bad = int(np.argmax((np.isnan(score) | np.isposinf(score)).any(axis=0)))
        raise BadImageError(
            f"the scores of class {bad} are {score[:, bad].tolist()}; expected numbers. "
            "Make the maps again."
        )
    merged_K: FloatArray = score.mean(axis=0) if how == "mean" else score.max(axis=0)
    return merged_K


def probability_of(
    score_K: RealArray, link: Literal["sigmoid", "softmax", "probability"]
) -> FloatArray:
    """Return the probability of each class of one image from the scores of all classes.

    ``sigmoid``: ``1 / (1 + exp(−s))``, each class for itself (logistic losses).
    ``softmax``: over the K classes given. ``probability``: the scores are that already.
    A class of score −inf has probability 0.

    Raises
    ------
    BadImageError
        A score is NaN or +inf, a ``probability`` is not in [0, 1], or softmax has no score.
    """
    score = np.asarray(score_K, np.float64)
    if link == "probability":
        chance = np.where(np.isneginf(score), 0.0, score)
    elif np.isnan(score).any() or np.isposinf(score).any():
        chance = np.full_like(score, np.nan)
    elif link == "sigmoid":
        chance = np.exp(-np.logaddexp(0.0, -score))
    else:
        top = score.max(initial=-np.inf)
        power = np.exp(score - top) if np.isfinite(top) else np.full_like(score, np.nan)
        chance = power / power.sum()
    fine = (chance >= 0) & (chance <= 1)
    if not fine.all():
        bad = int(np.argmin(fine))
        raise BadImageError(
            f"the score of class {bad} is {score[bad]}, which is no {_MEANS[link]}. "
            "Make the maps again."
        )
    return chance


_MEANS = {"sigmoid": "logit", "softmax": "logit", "probability": "probability in [0, 1]"}


def finest_grid(extent_M4: Numbers, grid_M2: Numbers) -> int:
    """Return which input's cells are smallest in the image, by area; the first among equals.

    Parameters
    ----------
    extent_M4 : (inputs, 4) numbers
        What each grid covers, ``x0 y0 x1 y1`` in pixels.
    grid_M2 : (inputs, 2) integers
        Rows and columns of each grid.
    """
    extent = np.asarray(extent_M4, np.float64)
    area_M = np.prod((extent[:, 2:] - extent[:, :2]) / np.asarray(grid_M2)[:, ::-1], axis=1)
    return int(np.argmin(np.where(np.isfinite(area_M), area_M, np.inf)))


def align_map(
    map_HW: RealArray,
    extent_xyxy: Numbers,
    onto_extent_xyxy: Numbers,
    onto_grid_rc: tuple[int, int],
    suppressed_HW: Flags | None = None,
) -> FloatArray:
    """Return a map at the centres of another grid's cells, bilinearly.

    The rule is that of `wsltool.localize.grid.resample`, the other grid's cells in the place
    of pixels. On its own grid a map comes back as it is.

    Parameters
    ----------
    map_HW : array of float, (rows, cols)
        Raw scores.
    extent_xyxy, onto_extent_xyxy : 4 numbers
        What the two grids cover, in pixels of the image.
    onto_grid_rc : 2 integers
        Rows and columns of the other grid.
    suppressed_HW : array of bool or uint8, (rows, cols), optional
        Cells to leave out. Where all are suppressed, none is.

    Returns
    -------
    array of float64, `onto_grid_rc`
        −inf where the map has no say: the centre of the other cell lies outside the extent,
        or the nearest cell is suppressed.

    Raises
    ------
    BadImageError
        As `wsltool.localize.grid.resample`.
    """
    score_HW = np.array(map_HW, np.float64)
    if not np.isfinite(score_HW).all():
        worst = score_HW[~np.isfinite(score_HW)][0]
        raise BadImageError(f"map has values that are not finite ({worst}); expected finite ones.")
    gone_HW = np.zeros(score_HW.shape, bool)
    if suppressed_HW is not None and not np.all(suppressed_HW):
        gone_HW = np.asarray(suppressed_HW) != 0
    if np.array_equal(extent_xyxy, onto_extent_xyxy) and score_HW.shape == tuple(onto_grid_rc):
        score_HW[gone_HW] = -np.inf
        return score_HW
    x0, y0, x1, y1 = np.asarray(onto_extent_xyxy, np.float64)
    step_4 = np.tile([(x1 - x0) / onto_grid_rc[1], (y1 - y0) / onto_grid_rc[0]], 2)
    if not np.isfinite(step_4).all() or (step_4 <= 0).any():
        raise BadImageError(
            f"map_extent is {x0:g} {y0:g} {x1:g} {y1:g}; expected finite x0 < x1 and y0 < y1."
        )
    in_cells = (np.asarray(extent_xyxy, np.float64) - (x0, y0, x0, y0)) / step_4
    size_wh = onto_grid_rc[1], onto_grid_rc[0]
    if not gone_HW.any():
        return resample(score_HW, in_cells, size_wh)
    # Above zero, the floor of suppressed cells is 0 and tells them from the others.
    shift = (float(np.abs(score_HW).max()) or 1.0) - float(score_HW.min())
    value_HW = resample(score_HW + shift, in_cells, size_wh, gone_HW)
    return np.where(value_HW == 0, -np.inf, value_HW - shift)
