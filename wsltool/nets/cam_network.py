"""A network together with its class activation maps (CAM)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from wsltool.errors import ModelError
from wsltool.nets.closed_form import ClosedForm, captured_feature
from wsltool.nets.pooling import canonical_pool, find_pool
from wsltool.nets.window import Window

__all__ = ["Activations", "CamNetwork"]

_EDGE_FRAC = 1e-5
"""Centres nearer than this, as a share of the frame, to an edge lie on it."""


class Activations(NamedTuple):
    """What one pass through a network gives.

    Attributes
    ----------
    feature_NCHW
        The features under the head.
    logit_NK
        The class scores.
    """

    feature_NCHW: Tensor
    logit_NK: Tensor


class CamNetwork(nn.Module):
    """A classifier whose maps are a weighted sum of its features.

    ``map_k = w_k · f`` without bias, ``logit_k = pool(map_k) + b_k`` (Zhou et al. 2016,
    eq. 2). A rectified network (SqueezeNet) keeps its bias and ReLU inside:
    ``map_k = relu(w_k · f + b_k)``, ``logit_k = pool(map_k)``.

    Parameters
    ----------
    module
        The architecture; its parameters keep their own names.
    form
        Where its features and its head are (`find_closed_form`).
    pool
        The pooling head (`wsltool.nets.pooling.find_pool`); kept with its parameter filled in.
    rectified
        Keep the ReLU between maps and pooling, where the architecture has one. Networks
        trained here do without: a score that cannot be negative fits no loss.
    count_padding
        Whether cells in the padding of a picture take part in pooling (Oquab et al. 2015).
    window
        The window of a sliding-window network; None where the cells cover the whole input.

    Raises
    ------
    ModelError
        There is no such pooling head.
    """

    def __init__(
        self,
        module: nn.Module,
        form: ClosedForm,
        *,
        pool: str = "gap",
        rectified: bool = True,
        count_padding: bool = False,
        window: Window | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self.form = form
        self.pool = canonical_pool(pool)
        self.rectified = form.rectified and rectified
        self.count_padding = count_padding
        self.window = window
        self._pool = find_pool(pool)

    @property
    def head_name(self) -> str:
        """Name of the layer that holds the class weights."""
        return self.form.head

    @property
    def head(self) -> nn.Linear | nn.Conv2d:
        """The layer that holds the class weights."""
        return cast(nn.Linear | nn.Conv2d, self.module.get_submodule(self.head_name))

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self.head.weight.shape[0])

    @property
    def num_channels(self) -> int:
        """Number of channels of the features."""
        return int(self.head.weight.shape[1])

    @property
    def class_weight(self) -> Tensor:
        """Class weights (num_classes, num_channels)."""
        return self.head.weight.flatten(1)

    @property
    def class_bias(self) -> Tensor:
        """Class biases (num_classes,); zeros where the head has none."""
        bias = self.head.bias
        return self.class_weight.new_zeros(self.num_classes) if bias is None else bias

    @property
    def has_own_logits(self) -> bool:
        """Whether the architecture returns the scores by itself, where nothing is padded."""
        return self.pool == "gap" and self.rectified == self.form.rectified

    def forward(
        self,
        x_NCHW: Tensor,
        inside_N4: Tensor | None = None,
        *,
        input_px: tuple[int, int] | None = None,
    ) -> Activations:
        """Run the network.

        In training, dropout between pooling and head drops the same channels under every
        pooling head: ``pool(w · (d f)) + b`` with d the factors of the channels.

        Parameters
        ----------
        x_NCHW
            Normalised pictures (num_images, 3, row, column) float.
        inside_N4
            (num_images, 4) float32, see `valid_cells`; None where nothing is padded.
        input_px
            Rows and columns of the pictures, where `x_NCHW` is what a frozen part gave of
            them (`wsltool.nets.frozen`).

        Raises
        ------
        ModelError
            The network takes pictures of one size only, and these have another.
        """
        fixed = self.form.fixed_size_px
        if input_px is None:
            input_px = (x_NCHW.shape[2], x_NCHW.shape[3])
        if fixed is not None and input_px != fixed:
            raise ModelError(
                f"the network takes {fixed[1]}x{fixed[0]} pictures only, got "
                f"{input_px[1]}x{input_px[0]}. Leave --input-size and --scales as they are."
            )
        with captured_feature(self.module, self.form) as caught, self._dropouts(caught) as dropouts:
            output_NK = self.module(x_NCHW)
        feature_NCHW = caught.pop()
        grid = (feature_NCHW.shape[2], feature_NCHW.shape[3])
        valid_N1HW = self.valid_cells(inside_N4, grid, input_px)
        if valid_N1HW is None and self.has_own_logits:
            return Activations(feature_NCHW, output_NK)
        kept_NCHW = feature_NCHW
        for part, shape in dropouts:
            factor_NC11 = part(feature_NCHW.new_ones(shape)).reshape(*feature_NCHW.shape[:2], 1, 1)
            kept_NCHW = kept_NCHW * factor_NC11
        return Activations(feature_NCHW, self._pooled(kept_NCHW, valid_N1HW))

    @contextmanager
    def _dropouts(self, caught: list[Tensor]) -> Iterator[list[tuple[nn.Module, torch.Size]]]:
        """Note, in training, what runs on the pooled features without arrays of its own."""
        noted: list[tuple[nn.Module, torch.Size]] = []
        hooks = []

        def note(part: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if caught and isinstance(output, Tensor) and args[0].shape == output.shape:
                num_pooled = caught[0].shape[0] * caught[0].shape[1]
                if part.training and output.numel() == num_pooled:
                    noted.append((part, output.shape))

        if self.module.training and self.form.feature != self.form.head:
            bare = [part for part in self.module.modules() if not _has_arrays_or_parts(part)]
            hooks = [part.register_forward_hook(note) for part in bare]
        try:
            yield noted
        finally:
            for hook in hooks:
                hook.remove()

    def pooled_logits(
        self,
        feature_NCHW: Tensor,
        inside_N4: Tensor | None = None,
        *,
        input_px: tuple[int, int] | None = None,
    ) -> Tensor:
        """Return class scores ``pool(w · f) + b`` (num_images, num_classes) from features.

        Parameters
        ----------
        feature_NCHW
            As `forward` returned them.
        inside_N4
            (num_images, 4) float32, see `valid_cells`; None where nothing is padded.
        input_px
            Rows and columns of the input. Needed where the network has a window and
            something is padded.

        Raises
        ------
        ModelError
            `input_px` is needed and missing.
        """
        grid = (feature_NCHW.shape[2], feature_NCHW.shape[3])
        return self._pooled(feature_NCHW, self.valid_cells(inside_N4, grid, input_px))

    def head_logits(self, feature_NCHW: Tensor) -> Tensor:
        """Return class scores (num_images, num_classes) of features on any grid, all cells pooled.

        What `wsltool.nets.plain_network.PlainNetwork` gives of a grid of one size.
        """
        return self.pooled_logits(feature_NCHW)

    def _pooled(self, feature_NCHW: Tensor, valid_N1HW: Tensor | None) -> Tensor:
        map_NKHW = nn.functional.conv2d(feature_NCHW, self.class_weight[:, :, None, None])
        if valid_N1HW is not None:
            valid_N1HW = valid_N1HW.to(map_NKHW.device)
        if self.rectified:
            return self._pool((map_NKHW + self.class_bias[:, None, None]).relu(), valid_N1HW)
        return self._pool(map_NKHW, valid_N1HW) + self.class_bias

    def covered(
        self, grid: tuple[int, int], input_px: tuple[int, int] | None
    ) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return which part of the input the maps cover, as fractions, rows then columns.

        Parameters
        ----------
        grid
            Rows and columns of the maps.
        input_px
            Rows and columns of the input; may be None where the network has no window.

        Raises
        ------
        ModelError
            `input_px` is needed and missing.
        """
        if self.window is None:
            return (0.0, 1.0), (0.0, 1.0)
        if input_px is None:
            raise ModelError("the cells of a sliding-window network need input_px, got None.")
        return (
            self.window.covered(grid[0], input_px[0]),
            self.window.covered(grid[1], input_px[1]),
        )

    def valid_cells(
        self,
        inside_N4: Tensor | None,
        grid: tuple[int, int],
        input_px: tuple[int, int] | None = None,
    ) -> Tensor | None:
        """Return which cells take part in pooling.

        Those whose centre shows the picture, its edge included; where an axis has none, those
        nearest to the middle of what shows the picture on that axis.

        Parameters
        ----------
        inside_N4
            (num_images, 4) float32, best on the CPU: ``x0 y0 x1 y1``, the part of each frame
            that shows the picture, as fractions of the frame's width and height.
        grid
            Rows and columns of the maps.
        input_px
            Rows and columns of the input, for a network with a window.

        Returns
        -------
        Tensor or None
            (num_images, 1, row, column) bool where `inside_N4` is; None if all cells count.
        """
        if inside_N4 is None or self.count_padding:
            return None
        if bool((inside_N4 == inside_N4.new_tensor([0.0, 0.0, 1.0, 1.0])).all()):
            return None
        covered_rows, covered_cols = self.covered(grid, input_px)
        row_NH = _centred_inside(inside_N4[:, 1::2], grid[0], covered_rows)
        col_NW = _centred_inside(inside_N4[:, ::2], grid[1], covered_cols)
        valid_N1HW = (row_NH[:, :, None] & col_NW[:, None, :])[:, None]
        return None if bool(valid_N1HW.all()) else valid_N1HW

    def class_maps(self, feature_NCHW: Tensor, class_NS: Tensor) -> Tensor:
        """Return the maps of chosen classes, raw and at the features' resolution.

        Parameters
        ----------
        feature_NCHW
            As `forward` returned them.
        class_NS
            (num_images, num_slots) int64 on the CPU, −1 for an empty slot.

        Returns
        -------
        Tensor
            (num_images, num_slots, row, column) float32; an empty slot holds zeros.

        Raises
        ------
        ModelError
            A class is not in −1 … num_classes − 1.
        """
        num_images, num_slots = class_NS.shape
        if class_NS.numel() and not -1 <= int(class_NS.min()) <= int(class_NS.max()) < (
            self.num_classes
        ):
            low, high = int(class_NS.min()), int(class_NS.max())
            raise ModelError(
                f"classes must be in -1 ... {self.num_classes - 1}, got {low} ... {high}."
            )
        device = feature_NCHW.device
        feature_NCP = feature_NCHW.float().flatten(2)
        used_NS = class_NS.clamp(min=0).to(device)
        with torch.autocast(device.type, enabled=False):
            if num_images > 1 and bool((class_NS == class_NS[:1]).all()):  # one set for all
                map_NSP = self.class_weight.float()[used_NS[0]] @ feature_NCP
            else:
                map_NSP = self.class_weight.float()[used_NS] @ feature_NCP
            if self.rectified:
                map_NSP = (map_NSP + self.class_bias.float()[used_NS][:, :, None]).relu()
        map_NSP = map_NSP.masked_fill((class_NS < 0).to(device)[:, :, None], 0.0)
        return map_NSP.reshape(num_images, num_slots, *feature_NCHW.shape[2:])


def _has_arrays_or_parts(part: nn.Module) -> bool:
    held = (part.children(), part.parameters(), part.buffers())
    return any(True for things in held for _ in things)


def _centred_inside(inside_N2: Tensor, num_cells: int, covered: tuple[float, float]) -> Tensor:
    """Return the cells of one axis whose centre is inside, else the nearest (N, cell) bool."""
    start, end = covered
    step = (end - start) / num_cells
    centre_P = start + step * (torch.arange(num_cells, device=inside_N2.device) + 0.5)
    low_N1, high_N1 = inside_N2[:, :1], inside_N2[:, 1:]
    inside_NP = (centre_P >= low_N1 - _EDGE_FRAC) & (centre_P <= high_N1 + _EDGE_FRAC)
    away_NP = (centre_P - (low_N1 + high_N1) / 2).abs()
    nearest_NP = away_NP <= away_NP.amin(1, keepdim=True) + _EDGE_FRAC
    return torch.where(inside_NP.any(1, keepdim=True), inside_NP, nearest_NP)
