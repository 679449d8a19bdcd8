"""Pooling inside the true boxes: the control of Oquab et al. 2015, section 5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.losses import PRESENT, LossFunction
from wsltool.nets.pooling import find_pool

__all__ = ["box_cells", "masked_pooling_loss"]

Boxes = tuple[NDArray[np.float64], NDArray[Any]]


def box_cells(
    boxes: Sequence[Boxes],
    num_classes: int,
    grid: tuple[int, int],
    covered: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 1.0), (0.0, 1.0)),
) -> NDArray[np.bool_]:
    """Return the cells inside true boxes, for every image and class.

    Parameters
    ----------
    boxes
        For each image (num_boxes, 4) ``x0 y0 x1 y1`` as fractions of the input frame, and
        their classes.
    grid
        Rows and columns of the class maps.
    covered
        Part of the frame that the rows, and the columns, cover.

    Returns
    -------
    ndarray
        (num_images, num_classes, row, column) bool. A cell is inside if its centre is; a box
        that holds no centre has the cell nearest to its own. Boxes of another class than
        0 … num_classes − 1 are ignored.
    """
    row_H, col_W = (_centres(*part, num) for part, num in zip(covered, grid, strict=True))
    inside_NKHW = np.zeros((len(boxes), num_classes, *grid), np.bool_)
    for image, (box_B4, class_B) in enumerate(boxes):
        for (x0, y0, x1, y1), k in zip(box_B4.tolist(), class_B.tolist(), strict=True):
            if 0 <= k < num_classes:
                row = _between(row_H, y0, y1)
                col = _between(col_W, x0, x1)
                inside_NKHW[image, k] |= row[:, None] & col[None, :]
    return inside_NKHW


def _centres(low: float, high: float, num: int) -> NDArray[np.float64]:
    return low + (np.arange(num) + 0.5) / num * (high - low)


def _between(centre: NDArray[np.float64], low: float, high: float) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (centre >= low) & (centre < high)
    if not found.any():
        found[np.abs(centre - (low + high) / 2).argmin()] = True
    return found


def masked_pooling_loss(
    network: CamNetwork,
    feature_NCHW: Tensor,
    logit_NK: Tensor,
    label_NK: Tensor,
    inside_NKHW: Tensor,
    loss: LossFunction,
    *,
    outside: bool,
) -> Tensor:
    """Return the loss of each image with scores pooled inside the true boxes.

    A present class is pooled over the cells inside its boxes; a class without a box, and one
    that is absent, over all cells as usual. With `outside` the score pooled over the other
    cells of a present class is asked to be low: a logistic loss with y = −1 is added.

    Parameters
    ----------
    feature_NCHW, logit_NK
        As the network returned them.
    label_NK
        (num_images, num_classes) uint8.
    inside_NKHW
        From `box_cells`.
    loss
        Of `wsltool.nets.losses.LOSSES`.
    """
    weight_KC11 = network.class_weight[:, :, None, None]
    map_NKHW = torch.nn.functional.conv2d(feature_NCHW, weight_KC11).float()
    boxed_NK = (label_NK == PRESENT) & inside_NKHW.any((2, 3))
    pooled_NK = _pooled(network, map_NKHW, inside_NKHW)
    loss_N = loss(torch.where(boxed_NK, pooled_NK, logit_NK.float()), label_NK)
    if outside:
        beyond_NK = boxed_NK & (~inside_NKHW).any((2, 3))
        score_NK = _pooled(network, map_NKHW, ~inside_NKHW)
        extra_NK = torch.nn.functional.softplus(score_NK).masked_fill(~beyond_NK, 0.0)
        loss_N = loss_N + extra_NK.sum(1)
    return loss_N


def _pooled(network: CamNetwork, map_NKHW: Tensor, cells_NKHW: Tensor) -> Tensor:
    """Pool every map over its own cells; over all where it has none."""
    cells_NKHW = cells_NKHW | ~cells_NKHW.any(3, keepdim=True).any(2, keepdim=True)
    shape = map_NKHW.shape
    flat = map_NKHW.reshape(-1, 1, *shape[2:])
    score = find_pool(network.pool)(flat, cells_NKHW.reshape(-1, 1, *shape[2:]))
    return score.reshape(shape[:2]) + network.class_bias
