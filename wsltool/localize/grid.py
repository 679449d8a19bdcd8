"""From the grid of a map to the pixels of its image: the only place where that is done.

A map has rows and columns of cells; its extent ``x0 y0 x1 y1`` is the part of the original
image, in pixels, that the grid covers. The centre ``(x + .5, y + .5)`` of pixel ``(x, y)``
lies at the grid coordinate ``(x + .5 - x0) / (x1 - x0) * num_cols - .5`` (rows alike), where
whole numbers are the centres of cells; beyond the outermost centres the border cell goes on.
For an extent that is the whole image this is OpenCV's ``INTER_LINEAR`` and torch's
``align_corners=False``. A pixel whose centre lies outside the extent (a centre crop did not
see it) has the heat −inf; an extent that reaches beyond the image (a letterbox) is fine.

Everything is computed in float64, element by element, so the bytes do not depend on threads.
A NaN or an infinity in a map is a `BadImageError`: no threshold and no peak means anything
beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from wsltool.errors import BadImageError

__all__ = [
    "PixelLattice",
    "cell_centers_px",
    "checked_scores",
    "peak_px",
    "peaks_px",
    "resample",
    "resample_slots",
]

FloatArray: TypeAlias = npt.NDArray[np.float64]
RealArray: TypeAlias = npt.NDArray[np.floating[Any]]
Flags: TypeAlias = npt.NDArray[np.bool_ | np.integer[Any]]
Numbers: TypeAlias = Sequence[float] | npt.NDArray[Any]

# Pixels computed at a time: a band and its sources stay in the cache and below malloc's mmap.
_BAND_PX = 1 << 14
# Share of the largest value by which rounding may lift a pixel above its cells, generously.
_ROUNDING = 1e-12


def resample(
    map_HW: RealArray,
    extent_xyxy: Numbers,
    size_wh: Numbers,
    suppressed_HW: Flags | None = None,
) -> FloatArray:
    """Return a map as heat at every pixel of its image, bilinearly.

    Parameters
    ----------
    map_HW : array of float, (rows, cols)
        Raw scores.
    extent_xyxy : 4 numbers
        What the grid covers, in pixels of the image.
    size_wh : 2 integers
        Width and height of the image, in pixels.
    suppressed_HW : array of bool or uint8, (rows, cols), optional
        Cells to leave out: the weights of the others are renormalised, and a pixel whose
        nearest cell is suppressed gets the floor ``min(0, min(map))``. If every cell is
        suppressed, the map keeps its scores, as if none were.

    Returns
    -------
    heat_HW : array of float64, (height, width)
        −inf where the centre of a pixel lies outside the extent. It is the only array of
        the image's size that is made.

    Raises
    ------
    BadImageError
        For a map that is empty or not finite, an extent that is empty or covers no pixel,
        and a size below 1 × 1.
    """
    lattice = PixelLattice(extent_xyxy, size_wh, np.shape(map_HW))
    return lattice.heat(map_HW, suppressed_HW)


def resample_slots(
    map_SHW: RealArray,
    extent_xyxy: Numbers,
    size_wh: Numbers,
    suppressed_SHW: Flags | None = None,
) -> FloatArray:
    """Return the maps of all slots of one image as heat, float64 (slots, height, width).

    As `resample`, with the geometry worked out once. Where S images of heat are too much
    memory, ask one `PixelLattice` for one slot after the other.
    """
    lattice = PixelLattice(extent_xyxy, size_wh, np.shape(map_SHW)[1:])
    heat_SHW = np.empty((len(map_SHW), lattice.height_px, lattice.width_px))
    for slot, map_HW in enumerate(map_SHW):
        suppressed_HW = None if suppressed_SHW is None else suppressed_SHW[slot]
        lattice.heat(map_HW, suppressed_HW, out_HW=heat_SHW[slot])
    return heat_SHW


def peak_px(
    map_HW: RealArray,
    extent_xyxy: Numbers,
    size_wh: Numbers,
    suppressed_HW: Flags | None = None,
) -> tuple[float, float]:
    """Return the centre ``(x + .5, y + .5)`` of the hottest pixel, in pixels.

    The first in row-major order among equals, exactly the first maximum of `resample` (a
    constant map peaks in its first pixel), found without computing the whole of it.
    """
    return PixelLattice(extent_xyxy, size_wh, np.shape(map_HW)).peak(map_HW, suppressed_HW)


def peaks_px(
    map_SHW: RealArray,
    extent_xyxy: Numbers,
    size_wh: Numbers,
    suppressed_SHW: Flags | None = None,
) -> FloatArray:
    """Return `peak_px` of all slots of one image, float64 (slots, 2) of x and y."""
    lattice = PixelLattice(extent_xyxy, size_wh, np.shape(map_SHW)[1:])
    peak_xy_S2 = np.empty((len(map_SHW), 2))
    for slot, map_HW in enumerate(map_SHW):
        suppressed_HW = None if suppressed_SHW is None else suppressed_SHW[slot]
        peak_xy_S2[slot] = lattice.peak(map_HW, suppressed_HW)
    return peak_xy_S2


def checked_scores(
    map_HW: RealArray, suppressed_HW: Flags | None, grid_rc: tuple[int, int]
) -> tuple[FloatArray, npt.NDArray[np.bool_] | None]:
    """Return the scores of a map in float64, and which cells to keep, None for all.

    All are kept, too, where every cell is suppressed.

    Raises
    ------
    BadImageError
        For a map that is not finite, or a shape that is not the grid's.
    """
    score_HW = np.asarray(map_HW, dtype=np.float64)
    _check_shape("map", score_HW.shape, grid_rc)
    bad_HW = ~np.isfinite(score_HW)
    if bad_HW.any():
        row, col = divmod(int(bad_HW.argmax()), grid_rc[1])
        raise BadImageError(
            f"map has {int(bad_HW.sum())} values that are not finite, the first at row "
            f"{row}, column {col}: {score_HW[row, col]}; expected finite scores."
        )
    if suppressed_HW is None:
        return score_HW, None
    keep_HW = np.asarray(suppressed_HW) == 0
    _check_shape("suppressed", keep_HW.shape, grid_rc)
    if keep_HW.all() or not keep_HW.any():
        return score_HW, None
    return score_HW, keep_HW


def cell_centers_px(extent_xyxy: Numbers, grid_rc: Sequence[int]) -> tuple[FloatArray, FloatArray]:
    """Return where the centres of the cells lie in the image.

    Parameters
    ----------
    extent_xyxy : 4 numbers
        What the grid covers, in pixels of the image.
    grid_rc : 2 integers
        Rows and columns of the grid.

    Returns
    -------
    x_px_W, y_px_H : arrays of float64
        Of the columns and of the rows: cell ``(r, c)`` has its centre at
        ``(x_px_W[c], y_px_H[r])``, outside the image where the extent is.
    """
    x0, y0, x1, y1 = _checked_extent(extent_xyxy)
    num_rows, num_cols = _checked_grid(grid_rc)
    x_px_W = x0 + (np.arange(num_cols, dtype=np.float64) + 0.5) * ((x1 - x0) / num_cols)
    y_px_H = y0 + (np.arange(num_rows, dtype=np.float64) + 0.5) * ((y1 - y0) / num_rows)
    return x_px_W, y_px_H


class PixelLattice:
    """The pixels of one image against the cells of one grid, for any number of maps.

    Parameters
    ----------
    extent_xyxy : 4 numbers
        What the grid covers, in pixels of the image.
    size_wh : 2 integers
        Width and height of the image, in pixels.
    grid_rc : 2 integers
        Rows and columns of the grid.

    Raises
    ------
    BadImageError
        For an extent that is empty or holds the centre of no pixel, a size below 1 × 1 and
        a grid without cells.
    """

    def __init__(self, extent_xyxy: Numbers, size_wh: Numbers, grid_rc: Sequence[int]) -> None:
        x0, y0, x1, y1 = _checked_extent(extent_xyxy)
        self.width_px, self.height_px = _checked_size(size_wh)
        self.grid_rc = _checked_grid(grid_rc)
        self._row = _axis(y0, y1, self.grid_rc[0], self.height_px)
        self._col = _axis(x0, x1, self.grid_rc[1], self.width_px)
        if not self._row.num_px or not self._col.num_px:
            raise BadImageError(
                f"extent {x0:g} {y0:g} {x1:g} {y1:g} holds the centre of no pixel of the "
                f"{self.width_px}x{self.height_px} image; expected an extent in its pixels."
            )

    def heat(
        self,
        map_HW: RealArray,
        suppressed_HW: Flags | None = None,
        out_HW: FloatArray | None = None,
    ) -> FloatArray:
        """Return a map as heat at every pixel, in `out_HW` if given; see `resample`."""
        score_HW, keep_HW = checked_scores(map_HW, suppressed_HW, self.grid_rc)
        heat_HW = np.empty((self.height_px, self.width_px)) if out_HW is None else out_HW
        if self._row.num_px * self._col.num_px < heat_HW.size:
            heat_HW.fill(-np.inf)
        inside_HW = heat_HW[self._row.pixels, self._col.pixels]
        for rows, band in _bands(score_HW, keep_HW, self._row, self._col):
            inside_HW[rows] = band
        return heat_HW

    def peak(self, map_HW: RealArray, suppressed_HW: Flags | None = None) -> tuple[float, float]:
        """Return the centre of the first hottest pixel; see `peak_px`.

        A pixel is a mean of its cells, hence no hotter than the hottest of them. Only the
        rows and columns of pixels are computed that have a cell as hot as the pixel at the
        hottest cell.
        """
        score_HW, keep_HW = checked_scores(map_HW, suppressed_HW, self.grid_rc)
        bound_HW = score_HW
        if keep_HW is not None:
            bound_HW = np.where(keep_HW, score_HW, _floor(score_HW))
        top_row, top_col = divmod(int(bound_HW.argmax()), self.grid_rc[1])
        at_top = self._row.nearest_to(top_row), self._col.nearest_to(top_col)
        ((_, heat_11),) = _bands(score_HW, keep_HW, *at_top)
        least = heat_11.item() - _ROUNDING * float(np.abs(score_HW).max())
        row = self._row.reaching(bound_HW.max(axis=1), least)
        col = self._col.reaching(bound_HW.max(axis=0), least)
        best, best_row, best_col = -np.inf, 0, 0
        for rows, band in _bands(score_HW, keep_HW, row, col):
            first = int(band.argmax())
            if band.flat[first] > best:
                best = float(band.flat[first])
                best_row, best_col = divmod(first, band.shape[1])
                best_row += rows.start
        return float(col.pixel_P[best_col]) + 0.5, float(row.pixel_P[best_row]) + 0.5


@dataclass(frozen=True, slots=True)
class _Axis:
    """P pixels of one axis of an image against the cells of one axis of a grid.

    Pixel p mixes cell ``low_P[p]`` and the next one, which weighs ``weight_P[p]``.
    """

    pixel_P: npt.NDArray[np.intp]
    low_P: npt.NDArray[np.intp]
    weight_P: FloatArray
    nearest_P: npt.NDArray[np.intp]

    @property
    def num_px(self) -> int:
        return len(self.pixel_P)

    @property
    def pixels(self) -> slice:
        """Return the pixels as a slice; they follow each other until `_take` is used."""
        return slice(int(self.pixel_P[0]), int(self.pixel_P[-1]) + 1)

    def nearest_to(self, cell: int) -> _Axis:
        """Return the axis with the one pixel that is nearest to the centre of `cell`."""
        return self._take([int(np.abs(self.low_P + self.weight_P - cell).argmin())])

    def reaching(self, bound_G: FloatArray, least: float) -> _Axis:
        """Return the axis with the pixels one of whose cells has a bound of `least`."""
        both_G = bound_G.copy()
        np.maximum(bound_G[:-1], bound_G[1:], out=both_G[:-1])
        return self._take(np.flatnonzero(both_G[self.low_P] >= least))

    def _take(self, index: Sequence[int] | npt.NDArray[np.intp]) -> _Axis:
        return _Axis(
            self.pixel_P[index], self.low_P[index], self.weight_P[index], self.nearest_P[index]
        )


def _axis(low_px: float, high_px: float, num_cells: int, num_px: int) -> _Axis:
    """Return the pixels whose centres lie in ``[low_px, high_px]`` against the cells."""
    first, last = max(0, ceil(low_px - 0.5)), min(num_px - 1, floor(high_px - 0.5))
    pixel_P = np.arange(first, last + 1)
    cell_P = (pixel_P + 0.5 - low_px) / (high_px - low_px) * num_cells
    nearest_P = np.clip(np.floor(cell_P), 0, num_cells - 1).astype(np.intp)
    center_P = np.clip(cell_P - 0.5, 0, num_cells - 1)
    low_P = np.floor(center_P).astype(np.intp)
    return _Axis(pixel_P, low_P, center_P - low_P, nearest_P)


def _bands(
    score_HW: FloatArray, keep_HW: npt.NDArray[np.bool_] | None, row: _Axis, col: _Axis
) -> Iterator[tuple[slice, FloatArray]]:
    """Yield the heat of all pixels in bands of rows: which rows, and their heat."""
    if keep_HW is None:
        yield from _plain_bands(score_HW, row, col)
        return
    # Against the hottest cell the numerator is 0 there, so equal peaks stay equal.
    top = float(score_HW[keep_HW].max())
    part_HW = np.where(keep_HW, score_HW - top, 0.0)
    share_bands = _plain_bands(keep_HW.astype(np.float64), row, col)
    for (rows, band), (_, share) in zip(_plain_bands(part_HW, row, col), share_bands, strict=True):
        kept = keep_HW[np.ix_(row.nearest_P[rows], col.nearest_P)]
        np.divide(band, share, out=band, where=kept)  # the nearest cell weighs ≥ 1/4
        band += top
        band[~kept] = _floor(score_HW)
        yield rows, band


def _plain_bands(
    value_HW: FloatArray, row: _Axis, col: _Axis
) -> Iterator[tuple[slice, FloatArray]]:
    """Yield the bilinear values, first along the columns of the grid, then down its rows."""
    across, slope = _with_slope(value_HW, axis=1)
    across = across[:, col.low_P] + slope[:, col.low_P] * col.weight_P
    across, slope = _with_slope(across, axis=0)
    num_rows = max(1, _BAND_PX // max(1, col.num_px))
    for start in range(0, row.num_px, num_rows):
        rows = slice(start, min(start + num_rows, row.num_px))
        low = row.low_P[rows]
        band = slope[low]
        band *= row.weight_P[rows, None]
        band += across[low]
        yield rows, band


def _with_slope(value: FloatArray, axis: int) -> tuple[FloatArray, FloatArray]:
    """Return `value` and what it rises by to the next cell, 0 after the last.

    The form ``a + (b - a) w`` keeps equal neighbours exactly equal in between.
    """
    return value, np.diff(value, axis=axis, append=value.take([-1], axis=axis))


def _floor(score_HW: FloatArray) -> float:
    """Return what suppressed cells are worth: ``min(0, min(map))``."""
    return min(0.0, float(score_HW.min()))


def _checked_extent(extent_xyxy: Numbers) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (float(edge) for edge in extent_xyxy)
    if not all(isfinite(edge) for edge in (x0, y0, x1, y1)) or x1 <= x0 or y1 <= y0:
        raise BadImageError(
            f"map_extent is {x0:g} {y0:g} {x1:g} {y1:g}; expected finite x0 < x1 and y0 < y1."
        )
    return x0, y0, x1, y1


def _checked_size(size_wh: Numbers) -> tuple[int, int]:
    width_px, height_px = (int(side) for side in size_wh)
    if width_px < 1 or height_px < 1:
        raise BadImageError(f"image size is {width_px}x{height_px} pixels; expected at least 1x1.")
    return width_px, height_px


def _checked_grid(grid_rc: Sequence[int]) -> tuple[int, int]:
    if len(grid_rc) != 2 or min(grid_rc) < 1:
        shape = "x".join(str(side) for side in grid_rc)
        raise BadImageError(f"map grid is {shape}; expected rows x columns, at least 1x1.")
    return int(grid_rc[0]), int(grid_rc[1])


def _check_shape(name: str, shape: tuple[int, ...], grid_rc: tuple[int, int]) -> None:
    if shape != grid_rc:
        raise BadImageError(f"{name} has shape {shape}; expected rows x columns {grid_rc}.")
