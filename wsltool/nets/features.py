"""From pictures to the activations of one layer, batch after batch."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.compute import Precision, computing, fastest_layout, told_in_one_line
from wsltool.nets.layers import Layer, captured_layer
from wsltool.nets.map_resampling import Covered, part_of
from wsltool.nets.models import Model
from wsltool.nets.picture_inputs import LoadPicture, PictureInputs, picture_inputs

__all__ = ["FeatureBatch", "run_features"]


@dataclass(frozen=True)
class FeatureBatch:
    """Activations of one batch.

    A row with an error has none: feature and extent 0.

    Attributes
    ----------
    rows
        As asked for.
    feature_NCHW
        (num_rows, channel, row, column) float32, as the layer gave them.
    extent_N4
        (num_rows, 4) float32, the part of the original picture that the grid covers.
    error
        Why a row has no activations, or None.
    """

    rows: list[int]
    feature_NCHW: NDArray[np.float32]
    extent_N4: NDArray[np.float32]
    error: list[str | None]


def run_features(
    model: Model,
    load_picture: LoadPicture,
    batches: Iterable[Sequence[int]],
    layer: Layer,
    *,
    device: torch.device,
    precision: Precision = "float32",
    workers: int = 0,
) -> Generator[FeatureBatch]:
    """Compute the activations of one layer, at every cell.

    The same batches give the same bytes on the same machine. A batch goes through whole,
    pictures with an error as black ones, so that no picture's numbers depend on another's.

    The cells of a layer cover the whole frame. Where the network slides a window over its
    input, a layer with the grid of its maps covers what the maps cover (`Window.covered`).

    Parameters
    ----------
    batches
        The rows of each batch; consumed as needed.
    layer
        Of this model, at its present input size (`wsltool.nets.layers.find_layer`).
    workers
        Processes that read and resize pictures; 0 reads them here.

    Yields
    ------
    FeatureBatch
        One a batch, in order. Close the generator, or use it up, to end the workers.

    Raises
    ------
    ModelError
        The network fails on this input size, or memory is short.
    """
    network = model.network.eval().to(device)
    layout = fastest_layout(network, model.preprocess.size_px, device)
    run = _Runner(model, layer, device, precision, layout)
    presets = [model.preprocess]
    loaded = picture_inputs(presets, load_picture, batches, device=device, workers=workers)
    with closing(loaded):
        for inputs in loaded:
            yield run(inputs)


@dataclass
class _Runner:
    """Computes one batch; keeps nothing between batches."""

    model: Model
    layer: Layer
    device: torch.device
    precision: Precision
    layout: torch.memory_format

    @torch.inference_mode()
    def __call__(self, inputs: PictureInputs) -> FeatureBatch:
        network = self.model.network
        x_NCHW = self.model.preprocess.normalise(inputs.inputs[0].to(self.device))
        num, _, rows, cols = x_NCHW.shape
        what = f"{self.model.arch} on {num} pictures of {cols}x{rows}"
        with (
            computing(self.device, self.precision),
            told_in_one_line(what),
            captured_layer(network, self.layer) as caught,
        ):
            made = network(x_NCHW.contiguous(memory_format=self.layout))
        feature_NCHW = caught.pop().cpu().numpy()
        grid = feature_NCHW.shape[2:]
        covered: Covered = ((0.0, 1.0), (0.0, 1.0))
        if isinstance(network, CamNetwork) and tuple(made.feature_NCHW.shape[2:]) == grid:
            covered = network.covered(grid, (rows, cols))
        extent_N4 = part_of(inputs.extent_N4, covered).astype(np.float32)
        error = list(inputs.error)
        finite_N = np.isfinite(feature_NCHW.reshape(num, -1)).all(1)
        for row in np.flatnonzero(~finite_N):
            error[row] = error[row] or (
                f"the network's layer {self.layer.name} is not finite (NaN or infinity)."
            )
        bad_N = np.array([text is not None for text in error], bool)
        feature_NCHW[bad_N], extent_N4[bad_N] = 0, 0
        return FeatureBatch(inputs.rows, feature_NCHW, extent_N4, error)
