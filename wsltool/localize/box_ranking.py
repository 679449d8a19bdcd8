"""Given boxes ranked by a map: what it holds inside of each, and the best ones, apart.

A map is read as it is, constant within each cell of its grid (no upsampling), so the sum over a
box is exact: cells that a box cuts count by the share that lies inside. Sums come from an integral
image, linear between its grid points, and maxima from a table of maxima over windows of 2^a x 2^b
cells: four look-ups a box, however large.

Cells that were suppressed hold the floor ``min(0, min(map))``, each on its own area; where all are,
the map keeps its scores, as in `wsltool.localize.grid`.

Legend: S slots, B boxes, H W rows and columns.
"""

from __future__ import annotations

from math import sqrt
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from wsltool.errors import BadImageError
from wsltool.localize.grid import Flags, Numbers, PixelLattice

__all__ = ["Aggregate", "aggregate_in_boxes", "suppress_overlaps"]

FloatArray: TypeAlias = npt.NDArray[np.float64]
IndexArray: TypeAlias = npt.NDArray[np.intp]
RealArray: TypeAlias = npt.NDArray[np.floating[Any]]
Aggregate: TypeAlias = Literal["sum", "mean", "max", "contrast"]

# Sides of the outer box of a ring over those of its box: the ring is as large as the box.
_RING = sqrt(2.0)
# A box touches a cell from this share of it on; less is rounding.
_TOUCH = 1e-9


def aggregate_in_boxes(
    map_SHW: RealArray,
    extent_xyxy: Numbers,
    size_wh: Numbers,
    box_xyxy_B4: npt.NDArray[Any],
    how: Aggregate,
    suppressed_SHW: Flags | None = None,
    *,
    threshold: float = 0.0,
) -> FloatArray:
    """Return what each map of an image holds inside each box.

    Parameters
    ----------
    map_SHW : array of float, (slots, rows, cols)
        Raw scores.
    extent_xyxy : 4 numbers
        What the grid covers, in pixels of the image.
    size_wh : 2 integers
        Width and height of the image. Only what lies inside of both is looked at.
    box_xyxy_B4 : array, (boxes, 4)
        Half-open, in pixels of the image.
    how : {"sum", "mean", "max", "contrast"}
        ``sum``: the integral over the box, in cells, of the map minus `threshold` times its
        maximum, so that what is colder counts against the box. ``mean``: the integral of the map
        itself divided by the area of the box. ``max``: the highest cell that the box touches.
        ``contrast``: the mean inside minus the mean in a ring around the box. The outer edge of
        the ring is the box enlarged about its centre until the ring has the box's own area (sides
        times the square root of 2); where it leaves the picture or what the map covers, it is as
        cold as the map's coldest cell.
    suppressed_SHW : array of bool or uint8, (slots, rows, cols), optional
        Cells that hold the floor instead.
    threshold : float
        In [0, 1), a fraction of each map's maximum; read by ``sum``. Nothing is taken away where
        the maximum is negative.

    Returns
    -------
    value_SB : float64 array, (slots, boxes)
        NaN for a box without any area on the map.

    Raises
    ------
    BadImageError
        A map or a box is not finite, a box ends before it begins, or the extent is empty.
    """
    lattice = PixelLattice(extent_xyxy, size_wh, np.shape(map_SHW)[1:])
    score_SHW = _checked_maps(map_SHW, suppressed_SHW)
    frame_4, cell_wh = _frame(extent_xyxy, size_wh, lattice.grid_rc)
    box_B4 = _clipped(_checked_boxes(box_xyxy_B4), frame_4)
    origin_4 = np.tile(np.asarray(extent_xyxy, np.float64)[:2], 2)
    cells_B4 = (box_B4 - origin_4) / np.tile(cell_wh, 2)
    area_B = _area(cells_B4)
    has_area_B = area_B > 0
    if how == "sum":
        score_SHW = score_SHW - threshold * score_SHW.max(axis=(1, 2), keepdims=True, initial=0)
    if how == "max":
        value_SB = _maxima(score_SHW, cells_B4, has_area_B)
    else:
        value_SB = _integrals(score_SHW, cells_B4)
    if how in ("mean", "contrast"):
        value_SB = value_SB / np.where(has_area_B, area_B, 1)
    if how == "contrast":
        frame_cells_4 = (frame_4 - origin_4) / np.tile(cell_wh, 2)
        value_SB = value_SB - _ring_means(score_SHW, cells_B4, frame_cells_4)
    return np.where(has_area_B, value_SB, np.nan)


def suppress_overlaps(
    box_xyxy_B4: npt.NDArray[Any], score_B: npt.NDArray[Any], *, iou: float, most: int
) -> IndexArray:
    """Return which boxes are kept by greedy non-maximum suppression, the best first.

    The best box is kept, and every other one whose intersection over union with it is *above*
    `iou` goes (``torchvision.ops.nms``); then the next best of those that are left, until `most`
    are kept. Among equal scores the first box is the better one.

    Parameters
    ----------
    box_xyxy_B4 : array, (boxes, 4)
        Half-open boxes.
    score_B : array, (boxes,)
        Any finite numbers.
    iou : float
        In [0, 1]; 1 lets every box stay.
    most : int
        How many are kept at most.

    Returns
    -------
    kept_K : intp array, (kept,)
        Places in `box_xyxy_B4`, by falling score.
    """
    box_B4 = np.asarray(box_xyxy_B4, np.float64)
    area_B = _area(box_B4)
    left_M = np.argsort(-np.asarray(score_B, np.float64), kind="stable")
    kept: list[int] = []
    while len(left_M) and len(kept) < most:
        best, left_M = int(left_M[0]), left_M[1:]
        kept.append(best)
        shared_M = _area(_clipped(box_B4[left_M], box_B4[best]))
        union_M = area_B[best] + area_B[left_M] - shared_M
        left_M = left_M[shared_M <= iou * union_M]
    return np.array(kept, np.intp)


def _checked_maps(map_SHW: RealArray, suppressed_SHW: Flags | None) -> FloatArray:
    """Return the scores in float64, the floor in suppressed cells."""
    score_SHW = np.asarray(map_SHW, np.float64)
    bad_SHW = ~np.isfinite(score_SHW)
    if bad_SHW.any():
        raise BadImageError(
            f"map has {int(bad_SHW.sum())} values that are not finite "
            f"({score_SHW[bad_SHW][0]}); expected finite scores."
        )
    if suppressed_SHW is None:
        return score_SHW
    gone_SHW = np.asarray(suppressed_SHW) != 0
    gone_SHW &= ~gone_SHW.all(axis=(1, 2), keepdims=True)
    floor_S11 = np.minimum(score_SHW.min(axis=(1, 2), keepdims=True), 0)
    return np.where(gone_SHW, floor_S11, score_SHW)


def _checked_boxes(box_xyxy_B4: npt.NDArray[Any]) -> FloatArray:
    box_B4 = np.asarray(box_xyxy_B4, np.float64).reshape(-1, 4)
    with np.errstate(invalid="ignore"):
        good_B = np.isfinite(box_B4).all(axis=1) & (box_B4[:, 2:] >= box_B4[:, :2]).all(axis=1)
    if not good_B.all():
        first = int(good_B.argmin())
        edges = " ".join(f"{edge:g}" for edge in box_B4[first])
        raise BadImageError(f"box {first} is {edges}; expected finite x0 <= x1 and y0 <= y1.")
    return box_B4


def _frame(
    extent_xyxy: Numbers, size_wh: Numbers, grid_rc: tuple[int, int]
) -> tuple[FloatArray, FloatArray]:
    """Return what lies in the picture and on the map, and width and height of a cell, in pixels."""
    extent_4 = np.asarray(extent_xyxy, np.float64)
    width, height = (float(side) for side in size_wh)
    frame_4 = _clipped(extent_4[None], np.array([0, 0, width, height]))[0]
    return frame_4, (extent_4[2:] - extent_4[:2]) / np.array(grid_rc[::-1], np.float64)


def _clipped(box_B4: FloatArray, frame_4: FloatArray) -> FloatArray:
    """Return the part of each box inside of a frame; it has no area where there is none."""
    low, high = np.tile(frame_4[:2], 2), np.tile(frame_4[2:], 2)
    clipped_B4: FloatArray = np.clip(box_B4, low, high)
    return clipped_B4


def _area(box_B4: FloatArray) -> FloatArray:
    area_B: FloatArray = (box_B4[:, 2] - box_B4[:, 0]) * (box_B4[:, 3] - box_B4[:, 1])
    return area_B


def _integrals(score_SHW: FloatArray, cells_B4: FloatArray) -> FloatArray:
    """Return the integral of each map over each box (in cells, on the grid), (slots, boxes)."""
    table_SHW = np.pad(score_SHW.cumsum(axis=1).cumsum(axis=2), ((0, 0), (1, 0), (1, 0)))
    x0_B, y0_B, x1_B, y1_B = cells_B4.T
    corners = ((y1_B, x1_B, 1), (y0_B, x1_B, -1), (y1_B, x0_B, -1), (y0_B, x0_B, 1))
    value_SB = np.zeros((len(score_SHW), len(cells_B4)))
    for y_B, x_B, sign in corners:
        value_SB += sign * _between(table_SHW, y_B, x_B)
    return value_SB


def _between(table_SHW: FloatArray, y_B: FloatArray, x_B: FloatArray) -> FloatArray:
    """Return an integral image between its grid points, where it is bilinear."""
    row_B = np.minimum(y_B.astype(np.intp), table_SHW.shape[1] - 2)
    col_B = np.minimum(x_B.astype(np.intp), table_SHW.shape[2] - 2)
    v_B, u_B = y_B - row_B, x_B - col_B
    above_SB = (1 - u_B) * table_SHW[:, row_B, col_B] + u_B * table_SHW[:, row_B, col_B + 1]
    row_B = row_B + 1
    below_SB = (1 - u_B) * table_SHW[:, row_B, col_B] + u_B * table_SHW[:, row_B, col_B + 1]
    value_SB: FloatArray = (1 - v_B) * above_SB + v_B * below_SB
    return value_SB


def _ring_means(
    score_SHW: FloatArray, cells_B4: FloatArray, frame_cells_4: FloatArray
) -> FloatArray:
    """Return the mean of each map in the ring around each box; see `aggregate_in_boxes`."""
    center_B2 = (cells_B4[:, :2] + cells_B4[:, 2:]) / 2
    half_B2 = (cells_B4[:, 2:] - cells_B4[:, :2]) * (_RING / 2)
    outer_B4 = np.concatenate([center_B2 - half_B2, center_B2 + half_B2], axis=1)
    seen_B4 = _clipped(outer_B4, frame_cells_4)
    area_B, seen_area_B = _area(outer_B4), _area(seen_B4)
    total_SB = _integrals(score_SHW, seen_B4) - _integrals(score_SHW, cells_B4)
    total_SB += score_SHW.min(axis=(1, 2))[:, None] * (area_B - seen_area_B)
    ring_area_B = area_B - _area(cells_B4)
    return total_SB / np.where(ring_area_B > 0, ring_area_B, 1)


def _maxima(
    score_SHW: FloatArray, cells_B4: FloatArray, has_area_B: npt.NDArray[np.bool_]
) -> FloatArray:
    """Return the highest cell that each box touches, (slots, boxes)."""
    num_rows, num_cols = score_SHW.shape[1:]
    first_B2 = np.floor(cells_B4[:, :2] + _TOUCH).astype(np.intp)
    last_B2 = np.ceil(cells_B4[:, 2:] - _TOUCH).astype(np.intp) - 1
    first_B2 = np.minimum(first_B2, (num_cols - 1, num_rows - 1))
    last_B2 = np.maximum(last_B2, first_B2)
    level_B2 = np.frexp((last_B2 - first_B2 + 1).astype(np.float64))[1] - 1  # floor of log2
    second_B2 = last_B2 - (1 << level_B2) + 1
    table = _window_maxima(score_SHW)
    value_SB = np.full((len(score_SHW), len(cells_B4)), -np.inf)
    col_level_B, row_level_B = level_B2.T
    for row_B in (first_B2[:, 1], second_B2[:, 1]):
        for col_B in (first_B2[:, 0], second_B2[:, 0]):
            np.maximum(value_SB, table[row_level_B, col_level_B, row_B, col_B].T, out=value_SB)
    return np.where(has_area_B, value_SB, np.nan)


def _window_maxima(score_SHW: FloatArray) -> FloatArray:
    """Return the maxima over 2^a rows and 2^b columns from each cell on, (a, b, H, W, S).

    Windows that leave the grid end with it.
    """
    by_rows = _doubled(np.ascontiguousarray(np.moveaxis(score_SHW, 0, -1)), axis=0)
    return np.stack([np.stack(_doubled(one, axis=1)) for one in by_rows])


def _doubled(score_HWS: FloatArray, axis: int) -> list[FloatArray]:
    """Return the running maxima over 1, 2, 4, … cells of an axis."""
    found, width = [score_HWS], 1
    while 2 * width <= score_HWS.shape[axis]:
        next_HWS = found[-1].copy()
        here, ahead = (np.moveaxis(one, axis, 0) for one in (next_HWS, found[-1]))
        np.maximum(here[:-width], ahead[width:], out=here[:-width])
        found.append(next_HWS)
        width *= 2
    return found
