"""From pictures to class scores and class activation maps, batch after batch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from wsltool.errors import BadImageError, WslError
from wsltool.nets.cam_network import Activations, CamNetwork
from wsltool.nets.compute import Precision, computing, fastest_layout, told_in_one_line
from wsltool.nets.loading import load_batches
from wsltool.nets.map_grid import usable_scales
from wsltool.nets.models import Model
from wsltool.nets.preprocess import Preprocess

__all__ = ["CamBatch", "ChooseClasses", "LoadPicture", "run_cams"]

_ON_EDGE = 1e-6  # cells; a centre this near to the edge of what is covered lies on it

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


Covered = tuple[tuple[float, float], tuple[float, float]]
"""Which part of a frame the cells cover, as fractions: start and end of rows, of columns."""


class _Item(NamedTuple):
    row: int
    inputs: list[NDArray[np.uint8]]
    inside: list[NDArray[np.float32]]
    extent_4: NDArray[np.float64]
    error: str | None
    failure: WslError | None


class _Inputs(NamedTuple):
    """A batch; `inputs` and `inside` hold a tensor a scale, `extent_N4` is of the finest frame."""

    rows: list[int]
    inputs: list[Tensor]
    inside: list[Tensor]
    extent_N4: NDArray[np.float64]
    error: list[str | None]
    failure: list[WslError | None]


class _Pass(NamedTuple):
    """What the network made of one scale, plain and, if wanted, mirrored."""

    input_px: tuple[int, int]
    activations: list[Activations]


class _Maps(NamedTuple):
    """Maps and the part of their frame that they cover."""

    map_NSHW: Tensor
    covered: Covered


class _CamInputs(Dataset[_Item]):
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


def _collate(items: list[_Item]) -> _Inputs:
    scales = range(len(items[0].inputs))
    return _Inputs(
        [item.row for item in items],
        [torch.from_numpy(np.stack([item.inputs[s] for item in items])) for s in scales],
        [torch.from_numpy(np.stack([item.inside[s] for item in items])) for s in scales],
        np.stack([item.extent_4 for item in items]),
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
    network = model.cam_network.eval().to(device)
    dataset = _CamInputs(load_picture, presets)
    least_px = network.window.size_px if network.window else 1
    layout = fastest_layout(network, max(model.preprocess.size_px, least_px), device)
    finest = presets.index(dataset.finest)
    run = _Runner(model, network, device, precision, flip, layout, finest)
    loaded = load_batches(
        dataset,
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
    finest: int

    @torch.inference_mode()
    def __call__(self, inputs: _Inputs, choose: ChooseClasses) -> CamBatch:
        with computing(self.device, self.precision):
            passes = list(map(self._pass, inputs.inputs, inputs.inside))
            logit = torch.stack([act.logit_NK.float() for one in passes for act in one.activations])
            score_NK = logit.mean(0).cpu().numpy()
            error = list(inputs.error)
            _note_not_finite(error, score_NK)
            class_NS = _choose(inputs.rows, score_NK, error, choose)
            maps = self._maps(passes, torch.from_numpy(class_NS))
            map_NSHW = maps.map_NSHW.cpu().numpy()
        _note_not_finite(error, map_NSHW)
        extent_N4 = _part_of(inputs.extent_N4, maps.covered).astype(np.float32)
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
            made = [self.network(x_NCHW.contiguous(memory_format=self.layout), inside_N4)]
            if self.flip:
                x_NCHW = x_NCHW.flip(3).contiguous(memory_format=self.layout)
                made.append(self.network(x_NCHW, _mirrored(inside_N4)))
        return _Pass((rows, cols), made)

    def _maps(self, passes: list[_Pass], class_NS: Tensor) -> _Maps:
        """Merge the maps of the chosen classes over mirrors and scales."""
        scales = [self._scale_maps(one, class_NS) for one in passes]
        finest = scales[self.finest]
        if len(scales) == 1 or class_NS.numel() == 0:
            return finest
        nothing = finest.map_NSHW.new_tensor(-torch.inf)
        merged = reduce(torch.maximum, (_resampled(one, finest, nothing) for one in scales))
        return _Maps(merged, finest.covered)

    def _scale_maps(self, one: _Pass, class_NS: Tensor) -> _Maps:
        """Return the maps of one scale, the mean of plain and mirrored."""
        plain_NSHW, *mirrored = (
            self.network.class_maps(act.feature_NCHW, class_NS) for act in one.activations
        )
        grid = (plain_NSHW.shape[2], plain_NSHW.shape[3])
        rows, cols = covered = self.network.covered(grid, one.input_px)
        maps = _Maps(plain_NSHW, covered)
        if not mirrored or class_NS.numel() == 0:
            return maps
        other = _Maps(mirrored[0].flip(3), (rows, (1 - cols[1], 1 - cols[0])))
        return _Maps((plain_NSHW + _resampled(other, maps, plain_NSHW)) / 2, covered)


def _mirrored(inside_N4: Tensor) -> Tensor:
    """Return where the picture is in the mirrored frame."""
    x0, y0, x1, y1 = inside_N4.unbind(1)
    return torch.stack([1 - x1, y0, 1 - x0, y1], 1)


def _part_of(extent_N4: NDArray[np.float64], covered: Covered) -> NDArray[np.float64]:
    """Return the covered part of frames whose extent is given."""
    start_N2, size_N2 = extent_N4[:, :2], extent_N4[:, 2:] - extent_N4[:, :2]
    (y0, y1), (x0, x1) = covered
    if (y0, y1) == (x0, x1) == (0.0, 1.0):
        return extent_N4
    return np.concatenate([start_N2 + size_N2 * [x0, y0], start_N2 + size_N2 * [x1, y1]], 1)


def _resampled(maps: _Maps, like: _Maps, beyond: Tensor) -> Tensor:
    """Return maps bilinearly on another grid, `beyond` at cells centred where they do not cover."""
    map_NSHW, grid = maps.map_NSHW, like.map_NSHW.shape[2:]
    if maps.covered == like.covered and map_NSHW.shape[2:] == grid:
        return map_NSHW
    with torch.autocast(map_NSHW.device.type, enabled=False):
        if maps.covered == like.covered:
            return torch.nn.functional.interpolate(
                map_NSHW, grid, mode="bilinear", align_corners=False
            )
        reached = torch.ones((), dtype=torch.bool, device=map_NSHW.device)
        for axis, part, wanted in zip((2, 3), maps.covered, like.covered, strict=True):
            num_cells, num_wanted = map_NSHW.shape[axis], grid[axis - 2]
            places = _places(part, num_cells, wanted, num_wanted)
            low_P, share_P, reached_P = (place.to(map_NSHW.device) for place in places)
            shape = (-1, 1) if axis == 2 else (-1,)
            start = map_NSHW.index_select(axis, low_P)
            step = map_NSHW.index_select(axis, (low_P + 1).clamp(max=num_cells - 1)) - start
            map_NSHW = start + step * share_P.view(shape)
            reached = reached & reached_P.view(shape)
        return torch.where(reached, map_NSHW, beyond)


def _places(
    covered: tuple[float, float], num_cells: int, wanted: tuple[float, float], num_wanted: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Place the cell centres of one axis of the wanted grid among the cells of another.

    Returns
    -------
    tuple of Tensor
        The cell whose centre lies before (int64), how far on to the next (float32, 0 … 1), and
        whether the place is covered (bool).
    """
    centre_P = wanted[0] + (np.arange(num_wanted) + 0.5) * (wanted[1] - wanted[0]) / num_wanted
    place_P = (centre_P - covered[0]) / (covered[1] - covered[0]) * num_cells
    reached_P = (place_P >= -_ON_EDGE) & (place_P <= num_cells + _ON_EDGE)
    place_P = np.clip(place_P - 0.5, 0, num_cells - 1)
    low_P = np.floor(place_P).astype(np.int64)
    share_P = (place_P - low_P).astype(np.float32)
    return torch.from_numpy(low_P), torch.from_numpy(share_P), torch.from_numpy(reached_P)


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
