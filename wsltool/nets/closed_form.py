"""Which networks have class activation maps in closed form, found by arithmetic.

One mechanism for every network: run it once on random numbers and look for the feature map
whose spatial mean the head reads. Nothing here knows the name of an architecture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wsltool.errors import ModelError
from wsltool.nets.refusal import Call, refusal

__all__ = ["ClosedForm", "captured_feature", "evaluating", "find_closed_form"]

FREE_SIZES_PX = ((128, 128), (128, 160))
"""Rows and columns tried first."""

WIDE_SIZES_PX = ((256, 256), (256, 288))
"""Tried where those are too small; a network that takes none is tried at its own size."""

TOLERANCE_FRAC = 1e-4
"""Largest difference, as a share of the standard deviation, of numbers taken for equal."""


@dataclass(frozen=True)
class ClosedForm:
    """Where a network keeps its features and its head.

    With features ``f`` (after a ReLU where `relu` is true), weights ``w`` and bias ``b`` of the
    head, the map of class ``k`` is ``w_k · f`` and the class score is
    ``mean(map) + b_k``; where `rectified` is true (SqueezeNet) the map is
    ``relu(w_k · f + b_k)`` and the score its mean.

    Attributes
    ----------
    feature
        Name of the module whose output the features are; the head's own name means the
        head's input.
    relu
        A ReLU outside any module stands between that output and the pooling (DenseNet).
    head
        Name of the ``nn.Linear``, or 1×1 ``nn.Conv2d``, that holds weights and bias.
    rectified
        A ReLU stands between the class maps and their mean.
    fixed_size_px
        Rows and columns of the only input that the network takes; None for any.
    """

    feature: str
    relu: bool
    head: str
    rectified: bool = False
    fixed_size_px: tuple[int, int] | None = None


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put `module` in evaluation mode; afterwards every part is in the mode it was in."""
    mode = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in mode.items():
            part.training = training


@contextmanager
def captured_feature(module: nn.Module, form: ClosedForm) -> Iterator[list[Tensor]]:
    """Catch the features while the block runs `module`; the hook goes when the block ends.

    Yields
    ------
    list of Tensor
        Empty until the network has run, then one tensor (num_images, channel, row, column)
        float, after the ReLU where the form has one. Only the last call counts.
    """
    caught: list[Tensor] = []

    def keep(value: Tensor) -> None:
        caught[:] = [value.relu() if form.relu else value]

    part = module.get_submodule(form.feature)
    if form.feature == form.head:
        hook = part.register_forward_pre_hook(lambda _part, args: keep(args[0]))
    else:
        hook = part.register_forward_hook(lambda _part, _args, output: keep(output))
    try:
        yield caught
    finally:
        hook.remove()


def find_closed_form(module: nn.Module, name: str, size_px: int = 224) -> ClosedForm:
    """Find the closed form of a network's class activation maps (CAM).

    The network runs in evaluation mode, without gradients, on two random pictures at each of
    two sizes (larger ones where it fails at these), or at `size_px` only where it takes no
    other. Its modes, its hooks and the random state are afterwards as before.

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
        There is no closed form; the message says what stands in the way.
    """
    for sizes in (FREE_SIZES_PX, WIDE_SIZES_PX):
        free = [_probe(module, size) for size in sizes]
        if isinstance(free[0], ClosedForm) and free[0] == free[1]:
            return free[0]
        if not all(isinstance(form, _Failed) for form in free):
            break
    native = _probe(module, (size_px, size_px))
    if isinstance(native, ClosedForm):
        return ClosedForm(
            native.feature, native.relu, native.head, native.rectified, (size_px, size_px)
        )
    raise ModelError(
        f"{name}: no closed-form class activation map: {native}. Use a network whose head is "
        "global average pooling and one linear layer, such as --model resnet50 or --model vgg_gap."
    )


class _Failed(str):
    """The reason why a network did not run at all."""

    __slots__ = ()


@torch.no_grad()
def _probe(module: nn.Module, size_px: tuple[int, int]) -> ClosedForm | str:
    """Return the form that holds at one input size, or the reason why none does."""
    try:
        calls, output_NK = _trace(module, size_px)
    except Exception as error:  # a user's network may raise anything
        first_line = str(error).partition("\n")[0]
        rows, cols = size_px
        error_name = type(error).__name__
        return _Failed(f"it failed on a random {cols}x{rows} picture ({error_name}: {first_line})")
    if not isinstance(output_NK, Tensor) or output_NK.ndim != 2:
        kind = tuple(output_NK.shape) if isinstance(output_NK, Tensor) else type(output_NK).__name__
        return f"it returns {kind}, expected one tensor of scores (num_images, num_classes)"
    if not bool(output_NK.isfinite().all()):
        return "its scores on a random picture are not finite"
    head = _head(calls, output_NK)
    return (
        _match_linear(calls, head)
        or _match_conv(calls, output_NK)
        or _no_variation(calls, head)
        or refusal(calls, head)
    )


def _trace(module: nn.Module, size_px: tuple[int, int]) -> tuple[list[Call], Any]:
    """Run `module` on two random pictures and note what each of its parts returned."""
    calls: list[Call] = []
    parameter = next(module.parameters(), torch.empty(0))
    generator = torch.Generator().manual_seed(0)
    picture_NCHW = torch.randn((2, 3, *size_px), generator=generator).to(parameter)
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(evaluating(module))
        for name, part in module.named_modules():
            if name:
                hook = part.register_forward_hook(_note(calls, name))
                stack.callback(hook.remove)
        output = module(picture_NCHW)
    return calls, output


def _note(calls: list[Call], name: str) -> Any:
    """Return a hook that keeps the means of an output, never the output itself."""

    def hook(part: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        call = Call(name, part, tuple(output.shape) if isinstance(output, Tensor) else ())
        if len(call.shape) == 4:
            call.mean_NC = output.mean((2, 3))
            call.relu_mean_NC = output.relu().mean((2, 3))
        elif isinstance(part, nn.Linear) and len(call.shape) == 2:
            call.input_NC, call.output_NK = args[0].clone(), output.clone()
        calls.append(call)

    return hook


def _same(value: Tensor | None, wanted: Tensor) -> bool:
    """Whether two arrays agree; an array without variation agrees with nothing."""
    if value is None or value.shape != wanted.shape or wanted.numel() < 2:
        return False
    spread = float(wanted.std())
    if not spread > 1e-6 * float(wanted.abs().max()):
        return False
    return float((value - wanted).abs().max()) <= TOLERANCE_FRAC * spread


def _head(calls: list[Call], output_NK: Tensor) -> int | None:
    """Place of the last plain linear layer whose output the network's output is."""
    for place in range(len(calls) - 1, -1, -1):
        call = calls[place]
        if isinstance(call.module, nn.Linear) and call.input_NC is not None:
            by_hand = nn.functional.linear(call.input_NC, call.module.weight, call.module.bias)
            if call.output_NK is not None and torch.equal(call.output_NK, output_NK):
                return place if torch.allclose(by_hand, output_NK, rtol=1e-4) else None
    return None


def _no_variation(calls: list[Call], head: int | None) -> str | None:
    """Say so when what the head reads is constant, since nothing can be told from it."""
    vector_NC = None if head is None else calls[head].input_NC
    if vector_NC is None or _same(vector_NC, vector_NC):
        return None
    return "the features under its head do not vary on random pictures, so nothing can be checked"


def _last_calls(calls: list[Call]) -> list[Call]:
    """Last call of each part that returned a map of more than one cell, latest first."""
    last = {call.name: call for call in calls}
    return [call for call in reversed(calls) if last[call.name] is call and call.num_cells > 1]


def _match_linear(calls: list[Call], place: int | None) -> ClosedForm | None:
    """Look for features whose mean is what the linear head reads."""
    head = None if place is None else calls[place]
    if head is None or head.input_NC is None:
        return None
    for call in _last_calls(calls):
        for relu, mean_NC in ((False, call.mean_NC), (True, call.relu_mean_NC)):
            if _same(mean_NC, head.input_NC):
                return ClosedForm(call.name, relu, head.name)
    return None


def _match_conv(calls: list[Call], output_NK: Tensor) -> ClosedForm | None:
    """Look for a 1×1 convolution whose maps, rectified or not, have the scores as mean."""
    for call in _last_calls(calls):
        part = call.module
        if not isinstance(part, nn.Conv2d) or not _is_pointwise(part):
            continue
        for rectified, mean_NC in ((False, call.mean_NC), (True, call.relu_mean_NC)):
            if _same(mean_NC, output_NK):
                return ClosedForm(call.name, False, call.name, rectified)
    return None


def _is_pointwise(conv: nn.Conv2d) -> bool:
    """Whether a convolution is a linear layer at every cell."""
    return (
        conv.kernel_size == (1, 1)
        and conv.stride == (1, 1)
        and conv.padding in ((0, 0), "valid", "same")
        and conv.groups == 1
    )
