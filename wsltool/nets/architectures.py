"""Our own networks for class activation maps: convolutions, global average pooling, one layer."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

__all__ = ["SmallGap", "VggGap"]

_VGG16_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VggGap(nn.Module):
    """VGG16-CAM (Zhou et al. 2016; `models/deploy_vgg16CAM.prototxt`).

    VGG16 to conv5_3 and its ReLU with pools 1 to 4 (pool5 and fc6 to fc8 are gone), so 14×14
    cells from 224×224 pixels; ``CAM_conv`` 3×3, 1024 outputs in two groups, weights gaussian
    0.01; ReLU; global average pooling; dropout 0.5; one linear layer. The names of
    ``features.*`` are torchvision's ``vgg16``.

    Parameters
    ----------
    num_classes
        Outputs of the linear layer.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        num_in = 3
        for block, widths in enumerate(_VGG16_BLOCKS):
            if block:
                layers.append(nn.MaxPool2d(2, 2))
            for width in widths:
                layers += [nn.Conv2d(num_in, width, 3, padding=1), nn.ReLU(inplace=True)]
                num_in = width
        self.features = nn.Sequential(*layers)
        self.cam_conv = nn.Conv2d(num_in, 1024, 3, padding=1, groups=2)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(1024, num_classes)
        for conv in self.features.modules():
            if isinstance(conv, nn.Conv2d):
                _he_init(conv)
        nn.init.normal_(self.cam_conv.weight, std=0.01)
        nn.init.zeros_(cast(Tensor, self.cam_conv.bias))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return class scores (num_images, num_classes)."""
        feature_NCHW = self.relu(self.cam_conv(self.features(x_NCHW)))
        scores_NK: Tensor = self.fc(self.dropout(torch.flatten(self.pool(feature_NCHW), 1)))
        return scores_NK


class SmallGap(nn.Module):
    """A small network that learns small data from scratch on a laptop.

    Five 3×3 convolutions with batch normalisation and ReLU, output stride 8 (14×14 cells from
    112×112 pixels), global average pooling, one linear layer; 0.33 million parameters.

    Parameters
    ----------
    num_classes
        Outputs of the linear layer.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        num_in = 3
        for width, stride in ((32, 2), (64, 2), (96, 1), (128, 2), (128, 1)):
            conv = nn.Conv2d(num_in, width, 3, stride=stride, padding=1, bias=False)
            _he_init(conv)
            layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            num_in = width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(num_in, num_classes)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return class scores (num_images, num_classes)."""
        scores_NK: Tensor = self.fc(torch.flatten(self.pool(self.features(x_NCHW)), 1))
        return scores_NK


def _he_init(conv: nn.Conv2d) -> None:
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
