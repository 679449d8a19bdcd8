"""Where a map with plateaus is hottest: the centre of its region of maximal response.

Bency et al. (2016, section 4.2). The heat of a beam search is a sum over boxes, so its maximum is
seldom one cell, and the first of many equal cells is the upper left corner of what was found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsltool.localize.components import find_components
from wsltool.localize.grid import Flags, Numbers, RealArray, cell_centers_px, checked_scores

__all__ = ["HottestRegion", "hottest_region"]

# Of the maximum's size: maps are float32, whose sums differ by less than that.
_ALIKE = 1e-6


@dataclass(frozen=True, slots=True)
class HottestRegion:
    """The region of maximal response of one map.

    Attributes
    ----------
    x_px, y_px : float
        Its centroid, in pixels of the image: the mean of the centres of its cells.
    value : float
        The map's maximum.
    num_cells : int
        Its cells.
    """

    x_px: float
    y_px: float
    value: float
    num_cells: int


def hottest_region(
    map_HW: RealArray,
    extent_xyxy: Numbers,
    size_wh: Numbers,
    suppressed_HW: Flags | None = None,
) -> HottestRegion:
    """Return the region of maximal response of a map, on the map's own cells.

    Cells count whose centre lies in the image (all, where no centre does) and that are not
    suppressed (all, where every cell is). Those within a millionth of the maximum are as hot as
    it; of their connected components (cells that touch at a corner belong together) the region
    is the one whose first cell is the upper, then the left one. A constant map is one region,
    its centre is the middle of the cells that count.

    Parameters
    ----------
    map_HW : array of float, (rows, cols)
        Raw scores; compared in float64.
    extent_xyxy : 4 numbers
        What the grid covers, in pixels of the image.
    size_wh : 2 integers
        Width and height of the image, in pixels.
    suppressed_HW : array of bool or uint8, (rows, cols), optional
        Cells to leave out.

    Returns
    -------
    HottestRegion
        The centroid of a region that is not convex may lie outside of it.

    Raises
    ------
    BadImageError
        For a map that is empty or not finite, and an extent that is empty.
    """
    grid_rc = np.shape(map_HW)
    x_px_W, y_px_H = cell_centers_px(extent_xyxy, grid_rc)
    score_HW, keep_HW = checked_scores(map_HW, suppressed_HW, (grid_rc[0], grid_rc[1]))
    counts_HW = np.ones(score_HW.shape, bool) if keep_HW is None else keep_HW
    inside_HW = _inside(y_px_H, size_wh[1])[:, None] & _inside(x_px_W, size_wh[0])
    if (counts_HW & inside_HW).any():
        counts_HW = counts_HW & inside_HW
    top = float(score_HW[counts_HW].max())
    hot_HW = counts_HW & (score_HW >= top - _ALIKE * abs(top))
    label_HW = find_components(hot_HW).label_HW
    row_R, col_R = np.nonzero(label_HW == label_HW.flat[int(hot_HW.argmax())])
    return HottestRegion(float(x_px_W[col_R].mean()), float(y_px_H[row_R].mean()), top, len(row_R))


def _inside(center_px_G: npt.NDArray[np.float64], num_px: float) -> npt.NDArray[np.bool_]:
    return (center_px_G >= 0) & (center_px_G <= num_px)
