"""Layers that see a whole batch, however it is divided among pieces and processes.

Dropout draws for the batch and takes the share of the piece at hand, so that N processes drop
what one would; batch normalisation sums its statistics over all processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["Share", "SummedBatchNorm", "whole_batch_layers"]


@dataclass
class Share:
    """Which images of a batch are at hand, and the seed of its random numbers.

    Attributes
    ----------
    start, num_images
        The images at hand are ``start`` … ; the batch has ``num_images``.
    seed
        Of this step.
    weight
        0 where the images at hand are another process's and do not count, else 1.
    """

    start: int = 0
    num_images: int = 0
    seed: int = 0
    weight: float = 1.0


class _Drop(nn.Module):
    """Dropout (or stochastic depth) whose random numbers belong to the batch."""

    def __init__(self, p: float, shape: str, number: int, share: Share) -> None:
        super().__init__()
        self.p, self.shape, self.number, self.share = p, shape, number, share

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        sizes = {"cell": x.shape[1:], "channel": x.shape[1:2], "image": x.shape[1:1]}[self.shape]
        share = self.share
        generator = torch.Generator(x.device).manual_seed(share.seed + self.number)
        draw = torch.rand((share.num_images, *sizes), generator=generator, device=x.device)
        keep = draw[share.start : share.start + len(x)] >= self.p
        keep = keep.reshape(*keep.shape, *[1] * (x.ndim - keep.ndim))
        return x * keep / (1 - self.p)


class SummedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the images of all processes, on any device.

    In training the mean and the (biased) variance are those of all images together; gradients
    go through the sums. As in torch, the running variance is the unbiased one.

    Attributes
    ----------
    share
        Says whether the images at hand count.
    """

    share = Share()

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (num_images, channel, row, column)."""
        if not self.training:
            return super().forward(input)
        flat_CP = input.float().transpose(0, 1).flatten(1)
        weight = self.share.weight
        count = flat_CP.new_full((1,), flat_CP.shape[1])
        sums = _summed_over_all(torch.cat([flat_CP.sum(1), count]) * weight)
        total = float(sums[-1].detach())
        mean_C = sums[:-1] / total
        square_C = (flat_CP - mean_C[:, None]).square().sum(1)
        variance_C = _summed_over_all(square_C * weight) / total
        self._note(mean_C.detach(), variance_C.detach() * total / max(1.0, total - 1))
        scale_C = torch.rsqrt(variance_C + self.eps)
        shift_C = -mean_C * scale_C
        if self.weight is not None:
            scale_C, shift_C = scale_C * self.weight, shift_C * self.weight + self.bias
        return (input.float() * scale_C[:, None, None] + shift_C[:, None, None]).to(input.dtype)

    def _note(self, mean_C: Tensor, variance_C: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if momentum is None:
            momentum = 1.0 / float(self.num_batches_tracked or 1)
        self.running_mean.lerp_(mean_C, momentum)
        self.running_var.lerp_(variance_C, momentum)


class _SumOverAll(torch.autograd.Function):
    """Sums over all processes, forward and backward."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, *grads: Any) -> Any:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def _summed_over_all(values: Tensor) -> Tensor:
    total: Tensor = _SumOverAll.apply(values)
    return total


@contextmanager
def whole_batch_layers(module: nn.Module, share: Share) -> Iterator[None]:
    """Replace dropout, and in several processes batch normalisation, while the block runs.

    Names and arrays stay the same; `share` is to be set before each piece.
    """
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    try:
        for path, part in list(module.named_modules()):
            new = _replacement(part, crc32(path.encode()), share)
            if new is not None:
                parent, _, name = path.rpartition(".")
                holder = module.get_submodule(parent)
                new.train(part.training)
                replaced.append((holder, name, part))
                setattr(holder, name, new)
        yield
    finally:
        for holder, name, part in replaced:
            setattr(holder, name, part)


def _replacement(part: nn.Module, number: int, share: Share) -> nn.Module | None:
    kind = type(part).__name__
    if type(part) is nn.Dropout:
        return _Drop(part.p, "cell", number, share)
    if type(part) is nn.Dropout2d:
        return _Drop(part.p, "channel", number, share)
    if kind == "StochasticDepth" and getattr(part, "mode", "") == "row":
        return _Drop(float(getattr(part, "p", 0.0)), "image", number, share)
    if type(part) is nn.BatchNorm2d and dist.is_initialized() and dist.get_world_size() > 1:
        return _summed(part, share)
    return None


def _summed(part: nn.BatchNorm2d, share: Share) -> nn.Module:
    """Return a layer that shares all arrays with `part`; torch's own where it runs."""
    on_gpu = part.weight is not None and part.weight.device.type == "cuda"
    kind: Any = nn.SyncBatchNorm if on_gpu else SummedBatchNorm
    new = kind(part.num_features, part.eps, part.momentum, part.affine, part.track_running_stats)
    for arrays in ("_parameters", "_buffers"):
        getattr(new, arrays).update(getattr(part, arrays))
    new.share = share
    made: nn.Module = new
    return made
