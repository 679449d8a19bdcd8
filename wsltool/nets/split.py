"""Where a classifier splits into features on a grid and a head that reads the whole grid.

One mechanism for every network, as for closed forms: it runs once on random numbers, and a
place to split is tried out. Nothing here knows the name of an architecture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from wsltool.errors import ModelError
from wsltool.nets.closed_form import evaluating
from wsltool.nets.skipping import ModuleCall, finished_by, is_unchanged, module_calls
from wsltool.nets.weights import one_line

__all__ = ["Split", "find_split", "probe_split"]

_MOST_TRIES = 12


@dataclass(frozen=True)
class Split:
    """Where a network splits into features and a head.

    Attributes
    ----------
    feature
        Name of the module that returns the features (num_images, channel, row, column).
    skipped
        Names of the modules that are passed over when the rest runs on features.
    head
        Name of the last layer, an ``nn.Linear`` whose output the class scores are.
    grid, num_channels
        Rows and columns, and channels, of the features.
    size_px
        Rows and columns of the input that this was found at.
    reader
        Name of the linear layer that reads the features, flattened and nothing else done to
        them; "" where there is none.
    read
        Names of the modules that are passed over when the rest runs on what `reader` returns.
    """

    feature: str
    skipped: tuple[str, ...]
    head: str
    grid: tuple[int, int]
    num_channels: int
    size_px: int
    reader: str = ""
    read: tuple[str, ...] = ()


def find_split(module: nn.Module, name: str, size_px: int = 224) -> Split:
    """Find where a classifier splits: the last grid before its fully connected layers.

    These are the layers from the first ``nn.Linear`` on that reads more than one number of
    each channel of a grid. The network runs in evaluation mode, without gradients, on two
    random pictures; a place is taken if the rest of the network, fed with what the place
    returned, gives the same scores. Its modes, its hooks and the random state are afterwards
    as before.

    Parameters
    ----------
    module
        Takes pictures (num_images, 3, row, column) float32, returns class scores
        (num_images, num_classes).
    name
        What the user calls it, for messages.
    size_px
        Rows and columns of the input it was made for.

    Raises
    ------
    ModelError
        It does not split; the message says what stands in the way.
    """
    found = probe_split(module, size_px)
    if isinstance(found, Split):
        return found
    raise ModelError(
        f"{name}: does not split into features and fully connected layers that read their whole "
        f"grid: {found}. Use a network that does, such as alexnet, vgg16 or NAME_fc."
    )


class _Layer(NamedTuple):
    """A linear layer that read one vector an image, and what it returned."""

    call: ModuleCall
    num_in: int
    output: Tensor


@dataclass
class _Run:
    """One run of a network: what its modules returned."""

    calls: list[ModuleCall] = field(default_factory=list)
    grids: list[tuple[ModuleCall, tuple[int, ...]]] = field(default_factory=list)
    layers: list[_Layer] = field(default_factory=list)
    output: Any = None

    def note(self, call: ModuleCall, args: tuple[Any, ...], output: Any) -> None:
        """Keep the shapes of grids, and what linear layers returned that read one vector."""
        if call.name and isinstance(output, Tensor) and output.ndim == 4:
            self.grids.append((call, tuple(output.shape)))
        if isinstance(call.module, nn.Linear) and args[0].ndim == 2:
            self.layers.append(_Layer(call, call.module.in_features, output.clone()))

    def head(self) -> str | None:
        """Name of the layer whose output the scores are."""
        names = [one.call.name for one in self.layers if torch.equal(one.output, self.output)]
        return names[-1] if names else None

    def reader(self) -> tuple[ModuleCall, tuple[int, ...]] | None:
        """Return the first layer that reads a grid, and the shape of that grid."""
        for call, num_in, _ in sorted(self.layers, key=lambda layer: layer.call.start):
            shapes = [shape for grid, shape in self.grids if grid.end < call.start]
            _, num_channels, rows, cols = shapes[-1] if shapes else (0, 1, 1, 1)
            if rows * cols > 1 and num_in > num_channels and num_in % num_channels == 0:
                return call, shapes[-1]
        return None

    def places(self, reader: ModuleCall, shape: tuple[int, ...]) -> Iterator[ModuleCall]:
        """Yield the modules that return the grid that a layer reads, the last first."""
        last = {call.name: call for call in self.calls}
        grids = [call for call, own in self.grids if own == shape and call.end < reader.start]
        ordered = sorted(grids, key=lambda call: -call.end)
        yield from [call for call in ordered if last[call.name] is call][:_MOST_TRIES]


@torch.no_grad()
def probe_split(module: nn.Module, size_px: int) -> Split | str:
    """Return where a network splits, or why it does not; see `find_split`."""
    generator = torch.Generator().manual_seed(0)
    x_NCHW = torch.randn((2, 3, size_px, size_px), generator=generator)
    x_NCHW = x_NCHW.to(next(module.parameters(), x_NCHW))
    with torch.random.fork_rng(devices=[]), evaluating(module):
        try:
            run = _traced(module, x_NCHW)
        except Exception as error:  # a user's network may raise anything
            what = f"{type(error).__name__}: {one_line(error)}"
            return f"it failed on a random {size_px}x{size_px} picture ({what})"
        if not isinstance(run.output, Tensor) or run.output.ndim != 2:
            kind = type(run.output).__name__
            shown = tuple(run.output.shape) if isinstance(run.output, Tensor) else kind
            return f"it returns {shown}, expected one tensor of scores (num_images, num_classes)"
        return _split(module, run, x_NCHW)


def _traced(module: nn.Module, x_NCHW: Tensor) -> _Run:
    run = _Run()

    def once() -> None:
        run.output = module(x_NCHW)

    run.calls = module_calls(module, once, run.note)
    return run


def _split(module: nn.Module, run: _Run, x_NCHW: Tensor) -> Split | str:
    head, reading = run.head(), run.reader()
    if head is None:
        return "its scores are not the output of a linear layer"
    if reading is None:
        return "no fully connected layer reads a grid of features"
    reader, shape = reading
    for place in run.places(reader, shape):
        feature_NCHW = _returned(module, place.name, x_NCHW)
        skipped = finished_by(run.calls, place.end)
        if is_unchanged(module, skipped, partial(module, feature_NCHW), run.output):
            grid = (shape[2], shape[3])
            found = Split(place.name, skipped, head, grid, shape[1], int(x_NCHW.shape[2]))
            return _with_reader(module, found, run, reader, feature_NCHW)
    rows, cols = shape[2:]
    return (
        f"the layers before the {cols}x{rows} grid that Linear {reader.name} reads cannot be "
        "passed over: a function that is no module (such as max_pool2d) stands among them, or a "
        "layer behind them reads the picture as well"
    )


def _with_reader(
    module: nn.Module, found: Split, run: _Run, reader: ModuleCall, feature_NCHW: Tensor
) -> Split:
    """Note the layer that reads the features where the rest can be run on what it returns."""
    layer = cast(nn.Linear, reader.module)
    read = finished_by(run.calls, reader.end)
    flat_NC = torch.flatten(feature_NCHW, 1)
    if flat_NC.shape[1] != layer.in_features:
        return found
    if not is_unchanged(module, read, lambda: module(layer(flat_NC)), run.output):
        return found
    return replace(found, reader=reader.name, read=read)


def _returned(module: nn.Module, name: str, x_NCHW: Tensor) -> Tensor:
    """Return what a module returns in its last call."""
    caught: list[Tensor] = []
    part = module.get_submodule(name)
    hook = part.register_forward_hook(lambda _part, _args, output: caught.append(output.clone()))
    try:
        module(x_NCHW)
    finally:
        hook.remove()
    return caught[-1]
