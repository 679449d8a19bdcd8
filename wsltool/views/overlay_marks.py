"""Boxes and maxima drawn into a picture, and the colours that the page gives them, too.

Legend: H W rows and columns. Boxes are half-open ``x0 y0 x1 y1``, here in pixels of the canvas.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CONTOUR_RGB",
    "FIRST_RGB",
    "FORMER_RGB",
    "LATTER_RGB",
    "OTHER_RGB",
    "OUTLINE_RGB",
    "PREDICTED_RGB",
    "TRUE_RGB",
    "draw_box",
    "draw_peak",
]

UInt8Array = NDArray[np.uint8]

TRUE_RGB: Final = (54, 200, 255)
"""Sky blue, dashed: true boxes. Blue and yellow stay apart for every colour vision."""
PREDICTED_RGB: Final = (255, 230, 30)
"""Yellow, solid: predicted boxes."""
FIRST_RGB: Final = (229, 26, 38)
"""Red, a disc: the maximum of the first map (Kim et al. 2017, figure 4)."""
OTHER_RGB: Final = (255, 146, 10)
"""Orange, a square: the maximum of the other map. The shapes tell them apart without colour."""
OUTLINE_RGB: Final = (12, 14, 22)
"""Nearly black: beside every line, so that it shows on any background."""
CONTOUR_RGB: Final = (255, 255, 255)
"""White: the outline of what lies above a map's threshold."""
FORMER_RGB: Final = (255, 84, 56)
"""Vermilion, dotted: what was predicted before (Kolesnikov and Lampert 2016, figure 7)."""
LATTER_RGB: Final = (0, 214, 143)
"""Bluish green, solid: what is predicted now. Lines tell it from the former one without colour."""


def draw_box(
    canvas: UInt8Array,
    box_4: NDArray[np.float64],
    colour: tuple[int, int, int],
    line_px: int,
    dash_px: int,
) -> None:
    """Draw one box in place: colour from its edge inwards, dark lines on both sides."""
    height_px, width_px = canvas.shape[:2]
    if (box_4[2:] <= 0).any() or box_4[0] >= width_px or box_4[1] >= height_px:
        return
    x0, y0 = np.rint(np.clip(box_4[:2], 0, (width_px - 1, height_px - 1))).astype(int)
    x1, y1 = np.rint(np.clip(box_4[2:], 0, (width_px, height_px))).astype(int)
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
    ring = _ring_mask(canvas.shape[:2], (x0, y0, x1, y1), line_px)
    dark = _ring_mask(canvas.shape[:2], (x0 - 1, y0 - 1, x1 + 1, y1 + 1), line_px + 2)
    if dash_px:
        row_H1, column_1W = np.ogrid[:height_px, :width_px]
        lies_flat_H1 = (row_H1 < y0 + line_px) | (row_H1 >= y1 - line_px)
        along_HW = np.where(lies_flat_H1, column_1W - x0, row_H1 - y0)
        on_HW = (along_HW // dash_px) % 2 == 0
        ring, dark = ring & on_HW, dark & on_HW
    canvas[dark] = OUTLINE_RGB
    canvas[ring] = colour


def draw_peak(canvas: UInt8Array, xy_2: NDArray[np.float64], which: str, radius_px: int) -> None:
    """Draw a disc or a square in place: colour, then a white and a dark rim."""
    height_px, width_px = canvas.shape[:2]
    row_H1, col_1W = np.ogrid[:height_px, :width_px]
    away_HW, aside_HW = np.abs(row_H1 + 0.5 - xy_2[1]), np.abs(col_1W + 0.5 - xy_2[0])
    is_disc = which == "first"
    reach_HW = np.hypot(away_HW, aside_HW) if is_disc else np.maximum(away_HW, aside_HW)
    rim_px = max(1.0, radius_px / 3)
    canvas[reach_HW <= radius_px + 2 * rim_px] = OUTLINE_RGB
    canvas[reach_HW <= radius_px + rim_px] = CONTOUR_RGB
    canvas[reach_HW <= radius_px] = FIRST_RGB if is_disc else OTHER_RGB


def _ring_mask(
    size_hw: tuple[int, ...], edge: tuple[int, int, int, int], line_px: int
) -> NDArray[np.bool_]:
    """Mask of the `line_px` outermost pixels inside the half-open `edge` (x0 y0 x1 y1)."""
    x0, y0, x1, y1 = edge
    mask_HW = np.zeros(size_hw, dtype=np.bool_)
    mask_HW[max(y0, 0) : y1, max(x0, 0) : x1] = True
    if x1 - x0 > 2 * line_px and y1 - y0 > 2 * line_px:
        inner_rows = slice(max(y0 + line_px, 0), y1 - line_px)
        mask_HW[inner_rows, max(x0 + line_px, 0) : x1 - line_px] = False
    return mask_HW
