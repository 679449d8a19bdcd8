"""Networks whose features and head are known, and pictures on which their scores differ well."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import nn

from wsltool.nets.fc_networks import AdaptedNetwork

SIZE_PX = 24
PLAIN = {"size": SIZE_PX, "mean": [0.5] * 3, "std": [0.25] * 3}
LARGE = {"size": 224, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


class Small(nn.Module):
    """One convolution, the mean of each cell, two fully connected layers."""

    def __init__(self, rows, cols, num_classes=3, num_channels=5):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, num_channels, 3, padding=1),
            nn.ReLU(),
            nn.AvgPool2d((SIZE_PX // rows, SIZE_PX // cols)),
        )
        self.classifier = nn.Sequential(
            nn.Linear(num_channels * rows * cols, 8), nn.ReLU(), nn.Linear(8, num_classes)
        )

    def forward(self, x_NCHW):
        return self.classifier(torch.flatten(self.features(x_NCHW), 1))


def blobs(width, height, seed=0):
    """A picture of a few soft spots with some noise, (row, column, 3) uint8."""
    rng = np.random.default_rng(seed)
    spots = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
    smooth_HWC = np.asarray(spots.resize((width, height), Image.Resampling.BICUBIC), float)
    noisy_HWC = smooth_HWC + rng.normal(0, 20, smooth_HWC.shape)
    return np.clip(np.rint(noisy_HWC), 0, 255).astype(np.uint8)


def features_of(module):
    """The features that the head of `module` reads."""
    return module.features


def head_of(module):
    """From features on the grid to logits; what lies between and changes nothing is left out."""
    if isinstance(module, AdaptedNetwork):
        return module.head_logits
    return lambda feature_NCHW: module.classifier(torch.flatten(feature_NCHW, 1))


@torch.no_grad()
def spread(module, last, size_px, deviation=1.0):
    """Shift and scale the last layer until its scores of sub-grids have mean 0 and a deviation.

    Random weights give nearly the same scores wherever one looks, so that a search would hang on
    rounding. What is scaled up too far hangs on it as well.
    """
    feature, head = features_of(module), head_of(module)
    logits = []
    for seed in range(2):
        picture = torch.from_numpy(blobs(size_px, size_px, seed + 100).transpose(2, 0, 1))
        whole = feature((picture[None] / 255 - 0.5) / 0.25)
        rows, cols = whole.shape[2:]
        parts = [
            whole[:, :, y0 : y0 + (rows + 1) // 2, x0 : x0 + (cols + 1) // 2]
            for y0 in range(rows // 2 + 1)
            for x0 in range(cols // 2 + 1)
        ]
        logits += [head(nn.functional.interpolate(p, (rows, cols), mode="bilinear")) for p in parts]
    logit_NK = torch.cat(logits)
    factor_K = deviation / logit_NK.std(0)
    last.bias.copy_((last.bias - logit_NK.mean(0)) * factor_K)
    last.weight.mul_(factor_K[:, None])
    return module.eval()


def _seeded(build, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def small(rows, cols, num_classes=3, seed=0):
    module = _seeded(lambda: Small(rows, cols, num_classes), seed).eval()
    return spread(module, module.classifier[-1], SIZE_PX)


def _relu_gains(build):
    """He's initial weights: what a picture shows is not lost on the way to the head."""
    with torch.device("meta"):  # whatever it fills itself with takes seconds
        module = build()
    module.to_empty(device="cpu")
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return module.eval()


def alexnet(num_classes=3):
    build = partial(torchvision.models.alexnet, num_classes=num_classes)
    module = _seeded(lambda: _relu_gains(build))
    return spread(module, module.classifier[-1], 224)


def vgg16(num_classes=3):
    build = partial(torchvision.models.vgg16, num_classes=num_classes, init_weights=False)
    module = _seeded(lambda: _relu_gains(build))
    return spread(module, module.classifier[-1], 224, 0.3)


def adapted(backbone, num_classes=3):
    module = _seeded(lambda: _relu_gains(partial(AdaptedNetwork, backbone, num_classes)))
    return spread(module, module.fb, 224)


def small_six():
    return small(6, 6), PLAIN, ["red", "green", "blue"]


def small_one():
    return small(1, 1), PLAIN


def small_wide():
    return small(2, 6), PLAIN


def small_high():
    return small(8, 3), PLAIN


def small_four_classes():
    return small(4, 4, 4), PLAIN


def alexnet_random():
    return alexnet(), LARGE


def vgg16_random():
    return vgg16(), LARGE


class Even(nn.Module):
    """Mean red, mean green, and nothing, over 64; whole numbers over powers of two throughout.

    Nothing is rounded before the probability, in whichever order one adds.
    """

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Identity(), nn.AvgPool2d(2))
        self.classifier = nn.Sequential(nn.Linear(3 * 4 * 4, 3))
        with torch.no_grad():
            self.classifier[0].weight.zero_()
            self.classifier[0].weight[0, :16] = 1 / 1024
            self.classifier[0].weight[1, 16:32] = 1 / 1024
            self.classifier[0].bias.zero_()

    def forward(self, x_NCHW):
        return self.classifier(torch.flatten(self.features(x_NCHW), 1))


EVEN = {"size": 8, "mean": [0.0] * 3, "std": [1 / 255] * 3}
"""The input has the picture's own numbers, 0 to 255."""


def even():
    return Even(), EVEN


def small_row():
    return small(1, 4), PLAIN


def small_twenty():
    return small(4, 4, 20), PLAIN


def alexnet_adapted_random():
    return adapted("alexnet"), LARGE


class SmallGap(nn.Module):
    """The mean over a grid of 6 x 6, and one linear layer."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4))
        self.head = nn.Linear(5, 3)

    def classifier(self, flat_NF):
        return self.head(flat_NF.unflatten(1, (5, -1)).mean(2))

    def forward(self, x_NCHW):
        return self.head(self.features(x_NCHW).mean((2, 3)))


def small_gap():
    module = _seeded(SmallGap).eval()
    return spread(module, module.head, SIZE_PX), PLAIN
