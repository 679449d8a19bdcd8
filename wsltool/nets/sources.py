"""Where training gets its inputs from: pictures, or what a frozen part gave of them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from wsltool.nets.examples import Boxes, Examples, picture_batches
from wsltool.nets.kept_features import KeptFeatures
from wsltool.nets.sampling import Draw
from wsltool.nets.suppression import MakeMask, Suppression

__all__ = ["KeptSource", "PictureSource", "Shown", "Source"]


class Shown(NamedTuple):
    """One piece of a batch, ready for the network.

    Attributes
    ----------
    place_N
        Which of the examples.
    x
        The input of the network, or of what learns of it.
    input_px
        Rows and columns of the pictures behind `x`.
    inside_N4
        Part of the input that shows the picture, on the CPU; None where nothing is padded.
    boxes
        True boxes as fractions of the input, where wanted.
    mask
        Makes the suppression mask; None without suppression.
    """

    place_N: list[int]
    x: Tensor
    input_px: tuple[int, int]
    inside_N4: Tensor | None
    boxes: list[Boxes] | None
    mask: MakeMask | None


class Source(Protocol):
    """Gives the pieces of an epoch in order."""

    def pieces(self, draws: Sequence[Sequence[Draw]], epoch: int) -> Generator[Shown]:
        """Yield one `Shown` for each list of draws."""
        ...


@dataclass(frozen=True)
class PictureSource:
    """Pictures, read and changed at random as they are needed.

    Attributes
    ----------
    label_NK
        (num_examples, num_classes) uint8 on the device; of use with suppression.
    suppression
        Earlier networks, or None.
    device, workers
        Where the network is; processes that read pictures.
    """

    examples: Examples
    label_NK: Tensor
    suppression: Suppression | None
    device: torch.device
    workers: int

    def pieces(self, draws: Sequence[Sequence[Draw]], epoch: int) -> Generator[Shown]:
        """Yield normalised pictures (num_images, 3, row, column)."""
        is_padded = self.examples.preprocess.fit == "letterbox"
        pin = self.device.type == "cuda"
        batches = picture_batches(self.examples, draws, epoch, workers=self.workers, pin=pin)
        with closing(batches):
            for batch in batches:
                input_NCHW = batch.input_NCHW.to(self.device, non_blocking=True)
                inside_N4 = batch.inside_N4 if is_padded else None
                yield Shown(
                    batch.place_N,
                    self.examples.preprocess.normalise(input_NCHW),
                    (int(input_NCHW.shape[2]), int(input_NCHW.shape[3])),
                    inside_N4,
                    batch.boxes,
                    self._mask(input_NCHW, batch.place_N, inside_N4),
                )

    def _mask(
        self, input_NCHW: Tensor, place_N: list[int], inside_N4: Tensor | None
    ) -> MakeMask | None:
        suppression = self.suppression
        if suppression is None:
            return None
        label_NK = self.label_NK[place_N]
        return lambda grid: suppression.mask_of_pictures(input_NCHW, label_NK, inside_N4, grid)


@dataclass(frozen=True)
class KeptSource:
    """What the frozen part of the network gave of each picture, and of its mirror image."""

    device: torch.device
    kept: KeptFeatures
    input_px: tuple[int, int]

    def pieces(self, draws: Sequence[Sequence[Draw]], epoch: int) -> Generator[Shown]:
        """Yield kept activations; nothing is random here beyond what the draws say."""
        del epoch
        device, kept = self.device, self.kept
        for piece in draws:
            place_N = np.array([draw.place for draw in piece])
            view_N = np.array([int(draw.mirrored) for draw in piece])
            x = torch.from_numpy(kept.value_NV[place_N, view_N]).to(device)
            inside_N4 = None
            if kept.inside_NV4 is not None:
                inside_N4 = torch.from_numpy(kept.inside_NV4[place_N, view_N])
            mask = None
            if kept.mask_NVHW is not None:
                cells = kept.mask_NVHW[place_N, view_N][:, None]
                mask = _fixed(torch.from_numpy(cells).to(device).float())
            yield Shown(place_N.tolist(), x, self.input_px, inside_N4, None, mask)


def _fixed(mask_N1HW: Tensor) -> MakeMask:
    """Return a function that gives a mask of one grid."""
    return lambda _grid: mask_N1HW
