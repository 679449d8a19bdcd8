"""From pictures to class scores and class activation maps, batch after batch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsltool.nets.cam_network import Activations, CamNetwork
from wsltool.nets.compute import Precision, computing, fastest_layout, told_in_one_line
from wsltool.nets.map_grid import usable_scales
from wsltool.nets.map_resampling import CoveredMaps, part_of, resampled
from wsltool.nets.models import Model
from wsltool.nets.picture_inputs import LoadPicture, PictureInputs, picture_inputs
from wsltool.nets.ten_crops import (
    check_ten_crops,
    mean_of_crops,
    merge_crops,
    ten_crops,
    warp_to_crop,
)

__all__ = [
    "CamBatch",
    "ChooseClasses",
    "Crops",
    "choose_classes",
    "note_not_finite",
    "run_cams",
]

Crops = Literal["one", "ten"]

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


class _Pass(NamedTuple):
    """What the network made of one scale: plain and, if wanted, mirrored, or ten crops."""

    input_px: tuple[int, int]
    activations: list[Activations]


def run_cams(
    model: Model,
    load_picture: LoadPicture,
    batches: Iterable[Sequence[int]],
    choose: ChooseClasses,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    crops: Crops = "one",
    device: torch.device,
    precision: Precision = "float32",
    workers: int = 0,
) -> Generator[CamBatch]:
    """Compute class scores and class activation maps (several scales: Oquab et al. 2015, §4).

    The class score is the mean over scales, and over the plain and the mirrored picture with
    `flip`, of the pooled score. Cells that show padding take no part in pooling, unless the
    network counts them (`CamNetwork.count_padding`).

    The map is, at each scale, the mean of the plain and the mirrored map (mirrored back), and
    over scales the maximum on the grid of the finest. The cells of a scale cover a part of the
    frame: all of it, or what `Window.covered` says. Each cell centre of the finest grid has a
    place there, and takes the bilinear value between the four nearest cell centres of the
    scale, clamped at the outer ones (``align_corners=False``). A centre beyond what a scale
    covers gets nothing from it; the finest scale always counts. For a mirrored map, which may
    cover another part, such a centre keeps the plain value.

    A scale whose input is smaller than the network's window is left out of score and map. A
    letterbox is rounded to whole pixels at each scale, so scales may be out of step by less
    than one of their input pixels; the extent is that of the finest, exact, and without the
    padding's offset.

    The same batches give the same bytes on the same machine. A batch goes through whole,
    pictures with an error as black ones, so that no picture's numbers depend on another's.

    Parameters
    ----------
    batches
        The rows of each batch; consumed as needed.
    choose
        Called once a batch with its good rows; classes for which maps are made.
    crops
        ``ten``: ten crops of a larger picture and one map merged of theirs, see
        `wsltool.nets.ten_crops`; without scales and mirrors besides.
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
        The network has no maps or fails on this input size, no scale is left, or memory is
        short.
    """
    presets = [model.preprocess.scaled(scale) for scale in usable_scales(model, scales)]
    if crops == "ten":
        check_ten_crops(model)
        presets = [warp_to_crop(model.preprocess)]
    network = model.cam_network.eval().to(device)
    least_px = network.window.size_px if network.window else 1
    layout = fastest_layout(network, max(model.preprocess.size_px, least_px), device)
    finest = presets.index(max(presets, key=lambda preset: preset.size_px))
    kind = _TenCropRunner if crops == "ten" else _Runner
    run = kind(model, network, device, precision, flip, layout, finest)
    loaded = picture_inputs(presets, load_picture, batches, device=device, workers=workers)
    with closing(loaded):
        for inputs in loaded:
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
    finest: int

    @torch.inference_mode()
    def __call__(self, inputs: PictureInputs, choose: ChooseClasses) -> CamBatch:
        with computing(self.device, self.precision):
            passes = list(map(self._pass, inputs.inputs, inputs.inside))
            logit = torch.stack([act.logit_NK.float() for one in passes for act in one.activations])
            score_NK = self._mean(logit).cpu().numpy()
            error = list(inputs.error)
            note_not_finite(error, score_NK)
            class_NS = choose_classes(inputs.rows, score_NK, error, choose)
            maps = self._maps(passes, torch.from_numpy(class_NS))
            map_NSHW = maps.map_NSHW.cpu().numpy()
        note_not_finite(error, map_NSHW)
        extent_N4 = part_of(inputs.extent_N4, maps.covered).astype(np.float32)
        bad = np.array([text is not None for text in error], bool)
        score_NK[bad], class_NS[bad], map_NSHW[bad], extent_N4[bad] = -np.inf, -1, 0, 0
        return CamBatch(
            inputs.rows, score_NK, class_NS.astype(np.int32), map_NSHW, extent_N4, error
        )

    def _pass(self, input_NCHW: Tensor, inside_N4: Tensor) -> _Pass:
        """Run one scale, plain and, if wanted, mirrored."""
        moved_NCHW = input_NCHW.to(self.device, non_blocking=True)
        x_NCHW = self.model.preprocess.normalise(moved_NCHW)
        num, _, rows, cols = input_NCHW.shape
        what = f"{self.model.arch} on {num} pictures of {cols}x{rows}"
        with told_in_one_line(what):
            made = [
                self.network(view_NCHW.contiguous(memory_format=self.layout), view_inside_N4)
                for view_NCHW, view_inside_N4 in self._views(x_NCHW, inside_N4)
            ]
        return _Pass((rows, cols), made)

    def _views(self, x_NCHW: Tensor, inside_N4: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield what goes through the network, and where the picture is in it."""
        yield x_NCHW, inside_N4
        if self.flip:
            yield x_NCHW.flip(3), _mirrored(inside_N4)

    def _mean(self, logit_RNK: Tensor) -> Tensor:
        """Return the class scores of all views in one."""
        return logit_RNK.mean(0)

    def _maps(self, passes: list[_Pass], class_NS: Tensor) -> CoveredMaps:
        """Merge the maps of the chosen classes over mirrors and scales."""
        scales = [self._scale_maps(one, class_NS) for one in passes]
        finest = scales[self.finest]
        if len(scales) == 1 or class_NS.numel() == 0:
            return finest
        nothing = finest.map_NSHW.new_tensor(-torch.inf)
        merged = reduce(torch.maximum, (resampled(one, finest, nothing) for one in scales))
        return CoveredMaps(merged, finest.covered)

    def _scale_maps(self, one: _Pass, class_NS: Tensor) -> CoveredMaps:
        """Return the maps of one scale, the mean of plain and mirrored."""
        plain_NSHW, *mirrored = (
            self.network.class_maps(act.feature_NCHW, class_NS) for act in one.activations
        )
        grid = (plain_NSHW.shape[2], plain_NSHW.shape[3])
        rows, cols = covered = self.network.covered(grid, one.input_px)
        maps = CoveredMaps(plain_NSHW, covered)
        if not mirrored or class_NS.numel() == 0:
            return maps
        other = CoveredMaps(mirrored[0].flip(3), (rows, (1 - cols[1], 1 - cols[0])))
        return CoveredMaps((plain_NSHW + resampled(other, maps, plain_NSHW)) / 2, covered)


class _TenCropRunner(_Runner):
    """Computes one batch from ten crops of its pictures."""

    def _views(self, x_NCHW: Tensor, inside_N4: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for crop_NCHW in ten_crops(x_NCHW, self.model.preprocess.size_px):
            yield crop_NCHW, inside_N4

    def _mean(self, logit_RNK: Tensor) -> Tensor:
        return mean_of_crops(logit_RNK, logistic=self.model.loss == "logistic")

    def _scale_maps(self, one: _Pass, class_NS: Tensor) -> CoveredMaps:
        map_RNSHW = [self.network.class_maps(act.feature_NCHW, class_NS) for act in one.activations]
        merged_NSHW = merge_crops(map_RNSHW, self.model.preprocess.size_px)
        return CoveredMaps(merged_NSHW, ((0.0, 1.0), (0.0, 1.0)))


def _mirrored(inside_N4: Tensor) -> Tensor:
    """Return where the picture is in the mirrored frame."""
    x0, y0, x1, y1 = inside_N4.unbind(1)
    return torch.stack([1 - x1, y0, 1 - x0, y1], 1)


def note_not_finite(error: list[str | None], value: NDArray[np.float32]) -> None:
    """Give each row with NaN or infinity an error, unless it has one."""
    fine_N = np.isfinite(value.reshape(len(value), -1)).all(1)
    for row in np.flatnonzero(~fine_N):
        error[row] = error[row] or "the network's output is not finite (NaN or infinity)."


def choose_classes(
    rows: list[int], score_NK: NDArray[np.float32], error: list[str | None], choose: ChooseClasses
) -> NDArray[np.int64]:
    """Ask for the classes of the good rows; the others get empty slots."""
    good = [place for place, text in enumerate(error) if text is None]
    chosen = np.asarray(choose([rows[place] for place in good], score_NK[good]), np.int64)
    class_NS = np.full((len(rows), chosen.shape[1]), -1, np.int64)
    class_NS[good] = chosen
    return class_NS
