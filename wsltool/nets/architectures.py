"""Our own networks for class activation maps: convolutions, global average pooling, one layer.

Arrays bear torchvision's names where torchvision has the layer, so that its weights fit. Where
a source is named ``models/…prototxt`` it is that of zhoubolei/CAM.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

import torch
from torch import Tensor, nn
from torchvision import models as zoo

from wsltool.nets.weights import State

__all__ = [
    "AlexNetGap",
    "GoogleNetGap",
    "SmallGap",
    "VggCam41",
    "VggGap",
    "from_caffe_names",
    "gaussian",
    "vgg16_features",
    "without_other_head",
]

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)

_VGG16_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_ALEXNET = (
    *((96, 11, 4, 0, 1, 0.0), (256, 5, 1, 2, 2, 1.0), (384, 3, 1, 1, 1, 0.0)),
    *((384, 3, 1, 1, 2, 1.0), (384, 3, 1, 1, 2, 1.0)),
    *((512, 3, 1, 1, 2, 1.0), (512, 3, 1, 1, 2, 1.0)),
)
"""Outputs, kernel, stride, padding, groups and first bias of conv1 to conv7 of AlexNet+-CAM."""
_GOOGLENET_PARTS = (
    *("conv1", "maxpool1", "conv2", "conv3", "maxpool2", "inception3a", "inception3b"),
    *("maxpool3", "inception4a", "inception4b", "inception4c", "inception4d", "inception4e"),
)
_GOOGLENET_INPUT = ((0.229 / 0.5, -0.015 / 0.5), (0.224 / 0.5, -0.044 / 0.5), (0.225 / 0.5, -0.188))
"""Factor and offset of each colour: from ImageNet's mean and deviation to those of .5."""


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
        self.features = vgg16_features(4)
        self.cam_conv = gaussian(nn.Conv2d(512, 1024, 3, padding=1, groups=2))
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(1024, num_classes)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return class scores (num_images, num_classes)."""
        feature_NCHW = self.relu(self.cam_conv(self.features(x_NCHW)))
        scores_NK: Tensor = self.fc(self.dropout(torch.flatten(self.pool(feature_NCHW), 1)))
        return scores_NK


class AlexNetGap(nn.Module):
    """AlexNet+-CAM (Zhou et al. 2016; `models/deploy_alexnetplusCAM_imagenet.prototxt`).

    Caffe's AlexNet with two more convolutions: conv1 96 11×11 stride 4 without padding, conv2
    256, conv3 and conv4 384, **conv5 384**, conv6 and conv7 512, groups of two everywhere but
    in conv1 and conv3; pool1 and pool2 3×3 stride 2 with local response normalisation behind
    them, pool5 3×3 stride 1. 11×11 cells from 227×227 pixels; global average pooling; dropout
    0.5; one linear layer. Weights gaussian 0.01; biases 1 from conv4 on and in conv2, else 0.

    torchvision's ``alexnet`` has other widths and no groups: none of its arrays fits, and the
    names here are Caffe's.

    Parameters
    ----------
    num_classes
        Outputs of the linear layer.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        num_in = 3
        for number, (width, size, stride, padding, groups, bias) in enumerate(_ALEXNET, start=1):
            conv = nn.Conv2d(num_in, width, size, stride, padding, groups=groups)
            layers[f"conv{number}"] = gaussian(conv, bias)
            layers[f"relu{number}"] = nn.ReLU(inplace=True)
            if number in (1, 2):
                layers[f"pool{number}"] = nn.MaxPool2d(3, 2, ceil_mode=True)
                layers[f"norm{number}"] = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
            elif number == 5:
                layers["pool5"] = nn.MaxPool2d(3, 1)
            num_in = width
        self.features = nn.Sequential(layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.5)
        self.fc = gaussian(nn.Linear(num_in, num_classes))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return class scores (num_images, num_classes)."""
        pooled_NC = torch.flatten(self.pool(self.features(x_NCHW)), 1)
        scores_NK: Tensor = self.fc(self.dropout(pooled_NC))
        return scores_NK


class GoogleNetGap(nn.Module):
    """GoogLeNet-CAM (Zhou et al. 2016; `models/deploy_googlenetCAM.prototxt`).

    GoogLeNet up to inception_4e (832 channels, 14×14 cells from 224×224 pixels); ``CAM_conv``
    3×3, 1024 outputs in two groups, weights gaussian 0.01 and biases 1; ReLU; global average
    pooling; one linear layer, no dropout. The layers up to inception_4e are torchvision's
    ``googlenet`` and bear its names: batch normalisation, and 3×3 kernels where the paper of
    GoogLeNet has 5×5. As there with published weights, the three colours are rescaled first.

    Parameters
    ----------
    num_classes
        Outputs of the linear layer.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        whole = zoo.googlenet(weights=None, aux_logits=False, init_weights=False)
        for name in _GOOGLENET_PARTS:
            self.add_module(name, whole.get_submodule(name))
        self.cam_conv = gaussian(nn.Conv2d(832, 1024, 3, padding=1, groups=2), 1.0)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(1024, num_classes)
        nn.init.xavier_uniform_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return class scores (num_images, num_classes)."""
        colour = x_NCHW.new_tensor(_GOOGLENET_INPUT)[:, :, None, None]
        feature_NCHW = x_NCHW * colour[:, 0] + colour[:, 1]
        for name in _GOOGLENET_PARTS:
            feature_NCHW = self.get_submodule(name)(feature_NCHW)
        feature_NCHW = self.relu(self.cam_conv(feature_NCHW))
        scores_NK: Tensor = self.fc(torch.flatten(self.pool(feature_NCHW), 1))
        return scores_NK


class VggCam41(nn.Module):
    """The 41×41 network of SEC's foreground cues and of two-phase learning.

    VGG16 without pool4 and pool5, pools 1 to 3 2×2 stride 2 that keep an odd last row (Caffe:
    321 → 161 → 81 → 41); fc6 3×3, 1024 outputs, ReLU, dropout 0.5; fc7 3×3, 1024 outputs,
    **no ReLU**, dropout 0.5; global average pooling; one linear layer **without bias**
    (Kolesnikov & Lampert 2016, `weak-localization` of kolesman/SEC; Kim et al. 2017, §4).
    The names of ``features.*`` are torchvision's ``vgg16``, an identity stands for pool4;
    weights of the new layers gaussian 0.01.

    Parameters
    ----------
    num_classes
        Outputs of the linear layer.
    """

    def __init__(self, num_classes: int = 20) -> None:
        super().__init__()
        self.features = vgg16_features(3, ceil_mode=True)
        self.fc6 = gaussian(nn.Conv2d(512, 1024, 3, padding=1))
        self.relu6 = nn.ReLU(inplace=True)
        self.dropout6 = nn.Dropout(0.5)
        self.fc7 = gaussian(nn.Conv2d(1024, 1024, 3, padding=1))
        self.dropout7 = nn.Dropout(0.5)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = gaussian(nn.Linear(1024, num_classes, bias=False))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return class scores (num_images, num_classes)."""
        feature_NCHW = self.dropout6(self.relu6(self.fc6(self.features(x_NCHW))))
        feature_NCHW = self.dropout7(self.fc7(feature_NCHW))
        scores_NK: Tensor = self.fc(torch.flatten(self.pool(feature_NCHW), 1))
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
            layers += [_he(conv), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            num_in = width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(num_in, num_classes)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return class scores (num_images, num_classes)."""
        scores_NK: Tensor = self.fc(torch.flatten(self.pool(self.features(x_NCHW)), 1))
        return scores_NK


def vgg16_features(num_pools: int, *, ceil_mode: bool = False) -> nn.Sequential:
    """Return the convolutions of VGG16 with the first `num_pools` of its five poolings.

    Parameters
    ----------
    num_pools
        An identity stands for a pooling that is left out, nothing for the last, so the
        places are torchvision's.
    ceil_mode
        Whether a pooling keeps an odd last row and column, as in Caffe.
    """
    layers: list[nn.Module] = []
    num_in = 3
    for block, widths in enumerate(_VGG16_BLOCKS, start=1):
        for width in widths:
            layers += [_he(nn.Conv2d(num_in, width, 3, padding=1)), nn.ReLU(inplace=True)]
            num_in = width
        if block <= num_pools:
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=ceil_mode))
        elif block < len(_VGG16_BLOCKS):
            layers.append(nn.Identity())
    return nn.Sequential(*layers)


def gaussian(layer: Layer, bias: float = 0.0) -> Layer:
    """Initialise a layer as Caffe's solvers did: weights gaussian 0.01, constant bias."""
    nn.init.normal_(layer.weight, std=0.01)
    if layer.bias is not None:
        nn.init.constant_(layer.bias, bias)
    return layer


def _he(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def from_caffe_names(state: State) -> State:
    """Put weights that are named as Caffe's layers (``conv1.weight``) where `AlexNetGap` is."""
    return {f"features.{n}" if n.startswith("conv") else n: v for n, v in state.items()}


def without_other_head(state: State) -> State:
    """Keep GoogLeNet's own ``fc``, which reads inception_5b, away from `GoogleNetGap`'s."""
    if not any(name.startswith("inception5") for name in state):
        return state
    return {f"googlenet.{n}" if n.startswith("fc.") else n: v for n, v in state.items()}
