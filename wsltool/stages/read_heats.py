"""Maps brought to wsolevaluation's grid, and masks there, for ``maxboxacc`` and ``pxap``."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from wsltool.localize.grid_heat import grid_heat
from wsltool.metrics.grid_heats import GRID_PX, GridHeats
from wsltool.metrics.records import Truth, single_label
from wsltool.stages.map_rows import map_row, row_named
from wsltool.stages.true_masks import has_masks, true_masks

if TYPE_CHECKING:
    from wsltool.stages.scored_records import Source

__all__ = ["read"]

Array = np.ndarray[Any, Any]


def read(source: Source, block: slice, true: Truth) -> GridHeats:
    """Return the heat of the one class of each image of a block, on the grid.

    Masks are read when they are asked for; a `BadImageError` says then which cannot be.

    Raises
    ------
    ProtocolError
        An image has not exactly one class.
    StoreCorruptError
        A map is infinite somewhere, or its extent unusable.
    """
    label_N = single_label(true, "maxboxacc or pxap").tolist()
    heat_NHW = np.zeros((len(true), GRID_PX, GRID_PX))
    has_N, off_N = np.zeros(len(true), bool), np.zeros(len(true), bool)
    for n, (row, label) in enumerate(zip(source.join.row_N[block].tolist(), label_N, strict=True)):
        found = _heat(source, row, label)
        if found is not None:
            heat_NHW[n], plain = found
            has_N[n], off_N[n] = True, not plain
    rows = source.join.truth_row_N[block].tolist()
    masks = functools.cache(lambda: _masks(source, rows, label_N))
    return GridHeats(
        has_map_N=has_N,
        heat_NHW=heat_NHW,
        off_grid_N=off_N,
        masks=masks if has_masks(source.truth) else None,
    )


def _heat(source: Source, row: int, label: int) -> tuple[Array, bool] | None:
    """Return the heat of a class in one row, None where it has no map of it."""
    maps = map_row(source.store, row) if row >= 0 else None
    slot = None if maps is None else maps.slot_of(label)
    if maps is None or slot is None:
        return None
    gone_HW = None if maps.suppressed_SHW is None else maps.suppressed_SHW[slot]
    with row_named(source.store, row):
        return grid_heat(maps.map_SHW[slot], maps.extent_xyxy, maps.size_wh, GRID_PX, gone_HW)


def _masks(source: Source, rows: list[int], label_N: list[int]) -> Array:
    """Return the masks of the images' classes on the grid; the object wins over what is left out.

    The nearest pixel is taken, of the union of all instances: the same as the union of the
    nearest pixels.
    """
    masks = true_masks(source.truth)
    size = (GRID_PX, GRID_PX)
    return np.array(
        [
            cv2.resize(
                masks.of_row(row, object_first=True)(label), size, interpolation=cv2.INTER_NEAREST
            )
            for row, label in zip(rows, label_N, strict=True)
        ]
    )
