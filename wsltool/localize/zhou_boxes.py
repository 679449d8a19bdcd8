"""The boxes of the released code of Zhou et al. (2016): three thresholds and a distance transform.

Their ILSVRC results come from this rule (``bboxgenerator/dt_box`` and the MATLAB scripts beside
it), not from the 20 % of the maximum that the paper describes. Reproduced from it:

1. The heat at image size is divided by its maximum and written in 8 bits,
   ``gray = round(255 * heat / max)``. (The original goes through a JPEG file here, whose loss is
   not reproduced. The image's size is reached bilinearly here, by MATLAB's ``imresize`` there.)
2. Three masks: gray > 20, > 100, > 110. In each the Euclidean distance d of every pixel to the
   background, scaled to ``int(255 * d / max(d) + .5)``; what is above 10 stays. A mask without
   background stays as it is.
3. The bounding rectangle ``x y w h`` of every contour, outer borders and holes
   (``RETR_CCOMP``). OpenCV 2.4, with which it was built, takes the outermost pixels of the
   image for background.
4. ``x`` is limited to [0, W - 5], ``w`` to [0, W - 5 - x of the contour], y and h alike.
5. By falling ``w * h``. (The original's order of equals is accidental. Here: the lower
   threshold, then the upper, the left, the narrower one.)
6. Each box in turn removes later ones that overlap it by more than half of the larger area.
   Erasing while iterating, it never looks at the box after one that it has just removed.
7. The corners of what has a negative width or height are put in order, as the scripts do.

The scripts then count ``x y x+w y+h`` as 1-based inclusive pixels; here they are what ``dt_box``
means, half-open pixels from 0.
"""

from __future__ import annotations

from math import sqrt
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from wsltool.localize.boxes import highest_heat

__all__ = ["ZHOU_LEVELS", "zhou_boxes"]

ZHOU_LEVELS = (20, 100, 110)
"""The gray levels, of 255, that the released ILSVRC script passes to ``dt_box``."""

_LEAST_DISTANCE = 10  # of 255
_MARGIN_PX = 5

Bytes = npt.NDArray[np.uint8]


class _Rect(NamedTuple):
    """A rectangle, and the threshold it was found at; sizes may be below 0."""

    x: int
    y: int
    width: int
    height: int
    level: int

    @property
    def area(self) -> int:
        return self.width * self.height


def zhou_boxes(heat_HW: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Return the boxes of one map by the rule of the released code.

    Parameters
    ----------
    heat_HW : array of float, (height, width)
        Heat at every pixel (`wsltool.localize.grid.resample`); what is below 0, and −inf, is
        black.

    Returns
    -------
    box_xyxy_B4 : array of float64
        Half-open, in pixels, inside the image, the largest first; none where the maximum is
        at most 0. A box may be without area, where it was limited to nothing: the scripts
        count it as a guess like any other.

    Raises
    ------
    BadImageError
        For heat with NaN or +inf, or without a finite pixel.
    """
    high = highest_heat(heat_HW)
    if high <= 0:
        return np.zeros((0, 4))
    height_px, width_px = heat_HW.shape
    gray_HW = np.floor(np.clip(heat_HW / high, 0, 1) * 255 + 0.5).astype(np.uint8)
    rects = [
        _limited(rect, width_px, height_px, level)
        for level in ZHOU_LEVELS
        for rect in _contour_rects(_far_from_background(gray_HW > level))
    ]
    rects.sort(key=lambda rect: (-rect.area, rect.level, rect.y, rect.x, rect.width))
    corner_B4 = np.array([rect[:4] for rect in _merged(rects)], np.float64).reshape(-1, 4)
    corner_B4[:, 2:] += corner_B4[:, :2]
    low_B2 = np.minimum(corner_B4[:, :2], corner_B4[:, 2:])
    high_B2 = np.maximum(corner_B4[:, :2], corner_B4[:, 2:])
    return np.concatenate([low_B2, high_B2], axis=1).clip(0, [width_px, height_px] * 2)


def _far_from_background(mask_HW: npt.NDArray[np.bool_]) -> Bytes:
    """Return where the scaled distance to the background is above 10, as 0 and 1."""
    if mask_HW.all() or not mask_HW.any():
        return mask_HW.astype(np.uint8)
    distance_HW = cv2.distanceTransform(mask_HW.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # OpenCV gives float32, but squares of distances are whole numbers: which of them is the
    # first that is far enough can be told exactly.
    scale = 255 / sqrt(round(float(distance_HW.max()) ** 2))
    square = int((_LEAST_DISTANCE / scale) ** 2)
    while int(sqrt(square) * scale + 0.5) <= _LEAST_DISTANCE:
        square += 1
    far_HW: Bytes = (distance_HW > sqrt(square - 0.5)).astype(np.uint8)
    return far_HW


def _contour_rects(mask_HW: Bytes) -> list[tuple[int, int, int, int]]:
    """Return ``x y w h`` of every contour; the image's outermost pixels are background."""
    mask_HW[[0, -1]] = 0
    mask_HW[:, [0, -1]] = 0
    contours, _ = cv2.findContours(mask_HW, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rects = (cv2.boundingRect(contour) for contour in contours)
    return [(int(x), int(y), int(width), int(height)) for x, y, width, height in rects]


def _limited(rect: tuple[int, int, int, int], width_px: int, height_px: int, level: int) -> _Rect:
    """Return a rectangle that keeps from the right and lower edge, below 0 where it must."""
    x, y, width, height = rect
    right_px, lower_px = width_px - _MARGIN_PX, height_px - _MARGIN_PX
    return _Rect(
        min(x, right_px),
        min(y, lower_px),
        min(width, right_px - x),
        min(height, lower_px - y),
        level,
    )


def _merged(rects: list[_Rect]) -> list[_Rect]:
    """Return what is left when each box has removed later ones, with the skip after each."""
    kept = list(rects)
    first = 0
    while first < len(kept):
        other = first + 1
        while other < len(kept):
            if _overlap_much(kept[first], kept[other]):
                del kept[other]
            other += 1  # also after a removal, so that the next one is not looked at
        first += 1
    return kept


def _overlap_much(a: _Rect, b: _Rect) -> bool:
    across = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    down = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    return max(0, across) * max(0, down) > int(max(a.area, b.area) * 0.5)
