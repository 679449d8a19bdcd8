"""Heat to boxes: threshold, connected components, tightest boxes (KL16's rule by default).

Kolesnikov and Lampert (2016), after Zhou et al.: the pixels above 20 % of the map's maximum,
of these the largest connected component, of it the bounding box.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from wsltool.errors import BadImageError, UsageError
from wsltool.localize.components import find_components

__all__ = ["BoxSet", "boxes_from_heat", "heat_level", "highest_heat"]


@dataclass(frozen=True, slots=True)
class BoxSet:
    """The boxes of one map, the one with the most foreground first.

    Attributes
    ----------
    box_xyxy_B4 : array of float64
        Half-open boxes in pixels.
    mean_heat_B, max_heat_B : arrays of float64
        Mean and maximum of the heat over the foreground pixels of each.
    box_heat_B : array of float64
        Mean of the heat over all pixels inside each box.
    num_px_B : array of int64
        Foreground pixels of each; 0 for the whole image that stands for no foreground,
        whose heat is that of all finite pixels.
    """

    box_xyxy_B4: npt.NDArray[np.float64]
    mean_heat_B: npt.NDArray[np.float64]
    max_heat_B: npt.NDArray[np.float64]
    box_heat_B: npt.NDArray[np.float64]
    num_px_B: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.box_xyxy_B4)


def heat_level(
    heat_HW: npt.NDArray[np.floating[Any]],
    threshold: float = 0.2,
    of: Literal["max", "range"] = "max",
) -> float:
    """Return the heat that a foreground pixel must exceed.

    ``threshold * max`` or ``min + threshold * (max - min)``, of the finite pixels. It is
    not below the maximum where that is at most 0 (of "max") or where the map is constant
    (of "range"): no pixel exceeds it.

    Raises
    ------
    UsageError
        If `threshold` is not in [0, 1) or `of` neither "max" nor "range".
    BadImageError
        If the heat holds NaN or +inf, or no finite pixel at all.
    """
    if not 0 <= threshold < 1:
        raise UsageError(f"threshold must be in [0, 1), got {threshold:g}.")
    if of not in ("max", "range"):
        raise UsageError(f'threshold must be of "max" or "range", got {of!r}.')
    high = highest_heat(heat_HW)
    if of == "max":
        return threshold * high
    low = float(heat_HW.min())
    if low == -np.inf:
        low = float(heat_HW.min(where=np.isfinite(heat_HW), initial=high))
    return low + threshold * (high - low)


def highest_heat(heat_HW: npt.NDArray[np.floating[Any]]) -> float:
    """Return the maximum of the heat.

    Raises
    ------
    BadImageError
        If the heat holds NaN or +inf, or no finite pixel at all.
    """
    high = float(heat_HW.max(initial=-np.inf))
    if not np.isfinite(high):  # a NaN anywhere makes the maximum NaN
        raise BadImageError(
            f"heat map of shape {heat_HW.shape} has the maximum {high}; expected a finite one."
        )
    return high


def boxes_from_heat(
    heat_HW: npt.NDArray[np.floating[Any]],
    *,
    threshold: float = 0.2,
    of: Literal["max", "range"] = "max",
    components: Literal["largest", "all"] = "largest",
    connectivity: int = 8,
    empty: Literal["none", "whole"] = "none",
) -> BoxSet:
    """Return the boxes around what is hot.

    Parameters
    ----------
    heat_HW : array of float, (height, width)
        Heat at every pixel (`wsltool.localize.grid.resample`); −inf where nothing is known,
        which is never foreground.
    threshold, of
        Foreground is what is strictly above `heat_level`.
    components : "largest" or "all"
        The component with the most pixels (of equals the upper, then the left one), or a
        box for each, in that order.
    connectivity : 8 or 4
        Whether pixels that touch at a corner belong together.
    empty : "none" or "whole"
        What no foreground gives (a maximum ≤ 0, a constant map): no box, or the image.

    Returns
    -------
    BoxSet
        The same bytes whatever the number of threads.

    Raises
    ------
    UsageError
        For an option outside of what is said above.
    BadImageError
        For heat with NaN or +inf, or without a finite pixel.
    """
    if empty not in ("none", "whole"):
        raise UsageError(f'empty must be "none" or "whole", got {empty!r}.')
    mask_HW = heat_HW > heat_level(heat_HW, threshold, of)
    left, top, width, height = cv2.boundingRect(mask_HW.view(np.uint8))
    if empty == "whole" and not width:
        return _whole(heat_HW)
    # Mostly smaller than the image; one pixel where nothing is hot, since OpenCV needs one.
    hot = np.s_[top : top + max(height, 1), left : left + max(width, 1)]
    found = find_components(mask_HW[hot], connectivity=connectivity, which=components)
    heat_B3 = np.empty((len(found.label_C), 3))
    for index, (label, (x0, y0, x1, y1)) in enumerate(
        zip(found.label_C, found.box_C4, strict=True)
    ):
        inside = np.s_[y0:y1, x0:x1]
        enclosed_HW = heat_HW[hot][inside]
        heat = enclosed_HW[found.label_HW[inside] == label]
        heat_B3[index] = heat.mean(dtype=np.float64), heat.max(), enclosed_HW.mean(dtype=np.float64)
    mean_heat_B, max_heat_B, box_heat_B = heat_B3.T.copy()
    box_xyxy_B4 = (found.box_C4 + np.array([left, top, left, top])).astype(np.float64)
    return BoxSet(box_xyxy_B4, mean_heat_B, max_heat_B, box_heat_B, found.num_px_C)


def _whole(heat_HW: npt.NDArray[np.floating[Any]]) -> BoxSet:
    height_px, width_px = heat_HW.shape
    heat = heat_HW[np.isfinite(heat_HW)]
    mean_B = np.array([heat.mean(dtype=np.float64)])
    return BoxSet(
        np.array([[0.0, 0.0, width_px, height_px]]),
        mean_B,
        np.array([heat.max()], dtype=np.float64),
        mean_B,
        np.zeros(1, dtype=np.int64),
    )
