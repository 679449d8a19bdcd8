"""How well a network does, on images that it does not learn from, while it learns."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wsltool.nets.checkpoint import Record
from wsltool.nets.closed_form import evaluating
from wsltool.nets.compute import computing, told_in_one_line
from wsltool.nets.frozen import Network
from wsltool.nets.losses import LOSSES
from wsltool.nets.sampling import ordered_batches
from wsltool.nets.sources import Source
from wsltool.nets.stopping import StopSign
from wsltool.nets.train_config import TrainConfig

__all__ = ["Measure", "Validation"]

Measure = Callable[[NDArray[np.float32], NDArray[np.uint8]], dict[str, float]]
"""Takes class scores and labels (num_images, num_classes), returns measures by name."""


@dataclass(frozen=True)
class Validation:
    """Images with labels, and what is measured of them.

    Attributes
    ----------
    source, label_NK
        Inputs and labels (num_images, num_classes) uint8.
    measure
        Called with the class scores of all images.
    every
        Iterations between; None for once an epoch.
    """

    source: Source
    label_NK: NDArray[np.uint8]
    measure: Measure
    every: int | None = None

    @torch.no_grad()
    def run(
        self, network: Network, config: TrainConfig, device: torch.device, sign: StopSign
    ) -> Record | None:
        """Return ``val_loss`` and ``val_…`` measures; None if a signal came meanwhile."""
        draws = ordered_batches(len(self.label_NK), config.batch_size)
        score_NK = np.zeros(self.label_NK.shape, np.float32)
        total = 0.0
        pieces = self.source.pieces(draws, 0)
        with evaluating(network), closing(pieces):
            for one in pieces:
                if sign.signum:
                    return None
                with computing(device, config.precision), told_in_one_line("validation"):
                    found: Any = network(one.x, one.inside_N4, input_px=one.input_px)
                logit_NK = found.logit_NK.float()
                label_NK = torch.from_numpy(self.label_NK[one.place_N]).to(device)
                total += float(LOSSES[config.loss](logit_NK, label_NK).sum())
                score_NK[one.place_N] = logit_NK.cpu().numpy()
        measured = self.measure(score_NK, self.label_NK)
        return {
            "val_loss": total / len(self.label_NK),
            **{f"val_{name}": float(value) for name, value in measured.items()},
        }
