"""How large a network's maps are, and at which scales it has any."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from wsltool.errors import ModelError, UsageError
from wsltool.nets.compute import told_in_one_line
from wsltool.nets.models import Model

__all__ = ["map_grid", "usable_scales"]


def usable_scales(model: Model, scales: Sequence[float]) -> list[float]:
    """Return the scales at which the network has a cell, in the same order.

    A sliding-window network has none where its input is smaller than its window.

    Raises
    ------
    UsageError
        A scale is not a positive number.
    ModelError
        No scale is left.
    """
    if not scales or not all(0 < scale < float("inf") for scale in scales):
        raise UsageError(f"--scales must be numbers above 0, got {list(scales)}.")
    window = model.network.window
    if window is None:
        return list(scales)
    size_px = [model.preprocess.scaled(scale).size_px for scale in scales]
    used = [scale for scale, size in zip(scales, size_px, strict=True) if size >= window.size_px]
    if not used:
        raise ModelError(
            f"--scales {', '.join(f'{scale:g}' for scale in scales)}: the largest input has "
            f"{max(size_px)} pixels a side, {model.arch} needs at least {window.size_px}. Pass "
            "larger --scales or --input-size."
        )
    return used


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
