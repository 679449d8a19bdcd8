"""Maps brought to one square grid for all images, as wsolevaluation prepares them.

Its rule (``inference.py``): resize the raw map, in float64, to the grid with OpenCV's
``INTER_CUBIC``; subtract the minimum and divide by the new maximum, after resizing; a map with a
NaN, or the same everywhere, is 0 throughout. A map that has the grid's size is not resampled.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wsltool.localize.grid import Flags, FloatArray, Numbers, PixelLattice

__all__ = ["grid_heat"]

# An extent is the whole image if its edges are as near to the image's, in pixels.
_NEAR_PX = 0.01


def grid_heat(
    map_HW: npt.NDArray[Any],
    extent_xyxy: Numbers,
    size_wh: Numbers,
    side_px: int,
    suppressed_HW: Flags | None = None,
) -> tuple[FloatArray, bool]:
    """Return a map on a grid that covers its image, from 0 to 1, and whether by the plain rule.

    Parameters
    ----------
    map_HW : array of float, (rows, cols)
        Raw scores.
    extent_xyxy : 4 numbers
        What the map covers, in pixels of the image.
    size_wh : 2 integers
        Width and height of the image.
    side_px : int
        Rows and columns of the grid.
    suppressed_HW : array of bool or uint8, (rows, cols), optional
        Cells to leave out; all of them count as none.

    Returns
    -------
    heat_HW : float64 array, (side_px, side_px)
    plain : bool
        False where the rule has no answer: the extent is not the whole image, or cells are
        suppressed. Such a map is resampled bilinearly (`wsltool.localize.grid`), and what it
        does not cover is as cold as its coldest place.

    Raises
    ------
    BadImageError
        For a map that is empty or infinite somewhere, an extent that is empty or covers no
        pixel of the grid, and a size below 1 x 1.
    """
    score_HW = np.asarray(map_HW, dtype=np.float64)
    if np.isnan(score_HW).any():
        return np.zeros((side_px, side_px)), True
    PixelLattice(extent_xyxy, size_wh, score_HW.shape)  # refuses what it cannot use
    size_4 = np.tile(np.asarray(size_wh, np.float64), 2)
    extent_4 = np.asarray(extent_xyxy, np.float64)
    lattice = PixelLattice(extent_4 * (side_px / size_4), (side_px, side_px), score_HW.shape)
    whole = np.abs(extent_4 - size_4 * [0, 0, 1, 1]).max() <= _NEAR_PX
    gone_HW = np.zeros(1) if suppressed_HW is None else np.asarray(suppressed_HW) != 0
    if whole and (gone_HW.all() or not gone_HW.any()):
        if not np.isfinite(score_HW).all():
            lattice.heat(score_HW)  # says which value it is
        size = (side_px, side_px)
        return _normalised(cv2.resize(score_HW, size, interpolation=cv2.INTER_CUBIC)), True
    heat_HW = lattice.heat(score_HW, suppressed_HW)
    outside_HW = np.isneginf(heat_HW)
    heat_HW[outside_HW] = heat_HW[~outside_HW].min()
    return _normalised(heat_HW), False


def _normalised(heat_HW: npt.NDArray[Any]) -> FloatArray:
    low, high = heat_HW.min(), heat_HW.max()
    if low == high:
        return np.zeros_like(heat_HW)
    heat_HW -= low
    heat_HW /= heat_HW.max()
    return heat_HW
