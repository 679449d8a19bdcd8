"""Maps that cover a part of their frame, brought to the grid of others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Covered", "CoveredMaps", "part_of", "resampled"]

_ON_EDGE = 1e-6  # cells; a centre this near to the edge of what is covered lies on it

Covered = tuple[tuple[float, float], tuple[float, float]]
"""Which part of a frame the cells cover, as fractions: start and end of rows, of columns."""


class CoveredMaps(NamedTuple):
    """Maps and the part of their frame that they cover."""

    map_NSHW: Tensor
    covered: Covered


def part_of(extent_N4: NDArray[np.float64], covered: Covered) -> NDArray[np.float64]:
    """Return the covered part of frames whose extent is given."""
    start_N2, size_N2 = extent_N4[:, :2], extent_N4[:, 2:] - extent_N4[:, :2]
    (y0, y1), (x0, x1) = covered
    if (y0, y1) == (x0, x1) == (0.0, 1.0):
        return extent_N4
    return np.concatenate([start_N2 + size_N2 * [x0, y0], start_N2 + size_N2 * [x1, y1]], 1)


def resampled(maps: CoveredMaps, like: CoveredMaps, beyond: Tensor) -> Tensor:
    """Return maps bilinearly on another grid, `beyond` at cells centred where they do not cover."""
    map_NSHW, grid = maps.map_NSHW, like.map_NSHW.shape[2:]
    if maps.covered == like.covered and map_NSHW.shape[2:] == grid:
        return map_NSHW
    with torch.autocast(map_NSHW.device.type, enabled=False):
        if maps.covered == like.covered:
            return torch.nn.functional.interpolate(
                map_NSHW, grid, mode="bilinear", align_corners=False
            )
        reached = torch.ones((), dtype=torch.bool, device=map_NSHW.device)
        for axis, part, wanted in zip((2, 3), maps.covered, like.covered, strict=True):
            num_cells, num_wanted = map_NSHW.shape[axis], grid[axis - 2]
            places = _places(part, num_cells, wanted, num_wanted)
            low_P, share_P, reached_P = (place.to(map_NSHW.device) for place in places)
            shape = (-1, 1) if axis == 2 else (-1,)
            start = map_NSHW.index_select(axis, low_P)
            step = map_NSHW.index_select(axis, (low_P + 1).clamp(max=num_cells - 1)) - start
            map_NSHW = start + step * share_P.view(shape)
            reached = reached & reached_P.view(shape)
        return torch.where(reached, map_NSHW, beyond)


def _places(
    covered: tuple[float, float], num_cells: int, wanted: tuple[float, float], num_wanted: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Place the cell centres of one axis of the wanted grid among the cells of another.

    Returns
    -------
    tuple of Tensor
        The cell whose centre lies before (int64), how far on to the next (float32, 0 … 1), and
        whether the place is covered (bool).
    """
    centre_P = wanted[0] + (np.arange(num_wanted) + 0.5) * (wanted[1] - wanted[0]) / num_wanted
    place_P = (centre_P - covered[0]) / (covered[1] - covered[0]) * num_cells
    reached_P = (place_P >= -_ON_EDGE) & (place_P <= num_cells + _ON_EDGE)
    place_P = np.clip(place_P - 0.5, 0, num_cells - 1)
    low_P = np.floor(place_P).astype(np.int64)
    share_P = (place_P - low_P).astype(np.float32)
    return torch.from_numpy(low_P), torch.from_numpy(share_P), torch.from_numpy(reached_P)
