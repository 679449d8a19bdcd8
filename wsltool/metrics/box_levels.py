"""Boxes around the contours of a heat map at every threshold (wsolevaluation's MaxBoxAcc).

The rule (`compute_bboxes_from_scoremaps`): heat in [0, 1] is quantised, ``u = floor(255 s)``; a
threshold τ makes the pixels with ``u > floor(τ max(u))`` foreground; ``cv2.findContours`` with
``RETR_TREE`` gives the outline of every 8-connected component and of every hole in one, each
with its bounding box. So at most 255 thresholds differ, and their boxes are found without
drawing any (`wsltool.metrics.level_sets`).

Boxes are ``x0 y0 x1 y1`` as that evaluator has them: the right and lower edge is the first
column or row outside, though never more than the last of the picture, and is later counted as a
part of the box, so most are one pixel too large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from wsltool.metrics.largest_outline import largest_outlines
from wsltool.metrics.level_regions import find_regions
from wsltool.metrics.level_sets import Stack, find_basins, stack

__all__ = ["LevelBoxes", "contour_boxes", "largest_boxes"]

Ints: TypeAlias = npt.NDArray[np.integer[Any]]
Index: TypeAlias = npt.NDArray[np.intp]
Boxes: TypeAlias = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class LevelBoxes:
    """B boxes of N heat maps, each at one level, and the level that each threshold comes to.

    Attributes
    ----------
    image_B, level_B : arrays of integers
    box_4B : int32 array
        ``x0, y0, x1, y1``, see the module.
    level_NT : intp array
        The level of each map at each threshold. Every level of a map has a box.
    """

    image_B: Ints
    level_B: Ints
    box_4B: Boxes
    level_NT: Index


def contour_boxes(
    heat_NHW: npt.NDArray[np.float64], threshold_T: npt.NDArray[np.float64]
) -> LevelBoxes:
    """Return the boxes of all contours of some square heat maps at all thresholds.

    Parameters
    ----------
    heat_NHW : float64 array
        In [0, 1]. Some 8 maps at a time are fastest.
    threshold_T : float64 array
        In [0, 1), rising.

    Returns
    -------
    LevelBoxes
        In no particular order; those of holes too. A map without foreground (0 throughout)
        has the one box ``0 0 0 0``.
    """
    pictures, image_M, level_NT = _quantised(heat_NHW, threshold_T)
    regions = find_regions(pictures, find_basins(pictures))
    image_H, level_H, box_4H = _holes(pictures)
    image_C = image_M[np.concatenate([regions.image_C, image_H])]
    level_C = np.concatenate([regions.level_C, level_H])
    box_4C = np.concatenate([regions.box_4C, box_4H], axis=1)
    return _with_flat(image_C, level_C, _outer_edges(box_4C, pictures.size), level_NT)


def largest_boxes(
    heat_NHW: npt.NDArray[np.float64],
    threshold_T: npt.NDArray[np.float64],
    right: Callable[[Ints, Boxes], npt.NDArray[np.bool_]] | None = None,
) -> LevelBoxes:
    """Return the box of the largest contour of some square heat maps at all thresholds.

    The largest has the largest ``contourArea``: that of the polygon through the centres of the
    outermost pixels, holes filled. Among equals the one that OpenCV returns first counts, whose
    first pixel in reading order comes last.

    Parameters
    ----------
    heat_NHW, threshold_T : float64 arrays
        As for `contour_boxes`.
    right : callable, optional
        Takes images (B,) and boxes (4, B), and returns what is asked of each box, bool (B,).
        Where all boxes of a level are right, or none is, any of them is returned: it is only
        worked out which is the largest where that matters.

    Returns
    -------
    LevelBoxes
        One for each level; ``0 0 0 0`` for a map without foreground.
    """
    pictures, image_M, level_NT = _quantised(heat_NHW, threshold_T)
    basins = find_basins(pictures)
    regions = find_regions(pictures, basins)
    box_4C = _outer_edges(regions.box_4C.copy(), pictures.size)
    right_C = None if right is None else right(image_M[regions.image_C], box_4C)
    kept = largest_outlines(pictures, basins, regions, right_C)
    image_C = image_M[regions.image_C[kept]]
    return _with_flat(image_C, regions.level_C[kept], box_4C[:, kept], level_NT)


def _outer_edges(box_4C: Boxes, size: int) -> Boxes:
    """Turn inclusive boxes, in place, into those that the evaluator has."""
    box_4C[2:] += 1
    np.minimum(box_4C[2:], size - 1, out=box_4C[2:])
    return box_4C


def _with_flat(image_C: Ints, level_C: Ints, box_4C: Boxes, level_NT: Index) -> LevelBoxes:
    """Return boxes with one at the corner for each map that has none."""
    flat = np.flatnonzero(np.bincount(image_C, minlength=len(level_NT)) == 0)
    if len(flat):
        image_C, level_C = np.append(image_C, flat), np.append(level_C, np.zeros_like(flat))
        box_4C = np.concatenate([box_4C, np.zeros((4, len(flat)), np.int32)], axis=1)
    return LevelBoxes(image_C, level_C, box_4C, level_NT)


def _quantised(
    heat_NHW: npt.NDArray[np.float64], threshold_T: npt.NDArray[np.float64]
) -> tuple[Stack, Index, Index]:
    """Return the M maps with foreground as a stack of levels, which they are, and all levels.

    The levels are those of each map at each threshold, (N, T).
    """
    # Truncation makes everything below 1 / 255 background.
    shown_N = np.array([heat_HW.max() * 255 >= 1 for heat_HW in heat_NHW], np.bool_)
    image_M = np.flatnonzero(shown_N)
    level_NT = np.zeros((len(heat_NHW), len(threshold_T)), np.intp)
    num_levels_M = np.zeros(len(image_M), np.int64)
    heat_MHW = heat_NHW if shown_N.all() else heat_NHW[image_M]

    def levels() -> Iterator[npt.NDArray[np.uint8]]:
        for place, image in enumerate(image_M):
            byte_HW = (heat_MHW[place] * 255).astype(np.uint8)
            cut_T = (threshold_T * float(byte_HW.max())).astype(np.int64)
            is_cut = np.zeros(256, np.bool_)
            is_cut[cut_T] = True
            below: Index = np.cumsum(is_cut) - is_cut  # cuts below each value: it is above them
            level_NT[image], num_levels_M[place] = below[cut_T], is_cut.sum()
            yield np.asarray(cv2.LUT(byte_HW, below.astype(np.uint8)), np.uint8)

    return stack(heat_MHW, levels(), num_levels_M), image_M, level_NT


def _holes(pictures: Stack) -> tuple[Index, Ints, npt.NDArray[np.int32]]:
    """Return picture, level and box of every hole: of the foreground pixels around it."""
    basins = find_basins(pictures, holes=True)
    if len(basins.root_K) == 1:
        return np.zeros(0, np.intp), np.zeros(0, np.int64), np.zeros((4, 0), np.int32)
    regions = find_regions(pictures, basins)
    level_C = pictures.num_levels_N[regions.image_C] - 1 - regions.level_C
    around = np.array([[-1], [-1], [1], [1]], np.int32)
    return regions.image_C, level_C, regions.box_4C + around
