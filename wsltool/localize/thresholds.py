"""One map at many thresholds, and which threshold is best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from wsltool.localize.boxes import heat_level
from wsltool.localize.components import find_components

__all__ = ["best_threshold", "largest_boxes", "threshold_grid"]

_LAST = 0.95


def threshold_grid(step: float) -> npt.NDArray[np.float64]:
    """Return the thresholds 0, step, 2 step, … up to .95, float64 (T,)."""
    num = int(_LAST / step + 1e-9) + 1
    return np.array([round(index * step, 10) for index in range(num)])


def largest_boxes(
    heat_HW: npt.NDArray[np.floating[Any]],
    threshold_T: Sequence[float] | npt.NDArray[np.float64],
    *,
    of: Literal["max", "range"] = "max",
    connectivity: int = 8,
    empty: Literal["none", "whole"] = "none",
) -> npt.NDArray[np.float64]:
    """Return the box of the largest component at every threshold.

    The very boxes of `wsltool.localize.boxes.boxes_from_heat`, found faster: each pixel is
    compared once, the foreground of a threshold lies within that of the one before, and a
    threshold that no pixel lies between has the box of the one before.

    Parameters
    ----------
    heat_HW : array of float, (height, width)
    threshold_T : T numbers
        In [0, 1), rising.
    of, connectivity, empty
        As of `boxes_from_heat`.

    Returns
    -------
    box_xyxy_T4 : array of float64
        Half-open, in pixels; zeros, a box without area, where there is no foreground (and
        `empty` is "none").

    Raises
    ------
    UsageError, BadImageError
        As `boxes_from_heat`.
    """
    height_px, width_px = heat_HW.shape
    whole = [0, 0, width_px, height_px] if empty == "whole" else [0, 0, 0, 0]
    box_T4 = np.tile(np.array(whole, np.float64), (len(threshold_T), 1))
    level_T = np.array([heat_level(heat_HW, threshold, of) for threshold in threshold_T])
    if not (heat_HW > level_T[0]).any():  # below 0 the levels of "max" fall, all above the top
        return box_T4
    passed_HW = np.searchsorted(level_T, heat_HW).astype(np.uint16)
    num_px_T = np.bincount(passed_HW.ravel(), minlength=len(level_T) + 1)
    x, y = 0, 0
    for index in range(int(passed_HW.max())):
        if index and not num_px_T[index]:
            box_T4[index] = box_T4[index - 1]
            continue
        mask_HW = passed_HW > index
        left, top, width, height = cv2.boundingRect(mask_HW.view(np.uint8))
        inside = np.s_[top : top + height, left : left + width]
        passed_HW, mask_HW = passed_HW[inside], mask_HW[inside]
        x, y = x + left, y + top
        found = find_components(mask_HW, connectivity=connectivity, which="largest")
        box_T4[index] = found.box_C4[0] + [x, y, x, y]
    return box_T4


def best_threshold(objective_T: npt.NDArray[np.floating[Any]]) -> int:
    """Return the index of the best threshold.

    Equal ones are common, since images are counted. Of the runs of neighbouring thresholds
    with the highest value the longest is taken (the lower of equals), and of it the middle,
    the lower one of two: the threshold that is farthest from where the value falls.
    """
    best_T = np.append(objective_T == objective_T.max(), False)
    edge = np.flatnonzero(np.diff(best_T, prepend=False))
    start_R, stop_R = edge[::2], edge[1::2]
    run = int((stop_R - start_R).argmax())
    return int(start_R[run] + stop_R[run] - 1) // 2
