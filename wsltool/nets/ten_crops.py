"""Ten crops of a warped picture and their maps in one, as the released code of Zhou et al. (2016).

The picture is warped to a square that is larger than the network's input (256 for an input of
224 or 227; in the same proportion for others). The crops are its four corners and its centre, and
the same five mirrored. Of each crop the map of a class is enlarged to the crop, mirrored back
where it has to be, and its absolute values are added up where the crop lies. Pixels near
the corners are in fewer crops than the middle and get less: it is a sum, not a mean.

The enlarging is MATLAB's ``imresize``, bicubic with a = -1/2 (Keys), which mirrors the map at its
edges; torch's own bicubic has a = -3/4 and repeats the outermost cells. It is a product with a
matrix on either side.

The merged map of the warped picture is stored as the means of 64 × 64 areas, not at its 256 × 256
pixels: 16 times less, and finer still than the 14 × 14 cells that the maps came from.
"""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsltool.errors import ModelError
from wsltool.nets.models import Model
from wsltool.nets.preprocess import Preprocess

__all__ = [
    "NUM_CROPS",
    "check_ten_crops",
    "cubic_weights",
    "mean_of_crops",
    "merge_crops",
    "merged_grid",
    "ten_crops",
    "warp_to_crop",
]

NUM_CROPS = 10

_WARP_PX = 256
_CROPS_OF_WARP_PX = (224, 227)  # GoogLeNet and VGG; AlexNet
_GRID = 64
_MAPS_AT_ONCE = 64


def check_ten_crops(model: Model) -> None:
    """Refuse what ten crops cannot be merged of.

    Raises
    ------
    ModelError
        The model does not warp pictures, or its cells do not cover the whole of its input.
    """
    if model.preprocess.fit != "warp":
        raise ModelError(
            f"--crops ten cuts crops out of a warped picture, but {model.arch} brings pictures to "
            f"its input by {model.preprocess.fit}. Pass --fit warp."
        )
    if model.network.window is not None:
        raise ModelError(
            f"--crops ten needs maps of the whole input, but the cells of {model.arch} cover only "
            "a part of it. Pass --crops one."
        )


def warp_px(crop_px: int) -> int:
    """Return the side of the picture that crops of `crop_px` pixels are cut out of."""
    if crop_px in _CROPS_OF_WARP_PX:
        return _WARP_PX
    return round(crop_px * _WARP_PX / _CROPS_OF_WARP_PX[0])


def warp_to_crop(preprocess: Preprocess) -> Preprocess:
    """Return the preprocessing that makes the picture which the crops are cut out of."""
    return preprocess.at(size=warp_px(preprocess.size_px))


def merged_grid(crop_px: int) -> tuple[int, int]:
    """Return rows and columns of a merged map."""
    side = min(_GRID, warp_px(crop_px))
    return side, side


def _corners(crop_px: int) -> list[tuple[int, int]]:
    """Return the first row and column of each of the five places, the centre last."""
    last = warp_px(crop_px) - crop_px
    middle = (last + 1) // 2  # Caffe's floor(index / 2) + 1, counted from 0
    return [(0, 0), (0, last), (last, 0), (last, last), (middle, middle)]


def ten_crops(x_NCHW: Tensor, crop_px: int) -> list[Tensor]:
    """Cut ten crops out of warped pictures.

    Parameters
    ----------
    x_NCHW
        (num_images, 3, `warp_px`, `warp_px`).
    crop_px
        Rows and columns of a crop, the network's input size.

    Returns
    -------
    list of Tensor
        Ten of (num_images, 3, crop_px, crop_px): five places, then the same mirrored.
    """
    plain = [
        x_NCHW[:, :, row : row + crop_px, col : col + crop_px] for row, col in _corners(crop_px)
    ]
    return plain + [crop_NCHW.flip(3) for crop_NCHW in plain]


def mean_of_crops(logit_RNK: Tensor, *, logistic: bool) -> Tensor:
    """Return the logits of the mean probability over crops, (num_images, num_classes).

    The released code averages the outputs of the softmax, not what goes into it. What comes
    back gives that mean when it goes through the softmax, or for `logistic` through the
    sigmoid; on the CPU.
    """
    logit_RNK = logit_RNK.cpu().double()  # some devices have no float64
    if not logistic:
        log_RNK = logit_RNK.log_softmax(2)
        return (log_RNK.logsumexp(0) - log(len(logit_RNK))).float()
    yes_RNK = torch.nn.functional.logsigmoid(logit_RNK)
    no_RNK = torch.nn.functional.logsigmoid(-logit_RNK)
    return (yes_RNK.logsumexp(0) - no_RNK.logsumexp(0)).float()


def merge_crops(map_RNSHW: list[Tensor], crop_px: int) -> Tensor:
    """Merge the maps of ten crops.

    Parameters
    ----------
    map_RNSHW
        Ten of (num_images, num_slots, row, column), in the order of `ten_crops`.
    crop_px
        Rows and columns of a crop.

    Returns
    -------
    Tensor
        (num_images, num_slots, *merged_grid) float32, of 0 or more, over the whole picture.
    """
    num_images, num_slots = map_RNSHW[0].shape[:2]
    grid = merged_grid(crop_px)
    if not num_images * num_slots:
        return map_RNSHW[0].new_zeros((num_images, num_slots, *grid))
    with torch.autocast(map_RNSHW[0].device.type, enabled=False):
        flat = [maps.float().flatten(0, 1) for maps in map_RNSHW]
        parts = [
            _merged([maps[start : start + _MAPS_AT_ONCE] for maps in flat], crop_px)
            for start in range(0, len(flat[0]), _MAPS_AT_ONCE)
        ]
        merged_NSHW: Tensor = torch.cat(parts).reshape(num_images, num_slots, *grid)
        return merged_NSHW


def _merged(map_RMHW: list[Tensor], crop_px: int) -> Tensor:
    one = map_RMHW[0]
    rows, cols = (
        torch.from_numpy(cubic_weights(num_cells, crop_px)).float().to(one.device)
        for num_cells in one.shape[1:]
    )
    side = warp_px(crop_px)
    total_MHW = one.new_zeros((len(one), side, side))
    for index, map_MHW in enumerate(map_RMHW):
        large_MHW = rows @ (map_MHW @ cols.T)
        if index >= NUM_CROPS // 2:
            large_MHW = large_MHW.flip(2)
        row, col = _corners(crop_px)[index % (NUM_CROPS // 2)]
        total_MHW[:, row : row + crop_px, col : col + crop_px] += large_MHW.abs()
    pooled: Tensor = torch.nn.functional.adaptive_avg_pool2d(total_MHW, merged_grid(crop_px))
    return pooled


def cubic_weights(num_cells: int, num_px: int) -> NDArray[np.float64]:
    """Return the weight of each cell at each pixel, as MATLAB's ``imresize`` (bicubic).

    Keys' kernel with a = -1/2 around the pixel's place among the cells, widened where there are
    fewer pixels than cells (antialiasing); beyond its edge the map goes on mirrored.

    Returns
    -------
    ndarray
        (num_px, num_cells) float64; every row adds up to 1.
    """
    shrink = min(1.0, num_px / num_cells)
    place_P = (np.arange(num_px) + 0.5) * num_cells / num_px - 0.5
    reach = int(np.ceil(2 / shrink)) + 1
    cell_PQ = np.floor(place_P).astype(np.int64)[:, None] + np.arange(-reach, reach + 1)
    weight_PQ = _keys((place_P[:, None] - cell_PQ) * shrink)
    weight_PQ /= weight_PQ.sum(axis=1, keepdims=True)
    inside_PQ = cell_PQ % (2 * num_cells)
    inside_PQ = np.minimum(inside_PQ, 2 * num_cells - 1 - inside_PQ)
    weight_PC = np.zeros((num_px, num_cells))
    np.add.at(weight_PC, (np.arange(num_px)[:, None], inside_PQ), weight_PQ)
    return weight_PC


def _keys(distance: NDArray[Any]) -> NDArray[np.float64]:
    """Return Keys' cubic kernel with a = -1/2."""
    x = np.abs(distance)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
