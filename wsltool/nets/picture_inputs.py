"""Pictures made ready for a network, batch after batch, while it computes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from wsltool.errors import BadImageError, WslError
from wsltool.nets.loading import load_batches
from wsltool.nets.preprocess import Preprocess

__all__ = ["LoadPicture", "PictureInputs", "picture_inputs"]

LoadPicture = Callable[[int], NDArray[np.uint8]]
"""Takes a row, returns its picture (row, column, 3) uint8 RGB; can be pickled.

Raises `BadImageError` for a picture that cannot be used.
"""


class PictureInputs(NamedTuple):
    """One batch, at one or several scales.

    A picture with an error stands there as a black one, so that no picture's numbers depend on
    another's.

    Attributes
    ----------
    rows
        As asked for.
    inputs, inside
        For each scale (num_images, 3, size, size) uint8, and (num_images, 4) float32, the part
        of each that shows the picture (`Preprocess.inside`).
    extent_N4
        (num_images, 4) float64, what the finest input covers of the picture, in its pixels.
    error
        Why a picture cannot be used, or None.
    """

    rows: list[int]
    inputs: list[Tensor]
    inside: list[Tensor]
    extent_N4: NDArray[np.float64]
    error: list[str | None]


def picture_inputs(
    presets: Sequence[Preprocess],
    load_picture: LoadPicture,
    batches: Iterable[Sequence[int]],
    *,
    device: torch.device,
    workers: int,
) -> Generator[PictureInputs]:
    """Yield the pictures of each batch as the network wants them, read ahead by `workers`.

    Close the generator, or use it up, to end the workers.

    Parameters
    ----------
    presets
        One a scale.
    batches
        The rows of each batch; consumed as needed.

    Raises
    ------
    WslError
        What `load_picture` raised, but for a `BadImageError`, which becomes the row's error.
    """
    loaded = load_batches(
        _Inputs(load_picture, presets),
        batches,
        _collate,
        workers=workers,
        pin=device.type == "cuda",
    )
    with closing(loaded):
        for inputs, failures in loaded:
            for failure in failures:
                if failure is not None:
                    raise failure
            yield inputs


class _Item(NamedTuple):
    row: int
    inputs: list[NDArray[np.uint8]]
    inside: list[NDArray[np.float32]]
    extent_4: NDArray[np.float64]
    error: str | None
    failure: WslError | None


class _Inputs(Dataset[_Item]):
    """Pictures as the network wants them, one array a scale."""

    def __init__(self, load_picture: LoadPicture, presets: Sequence[Preprocess]) -> None:
        self.load_picture = load_picture
        self.presets = presets
        self.finest = max(presets, key=lambda preset: preset.size_px)

    def __getitem__(self, row: int) -> _Item:
        try:
            picture_HWC = self.load_picture(row)
            inputs = [preset.apply(picture_HWC)[0] for preset in self.presets]
        except BadImageError as error:
            return self._empty(row, str(error), None)
        except WslError as error:
            return self._empty(row, None, error)  # handed over, so that no traceback is printed
        height_px, width_px = picture_HWC.shape[:2]
        inside = [preset.inside(width_px, height_px) for preset in self.presets]
        return _Item(
            row,
            inputs,
            [np.array(part, np.float32) for part in inside],
            np.array(self.finest.extent(width_px, height_px)),
            None,
            None,
        )

    def _empty(self, row: int, error: str | None, failure: WslError | None) -> _Item:
        sizes = [preset.size_px for preset in self.presets]
        blank = [np.zeros((3, size, size), np.uint8) for size in sizes]
        inside = [np.array([0, 0, 1, 1], np.float32)] * len(sizes)
        return _Item(row, blank, inside, np.zeros(4), error, failure)


def _collate(items: list[_Item]) -> tuple[PictureInputs, list[WslError | None]]:
    scales = range(len(items[0].inputs))
    inputs = PictureInputs(
        [item.row for item in items],
        [torch.from_numpy(np.stack([item.inputs[s] for item in items])) for s in scales],
        [torch.from_numpy(np.stack([item.inside[s] for item in items])) for s in scales],
        np.stack([item.extent_4 for item in items]),
        [item.error for item in items],
    )
    return inputs, [item.failure for item in items]
