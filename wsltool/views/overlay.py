"""Score maps and boxes drawn over a picture, for the eye only.

Nothing here is measured from: heat is stretched to its own range, map by map, so colours
of two pictures are not comparable.

Legend: H W rows and columns, C channels, B boxes. Boxes are half-open, continuous pixels
of the original picture, ``x0 y0 x1 y1``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from wsltool.errors import BadImageError, UsageError
from wsltool.views.overlay_marks import (
    CONTOUR_RGB,
    CURRENT_RGB,
    EARLIER_RGB,
    FIRST_RGB,
    FORMER_RGB,
    LATTER_RGB,
    OTHER_RGB,
    OUTLINE_RGB,
    PREDICTED_RGB,
    TRUE_RGB,
    SearchMarks,
    draw_box,
    draw_peak,
    draw_search,
)

__all__ = [
    "CURRENT_RGB",
    "EARLIER_RGB",
    "FIRST_RGB",
    "FORMER_RGB",
    "LATTER_RGB",
    "OTHER_RGB",
    "OUTLINE_RGB",
    "PREDICTED_RGB",
    "TRUE_RGB",
    "PeakMark",
    "SearchMarks",
    "UnitHeat",
    "check_boxes",
    "check_picture",
    "display_size",
    "draw_overlay",
    "heat_contours",
    "heat_indices",
    "heat_palette",
    "region_contours",
    "resize_picture",
    "unit_heat",
]

UInt8Array = NDArray[np.uint8]
FloatArray = NDArray[np.floating]

MAX_HEAT_ALPHA: Final = 0.64


class PeakMark(NamedTuple):
    """Where a map is hottest.

    Attributes
    ----------
    x_px, y_px
        In pixels of the picture; a pixel's centre is at .5.
    which
        The first map, or the other that it is compared with.
    """

    x_px: float
    y_px: float
    which: Literal["first", "other"] = "first"


class UnitHeat(NamedTuple):
    """A heat map stretched to its own range.

    Attributes
    ----------
    heat_HW
        float32 in [0, 1], NaN where there is nothing to show.
    level
        The contour level on the same scale, or None.
    """

    heat_HW: NDArray[np.float32]
    level: float | None


def display_size(width_px: int, height_px: int, longest_px: int) -> tuple[int, int]:
    """Width and height, at least 1 each, that make the longer side `longest_px`.

    Raises
    ------
    UsageError
        If `longest_px` is below 16.
    """
    if longest_px < 16:
        raise UsageError(f"longest_px must be at least 16, got {longest_px}.")
    scale = longest_px / max(width_px, height_px)
    return max(1, round(width_px * scale)), max(1, round(height_px * scale))


def check_picture(picture_HWC: NDArray[np.generic]) -> UInt8Array:
    """Return an RGB picture (H, W, 3) uint8 of an RGB or grey one (H, W) or (H, W, 1).

    The result may share memory with the input.

    Raises
    ------
    BadImageError
        If the picture is empty, not uint8, or has other axes.
    """
    picture = np.asarray(picture_HWC)
    if picture.ndim == 2:
        picture = picture[:, :, None]
    shape_fits = picture.ndim == 3 and picture.shape[2] in (1, 3) and picture.size > 0
    if not shape_fits or picture.dtype != np.uint8:
        raise BadImageError(
            f"picture has shape {np.shape(picture_HWC)} and type {picture.dtype}; "
            "expected rows, columns and 1 or 3 channels of uint8."
        )
    if picture.shape[2] == 1:
        picture = np.repeat(picture, 3, axis=2)
    return np.ascontiguousarray(picture, dtype=np.uint8)


def check_boxes(box_B4: FloatArray | None) -> NDArray[np.float64]:
    """Return boxes as (B, 4) float64; None and an empty array are no boxes.

    Raises
    ------
    BadImageError
        If the shape is wrong, or a box is not finite or not ``x0 < x1, y0 < y1``.
    """
    if box_B4 is None or np.size(box_B4) == 0:
        return np.empty((0, 4))
    boxes = np.asarray(box_B4, dtype=np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise BadImageError(f"boxes have shape {boxes.shape}; expected (B, 4) as x0 y0 x1 y1.")
    good_B = np.isfinite(boxes).all(axis=1) & (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
    if not good_B.all():
        row = int(np.argmin(good_B))
        raise BadImageError(
            f"box {row} is {boxes[row].tolist()}; expected finite x0 < x1, y0 < y1."
        )
    return boxes


def resize_picture(picture_HWC: UInt8Array, size_wh: tuple[int, int]) -> UInt8Array:
    """Resize to (width, height): area average when shrinking, cubic when growing.

    The same size gives the same pixels. The result may share memory with the input.
    """
    height_px, width_px = picture_HWC.shape[:2]
    if size_wh == (width_px, height_px):
        return picture_HWC
    grows = size_wh[0] > width_px or size_wh[1] > height_px
    resized = cv2.resize(
        picture_HWC, size_wh, interpolation=cv2.INTER_CUBIC if grows else cv2.INTER_AREA
    )
    return np.asarray(resized, dtype=np.uint8).reshape(size_wh[1], size_wh[0], -1)


def unit_heat(
    heat_HW: FloatArray, size_wh: tuple[int, int], contour_level: float | None = None
) -> UnitHeat:
    """Stretch heat to [0, 1] over its finite values and resize it for display.

    Parameters
    ----------
    heat_HW
        (H, W) float. Cells that are NaN or infinite (outside a map's extent) show nothing;
        they have no part in the range and do not bleed into their neighbours.
    size_wh
        Width and height wanted, in pixels.
    contour_level
        A level in the units of `heat_HW`, moved to the new scale.

    Returns
    -------
    UnitHeat
        A constant map is 0 everywhere, without a level: it tells nothing. A level outside
        the map's range is dropped too. A map without finite value is NaN everywhere.

    Raises
    ------
    BadImageError
        If `heat_HW` has no two axes or is empty.
    """
    heat = np.asarray(heat_HW, dtype=np.float64)
    if heat.ndim != 2 or heat.size == 0:
        raise BadImageError(f"heat has shape {heat.shape}; expected rows and columns.")
    known_HW = np.isfinite(heat)
    if not known_HW.any():
        return UnitHeat(np.full(size_wh[::-1], np.nan, np.float32), None)
    # Halves, because the range of two finite numbers may be infinite.
    low, high = heat[known_HW].min() / 2, heat[known_HW].max() / 2
    span = (high - low) or np.inf
    unit_HW = np.where(known_HW, (np.where(known_HW, heat, 0.0) / 2 - low) / span, 0.0)
    level = None if contour_level is None else float((contour_level / 2 - low) / span)
    if level is not None and (np.isinf(span) or not 0 <= level < 1):
        level = None
    return UnitHeat(_resize_known(unit_HW.astype(np.float32), known_HW, size_wh), level)


def _resize_known(
    unit_HW: NDArray[np.float32], known_HW: NDArray[np.bool_], size_wh: tuple[int, int]
) -> NDArray[np.float32]:
    """Resize by the known cells alone; NaN where they weigh less than half."""
    if size_wh == unit_HW.shape[::-1]:
        return np.where(known_HW, unit_HW, np.float32(np.nan))
    shrinks = size_wh[0] <= unit_HW.shape[1] and size_wh[1] <= unit_HW.shape[0]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    weight_HW = np.asarray(cv2.resize(known_HW.astype(np.float32), size_wh, interpolation=how))
    heat_HW = np.asarray(cv2.resize(unit_HW, size_wh, interpolation=how))
    # Where half or more is known the weight is no zero; the rest is thrown away.
    heat_HW = np.clip(heat_HW / np.maximum(weight_HW, 0.25), 0.0, 1.0)
    return np.where(weight_HW >= 0.5, heat_HW, np.float32(np.nan)).astype(np.float32)


def heat_indices(unit_HW: NDArray[np.float32]) -> UInt8Array:
    """Nearest of 256 levels, 0 where the heat is NaN: rows of `heat_palette`."""
    return np.rint(np.nan_to_num(unit_HW, nan=0.0) * 255).astype(np.uint8)


def heat_palette() -> UInt8Array:
    """Colours of the 256 levels: (256, 4) uint8 RGBA.

    Plasma (blue, magenta, orange, yellow): perceptually uniform, never black, and in hues
    that photographs seldom have. It grows opaque with the heat: up to an eighth of the
    range the picture is bare, from five eighths on it is covered by 64 %.
    """
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_PLASMA)
    ramp = np.clip(np.linspace(-0.25, 1.75, 256), 0.0, 1.0)
    alpha = np.rint(255 * MAX_HEAT_ALPHA * ramp * ramp * (3 - 2 * ramp))
    return np.column_stack([np.asarray(table)[:, 0, ::-1], alpha]).astype(np.uint8)


def heat_contours(heat: UnitHeat) -> list[NDArray[np.float64]]:
    """Outlines of the region above the level, (points, 2) x y each, in display pixels.

    The outline runs through the centres of the outermost cells whose heat is above the
    level (strict ``>``), those around holes included. No level: no outline.
    """
    if heat.level is None:
        return []
    return _outlines((np.nan_to_num(heat.heat_HW, nan=-1.0) > heat.level).astype(np.uint8))


def region_contours(
    region_HW: NDArray[np.bool_], size_wh: tuple[int, int]
) -> list[NDArray[np.float64]]:
    """Outlines of a region of the picture, (points, 2) x y each, in display pixels."""
    mask_HW = cv2.resize(region_HW.astype(np.uint8), size_wh, interpolation=cv2.INTER_NEAREST)
    return _outlines(np.asarray(mask_HW, np.uint8))


def _outlines(mask_HW: UInt8Array) -> list[NDArray[np.float64]]:
    """Return the closed outlines of what is 1, those around holes included."""
    outlines, _ = cv2.findContours(mask_HW, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    return [
        np.asarray(cv2.approxPolyDP(outline, 0.7, True), np.float64).reshape(-1, 2) + 0.5
        for outline in outlines
    ]


def draw_overlay(
    picture_HWC: NDArray[np.generic],
    heat_HW: FloatArray | None = None,
    predicted_box_B4: FloatArray | None = None,
    true_box_B4: FloatArray | None = None,
    *,
    former_box_B4: FloatArray | None = None,
    contour_level: float | None = None,
    region_HW: NDArray[np.bool_] | None = None,
    peaks: Sequence[PeakMark] = (),
    search: SearchMarks | None = None,
    longest_px: int = 360,
) -> UInt8Array:
    """Draw heat, contour, boxes and maxima over a picture.

    Parameters
    ----------
    picture_HWC
        (H, W, 3) RGB, or grey (H, W) or (H, W, 1), uint8.
    heat_HW
        (H, W) float, at the picture's own size; None draws none. Stretched to its range
        for display. NaN and infinite cells, and a constant map, leave the picture bare.
    predicted_box_B4, true_box_B4
        (B, 4) half-open boxes in pixels of the picture; None or empty draws none. Parts
        outside the picture are cut off.
    former_box_B4
        What was predicted before, (B, 4), perhaps empty; None where nothing is compared.
    contour_level
        Outline of ``heat > contour_level``, in the heat's own units.
    region_HW
        (H, W), at the picture's own size, a region to outline, too; None for none.
    peaks
        Points to mark: a red disc for the first map, an orange square for the other.
    search
        A level of a search: earlier boxes blue, those of the level red, the best one thicker.
    longest_px
        The longer side of the result; smaller pictures are enlarged.

    Returns
    -------
    numpy.ndarray
        RGB uint8. A box is a line drawn inwards from its edge, between two dark lines:
        true ones dashed blue, predicted ones yellow below them, so both show where they
        agree. Where boxes are compared, the former ones are dotted red and the others green.

    Raises
    ------
    BadImageError
        If an array is unusable, or `heat_HW` has another size than the picture.
    UsageError
        If `longest_px` is below 16.
    """
    picture = check_picture(picture_HWC)
    predicted, true = check_boxes(predicted_box_B4), check_boxes(true_box_B4)
    height_px, width_px = picture.shape[:2]
    size_wh = display_size(width_px, height_px, longest_px)
    canvas = resize_picture(picture, size_wh).copy()
    line_px = max(1, round(longest_px / 220))
    if heat_HW is not None:
        check_heat_size(heat_HW, (height_px, width_px))
        heat = unit_heat(heat_HW, size_wh, contour_level)
        canvas = _blend(canvas, heat_indices(heat.heat_HW))
        _draw_contours(canvas, heat_contours(heat), line_px)
    if region_HW is not None:
        check_heat_size(region_HW, (height_px, width_px))
        _draw_contours(canvas, region_contours(region_HW, size_wh), line_px)
    scale_4 = np.tile(np.array(size_wh) / (width_px, height_px), 2)
    if search is not None:
        draw_search(canvas, SearchMarks(*map(check_boxes, search)), scale_4, line_px)
    solid = PREDICTED_RGB if former_box_B4 is None else LATTER_RGB
    for boxes, colour, dash_px in (
        (predicted, solid, 0),
        (check_boxes(former_box_B4), FORMER_RGB, 2 * line_px),
        (true, TRUE_RGB, 4 * line_px),
    ):
        for box in boxes * scale_4:
            draw_box(canvas, box, colour, line_px, dash_px)
    for peak in reversed(peaks):
        draw_peak(canvas, np.array(peak[:2]) * scale_4[:2], peak.which, 3 * line_px)
    return canvas


def check_heat_size(heat_HW: NDArray[np.generic], size_hw: tuple[int, int]) -> None:
    """Refuse heat that does not lie cell by cell on its picture.

    Raises
    ------
    BadImageError
        If the shape of `heat_HW` is not `size_hw`.
    """
    if np.shape(heat_HW) != size_hw:
        raise BadImageError(
            f"heat has shape {np.shape(heat_HW)}, but its picture has {size_hw} rows and "
            "columns; expected the same. Resample the map to the picture first."
        )


def _blend(picture_HWC: UInt8Array, index_HW: UInt8Array) -> UInt8Array:
    """Lay the palette's colours over the picture."""
    layer = heat_palette()[index_HW].astype(np.float32)
    alpha = layer[:, :, 3:] / 255
    return np.rint(picture_HWC * (1 - alpha) + layer[:, :, :3] * alpha).astype(np.uint8)


def _draw_contours(canvas: UInt8Array, outlines: list[NDArray[np.float64]], line_px: int) -> None:
    """Draw closed thin white outlines, anti-aliased, in place."""
    points = [np.floor(outline).astype(np.int32)[:, None] for outline in outlines]
    cv2.polylines(canvas, points, True, CONTOUR_RGB, max(1, line_px // 2), cv2.LINE_AA)
