"""Step (iv) of micro-annotation: the cells that look most like a distractor leave the map.

Kolesnikov and Lampert (2016), section 3: for *every* cell of an image the cluster with the
highest heat map score, ``C* = argmax_C H_u(X | C)`` (their text writes a minimum, but means the
cluster that fits best: its words are "highest heatmap score"); what belongs to a distractor does
not localize the object. The paper gives such a cell −∞, which has no bilinear upsampling.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from wsltool.errors import BadImageError, UsageError
from wsltool.localize.cluster_heat import cluster_heat

__all__ = ["Fill", "RefinedMap", "distractor_cells", "refine_map"]

Fill = Literal["masked", "floor", "zero"]

Bools: TypeAlias = npt.NDArray[np.bool_]
Flags: TypeAlias = npt.NDArray[np.bool_ | np.integer[Any]]
RealArray: TypeAlias = npt.NDArray[np.floating[Any]]


class RefinedMap(NamedTuple):
    """A map after `refine_map`.

    Attributes
    ----------
    map_HW : array of float
        In the dtype that was given.
    suppressed_HW : array of uint8
        1 where upsampling leaves the cell out; all ones mean that nothing was left, and count
        as none (`wsltool.localize.grid`).
    is_everywhere : bool
        Nothing was left, so the map keeps its scores.
    """

    map_HW: RealArray
    suppressed_HW: npt.NDArray[np.uint8]
    is_everywhere: bool


def distractor_cells(feature_PC: RealArray, centroid_QC: RealArray, distractor_Q: Flags) -> Bools:
    """Return which cells are a distractor's, bool (cells,).

    A cell is one if the heat (eq. 1) of the best distractor is strictly above that of the best
    other cluster: what fits both equally well is kept, as is a pattern of zeros, which fits none.

    Parameters
    ----------
    feature_PC : array of float, (cells, channels)
        Raw activations.
    centroid_QC : array of float, (clusters, channels)
        Mean patterns of the clusters of one class.
    distractor_Q : array of bool or int, (clusters,)
        Which of them are distractors. None: no cell is one. All: every cell is.

    Raises
    ------
    BadImageError
        A feature is not finite.
    """
    gone_Q = np.asarray(distractor_Q) != 0
    heat_PQ = cluster_heat(feature_PC, centroid_QC)
    worst_P = heat_PQ[:, gone_Q].max(axis=1, initial=-np.inf)
    best_P = heat_PQ[:, ~gone_Q].max(axis=1, initial=-np.inf)
    found: Bools = worst_P > best_P
    return found


def refine_map(
    map_HW: RealArray,
    distractor_HW: Flags,
    fill: Fill = "masked",
    suppressed_HW: Flags | None = None,
) -> RefinedMap:
    """Return a map without the cells of distractors.

    Parameters
    ----------
    map_HW : array of float, (rows, cols)
        Raw scores.
    distractor_HW : array of bool or int, (rows, cols)
        The cells that are to go.
    fill : {"masked", "floor", "zero"}
        What becomes of them. ``masked``: they get the map's floor ``min(0, min(map))`` and are
        marked as suppressed, so that upsampling leaves them out. ``floor`` and ``zero``: they
        get that value and are cells like any other, which upsampling mixes with their neighbours.
    suppressed_HW : array of bool or uint8, (rows, cols), optional
        Cells that were suppressed before; they stay as they are.

    Returns
    -------
    RefinedMap
        New arrays. Where no cell would be left the map keeps its scores, and all of it is marked,
        whatever the `fill`. Refining again with the same cells changes nothing.

    Raises
    ------
    UsageError
        `fill` is none of its words.
    BadImageError
        The map is empty or not finite, or the shapes differ.
    """
    if fill not in ("masked", "floor", "zero"):
        raise UsageError(f'fill must be masked, floor or zero, got "{fill}".')
    score_HW = np.asarray(map_HW)
    distractor_HW = _checked(score_HW, distractor_HW, "distractor cells")
    before_HW = np.zeros(score_HW.shape, bool)
    if suppressed_HW is not None:
        before_HW = _checked(score_HW, suppressed_HW, "suppressed")
    if (distractor_HW | before_HW).all():
        return RefinedMap(score_HW.copy(), np.ones(score_HW.shape, np.uint8), True)
    value = score_HW.dtype.type(0 if fill == "zero" else min(0, score_HW.min()))
    refined_HW = np.where(distractor_HW & ~before_HW, value, score_HW)
    gone_HW = before_HW | distractor_HW if fill == "masked" else before_HW
    return RefinedMap(refined_HW, gone_HW.astype(np.uint8), False)


def _checked(score_HW: RealArray, cell_HW: Flags, name: str) -> Bools:
    """Return the cells as bool; refuse a map without cells, and one that is not finite."""
    if not score_HW.size or not np.isfinite(score_HW).all():
        worst = score_HW[~np.isfinite(score_HW)]
        found = f"the value {worst[0]}" if worst.size else f"the shape {score_HW.shape}"
        raise BadImageError(f"map has {found}; expected finite scores of at least one cell.")
    if np.shape(cell_HW) != score_HW.shape:
        raise BadImageError(
            f"{name} have the shape {np.shape(cell_HW)}, the map {score_HW.shape}; expected the "
            "same rows and columns."
        )
    cells: Bools = np.asarray(cell_HW) != 0
    return cells
