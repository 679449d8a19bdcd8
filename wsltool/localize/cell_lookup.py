"""Cells of one grid against those of another over the same image, and where maps fire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from wsltool.errors import BadImageError
from wsltool.localize.grid import cell_centers_px

__all__ = ["centers_inside", "firing_cells", "nearest_cells"]

Indices: TypeAlias = npt.NDArray[np.intp]
Flags: TypeAlias = npt.NDArray[np.bool_]
Numbers: TypeAlias = Sequence[float] | npt.NDArray[Any]

# Cells: a centre this near to an edge between two cells lies on it. Extents are float32.
_ON_EDGE = 1e-4


def nearest_cells(
    of_extent_xyxy: Numbers, of_grid: Sequence[int], in_extent_xyxy: Numbers, in_grid: Sequence[int]
) -> tuple[Indices, Indices]:
    """Find for the centre of every cell of one grid the cell of another that contains it.

    A centre on the edge between two cells is in the later one; outside the other grid the
    nearest cell stands for it.

    Parameters
    ----------
    of_extent_xyxy, in_extent_xyxy : 4 numbers
        What the grids cover, in pixels of the image.
    of_grid, in_grid : 2 integers
        Their rows and columns.

    Returns
    -------
    row_H, col_W : arrays of intp
        Of the other grid: cell ``(r, c)`` of the first has its centre in cell
        ``(row_H[r], col_W[c])``.

    Raises
    ------
    BadImageError
        An extent is empty or not finite, or a grid has no cell.
    """
    row_H, col_W = _places(of_extent_xyxy, of_grid, in_extent_xyxy, in_grid)
    return _clipped(row_H, in_grid[0]), _clipped(col_W, in_grid[1])


def centers_inside(
    of_extent_xyxy: Numbers, of_grid: Sequence[int], in_extent_xyxy: Numbers
) -> tuple[Flags, Flags]:
    """Return which rows and columns of a grid have their centre in an extent, edges included.

    Raises
    ------
    BadImageError
        As `nearest_cells`.
    """
    row_H, col_W = _places(of_extent_xyxy, of_grid, in_extent_xyxy, (1, 1))
    return (abs(row_H - 0.5) <= 0.5 + _ON_EDGE), (abs(col_W - 0.5) <= 0.5 + _ON_EDGE)


def firing_cells(
    map_SHW: npt.NDArray[np.floating[Any]],
    threshold: float = 0.2,
    suppressed_SHW: npt.NDArray[np.uint8] | None = None,
) -> Flags:
    """Return where maps fire: strictly above `threshold` times their maximum.

    These are the locations of Kolesnikov and Lampert (2016, section 3), there with a threshold
    of .2. A map whose maximum is not positive fires nowhere.

    Parameters
    ----------
    map_SHW : array of float, (slots, rows, cols)
        Raw scores, compared in float64.
    threshold : float
        In [0, 1).
    suppressed_SHW : array of uint8, (slots, rows, cols), optional
        Cells that do not fire and do not count for the maximum. In a map with nothing else,
        none is taken for suppressed.

    Returns
    -------
    fires_SHW : array of bool, (slots, rows, cols)

    Raises
    ------
    BadImageError
        A score is NaN or infinite, or the maps have no cell.
    """
    score_SHW = np.asarray(map_SHW, np.float64)
    if 0 in score_SHW.shape[1:]:
        rows, cols = score_SHW.shape[1:]
        raise BadImageError(f"its maps have {rows}x{cols} cells; expected at least 1x1.")
    if not np.isfinite(score_SHW).all():
        num = int((~np.isfinite(score_SHW)).sum())
        raise BadImageError(
            f"its maps have {num} values that are not finite; expected finite scores."
        )
    kept_SHW = np.ones(score_SHW.shape, bool)
    if suppressed_SHW is not None:
        kept_SHW = suppressed_SHW == 0
        kept_SHW |= ~kept_SHW.any(axis=(1, 2), keepdims=True)
    top_S11 = np.where(kept_SHW, score_SHW, -np.inf).max(axis=(1, 2), keepdims=True)
    fires_SHW: Flags = kept_SHW & (top_S11 > 0) & (score_SHW > threshold * top_S11)
    return fires_SHW


def _places(
    of_extent_xyxy: Numbers, of_grid: Sequence[int], in_extent_xyxy: Numbers, in_grid: Sequence[int]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return where the centres lie in the other grid, in its cells, rows and columns."""
    x_px_W, y_px_H = cell_centers_px(of_extent_xyxy, of_grid)
    cell_centers_px(in_extent_xyxy, in_grid)  # checks them
    x0, y0, x1, y1 = (float(edge) for edge in in_extent_xyxy)
    num_rows, num_cols = in_grid
    return (y_px_H - y0) / (y1 - y0) * num_rows, (x_px_W - x0) / (x1 - x0) * num_cols


def _clipped(place_P: npt.NDArray[np.float64], num_cells: int) -> Indices:
    cell_P = np.clip(np.floor(place_P + _ON_EDGE), 0, num_cells - 1)
    return np.asarray(cell_P, np.intp)
