"""From pictures to class scores and class activation maps, batch after batch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from wsltool.errors import BadImageError, UsageError, WslError
from wsltool.nets.cam_network import Activations, CamNetwork
from wsltool.nets.compute import Precision, computing, fastest_layout, told_in_one_line
from wsltool.nets.loading import load_batches
from wsltool.nets.models import Model
from wsltool.nets.preprocess import Preprocess

__all__ = ["CamBatch", "ChooseClasses", "LoadPicture", "run_cams"]

LoadPicture = Callable[[int], NDArray[np.uint8]]
"""Takes a row, returns its picture (row, column, 3) uint8 RGB; can be pickled.

Raises `BadImageError` for a picture that cannot be used.
"""

ChooseClasses = Callable[[Sequence[int], NDArray[np.float32]], NDArray[np.integer[Any]]]
"""Takes rows and their class scores (num_rows, num_classes), returns the classes whose maps
are wanted (num_rows, num_slots), −1 for an empty slot; the number of slots never changes."""


@dataclass(frozen=True)
class CamBatch:
    """Scores and maps of one batch.

    A row with an error has no numbers: scores −inf, classes −1, map and extent 0.

    Attributes
    ----------
    rows
        As asked for.
    class_score_NK
        (num_rows, num_classes) float32, raw scores (logits).
    class_NS
        (num_rows, num_slots) int32, −1 for an empty slot.
    map_NSHW
        (num_rows, num_slots, row, column) float32, raw, at the resolution of the finest
        scale; zeros in an empty slot.
    extent_N4
        (num_rows, 4) float32, the part of the original picture that the maps cover.
    error
        Why a row has no numbers, or None.
    """

    rows: list[int]
    class_score_NK: NDArray[np.float32]
    class_NS: NDArray[np.int32]
    map_NSHW: NDArray[np.float32]
    extent_N4: NDArray[np.float32]
    error: list[str | None]


class _Item(NamedTuple):
    row: int
    inputs: list[NDArray[np.uint8]]
    extent_4: NDArray[np.float32]
    error: str | None
    failure: WslError | None


class _Inputs(NamedTuple):
    rows: list[int]
    inputs: list[Tensor]
    extent_N4: Tensor
    error: list[str | None]
    failure: list[WslError | None]


class _CamInputs(Dataset[_Item]):
    """Pictures as the network wants them, one array a scale."""

    def __init__(self, load_picture: LoadPicture, presets: Sequence[Preprocess]) -> None:
        self.load_picture = load_picture
        self.presets = presets

    def __getitem__(self, row: int) -> _Item:
        try:
            picture_HWC = self.load_picture(row)
            made = [preset.apply(picture_HWC) for preset in self.presets]
        except BadImageError as error:
            return self._empty(row, str(error), None)
        except WslError as error:
            return self._empty(row, None, error)  # handed over, so that no traceback is printed
        extent_4 = made[int(np.argmax([preset.size_px for preset in self.presets]))][1]
        return _Item(row, [input_CHW for input_CHW, _ in made], extent_4, None, None)

    def _empty(self, row: int, error: str | None, failure: WslError | None) -> _Item:
        sizes = [preset.size_px for preset in self.presets]
        blank = [np.zeros((3, size, size), np.uint8) for size in sizes]
        return _Item(row, blank, np.zeros(4, np.float32), error, failure)


def _collate(items: list[_Item]) -> _Inputs:
    num_scales = len(items[0].inputs)
    return _Inputs(
        [item.row for item in items],
        [torch.from_numpy(np.stack([item.inputs[s] for item in items])) for s in range(num_scales)],
        torch.from_numpy(np.stack([item.extent_4 for item in items])),
        [item.error for item in items],
        [item.failure for item in items],
    )


def run_cams(
    model: Model,
    load_picture: LoadPicture,
    batches: Iterable[Sequence[int]],
    choose: ChooseClasses,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    device: torch.device,
    precision: Precision = "float32",
    workers: int = 0,
) -> Generator[CamBatch]:
    """Compute class scores and class activation maps.

    The class score is the mean over scales, and over the plain and the mirrored picture with
    `flip`. The map is, at each scale, the mean of the plain and the mirrored map (mirrored
    back), and over scales the maximum on the grid of the finest, to which the others are
    upsampled bilinearly (``align_corners=False``). A letterbox is rounded at each scale, so
    the scales may be out of step by less than one input pixel; the finest gives the extent.

    The same batches give the same bytes on the same machine. A batch goes through whole,
    pictures with an error as black ones, so that no picture's numbers depend on another's.

    Parameters
    ----------
    batches
        The rows of each batch; consumed as needed.
    choose
        Called once a batch with its good rows; classes for which maps are made.
    workers
        Processes that read and resize pictures; 0 reads them here.

    Yields
    ------
    CamBatch
        One a batch, in order. Close the generator, or use it up, to end the workers.

    Raises
    ------
    UsageError
        A scale is not a positive number.
    ModelError
        The network fails on this input size, or memory is short.
    """
    if not scales or not all(0 < scale < float("inf") for scale in scales):
        raise UsageError(f"--scales must be numbers above 0, got {list(scales)}.")
    presets = [model.preprocess.scaled(scale) for scale in scales]
    network = model.network.eval().to(device)
    layout = fastest_layout(network, model.preprocess.size_px, device)
    run = _Runner(model, network, device, precision, flip, layout)
    loaded = load_batches(
        _CamInputs(load_picture, presets),
        batches,
        _collate,
        workers=workers,
        pin=device.type == "cuda",
    )
    with closing(loaded):
        for inputs in loaded:
            for failure in inputs.failure:
                if failure is not None:
                    raise failure
            yield run(inputs, choose)


@dataclass
class _Runner:
    """Computes one batch; keeps nothing between batches."""

    model: Model
    network: CamNetwork
    device: torch.device
    precision: Precision
    flip: bool
    layout: torch.memory_format

    @torch.inference_mode()
    def __call__(self, inputs: _Inputs, choose: ChooseClasses) -> CamBatch:
        with computing(self.device, self.precision):
            passes = [self._pass(input_NCHW) for input_NCHW in inputs.inputs]
            logit = torch.stack([act.logit_NK.float() for scale in passes for act in scale])
            score_NK = logit.mean(0).cpu().numpy()
            error = list(inputs.error)
            _note_not_finite(error, score_NK)
            class_NS = _choose(inputs.rows, score_NK, error, choose)
            map_NSHW = self._maps(passes, torch.from_numpy(class_NS)).cpu().numpy()
        _note_not_finite(error, map_NSHW)
        extent_N4 = inputs.extent_N4.numpy().copy()
        bad = np.array([text is not None for text in error], bool)
        score_NK[bad], class_NS[bad], map_NSHW[bad], extent_N4[bad] = -np.inf, -1, 0, 0
        return CamBatch(
            inputs.rows, score_NK, class_NS.astype(np.int32), map_NSHW, extent_N4, error
        )

    def _pass(self, input_NCHW: Tensor) -> list[Activations]:
        """Run one scale, plain and, if wanted, mirrored."""
        moved_NCHW = input_NCHW.to(self.device, non_blocking=True)
        x_NCHW = self.model.preprocess.normalise(moved_NCHW)
        pictures = [x_NCHW, x_NCHW.flip(3)] if self.flip else [x_NCHW]
        num, _, rows, cols = input_NCHW.shape
        what = f"{self.model.arch} on {num} pictures of {cols}x{rows}"
        with told_in_one_line(what):
            return [self.network(x.contiguous(memory_format=self.layout)) for x in pictures]

    def _maps(self, passes: list[list[Activations]], class_NS: Tensor) -> Tensor:
        """Merge the maps of the chosen classes over mirrors and scales."""
        scales = []
        for scale in passes:
            map_NSHW = self.network.class_maps(scale[0].feature_NCHW, class_NS)
            for mirrored in scale[1:]:
                other_NSHW = self.network.class_maps(mirrored.feature_NCHW, class_NS)
                map_NSHW = (map_NSHW + other_NSHW.flip(3)) / 2
            scales.append(map_NSHW)
        finest = max(scales, key=lambda map_NSHW: map_NSHW.shape[2] * map_NSHW.shape[3])
        if len(scales) == 1 or class_NS.numel() == 0:
            return finest
        return torch.stack([_upsample(map_NSHW, finest) for map_NSHW in scales]).amax(0)


def _upsample(map_NSHW: Tensor, like_NSHW: Tensor) -> Tensor:
    if map_NSHW.shape == like_NSHW.shape:
        return map_NSHW
    with torch.autocast(map_NSHW.device.type, enabled=False):
        return torch.nn.functional.interpolate(
            map_NSHW, like_NSHW.shape[2:], mode="bilinear", align_corners=False
        )


def _note_not_finite(error: list[str | None], value: NDArray[np.float32]) -> None:
    """Give each row with NaN or infinity an error, unless it has one."""
    fine_N = np.isfinite(value.reshape(len(value), -1)).all(1)
    for row in np.flatnonzero(~fine_N):
        error[row] = error[row] or "the network's output is not finite (NaN or infinity)."


def _choose(
    rows: list[int], score_NK: NDArray[np.float32], error: list[str | None], choose: ChooseClasses
) -> NDArray[np.int64]:
    """Ask for the classes of the good rows; the others get empty slots."""
    good = [place for place, text in enumerate(error) if text is None]
    chosen = np.asarray(choose([rows[place] for place in good], score_NK[good]), np.int64)
    class_NS = np.full((len(rows), chosen.shape[1]), -1, np.int64)
    class_NS[good] = chosen
    return class_NS
