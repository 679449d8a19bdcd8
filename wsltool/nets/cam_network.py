"""A network together with its class activation maps (CAM)."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from wsltool.errors import ModelError
from wsltool.nets.closed_form import ClosedForm, captured_feature
from wsltool.nets.pooling import find_pool

__all__ = ["Activations", "CamNetwork"]


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
    ``map_k = relu(w_k · f + b_k)``, ``logit_k = mean(map_k)``.

    Parameters
    ----------
    module
        The architecture; its parameters keep their own names.
    form
        Where its features and its head are (`find_closed_form`).
    pool
        Name of the pooling head (`wsltool.nets.pooling.POOLS`).
    rectified
        Keep the ReLU between maps and mean, where the architecture has one. Networks
        trained here do without: a score that cannot be negative fits no loss.

    Raises
    ------
    ModelError
        There is no such pooling head.
    """

    def __init__(
        self, module: nn.Module, form: ClosedForm, *, pool: str = "gap", rectified: bool = True
    ) -> None:
        super().__init__()
        self.module = module
        self.form = form
        self.pool = pool
        self.rectified = form.rectified and rectified
        self._pool = find_pool(pool)

    @property
    def head(self) -> nn.Linear | nn.Conv2d:
        """The layer that holds the class weights."""
        return cast(nn.Linear | nn.Conv2d, self.module.get_submodule(self.form.head))

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
        """Whether the scores are the ones that the architecture returns by itself."""
        return self.pool == "gap" and self.rectified == self.form.rectified

    def forward(self, x_NCHW: Tensor) -> Activations:
        """Run the network.

        Parameters
        ----------
        x_NCHW
            Normalised pictures (num_images, 3, row, column) float.

        Raises
        ------
        ModelError
            The network takes pictures of one size only, and these have another.
        """
        fixed = self.form.fixed_size_px
        if fixed is not None and tuple(x_NCHW.shape[2:]) != fixed:
            rows, cols = x_NCHW.shape[2:]
            raise ModelError(
                f"the network takes {fixed[1]}x{fixed[0]} pictures only, got {cols}x{rows}. "
                "Leave --input-size and --scales as they are."
            )
        with captured_feature(self.module, self.form) as caught:
            output_NK = self.module(x_NCHW)
        feature_NCHW = caught.pop()
        if self.has_own_logits:
            return Activations(feature_NCHW, output_NK)
        return Activations(feature_NCHW, self.pooled_logits(feature_NCHW))

    def pooled_logits(self, feature_NCHW: Tensor) -> Tensor:
        """Class scores ``pool(w · f) + b`` (num_images, num_classes) from features."""
        map_NKHW = nn.functional.conv2d(feature_NCHW, self.class_weight[:, :, None, None])
        return self._pool(map_NKHW) + self.class_bias

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
