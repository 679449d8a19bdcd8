"""Layers of a network by name: which there are, what each gives, and how it is caught.

A name is that of a module and stands for what the module returns. ``NAME:input`` is what it
reads, ``NAME:relu`` what it returns with negative values set to 0, as some networks use it
without a module for that. In networks built like VGG, ``conv5_3`` is the third convolution of
the fifth block, with its ReLU, as Caffe's blob of that name.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from wsltool.errors import ModelError
from wsltool.nets.closed_form import evaluating
from wsltool.nets.compute import told_in_one_line
from wsltool.nets.frozen import Network
from wsltool.nets.models import Model
from wsltool.nets.plain_network import PlainNetwork

__all__ = ["Layer", "captured_layer", "find_layer", "list_layers"]

Suffix = Literal["", "input", "relu"]

_NUM_PROBED = 2
_MOST_LISTED = 5
_WHERE = "All of them: wsltool inspect --layers MODEL."


class _Tap(NamedTuple):
    """A module's name, and what of it is caught."""

    module: str
    suffix: Suffix = ""

    def __str__(self) -> str:
        return f"{self.module}:{self.suffix}" if self.suffix else self.module


@dataclass(frozen=True)
class Layer:
    """One layer of a network, and what it gave on random pictures of the model's input size.

    Attributes
    ----------
    name
        As `find_layer` takes it.
    module
        Name of the module.
    suffix
        ``input``: what the module reads; ``relu``: what it returns, with negative values set to
        0; empty: what it returns.
    kind
        Class of the module.
    num_channels, grid
        Channels, and rows and columns.
    nonnegative
        Whether no value was below 0.
    is_default
        The features under the head, of which class activation maps are made.
    """

    name: str
    module: str
    suffix: Suffix
    kind: str
    num_channels: int
    grid: tuple[int, int]
    nonnegative: bool
    is_default: bool


def list_layers(model: Model) -> list[Layer]:
    """Return the layers that give maps of features, in the order in which they run.

    Two pictures of noise, always the same, go through the network on the CPU, at the model's
    input size. Layers that the network does not use, or whose output is no single tensor
    (num_images, channel, row, column), are not listed.

    Raises
    ------
    ModelError
        The network fails on this input size.
    """
    network = model.network
    taps = dict.fromkeys(_Tap(name) for name, _ in network.module.named_modules() if name)
    vgg = {tap: name for name, tap in _vgg_names(network.module).items()}
    return [
        _layer(model, name, tap, seen)
        for tap, seen in _probe(model, taps | {_default(network): None}).items()
        if _objection(seen) is None
        for name in filter(None, (str(tap), vgg.get(tap)))
    ]


def find_layer(model: Model, name: str | None = None) -> Layer:
    """Return the layer of that name; None means the features under the head.

    Raises
    ------
    ModelError
        There is no such layer (near names are listed), the network does not use it, its
        output is no single tensor (num_images, channel, row, column), or the network fails on
        its input size.
    """
    tap = _default(model.network) if name is None else _named(model, name)
    seen = _probe(model, [tap])
    objection = _objection(seen[tap]) if tap in seen else "the network does not run that module"
    if objection:
        raise ModelError(f'--layer "{name or tap}": {objection}. {_WHERE}')
    return _layer(model, name or str(tap), tap, seen[tap])


@contextmanager
def captured_layer(network: Network, layer: Layer) -> Iterator[list[Tensor]]:
    """Catch what a layer gives while the block runs `network`; the hook goes when it ends.

    Yields
    ------
    list of Tensor
        Empty until the network has run, then one tensor (num_images, channel, row, column)
        float32, a copy, which later layers that work in place do not change. Of a module that
        runs several times the last call counts.
    """
    caught: list[Tensor] = []

    def keep(_tap: _Tap, value: Any) -> None:
        copy = value.to(torch.float32, copy=True)
        caught[:] = [copy.relu_() if layer.suffix == "relu" else copy]

    with _watched(network.module, [_Tap(layer.module, layer.suffix)], keep):
        yield caught


@contextmanager
def _watched(
    module: nn.Module, taps: Iterable[_Tap], note: Callable[[_Tap, Any], None]
) -> Iterator[None]:
    """Tell `note` what each tap gives, whenever it gives something; the hooks go at the end."""

    def of_input(tap: _Tap) -> Callable[[nn.Module, Any], None]:
        return lambda _part, args: note(tap, args[0] if args else None)

    def of_output(tap: _Tap) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _part, _args, output: note(tap, output)

    with ExitStack() as stack:
        for tap in taps:
            part = module.get_submodule(tap.module)
            if tap.suffix == "input":
                hook = part.register_forward_pre_hook(of_input(tap))
            else:
                hook = part.register_forward_hook(of_output(tap))
            stack.callback(hook.remove)
        yield


class _Seen(NamedTuple):
    """What a tap gave in its last call: in words where that is no tensor, else its shape."""

    what: str
    shape: tuple[int, ...]
    lowest: float


def _probe(model: Model, taps: Iterable[_Tap]) -> dict[_Tap, _Seen]:
    """Run the network on noise; return what each tap gave, in order of time."""
    seen: dict[_Tap, _Seen] = {}

    def note(tap: _Tap, value: Any) -> None:
        seen.pop(tap, None)
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            seen[tap] = _Seen(str(kind), (), 0.0)
        else:
            lowest = float(value.min()) if value.numel() else 0.0
            seen[tap] = _Seen("", tuple(value.shape), lowest)

    network, size_px = model.network, model.preprocess.size_px
    generator = torch.Generator().manual_seed(0)
    noise_NCHW = torch.randint(0, 256, (_NUM_PROBED, 3, size_px, size_px), generator=generator)
    x_NCHW = model.preprocess.normalise(noise_NCHW)
    x_NCHW = x_NCHW.to(next(network.parameters(), x_NCHW))
    what = f"{model.arch} on a picture of {size_px}x{size_px}"
    with (
        torch.inference_mode(),
        evaluating(network),
        told_in_one_line(what),
        _watched(network.module, taps, note),
    ):
        network(x_NCHW)
    return seen


def _objection(seen: _Seen) -> str | None:
    """Return why what was seen is no map of features, or None."""
    if seen.what:
        return f"gives a {seen.what}, expected one tensor (image, channel, row, column)"
    if len(seen.shape) != 4 or seen.shape[0] != _NUM_PROBED or 0 in seen.shape:
        return (
            f"gives an array of shape {seen.shape} for {_NUM_PROBED} images, expected "
            "(image, channel, row, column)"
        )
    return None


def _layer(model: Model, name: str, tap: _Tap, seen: _Seen) -> Layer:
    _, num_channels, rows, cols = seen.shape
    return Layer(
        name=name,
        module=tap.module,
        suffix=tap.suffix,
        kind=type(model.network.module.get_submodule(tap.module)).__name__,
        num_channels=num_channels,
        grid=(rows, cols),
        nonnegative=tap.suffix == "relu" or seen.lowest >= 0,
        is_default=tap == _default(model.network),
    )


def _default(network: Network) -> _Tap:
    """Return where the features under the head are."""
    if isinstance(network, PlainNetwork):
        return _Tap(network.split.feature)
    form = network.form
    suffix: Suffix = "input" if form.feature == form.head else "relu" if form.relu else ""
    return _Tap(form.feature, suffix)


def _named(model: Model, name: str) -> _Tap:
    """Return what a name stands for."""
    module = model.network.module
    vgg = _vgg_names(module)
    if name in vgg:
        return vgg[name]
    parts = [part for part, _ in module.named_modules() if part]
    place, _, suffix = name.partition(":")
    if place in parts and suffix in get_args(Suffix) and (suffix or ":" not in name):
        return _Tap(place, suffix)  # type: ignore[arg-type]
    if place in parts:
        raise ModelError(
            f'--layer "{name}": behind the colon stands "{suffix}", expected input or relu.'
        )
    near = difflib.get_close_matches(place, [*vgg, *parts], n=_MOST_LISTED)
    hint = f" Near names: {', '.join(near)}." if near else ""
    raise ModelError(f'--layer "{name}": {model.arch} has no such layer.{hint} {_WHERE}')


def _vgg_names(module: nn.Module) -> dict[str, _Tap]:
    """Return the names of Caffe's VGG: ``convB_N`` is the N-th convolution of block B.

    Only of a network whose ``features`` are 3×3 convolutions, each with a ReLU, and poolings
    (or identities in their place) between the blocks.
    """
    features = getattr(module, "features", None)
    parts = list(features.named_children()) if isinstance(features, nn.Sequential) else []
    kinds = [_vgg_kind(part) for _, part in parts]
    if "" in kinds or "pool" not in kinds or kinds.count("conv") != kinds.count("relu"):
        return {}
    named: dict[str, _Tap] = {}
    block = number = 1
    for (place, _), kind in zip(parts, kinds, strict=True):
        if kind == "relu":
            named[f"conv{block}_{number}"] = _Tap(f"features.{place}")
            number += 1
        elif kind == "pool":
            block, number = block + 1, 1
    return named


def _vgg_kind(part: nn.Module) -> str:
    if isinstance(part, nn.Conv2d):
        return "conv" if part.kernel_size == (3, 3) else ""
    if isinstance(part, nn.Identity) or "Pool" in type(part).__name__:
        return "pool"
    return {"ReLU": "relu", "BatchNorm2d": "norm"}.get(type(part).__name__, "")
