"""Why a network has no class activation map in closed form, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from torch import Tensor, nn

__all__ = ["Call", "refusal"]


@dataclass
class Call:
    """What one part of a network returned in one call.

    Attributes
    ----------
    name, module
        The part and where it stands.
    shape
        Of its output; empty when that is no single tensor.
    mean_NC, relu_mean_NC
        Spatial mean of a four-dimensional output, before and after a ReLU.
    input_NC, output_NK
        Of a linear layer that read one vector an image.
    """

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    mean_NC: Tensor | None = None
    relu_mean_NC: Tensor | None = None
    input_NC: Tensor | None = None
    output_NK: Tensor | None = None

    @property
    def num_cells(self) -> int:
        """Cells of a map; 0 for what is no map."""
        return prod(self.shape[2:]) if len(self.shape) == 4 else 0

    @property
    def is_leaf(self) -> bool:
        """Whether the part has no parts of its own."""
        return next(self.module.children(), None) is None

    @property
    def is_plain(self) -> bool:
        """Whether it leaves one vector an image as it is, or only pools it."""
        kind = type(self.module).__name__
        return "Pool" in kind or kind in {"Flatten", "Identity", "Permute"} or "Dropout" in kind

    def __str__(self) -> str:
        return f"{type(self.module).__name__} {self.name}"


def refusal(calls: Sequence[Call], head: int | None) -> str:
    """Say what stands between the last feature map and the scores.

    Parameters
    ----------
    calls
        In the order of time.
    head
        Place of the linear layer that gives the scores; None when there is none.
    """
    leaves = [call for call in calls if call.is_leaf]
    if head is None:
        last = leaves[-1] if leaves else None
        return (
            f"its scores are neither the output of a linear layer nor the mean of a 1x1 "
            f"convolution's maps (the last part that ran is {last or 'none'})"
        )
    before = [call for call in calls[:head] if call.is_leaf]
    places = [place for place, call in enumerate(before) if call.num_cells > 1]
    if not places:
        return "no convolutional map before the head"
    last_map = before[places[-1]]
    between = [call for call in before[places[-1] + 1 :] if not call.is_plain]
    return _between(last_map, between, calls[head])


def _between(last_map: Call, between: Sequence[Call], head: Call) -> str:
    """Put the parts between the last map and the head into words."""
    names = ", ".join(map(str, between))
    hidden = [call for call in between if isinstance(call.module, nn.Linear)]
    first = (*hidden, head)[0].module
    grid = "x".join(map(str, last_map.shape[2:]))
    if any(len(call.shape) == 3 for call in between):
        return (
            f"no convolutional map before the head: {len(between)} layers stand between the "
            f"last map ({last_map}, {grid}) and the linear head"
        )
    if isinstance(first, nn.Linear) and first.in_features == prod(last_map.shape[1:]):
        layers = ", ".join(str(call) for call in (*hidden, head))
        return f"fully connected layers ({layers}) read the flattened {grid} map, not its mean"
    if hidden:
        return f"a hidden layer ({names}) stands between the pooling and the linear head"
    if between:
        verb = "stands" if len(between) == 1 else "stand"
        return f"{names} {verb} between the pooling and the linear head"
    return f"{head} does not read the spatial mean of the last map ({last_map}, {grid})"
