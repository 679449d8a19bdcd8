"""Maps read from a store, image by image, with what brings them to pixels."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from wsltool.errors import BadImageError, StoreCorruptError
from wsltool.localize.grid import PixelLattice
from wsltool.localize.hottest_region import HottestRegion, hottest_region
from wsltool.stores.store import Store

__all__ = ["MapRow", "map_row", "map_rows", "row_named"]

Array = np.ndarray[Any, Any]

# One read of a store costs about a millisecond, whatever it brings.
_WINDOW_ROWS, _WINDOW_BYTES = 64, 16 << 20


class MapRow:
    """The maps of one image, with what is needed to bring them to its pixels.

    Attributes
    ----------
    map_SHW : float ndarray of shape (S, H, W)
        Only the rows and columns in use.
    class_S : int32 ndarray of shape (S,)
        Class of each slot, -1 for an empty one.
    extent_xyxy, size_wh : ndarray
        What the grid covers, in pixels of the image, and the image's width and height.
    suppressed_SHW : uint8 ndarray or None
        Cells that `refine` suppressed.
    """

    def __init__(
        self,
        map_SHW: Array,
        class_S: Array,
        extent_xyxy: Array,
        size_wh: Array,
        suppressed_SHW: Array | None,
    ) -> None:
        self.map_SHW, self.class_S = map_SHW, class_S
        self.extent_xyxy, self.size_wh = extent_xyxy, size_wh
        self.suppressed_SHW = suppressed_SHW

    @functools.cached_property
    def lattice(self) -> PixelLattice:
        """The image's pixels against the grid; BadImageError where the extent is unusable."""
        return PixelLattice(self.extent_xyxy, self.size_wh, self.map_SHW.shape[1:])

    def slots(self) -> Iterator[int]:
        """Yield the slots that hold a map."""
        return (int(slot) for slot in np.flatnonzero(self.class_S >= 0))

    def slot_of(self, class_index: int) -> int | None:
        """Return the slot of a class, None where it has none."""
        slot_M = np.flatnonzero(self.class_S == class_index)
        return int(slot_M[0]) if len(slot_M) else None

    def heat(self, slot: int) -> Array:
        """Return a slot's heat at every pixel, float64 of shape (height, width)."""
        return self.lattice.heat(self.map_SHW[slot], self._suppressed(slot))

    def peak(self, slot: int) -> tuple[float, float]:
        """Return the centre x, y of a slot's hottest pixel."""
        return self.lattice.peak(self.map_SHW[slot], self._suppressed(slot))

    def hottest_region(self, slot: int) -> HottestRegion:
        """Return a slot's region of maximal response, on the grid's own cells."""
        map_HW, suppressed_HW = self.map_SHW[slot], self._suppressed(slot)
        return hottest_region(map_HW, self.extent_xyxy, self.size_wh, suppressed_HW)

    def _suppressed(self, slot: int) -> Array | None:
        return None if self.suppressed_SHW is None else self.suppressed_SHW[slot]


def map_rows(maps: Store, start: int, stop: int) -> Iterator[MapRow | None]:
    """Yield the maps of images ``start:stop``, None for an image without any."""
    values = maps.rows("map", start, stop)
    classes = maps.rows("map_class", start, stop)
    extent = maps.rows("map_extent", start, stop)
    size = maps.rows("image_size", start, stop)
    grid = maps.rows("map_grid", start, stop) if "map_grid" in maps else None
    gone = maps.rows("suppressed", start, stop) if "suppressed" in maps else None
    for n in range(stop - start):
        if not (classes[n] >= 0).any():
            yield None
            continue
        num_rows, num_cols = values.shape[2:] if grid is None else grid[n]
        used = np.s_[:, :num_rows, :num_cols]
        left_out = None if gone is None else gone[n][used]
        yield MapRow(values[n][used], classes[n], extent[n], size[n], left_out)


def map_row(maps: Store, row: int) -> MapRow | None:
    """Return the maps of one image, None without any; those around it are read with it."""
    num = max(1, min(_WINDOW_ROWS, _WINDOW_BYTES // maps.row_bytes))
    return _window(maps, row // num * num, num)[row % num]


@functools.lru_cache(maxsize=4)
def _window(maps: Store, start: int, num: int) -> list[MapRow | None]:
    return list(map_rows(maps, start, min(start + num, len(maps))))


@contextlib.contextmanager
def row_named(store: Store, row: int) -> Iterator[None]:
    """Say which row of which store holds a map, or a feature, that cannot be used.

    For commands that have no ``--on-bad``; raises StoreCorruptError.
    """
    try:
        yield
    except BadImageError as error:
        name = store.rows("image_id", row, row + 1)[0]
        raise StoreCorruptError(
            f'{store.path.name} row {row} "{name}": {error} Make the {store.kind} again.'
        ) from error
