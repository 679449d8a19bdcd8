"""Stage ``extract-features``: activations of one layer, at every cell or where maps fire."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Unpack

import numpy as np

from wsltool.errors import BadImageError, StoreKindError, UsageError
from wsltool.localize.cell_lookup import centers_inside, firing_cells, nearest_cells
from wsltool.stages.half import as_float16
from wsltool.stages.map_rows import map_row
from wsltool.stages.model_behind import UsedModel, given_model, model_behind
from wsltool.stages.options import (
    PathLike,
    Settings,
    TorchOptions,
    TorchSettings,
    check_choice,
    check_input_size,
    check_range,
    torch_settings,
)
from wsltool.stages.pictures_behind import PicturesBehind, good_batches
from wsltool.stages.plan import Job
from wsltool.stages.run import Block, Rows, Tick, leave_out, row_job, run
from wsltool.stores.open import open_store
from wsltool.stores.store import Store

if TYPE_CHECKING:
    from wsltool.nets.features import FeatureBatch
    from wsltool.nets.layers import Layer

__all__ = ["extract_features"]

Array = np.ndarray[Any, Any]

Fit = Literal["warp", "crop", "letterbox"]
Cells = Literal["all", "firing"]
FeatureDtype = Literal["float16", "float32"]

_REVISION = 1
_THRESHOLD = 0.2


def extract_features(
    input: PathLike,
    *,
    model: PathLike | None = None,
    weights: PathLike | None = None,
    layer: str | None = None,
    cells: Cells | None = None,
    threshold: float | None = None,
    feature_dtype: FeatureDtype = "float16",
    input_size: int | None = None,
    fit: Fit | None = None,
    images: PathLike | None = None,
    **options: Unpack[TorchOptions],
) -> Path:
    """Extract the activations of one layer, raw (Kolesnikov and Lampert 2016, section 3).

    Parameters
    ----------
    input : path
        An ``images`` or a ``maps`` store.
    model : str or path, optional
        A model file, a name, or ``package.module:function``; of maps by default the one that
        they were made with.
    weights : path, optional
        Weights to load into the architecture `model`.
    layer : str, optional
        Name of the layer (`wsltool.nets.layers`); by default the features under the head, of
        which class activation maps are made.
    cells : {"all", "firing"}, optional
        Every cell, or, by default where the input are maps, those where a map fires. Maps with
        ``all`` keep every cell, and which class fires where besides.
    threshold : float, optional
        A map fires strictly above this fraction of its maximum, in [0, 1); .2 if not given.
    feature_dtype : {"float16", "float32"}
        How activations are stored; a value that float16 cannot hold is an error.
    input_size : int, optional
        Another input size than the model's, in pixels; where the model is that of the maps,
        than theirs.
    fit : {"warp", "crop", "letterbox"}, optional
        Another way to bring pictures to that size than the model's, or that of the maps.
    images : path, optional
        Folder of the pictures, or the images store behind the maps, if they are not where they
        were.
    **options
        See `wsltool.stages.options.TorchOptions`.

    Returns
    -------
    Path
        The ``features`` store.

    Raises
    ------
    UsageError
        An option is out of its range or has nothing to act on, or a value does not fit into
        float16.
    StoreKindError
        The input is of another kind.
    ModelError
        There is no such layer, or the network cannot be used.
    LineageError
        The model or the images behind the maps are not there.
    BadImageError
        A picture or its maps are unusable and ``on_bad`` is ``"stop"``.
    """
    settings, torch_options = Settings.of(options), torch_settings(options)
    _check_options(cells, threshold, feature_dtype, input_size, fit)
    with open_store(Path(input)) as source:
        wanted = _wanted_cells(source, cells, threshold)
        used = _used_model(source, model, weights, input_size, fit)
        from wsltool.nets.layers import find_layer

        found = find_layer(used.model, layer)
        params = {
            "model": used.name,
            "layer": found.name,
            **wanted,
            "feature_dtype": feature_dtype,
            "input_size": used.model.preprocess.size_px,
            "fit": used.model.preprocess.fit,
            "precision": torch_options.precision,
        }
        pictures = PicturesBehind(source, None if images is None else Path(images))
        extractor = _Extractor(source, used, found, pictures, params, settings, torch_options)
        return run(extractor.job(), extractor.compute, settings)


def _check_options(
    cells: object, threshold: object, feature_dtype: object, input_size: int | None, fit: object
) -> None:
    if cells is not None:
        check_choice("--cells", cells, Cells)
    if threshold is not None:
        check_range("--threshold", threshold, 0, 1)
    check_choice("--feature-dtype", feature_dtype, FeatureDtype)
    check_input_size(input_size)
    if fit is not None:
        check_choice("--fit", fit, Fit)


def _wanted_cells(
    source: Store, cells: Cells | None, threshold: float | None
) -> dict[str, str | float | None]:
    """Return which cells are kept, and above which fraction of its maximum a map fires."""
    if source.kind == "maps":
        fires = _THRESHOLD if threshold is None else float(threshold)
        return {"cells": cells or "firing", "threshold": fires}
    if source.kind != "images":
        raise StoreKindError(
            f'{source.path.name}: kind is "{source.kind}", but extract-features reads "images" or '
            '"maps". Run first: wsltool ingest …, or wsltool cam --model … IMAGES'
        )
    given = "--cells firing" if cells == "firing" else f"--threshold {threshold}"
    if cells == "firing" or threshold is not None:
        raise UsageError(
            f"{source.path.name}: kind is images, so {given} has no maps to read. Give the maps: "
            "wsltool cam --model … IMAGES | wsltool extract-features"
        )
    return {"cells": "all", "threshold": None}


def _used_model(
    source: Store,
    model: PathLike | None,
    weights: PathLike | None,
    input_size: int | None,
    fit: Fit | None,
) -> UsedModel:
    if model is not None:
        return given_model(model, weights, input_size=input_size, fit=fit)
    if weights is not None:
        raise UsageError(
            f"--weights {weights} needs the name of a network. Give it with --model as well."
        )
    if source.kind == "images":
        raise UsageError(
            "--model is missing. Give a model file, a name, or module:function; only maps know "
            "what they were made with."
        )
    return model_behind(source, input_size=input_size, fit=fit)


class _Picked(NamedTuple):
    """The cells of one image that are kept, and which class fires at which of them."""

    cell_M: Array
    pattern_P: Array
    class_P: Array


@dataclass(frozen=True)
class _Extractor:
    """What all blocks of one run share."""

    source: Store
    used: UsedModel
    layer: Layer
    pictures: PicturesBehind
    params: dict[str, Any]
    settings: Settings
    torch_options: TorchSettings

    @property
    def has_maps(self) -> bool:
        """Whether there are maps that fire."""
        return self.source.kind == "maps"

    def job(self) -> Job:
        """Return the job; a block is as large as if every cell were kept."""
        folder = (self.settings.output or self.source.path).parent
        grid, num_channels = self.layer.grid, self.layer.num_channels
        item = np.dtype(self.params["feature_dtype"]).itemsize
        names = ("layer", "cells", "threshold", "input_size", "fit")
        return row_job(
            self.settings,
            "extract-features",
            "features",
            self.source,
            params=self.params,
            inputs={"model": self.used.record(folder)},
            revision=_REVISION,
            row_bytes=grid[0] * grid[1] * num_channels * item,
            attributes={name: self.params[name] for name in names} | {"grid": list(grid)},
            compute=self.torch_options.record(),
        )

    def compute(self, blocks: list[Block], tick: Tick) -> Iterator[Rows]:
        """Yield the rows of each block; a batch never crosses a block."""
        from wsltool.nets.features import run_features

        size = self.torch_options.batch_size
        found = run_features(
            self.used.model,
            self.pictures,
            [batch for block in blocks for batch in good_batches(self.source, block, size)],
            self.layer,
            device=self.torch_options.device,
            precision=self.torch_options.precision,
            workers=self.torch_options.workers,
        )
        with contextlib.closing(found):  # ends the workers, also when a row stops the stage
            for block in blocks:
                yield self._assemble(block, found, tick)

    def _assemble(self, block: Block, found: Iterator[FeatureBatch], tick: Tick) -> Rows:
        """Put the batches of a block together; a picture that failed keeps an empty row."""
        rows = self.source.carried(block.start, block.stop)
        rows["map_extent"] = np.zeros((block.num_rows, 4), np.float32)
        num_missing = int((rows["image_status"] == 0).sum())
        picked: dict[int, _Picked] = {}
        feature = [np.zeros((0, self.layer.num_channels), self.params["feature_dtype"])]
        while num_missing:
            batch = next(found)
            for place, row in enumerate(batch.rows):
                n = row - block.start
                try:
                    picked[n] = self._pick(row, batch, place)
                except BadImageError as error:
                    leave_out(self.source, self.settings, rows, row, n, error)
                    continue
                rows["map_extent"][n] = batch.extent_N4[place]
                feature.append(self._taken(batch.feature_NCHW[place], picked[n].cell_M))
            num_missing -= len(batch.rows)
            tick(len(batch.rows))
        rows["feature"] = np.concatenate(feature)
        return rows | self._cells(picked, block.num_rows)

    def _pick(self, row: int, batch: FeatureBatch, place: int) -> _Picked:
        """Return which cells of an image are kept, counted row by row of the grid."""
        error = batch.error[place]
        if error is not None:
            raise BadImageError(error)
        num_rows, num_cols = self.layer.grid
        fires_SM, class_S = self._firing(row, batch.extent_N4[place])
        keeps_M = np.full(num_rows * num_cols, self.params["cells"] == "all") | fires_SM.any(0)
        cell_M = np.flatnonzero(keeps_M)
        order_S = np.argsort(class_S, kind="stable")
        pattern_P, slot_P = np.nonzero(fires_SM[order_S][:, cell_M].T)
        return _Picked(cell_M, pattern_P, class_S[order_S][slot_P])

    def _firing(self, row: int, extent_xyxy: Array) -> tuple[Array, Array]:
        """Return which cell fires in which used slot of an image's maps, and the slots' classes."""
        grid = self.layer.grid
        maps = map_row(self.source, row) if self.has_maps else None
        if maps is None:
            return np.zeros((0, grid[0] * grid[1]), bool), np.zeros(0, np.int32)
        slots = list(maps.slots())
        gone_SHW = None if maps.suppressed_SHW is None else maps.suppressed_SHW[slots]
        fires_SHW = firing_cells(maps.map_SHW[slots], self.params["threshold"], gone_SHW)
        row_H, col_W = nearest_cells(extent_xyxy, grid, maps.extent_xyxy, fires_SHW.shape[1:])
        fires_SHW = fires_SHW[:, row_H][:, :, col_W]
        for shown_xyxy in (maps.extent_xyxy, (0, 0, *maps.size_wh)):
            shown_H, shown_W = centers_inside(extent_xyxy, grid, shown_xyxy)
            fires_SHW &= shown_H[:, None] & shown_W
        return fires_SHW.reshape(len(slots), -1), maps.class_S[slots]

    def _taken(self, feature_CHW: Array, cell_M: Array) -> Array:
        """Return the activations of some cells (M, C), as they are stored."""
        feature_MC = np.ascontiguousarray(feature_CHW.reshape(len(feature_CHW), -1)[:, cell_M].T)
        if self.params["feature_dtype"] == "float32":
            return feature_MC
        return as_float16(feature_MC, "--feature-dtype", f"layer {self.layer.name}")

    def _cells(self, picked: dict[int, _Picked], num_rows: int) -> Rows:
        """Return the cells of a block's images and their patterns, counted from its first cell."""
        none = np.zeros(0, np.int64)
        every = [picked.get(n, _Picked(none, none, none)) for n in range(num_rows)]
        count_N = np.array([len(one.cell_M) for one in every], np.int64)
        cell = np.concatenate([one.cell_M for one in every])
        found: Rows = {
            "cell_start": count_N,
            "cell": np.stack(np.divmod(cell, self.layer.grid[1]), 1).astype(np.int16),
        }
        if not self.has_maps:
            return found
        first_N = np.cumsum(count_N) - count_N
        shifted = [one.pattern_P + first for one, first in zip(every, first_N, strict=True)]
        return found | {
            "pattern_cell": np.concatenate(shifted).astype(np.int64),
            "pattern_class": np.concatenate([one.class_P for one in every]).astype(np.int32),
        }
