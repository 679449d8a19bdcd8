"""Sub-grids of features, stretched to the whole grid (Bency et al. 2016, §3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from wsltool.localize.beam import Box

__all__ = ["StretchedReader", "stretched"]


_MOST_CELLS = 256
"""Rows and columns are stretched in one product on grids of no more cells, 3 times as fast."""


def stretched(feature_NCHW: Tensor, sub_grids: Sequence[Box]) -> Tensor:
    """Resize a sub-grid of each to the whole grid, bilinearly, each channel alone.

    Nothing outside the sub-grid is read: as ``torch.nn.functional.interpolate(
    feature[:, :, y0:y1, x0:x1], size=grid, mode="bilinear", align_corners=False)``, but for the
    last bits, and for a different sub-grid each.

    Parameters
    ----------
    feature_NCHW
        (num_sub_grids, channel, row, column).
    sub_grids
        One for each.

    Returns
    -------
    Tensor
        The shape of `feature_NCHW`, float32.
    """
    feature_NCHW = feature_NCHW.float()
    num, _, rows, cols = feature_NCHW.shape
    row_NHH, col_NWW = _weights(sub_grids, (rows, cols))
    if rows * cols <= _MOST_CELLS:
        weight_NHWHW = torch.einsum("nih,njw->nhwij", row_NHH, col_NWW)
        weight_NPP = weight_NHWHW.reshape(num, rows * cols, rows * cols).to(feature_NCHW)
        return (feature_NCHW.flatten(2) @ weight_NPP).reshape(feature_NCHW.shape)
    wide_NCHW = torch.einsum("nchw,njw->nchj", feature_NCHW, col_NWW.to(feature_NCHW))
    return torch.einsum("nchj,nih->ncij", wide_NCHW, row_NHH.to(feature_NCHW))


class StretchedReader:
    """A linear layer on the flattened grid, for many sub-grids of the same features.

    Stretching is linear in the features, and so is the layer. With W its weights, f the features
    of a picture and S the weights that stretch a sub-grid, ``W · stretch(f)`` is ``(W · f) · S``,
    where ``W · f`` sums over channels alone, once a picture, for every pair of a cell read and a
    cell given. The weights are held once more for it. A sub-grid then costs no channels: for
    7×7 cells of 1280 channels a picture takes as much as 49 sub-grids would, and each sub-grid a
    26th.

    Parameters
    ----------
    layer
        Reads channels × rows × columns numbers.
    grid
        Rows and columns.
    """

    def __init__(self, layer: nn.Linear, grid: tuple[int, int]) -> None:
        num_cells = grid[0] * grid[1]
        self.layer = layer
        self.grid = grid
        self.num_out = layer.out_features
        weight_OCP = layer.weight.reshape(self.num_out, -1, num_cells)
        self._weight_MC = weight_OCP.transpose(1, 2).flatten(0, 1).contiguous()

    @staticmethod
    def num_bytes(layer: nn.Linear, grid: tuple[int, int]) -> int:
        """Return what `of` takes for one picture."""
        return 4 * layer.out_features * (grid[0] * grid[1]) ** 2

    def of(self, feature_CHW: Tensor) -> Tensor:
        """Return what the layer makes of each cell at each place, (num_out, pairs of cells)."""
        read_MP = self._weight_MC @ feature_CHW.flatten(1).to(self._weight_MC)
        return read_MP.reshape(self.num_out, -1)

    def __call__(self, read_OP: Tensor, sub_grids: Sequence[Box]) -> Tensor:
        """Return the layer's output (num_sub_grids, num_out) for sub-grids of what `of` read."""
        row_NHH, col_NWW = _weights(sub_grids, self.grid)
        weight_NPP = torch.einsum("nih,njw->nijhw", row_NHH, col_NWW)  # cell given, cell read
        made_NO: Tensor = weight_NPP.flatten(1).to(read_OP) @ read_OP.T
        return made_NO if self.layer.bias is None else made_NO + self.layer.bias


def _weights(sub_grids: Sequence[Box], grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return what stretches sub-grids: (num_sub_grids, row given, row read), columns alike."""
    rows, cols = grid
    row_NHH = torch.stack([_bilinear(y0, y1, rows) for _, y0, _, y1 in sub_grids])
    col_NWW = torch.stack([_bilinear(x0, x1, cols) for x0, _, x1, _ in sub_grids])
    return row_NHH, col_NWW


@lru_cache(maxsize=4096)
def _bilinear(start: int, stop: int, num_cells: int) -> Tensor:
    """Return the weights (num_cells, num_cells) that stretch an interval of cells to all.

    As ``torch.nn.functional.interpolate(…, mode="bilinear", align_corners=False)``.
    """
    length = stop - start
    at = (np.arange(num_cells) + 0.5) * length / num_cells - 0.5
    at = np.clip(at, 0, length - 1)
    low = np.minimum(at.astype(np.int64), length - 1)
    high = np.minimum(low + 1, length - 1)
    weight = np.zeros((num_cells, num_cells))
    place = np.arange(num_cells)
    np.add.at(weight, (place, start + low), 1 - (at - low))
    np.add.at(weight, (place, start + high), at - low)
    return torch.from_numpy(weight.astype(np.float32))
