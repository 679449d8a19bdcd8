"""A classifier with fully connected layers, which has no class activation maps."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from wsltool.errors import ModelError
from wsltool.nets.cam_network import Activations
from wsltool.nets.fc_networks import AdaptedNetwork

__all__ = ["PlainNetwork"]


class PlainNetwork(nn.Module):
    """A classifier to be trained and searched with; it bears the attributes of `CamNetwork`.

    Parameters
    ----------
    module
        The architecture; its parameters keep their own names.

    Attributes
    ----------
    pool, rectified, count_padding, window
        ``none``, false, false and None: there are no maps to pool.
    head_name
        Name of the last layer.
    grid
        Rows and columns of the features, L × L in Bency et al. (2016).
    """

    head_name = "fb"

    def __init__(self, module: AdaptedNetwork) -> None:
        super().__init__()
        self.module = module
        self.pool: Literal["none"] = "none"
        self.rectified = False
        self.count_padding = False
        self.window = None

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the features."""
        return self.module.grid

    @property
    def head(self) -> nn.Linear:
        """The last layer."""
        return self.module.fb

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self.head.weight.shape[0])

    @property
    def num_channels(self) -> int:
        """Number of channels of the features."""
        return self.module.num_channels

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
        feature_NCHW = self.module.features(x_NCHW)
        if feature_NCHW.ndim == 4 and feature_NCHW.shape[2:] != self.grid:
            rows, cols = input_px or x_NCHW.shape[2:]
            raise ModelError(
                f"the network's fully connected layers read {self.grid[1]}x{self.grid[0]} cells "
                f"of a 224x224 picture, got {cols}x{rows} pixels. Leave --input-size and --scales "
                "as they are."
            )
        return Activations(feature_NCHW, self.module.head_logits(feature_NCHW))

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
        return self.module.head_logits(feature_NCHW)
