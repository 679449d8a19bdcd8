"""What can be said of a picture without looking at it: the floor under every method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from wsltool.errors import UsageError

__all__ = ["centred_box", "gaussian_map", "random_map", "whole_box"]

FloatArray: TypeAlias = npt.NDArray[np.float64]


def whole_box(size_wh: Sequence[float] | npt.NDArray[Any]) -> FloatArray:
    """Return the box of the whole image, ``0 0 width height``.

    Parameters
    ----------
    size_wh : numbers, (..., 2)
        Width and height of one image or of many, in pixels.

    Returns
    -------
    box_xyxy : array of float64, (..., 4)
        Half-open, in pixels.
    """
    return centred_box(size_wh, 1.0)


def centred_box(size_wh: Sequence[float] | npt.NDArray[Any], fraction: float) -> FloatArray:
    """Return the box in the middle whose sides are `fraction` of the image's sides.

    Parameters
    ----------
    size_wh : numbers, (..., 2)
        Width and height of one image or of many, in pixels.
    fraction : float
        In (0, 1]. A fraction f covers f² of the area.

    Returns
    -------
    box_xyxy : array of float64, (..., 4)
        Half-open, in pixels: ``(1 - f) / 2`` and ``(1 + f) / 2`` of each side.

    Raises
    ------
    UsageError
        If `fraction` is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise UsageError(f"fraction must be in (0, 1], got {fraction:g}.")
    side = np.asarray(size_wh, dtype=np.float64)
    return np.concatenate([side * ((1 - fraction) / 2), side * ((1 + fraction) / 2)], axis=-1)


def gaussian_map(grid_rc: Sequence[int], sigma_frac: float) -> npt.NDArray[np.float32]:
    """Return a map with a Gaussian in the middle, 1 at the middle of the extent.

    ``exp(-(u² + v²) / (2 sigma²))``, where u and v are the distances of a cell's centre from
    the middle, as fractions of the extent's sides: the bump is as wide as the extent is.

    Parameters
    ----------
    grid_rc : 2 integers
        Rows and columns.
    sigma_frac : float
        Standard deviation as a fraction of each side, above 0.

    Returns
    -------
    map_HW : array of float32, (rows, cols)

    Raises
    ------
    UsageError
        If `sigma_frac` is not above 0, or the grid has no cell.
    """
    if not 0 < sigma_frac < np.inf:
        raise UsageError(f"sigma must be a fraction above 0, got {sigma_frac:g}.")
    rows, cols = _checked_grid(grid_rc)
    v_H = ((np.arange(rows) + 0.5) / rows - 0.5) / sigma_frac
    u_W = ((np.arange(cols) + 0.5) / cols - 0.5) / sigma_frac
    return np.exp(-0.5 * (v_H[:, None] ** 2 + u_W**2)).astype(np.float32)


def random_map(grid_rc: Sequence[int], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return a map of independent uniform numbers in [0, 1), float32 (rows, cols).

    Raises
    ------
    UsageError
        If the grid has no cell.
    """
    return rng.random(_checked_grid(grid_rc), dtype=np.float32)


def _checked_grid(grid_rc: Sequence[int]) -> tuple[int, int]:
    rows, cols = grid_rc
    if rows < 1 or cols < 1:
        raise UsageError(f"grid must have at least 1x1 cells, got {rows}x{cols}.")
    return int(rows), int(cols)
