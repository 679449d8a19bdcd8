"""Denser maps from the same weights: the last strides are taken away, later kernels dilated.

The à trous algorithm (Chen et al. 2015, DeepLab, §3.1; Holschneider et al. 1990). A layer that
steps over every second cell is made to visit all of them, and every layer behind it reads
cells that lie as far apart as before. Cells of the dense map at the places of the old ones hold
the old values, except near the edge, where padding is dense too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsltool.errors import ModelError
from wsltool.nets.closed_form import evaluating
from wsltool.nets.weights import one_line

__all__ = ["DilatedPool", "set_output_stride"]

_SMALL_PX = 512
_STEP_PX = 6720
"""2⁶·3·5·7: a size that this much larger has a whole number of cells more at any usual stride."""

_POOLS = (nn.MaxPool2d, nn.AvgPool2d)
_Sides = tuple[int, int, int, int]
"""Cells on the left, right, top and bottom, as `torch.nn.functional.pad` takes them."""


class DilatedPool(nn.Module):
    """A pooling of stride 1 whose window reads cells that lie apart.

    Parameters
    ----------
    pool
        An ``nn.MaxPool2d`` or ``nn.AvgPool2d``.
    rate
        Distance of the cells that were neighbours.
    pads
        Cells added on the left, right, top and bottom: −inf for a maximum; for a mean they
        count as `pool`'s own padding does, and not beyond that.
    """

    def __init__(self, pool: nn.MaxPool2d | nn.AvgPool2d, rate: int, pads: _Sides) -> None:
        super().__init__()
        self.is_max = isinstance(pool, nn.MaxPool2d)
        self.kernel = _pair(pool.kernel_size)
        rows, cols = _pair(getattr(pool, "dilation", 1))
        self.dilation = (rows * rate, cols * rate)
        self.pads = pads
        top, left = (rate * cells for cells in _pair(pool.padding))
        self.counted = (left, left, top, top) if _counts_padding(pool) else (0, 0, 0, 0)
        self.divisor: int | None = getattr(pool, "divisor_override", None)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return the pooled map; its size is that of the padded map less the window's reach."""
        if self.is_max:
            padded_NCHW = functional.pad(x_NCHW, self.pads, value=-torch.inf)
            return functional.max_pool2d(padded_NCHW, self.kernel, 1, 0, self.dilation)
        sum_NCHW = self._sum(functional.pad(x_NCHW, self.pads))
        if self.divisor is not None:
            return sum_NCHW / self.divisor
        one_11HW = functional.pad(x_NCHW.new_ones((1, 1, *x_NCHW.shape[2:])), self.counted, value=1)
        more = tuple(all_ - own for all_, own in zip(self.pads, self.counted, strict=True))
        return sum_NCHW / self._sum(functional.pad(one_11HW, more))

    def _sum(self, x_NCHW: Tensor) -> Tensor:
        """Return the sum over the window at every place."""
        rows, cols = (
            size - step * (cells - 1)
            for size, step, cells in zip(x_NCHW.shape[2:], self.dilation, self.kernel, strict=True)
        )
        shifted = [
            x_NCHW[:, :, row : row + rows, col : col + cols]
            for row in range(0, self.dilation[0] * self.kernel[0], self.dilation[0])
            for col in range(0, self.dilation[1] * self.kernel[1], self.dilation[1])
        ]
        return torch.stack(shifted).sum(0)


@dataclass(frozen=True)
class _Layer:
    """A convolution or pooling; pixels of the input from cell to cell, before and behind it."""

    name: str
    module: nn.Module
    stride_in: int
    stride_out: int

    def step(self, stride_px: int) -> tuple[int, int] | None:
        """Return its stride and its rate under an output stride; None where that cannot be."""
        new_in, new_out = min(self.stride_in, stride_px), min(self.stride_out, stride_px)
        if self.stride_in % new_in or self.stride_out % new_out or new_out % new_in:
            return None
        step, rate = new_out // new_in, self.stride_in // new_in
        if (step, rate) == (self.stride_out // self.stride_in, 1):
            return step, rate
        rows, cols = _pair(getattr(self.module, "stride", 1))
        if rows != cols or (step > 1 and not isinstance(self.module, nn.Conv2d)):
            return None
        return step, rate


def set_output_stride(module: nn.Module, stride_px: int, name: str) -> None:
    """Change a network in place so that its maps have a cell every `stride_px` pixels.

    Weights and names of arrays stay. Convolutions and poolings whose stride would pass
    `stride_px` get a smaller one; the layers behind are dilated, their padding with them. A
    layer that lost no cells at the edge before loses none now, so a network whose padding
    keeps sizes has ``rows / stride_px`` cells; what that takes is added on both sides.

    Parameters
    ----------
    module
        Takes pictures (num_images, 3, row, column) of any size.
    stride_px
        At most what it has.
    name
        What the user calls it, for messages.

    Raises
    ------
    ModelError
        That stride cannot be had; the message names those that can.
    """
    layers, own_px = _strides(module, name)
    if not own_px:
        raise ModelError(f"{name}: no map in it grows with its input; an output stride needs one.")
    possible = [px for px in range(1, own_px) if own_px % px == 0]
    possible = [px for px in possible if all(layer.step(px) for layer in layers)]
    if own_px != max((layer.stride_out for layer in layers), default=0):
        possible = []  # part of it comes from something else than these layers
    if stride_px not in (*possible, own_px):
        raise ModelError(
            f"{name}: an output stride of {stride_px} cannot be had; expected "
            f"{', '.join(map(str, (*possible, own_px)))}."
        )
    if stride_px == own_px:
        return
    _dilate(module, layers, stride_px)
    try:
        reached_px = _strides(module, name)[1]
    except ModelError:  # branches no longer fit together
        reached_px = 0
    if reached_px != stride_px:
        raise ModelError(
            f"{name}: an output stride of {stride_px} cannot be had, since something else than "
            f"convolutions and poolings has a stride in it; expected {own_px}."
        )


def _strides(module: nn.Module, name: str) -> tuple[list[_Layer], int]:
    """Return the layers with their strides, and the stride of the last map.

    From the rows of maps for two sizes of input, without computing a number.
    """
    small, large = _trace(module, _SMALL_PX, name), _trace(module, _SMALL_PX + _STEP_PX, name)
    strides: dict[str, set[tuple[int, int]]] = defaultdict(set)
    last_px = 0
    for (part, rows_in, rows_out), (_, more_in, more_out) in zip(small, large, strict=True):
        if more_out > rows_out:
            last_px = _whole(more_out - rows_out, name)
            if more_in > rows_in and isinstance(module.get_submodule(part), (nn.Conv2d, *_POOLS)):
                strides[part].add((_whole(more_in - rows_in, name), last_px))
    for part, pairs in strides.items():
        if len(pairs) > 1:
            raise ModelError(f"{name}: {part} runs at two strides. Leave out the output stride.")
    layers = [
        _Layer(part, module.get_submodule(part), *pair)
        for part, pairs in strides.items()
        for pair in pairs
    ]
    return layers, last_px


def _whole(num_cells: int, name: str) -> int:
    if _STEP_PX % num_cells:
        raise ModelError(
            f"{name}: {_STEP_PX} pixels more give {num_cells} cells more, expected a whole number "
            "of pixels a cell. Leave out the output stride."
        )
    return _STEP_PX // num_cells


@torch.no_grad()
def _trace(module: nn.Module, size_px: int, name: str) -> list[tuple[str, int, int]]:
    """Return each call that gave a map: the part's name, rows of what it read and gave."""
    calls: list[tuple[str, int, int]] = []

    def note(part: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                is_map = bool(args) and isinstance(args[0], Tensor) and args[0].ndim == 4
                calls.append((part, args[0].shape[2] if is_map else 0, output.shape[2]))

        return hook

    arrays = chain(module.named_parameters(), module.named_buffers())
    meta = {entry: value.to("meta") for entry, value in arrays}
    kind = next((value.dtype for value in meta.values()), torch.float32)
    picture_NCHW = torch.empty((1, 3, size_px, size_px), dtype=kind, device="meta")
    with ExitStack() as stack:
        stack.enter_context(evaluating(module))
        for part, submodule in module.named_modules():
            if part:
                stack.callback(submodule.register_forward_hook(note(part)).remove)
        try:
            torch.func.functional_call(module, meta, (picture_NCHW,))
        except Exception as error:  # a user's network may raise anything
            raise ModelError(
                f"{name}: its strides cannot be found, it failed on {size_px}x{size_px} pixels "
                f"({type(error).__name__}: {one_line(error)}). Leave out the output stride."
            ) from error
    return calls


def _dilate(module: nn.Module, layers: Iterable[_Layer], stride_px: int) -> None:
    """Give each layer its new stride, rate and padding."""
    levels: dict[int, list[_Layer]] = defaultdict(list)
    for layer in layers:
        if layer.stride_out > stride_px:
            levels[layer.stride_in].append(layer)
    for level in levels.values():
        reducing = [layer for layer in level if layer.stride_out > layer.stride_in]
        in_step = len({_shift(layer, stride_px) for layer in reducing}) <= 1
        for layer in level:
            _change(module, layer, stride_px, _sides(layer, stride_px, may_shift=in_step))


def _shift(layer: _Layer, stride_px: int) -> tuple[int, int]:
    """Return by how many cells, columns and rows, the dense map begins before the old one."""
    rate = _rate(layer, stride_px)
    own, new = _own_sides(layer.module), _sides(layer, stride_px, may_shift=True)
    return new[0] - rate * own[0], new[2] - rate * own[2]


def _rate(layer: _Layer, stride_px: int) -> int:
    return layer.stride_in // min(layer.stride_in, stride_px)


def _own_sides(module: nn.Module) -> _Sides:
    """Return a layer's own padding on all four sides; that of ``padding="same"`` is its own."""
    static = getattr(module, "static_padding", None)  # efficientnet_lite: ahead of the kernel
    if isinstance(static, nn.ZeroPad2d):
        left, right, top, bottom = static.padding
        return left, right, top, bottom
    padding = getattr(module, "padding", 0)
    top, left = (0, 0) if isinstance(padding, str) else _pair(padding)
    return left, left, top, top


def _sides(layer: _Layer, stride_px: int, *, may_shift: bool) -> _Sides:
    """Return the padding under an output stride.

    Where a stride is taken away from a layer whose padding lost no cell, a window at every
    cell needs more padding, half of it before the first cell where `may_shift`.
    """
    part, rate = layer.module, _rate(layer, stride_px)
    step = layer.stride_out // layer.stride_in
    own = _own_sides(part)
    sides: list[int] = []
    kernel, dilation = _pair(getattr(part, "kernel_size", 1)), _pair(getattr(part, "dilation", 1))
    for axis in (1, 0):  # columns, then rows
        before, after = own[2 * (1 - axis) : 2 * (1 - axis) + 2]
        reach = dilation[axis] * (kernel[axis] - 1)
        spare = step - 1 if getattr(part, "ceil_mode", False) else 0
        new = (before * rate, after * rate)
        if step > 1 and layer.stride_in >= stride_px and reach + 1 - step <= before + after + spare:
            first = max(new[0], rate * reach // 2 if may_shift else 0)
            new = (first, max(new[1], rate * reach - first))
        sides += new if _takes(part, new) else (before * rate, after * rate)
    left, right, top, bottom = sides
    return left, right, top, bottom


def _takes(part: nn.Module, pads: tuple[int, int]) -> bool:
    """Whether a layer can be padded so; a plain convolution has one number for both sides."""
    is_plain = isinstance(part, nn.Conv2d) and not hasattr(part, "static_padding")
    return not is_plain or pads[0] == pads[1]


def _change(module: nn.Module, layer: _Layer, stride_px: int, sides: _Sides) -> None:
    part, rate = layer.module, _rate(layer, stride_px)
    if isinstance(part, nn.MaxPool2d | nn.AvgPool2d):
        parent, _, leaf = layer.name.rpartition(".")
        setattr(module.get_submodule(parent), leaf, DilatedPool(part, rate, sides))
        return
    assert isinstance(part, nn.Conv2d)
    step = min(layer.stride_out, stride_px) // min(layer.stride_in, stride_px)
    rows, cols = _pair(part.dilation)
    part.stride, part.dilation = (step, step), (rows * rate, cols * rate)
    if hasattr(part, "static_padding"):
        part.static_padding = nn.ZeroPad2d(sides)
    elif not isinstance(part.padding, str):
        part.padding = (sides[2], sides[0])
        part._reversed_padding_repeated_twice = list(sides)


def _counts_padding(pool: nn.MaxPool2d | nn.AvgPool2d) -> bool:
    return bool(getattr(pool, "count_include_pad", False))


def _pair(value: Any) -> tuple[int, int]:
    """Return a layer's setting for rows and columns."""
    rows, cols = (value, value) if isinstance(value, int) else value
    return int(rows), int(cols)
