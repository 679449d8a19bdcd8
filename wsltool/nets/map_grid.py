"""How large a network's maps are."""

from __future__ import annotations

import torch

from wsltool.nets.compute import told_in_one_line
from wsltool.nets.models import Model

__all__ = ["map_grid"]


@torch.inference_mode()
def map_grid(model: Model, scale: float = 1.0) -> tuple[int, int]:
    """Return rows and columns of the maps at the model's input size times `scale`.

    One black picture goes through the network on the CPU.

    Raises
    ------
    ModelError
        The network fails on this input size.
    """
    size_px = model.preprocess.scaled(scale).size_px
    with told_in_one_line(f"{model.arch} on a picture of {size_px}x{size_px}"):
        features = model.network.eval()(torch.zeros((1, 3, size_px, size_px))).feature_NCHW
    return int(features.shape[2]), int(features.shape[3])
