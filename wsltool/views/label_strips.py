"""Pictures of the label page: a strip of photos, and a strip of heat for each cluster.

A strip is a row of square places of `PLACE_PX`, one a sampled image; the photo lies in the upper
left corner of its place and the page cuts it out by its size. So a class takes one request for
its photos and one for each of its clusters.

Heat of all clusters and images of a class is drawn on one scale, so that it can be compared:
what is hotter is more like the cluster (Kolesnikov and Lampert 2016, eq. 1).

Legend: H W rows and columns, Q clusters, C channels.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsltool.errors import BadImageError
from wsltool.localize.grid import PixelLattice
from wsltool.views.overlay import (
    OUTLINE_RGB,
    check_picture,
    display_size,
    heat_palette,
    resize_picture,
)

__all__ = ["PLACE_PX", "SampleHeat", "heat_range", "heat_strips", "photo_strip", "shown_size"]

PLACE_PX: Final = 208
"""Side of the square that one picture of a strip has."""

_NUM_LEVELS: Final = 64
_DARK, _WHITE = 2 * _NUM_LEVELS, 2 * _NUM_LEVELS + 1
_FAINT: Final = 0.4
_BARE_RGB: Final = (128, 132, 140)
_FloatArray = NDArray[np.float64]
_IndexArray = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class SampleHeat:
    """Heat of the clusters of one class in one image.

    Attributes
    ----------
    heat_QHW
        float64 (clusters, rows, cols), NaN in cells that are not stored.
    extent_xyxy
        What the grid covers, in pixels of the image.
    size_wh
        Width and height of the image, in pixels.
    """

    heat_QHW: _FloatArray
    extent_xyxy: tuple[float, float, float, float]
    size_wh: tuple[int, int]


def shown_size(size_wh: tuple[int, int]) -> tuple[int, int]:
    """Return width and height of a picture in its place: the longer side is `PLACE_PX`."""
    return display_size(*size_wh, PLACE_PX)


def photo_strip(
    pictures: Sequence[Callable[[], NDArray[np.generic] | None]],
    sizes_wh: Sequence[tuple[int, int]],
) -> bytes:
    """Return the strip of the bare photos, a JPEG.

    Parameters
    ----------
    pictures
        Functions that load (H, W, 3) RGB or grey uint8 of any size, called one after the
        other so that one picture is held at a time; None shows a crossed-out place.
    sizes_wh
        Width and height of the images as the store has them; they decide the shape shown.

    Raises
    ------
    BadImageError
        A picture has other axes or another dtype.
    """
    strip_HWC = np.full((PLACE_PX, PLACE_PX * max(1, len(pictures)), 3), _BARE_RGB, np.uint8)
    for place, (load, size_wh) in enumerate(zip(pictures, sizes_wh, strict=True)):
        width_px, height_px = shown_size(size_wh)
        left_px = place * PLACE_PX
        spot_HWC = strip_HWC[:height_px, left_px : left_px + width_px]
        picture = load()
        if picture is None:
            _cross_out(spot_HWC)
        else:
            spot_HWC[:] = resize_picture(check_picture(picture), (width_px, height_px))
    file = io.BytesIO()
    Image.fromarray(strip_HWC).save(file, "JPEG", quality=82)
    return file.getvalue()


def heat_range(samples: Sequence[SampleHeat | None]) -> tuple[float, float]:
    """Return the lowest and the highest heat of a class, over all its clusters and images.

    Only finite values count. Without any it is (0, 1); a constant heat c gives (c, c).

    Raises
    ------
    BadImageError
        A heat has no three axes.
    """
    low, high = np.inf, -np.inf
    for sample in samples:
        if sample is None:
            continue
        if sample.heat_QHW.ndim != 3:
            raise BadImageError(
                f"heat has shape {sample.heat_QHW.shape}; expected clusters, rows and columns."
            )
        known = sample.heat_QHW[np.isfinite(sample.heat_QHW)]
        if known.size:
            low, high = min(low, float(known.min())), max(high, float(known.max()))
    return (low, high) if low <= high else (0.0, 1.0)


def heat_strips(samples: Sequence[SampleHeat | None], num_clusters: int) -> list[bytes]:
    """Return one strip of heat for each cluster, to lay over the strip of photos.

    Parameters
    ----------
    samples
        One for each place; None (an image that cannot be shown) leaves it clear.
    num_clusters
        Q: how many strips.

    Returns
    -------
    list of bytes
        PNG with transparency. All strips have one scale, from the lowest heat to the
        highest of all (`heat_range`), in the colours of `heat_palette`. Cells that are not
        stored, and what lies outside the extent, are clear. An outline surrounds the pixels
        where the cluster's heat is the highest of all clusters: what it would decide;
        elsewhere the colour is fainter. If all heat is the same, no colour is shown.

    Raises
    ------
    BadImageError
        A heat has other axes or another number of clusters, or an extent is unusable.
    """
    low, high = heat_range(samples)
    canvas_QHW = np.zeros((num_clusters, PLACE_PX, PLACE_PX * max(1, len(samples))), np.uint8)
    for place, sample in enumerate(samples):
        if sample is None:
            continue
        if len(sample.heat_QHW) != num_clusters:
            raise BadImageError(
                f"heat has {len(sample.heat_QHW)} clusters; expected {num_clusters}."
            )
        heat_QHW = _at_pixels(sample)
        left_px = place * PLACE_PX
        height_px, width_px = heat_QHW.shape[1:]
        spot_QHW = canvas_QHW[:, :height_px, left_px : left_px + width_px]
        spot_QHW[:] = _levels(heat_QHW, low, high)
        _mark_winners(spot_QHW, heat_QHW)
    return [_as_png(canvas_HW) for canvas_HW in canvas_QHW]


def _at_pixels(sample: SampleHeat) -> _FloatArray:
    """Return the heat at the pixels of the place, NaN where less than half is known."""
    width_px, height_px = shown_size(sample.size_wh)
    scale_4 = np.tile(np.array([width_px, height_px]) / sample.size_wh, 2)
    extent = (np.array(sample.extent_xyxy) * scale_4).tolist()
    num_clusters, *grid_rc = sample.heat_QHW.shape
    made_QHW = np.full((num_clusters, height_px, width_px), np.nan)
    known_HW = np.asarray(np.isfinite(sample.heat_QHW).all(axis=0))
    if not known_HW.any():
        return made_QHW
    PixelLattice(sample.extent_xyxy, sample.size_wh, grid_rc)  # refuses what no image can have
    try:
        lattice = PixelLattice(extent, (width_px, height_px), grid_rc)
    except BadImageError:
        return made_QHW  # made smaller, it holds the centre of no pixel
    share_HW = lattice.heat(known_HW.astype(np.float64))
    here_HW = share_HW >= 0.5
    plain_QHW = np.where(known_HW, sample.heat_QHW, 0.0)
    for cluster in range(num_clusters):
        sum_HW = lattice.heat(plain_QHW[cluster])
        made_QHW[cluster, here_HW] = sum_HW[here_HW] / share_HW[here_HW]
    return made_QHW


def _levels(heat_QHW: _FloatArray, low: float, high: float) -> _IndexArray:
    """Return rows of the palette; 0, which is clear, where there is no heat."""
    span = (high - low) or np.inf
    unit_QHW = np.clip((np.nan_to_num(heat_QHW, nan=low) - low) / span, 0.0, 1.0)
    levels: _IndexArray = np.rint(unit_QHW * (_NUM_LEVELS - 1)).astype(np.uint8)
    return levels


def _mark_winners(index_QHW: _IndexArray, heat_QHW: _FloatArray) -> None:
    """Draw around the pixels where each cluster is the hottest and fade the rest, in place."""
    known_HW = np.isfinite(heat_QHW[0])
    if len(heat_QHW) < 2 or not known_HW.any():
        return
    best_HW = np.where(known_HW, np.nan_to_num(heat_QHW, nan=-np.inf).argmax(axis=0), -1)
    for cluster, index_HW in enumerate(index_QHW):
        won_HW = (best_HW == cluster).astype(np.uint8)
        outlines, _ = cv2.findContours(won_HW, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        drawn_HW = np.where(won_HW, index_HW, index_HW + np.uint8(_NUM_LEVELS))
        for level, line_px in ((_DARK, 3), (_WHITE, 1)):
            cv2.drawContours(drawn_HW, outlines, -1, level, line_px, cv2.LINE_8)
        index_HW[:] = drawn_HW


def _as_png(index_HW: _IndexArray) -> bytes:
    """Return an indexed PNG of colour and opacity."""
    steps = np.rint(np.linspace(0, 255, _NUM_LEVELS)).astype(np.intp)
    marks = [[*OUTLINE_RGB, 150], [255, 255, 255, 255]]
    bright = heat_palette()[steps]
    faint = np.rint(bright * [1, 1, 1, _FAINT]).astype(np.uint8)
    palette = np.concatenate([bright, faint, np.array(marks, np.uint8)])
    picture = Image.fromarray(index_HW).convert("L")
    picture.putpalette(palette[:, :3].tobytes())
    file = io.BytesIO()
    picture.save(file, "PNG", transparency=palette[:, 3].tobytes())
    return file.getvalue()


def _cross_out(spot_HWC: _IndexArray) -> None:
    """Draw two diagonals: there is no picture to show."""
    height_px, width_px = spot_HWC.shape[:2]
    drawn_HWC = np.ascontiguousarray(spot_HWC)
    corners = [(0, 0), (width_px - 1, height_px - 1), (0, height_px - 1), (width_px - 1, 0)]
    for start, stop in (corners[:2], corners[2:]):
        cv2.line(drawn_HWC, start, stop, (70, 74, 82), 2, cv2.LINE_AA)
    spot_HWC[:] = drawn_HWC
