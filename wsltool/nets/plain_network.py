"""A classifier with fully connected layers, which has no class activation maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from torch import Tensor, nn

from wsltool.errors import ModelError
from wsltool.nets.cam_network import Activations
from wsltool.nets.skipping import skipping
from wsltool.nets.split import Split

__all__ = ["PlainNetwork"]


class PlainNetwork(nn.Module):
    """A classifier to be trained and searched with; it bears the attributes of `CamNetwork`.

    Parameters
    ----------
    module
        The architecture; its parameters keep their own names.
    split
        Where its features end and its head begins (`find_split`).

    Attributes
    ----------
    pool, rectified, count_padding, window
        ``none``, false, false and None: there are no maps to pool.
    """

    def __init__(self, module: nn.Module, split: Split) -> None:
        super().__init__()
        self.module = module
        self.split = split
        self.pool: Literal["none"] = "none"
        self.rectified = False
        self.count_padding = False
        self.window = None

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the features, L × L in Bency et al. (2016)."""
        return self.split.grid

    @property
    def head_name(self) -> str:
        """Name of the last layer."""
        return self.split.head

    @property
    def head(self) -> nn.Linear:
        """The last layer."""
        return cast(nn.Linear, self.module.get_submodule(self.head_name))

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self.head.weight.shape[0])

    @property
    def num_channels(self) -> int:
        """Number of channels of the features."""
        return self.split.num_channels

    def forward(
        self,
        x_NCHW: Tensor,
        inside_N4: Tensor | None = None,
        *,
        input_px: tuple[int, int] | None = None,
    ) -> Activations:
        """Run the network.

        Parameters
        ----------
        x_NCHW
            Normalised pictures (num_images, 3, row, column) float.
        inside_N4
            Not used: a fully connected layer reads padding as it reads all else.
        input_px
            Rows and columns of the picture where `x_NCHW` is something else (what a frozen part
            gave, kept); for the message alone.

        Returns
        -------
        Activations
            The features that the fully connected layers read, (num_images, channel, *grid),
            and the scores.

        Raises
        ------
        ModelError
            The pictures have another size than the network is made for.
        """
        caught = [x_NCHW]

        def keep(_part: nn.Module, _args: Any, output: Tensor) -> None:
            self._check(output, input_px or x_NCHW.shape[2:])
            caught[:] = [output.clone()]

        hook = self.module.get_submodule(self.split.feature).register_forward_hook(keep)
        try:
            logit_NK = self.module(x_NCHW)
        finally:
            hook.remove()
        return Activations(caught[0], logit_NK)

    def _check(self, feature: Tensor, input_px: Sequence[int]) -> None:
        """Refuse another grid; what was kept behind the features is no grid."""
        if feature.ndim == 4 and feature.shape[2:] != self.grid:
            size_px, (rows, cols) = self.split.size_px, input_px
            raise ModelError(
                f"the network's fully connected layers read {self.grid[1]}x{self.grid[0]} cells "
                f"of a {size_px}x{size_px} picture, got {cols}x{rows} pixels. Leave --input-size "
                "and --scales as they are."
            )

    def head_logits(self, feature_NCHW: Tensor) -> Tensor:
        """Return class scores (num_images, num_classes) of features (num_images, channel, *grid).

        Raises
        ------
        ModelError
            The features have another grid.
        """
        if feature_NCHW.shape[2:] != self.grid:
            rows, cols = feature_NCHW.shape[2:]
            raise ModelError(
                f"features must have {self.grid[1]}x{self.grid[0]} cells, got {cols}x{rows}."
            )
        with skipping(self.module, self.split.skipped):
            logit_NK: Tensor = self.module(feature_NCHW)
        return logit_NK

    @property
    def reader(self) -> nn.Linear | None:
        """The layer that reads the flattened features, where the rest can be run without it."""
        name = self.split.reader
        return cast(nn.Linear, self.module.get_submodule(name)) if name else None

    def logits_behind_reader(self, read_NC: Tensor) -> Tensor:
        """Return class scores (num_images, num_classes) of what `reader` returns."""
        with skipping(self.module, self.split.read):
            logit_NK: Tensor = self.module(read_NC)
        return logit_NK
