"""Inference conditional feedback: what earlier networks fired on is hidden from a later one.

Kim et al. 2017, sections 3.4 and 3.5 (two-phase learning).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wsltool.errors import ModelError, TrainingError
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.compute import told_in_one_line
from wsltool.nets.frozen import Network
from wsltool.nets.losses import PRESENT
from wsltool.nets.models import Model

__all__ = [
    "DEFAULT_THRESHOLDS",
    "MakeMask",
    "Suppression",
    "kept_cells",
    "prepare_suppression",
    "suppressing",
]

MakeMask = Callable[[tuple[int, int]], Tensor]
"""Takes rows and columns of a layer's output, returns its mask (num_images, 1, row, column)."""

DEFAULT_THRESHOLDS = (0.6, 0.4)
"""Of the first and of every further earlier network (Kim et al. 2017, sections 3.4, 3.5)."""


def kept_cells(map_NKHW: Tensor, present_NK: Tensor, threshold: float) -> Tensor:
    """Return the suppression mask of Kim et al. 2017, eqs. 1 and 2.

    ``M_u = prod over present classes c of [H_cu <= threshold * max_u H_cu]``. A map whose
    maximum is not positive suppresses nothing.

    Parameters
    ----------
    map_NKHW
        Class maps of the earlier network, (num_images, num_classes, row, column).
    present_NK
        Which classes count, bool.
    threshold
        Share of the maximum above which a cell is hidden, in (0, 1).

    Returns
    -------
    Tensor
        (num_images, 1, row, column) bool, True where the cell is kept.
    """
    top_NK11 = map_NKHW.amax((2, 3), keepdim=True)
    hidden_NKHW = (map_NKHW > threshold * top_NK11) & (top_NK11 > 0)
    hidden_NKHW &= present_NK[:, :, None, None]
    return ~hidden_NKHW.any(1, keepdim=True)


@dataclass
class Suppression:
    """Earlier networks, and where their masks go.

    Attributes
    ----------
    firsts, thresholds
        Earlier models and the share of the maximum of each.
    columns
        For each first, the place of every class in its output.
    layer
        Name of the module of the new network whose output is multiplied by the mask.
    is_input
        The mask goes to the input of that module instead (a head that is a convolution).
    """

    firsts: list[Model]
    thresholds: list[float]
    columns: list[Tensor]
    layer: str
    is_input: bool

    def to(self, device: torch.device) -> None:
        """Move the earlier networks."""
        for first in self.firsts:
            first.network.eval().requires_grad_(False).to(device)

    @contextmanager
    def watching(self, network: Network, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Pass what is suppressed of `network` through `change` while the block runs."""
        part = network.module.get_submodule(self.layer)
        if self.is_input:
            hook: Any = part.register_forward_pre_hook(
                lambda _part, args: (change(args[0]), *args[1:])
            )
        else:
            hook = part.register_forward_hook(lambda _part, _args, output: change(output))
        try:
            yield
        finally:
            hook.remove()

    @torch.no_grad()
    def mask(
        self,
        input_of: Callable[[Model], Tensor],
        label_NK: Tensor,
        inside_N4: Tensor | None,
        grid: tuple[int, int],
        input_px: tuple[int, int] | None = None,
    ) -> Tensor:
        """Return which cells of the layer are kept.

        Maps are brought to the layer's grid bilinearly before they are compared with their
        maximum.

        Parameters
        ----------
        input_of
            Returns what an earlier network is to see, on its device.
        label_NK
            (num_images, num_classes) uint8.
        grid
            Rows and columns of the layer's output.
        input_px
            Rows and columns of the pictures, where the networks see something else.

        Returns
        -------
        Tensor
            (num_images, 1, row, column) float32 of 0 and 1.
        """
        kept = torch.ones((len(label_NK), 1, *grid), dtype=torch.bool, device=label_NK.device)
        for first, threshold, column_K in zip(
            self.firsts, self.thresholds, self.columns, strict=True
        ):
            with told_in_one_line(f"{first.arch}, the earlier network,"):
                found: Any = first.network(input_of(first), inside_N4, input_px=input_px)
            assert isinstance(first.network, CamNetwork)
            class_NS = column_K.expand(len(label_NK), -1)
            map_NKHW = first.network.class_maps(found.feature_NCHW, class_NS)
            if tuple(map_NKHW.shape[2:]) != grid:
                map_NKHW = nn.functional.interpolate(
                    map_NKHW, grid, mode="bilinear", align_corners=False
                )
            kept &= kept_cells(map_NKHW, label_NK == PRESENT, threshold)
        return kept.float()

    def mask_of_pictures(
        self, input_NCHW: Tensor, label_NK: Tensor, inside_N4: Tensor | None, grid: tuple[int, int]
    ) -> Tensor:
        """Return `mask` of pictures (num_images, 3, row, column) uint8."""
        return self.mask(
            lambda first: first.preprocess.normalise(input_NCHW), label_NK, inside_N4, grid
        )


def prepare_suppression(
    firsts: Sequence[Model],
    thresholds: Sequence[float],
    network: Network,
    class_name: Sequence[str],
    layer: str | None,
) -> Suppression:
    """Check earlier models against the new network.

    Parameters
    ----------
    thresholds
        One for each; missing ones are .6 for the first and .4 for the others.
    class_name
        Of the new network; each must be a class of every earlier one.
    layer
        Where the mask goes; None for the features under the head.

    Raises
    ------
    TrainingError
        Classes are missing, a threshold is out of (0, 1), there is no such layer.
    """
    if not isinstance(network, CamNetwork) or not all(
        isinstance(first.network, CamNetwork) for first in firsts
    ):
        raise TrainingError(
            "--suppress: the network, or an earlier one, has no class activation maps. Use one "
            "that has, such as vgg_cam41."
        )
    if len(thresholds) > len(firsts):
        raise TrainingError(
            f"--suppress-threshold: {len(thresholds)} thresholds for {len(firsts)} networks."
        )
    defaults = [DEFAULT_THRESHOLDS[min(n, 1)] for n in range(len(firsts))]
    filled = [*thresholds, *defaults[len(thresholds) :]]
    for value in filled:
        if not 0 < value < 1:
            raise TrainingError(f"--suppress-threshold must be in (0, 1), got {value}.")
    place = layer or network.form.feature
    if place not in dict(network.module.named_modules()):
        raise TrainingError(f'--suppress-layer "{place}": the network has no such module.')
    columns = [_columns(first, class_name) for first in firsts]
    is_input = layer is None and network.form.feature == network.form.head
    return Suppression(list(firsts), filled, columns, place, is_input)


def _columns(first: Model, class_name: Sequence[str]) -> Tensor:
    known = first.class_name or []
    missing = [name for name in class_name if name not in known]
    if missing:
        raise TrainingError(
            f"--suppress: the earlier {first.arch} does not know {', '.join(missing[:3])}; it "
            f"knows {', '.join(known[:5]) or 'no class by name'}. Train it on the same classes."
        )
    return torch.tensor([known.index(name) for name in class_name])


@contextmanager
def suppressing(
    network: Network, suppression: Suppression | None, mask: MakeMask | None
) -> Iterator[None]:
    """Multiply the layer's output by the mask while the block runs, eqs. 3 and 4.

    The product is part of the graph, so gradients are multiplied too. Without a mask nothing
    happens.

    Raises
    ------
    ModelError
        The mask's grid is not that of the layer.
    """
    if suppression is None or mask is None:
        yield
        return

    def masked(value: Tensor) -> Tensor:
        grid = (int(value.shape[2]), int(value.shape[3]))
        kept_N1HW = mask(grid)
        if tuple(kept_N1HW.shape[2:]) != grid:
            raise ModelError(
                f"{suppression.layer}: gives {grid} cells, the suppression mask has "
                f"{tuple(kept_N1HW.shape[2:])}."
            )
        return value * kept_N1HW.to(value.dtype)

    with suppression.watching(network, masked):
        yield
