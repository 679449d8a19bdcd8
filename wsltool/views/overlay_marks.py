"""Boxes and maxima drawn into a picture, and the colours that the page gives them, too.

Legend: H W rows and columns. Boxes are half-open ``x0 y0 x1 y1``, here in pixels of the canvas.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CONTOUR_RGB",
    "CURRENT_RGB",
    "EARLIER_RGB",
    "FIRST_RGB",
    "FORMER_RGB",
    "LATTER_RGB",
    "OTHER_RGB",
    "OUTLINE_RGB",
    "PREDICTED_RGB",
    "TRUE_RGB",
    "SearchMarks",
    "draw_box",
    "draw_peak",
    "draw_search",
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

EARLIER_RGB: Final = (84, 132, 255)
"""Blue, thin: candidates of earlier levels of a search (Bency et al. 2016, figure 3)."""
CURRENT_RGB: Final = (255, 45, 45)
"""Red: candidates of the level that is shown; the best one is thicker."""


class SearchMarks(NamedTuple):
    """One level of a search, and what was found before it.

    Attributes
    ----------
    earlier_B4
        (B, 4) float64 boxes of earlier levels, perhaps none.
    current_B4
        (B, 4) float64 boxes of this level, the best one first.
    """

    earlier_B4: NDArray[np.float64]
    current_B4: NDArray[np.float64]


def draw_search(
    canvas: UInt8Array, marks: SearchMarks, scale_4: NDArray[np.float64], line_px: int
) -> None:
    """Draw a level in place: earlier boxes thin, without dark lines; the best one on top."""
    thin_px, current_px = max(1, line_px // 2), max(1, 2 * line_px // 3)
    for box in marks.earlier_B4 * scale_4:
        draw_box(canvas, box, EARLIER_RGB, thin_px, 0, rimmed=False)
    for box in marks.current_B4[:0:-1] * scale_4:
        draw_box(canvas, box, CURRENT_RGB, current_px, 0)
    for box in marks.current_B4[:1] * scale_4:
        draw_box(canvas, box, CURRENT_RGB, 2 * current_px, 0)


def draw_box(
    canvas: UInt8Array,
    box_4: NDArray[np.float64],
    colour: tuple[int, int, int],
    line_px: int,
    dash_px: int,
    *,
    rimmed: bool = True,
) -> None:
    """Draw one box in place: colour from its edge inwards, if `rimmed` dark lines on both sides."""
    height_px, width_px = canvas.shape[:2]
    if (box_4[2:] <= 0).any() or box_4[0] >= width_px or box_4[1] >= height_px:
        return
    x0, y0 = np.rint(np.clip(box_4[:2], 0, (width_px - 1, height_px - 1))).astype(int)
    x1, y1 = np.rint(np.clip(box_4[2:], 0, (width_px, height_px))).astype(int)
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
    lit, dark = (
        _ring((x0, y0, x1, y1), line_px),
        _ring((x0 - 1, y0 - 1, x1 + 1, y1 + 1), line_px + 2),
    )
    on_HW = None
    if dash_px:
        row_H1, column_1W = np.ogrid[:height_px, :width_px]
        lies_flat_H1 = (row_H1 < y0 + line_px) | (row_H1 >= y1 - line_px)
        along_HW = np.where(lies_flat_H1, column_1W - x0, row_H1 - y0)
        on_HW = (along_HW // dash_px) % 2 == 0
    for parts, rgb in ((dark if rimmed else [], OUTLINE_RGB), (lit, colour)):
        for part in parts:
            if on_HW is None:
                canvas[part] = rgb
            else:
                canvas[part][on_HW[part]] = rgb


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


def _ring(edge: tuple[int, int, int, int], line_px: int) -> list[tuple[slice, slice]]:
    """Return rows and columns of the `line_px` outermost pixels inside `edge` (x0 y0 x1 y1)."""
    x0, y0, x1, y1 = edge
    rows, columns = slice(max(y0, 0), y1), slice(max(x0, 0), x1)
    if x1 - x0 <= 2 * line_px or y1 - y0 <= 2 * line_px:
        return [(rows, columns)]
    top, bottom = slice(max(y0, 0), y0 + line_px), slice(y1 - line_px, y1)
    left, right = slice(max(x0, 0), x0 + line_px), slice(x1 - line_px, x1)
    return [(top, columns), (bottom, columns), (rows, left), (rows, right)]
