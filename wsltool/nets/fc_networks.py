"""Classifiers with fully connected layers over a grid, or sliding over pictures of any size.

Oquab et al. (CVPR 2014, fig. 2) take fc8 off a network trained on ImageNet and put two layers
in its place, Fa (2048 outputs) and Fb (one a class). Bency et al. (2016, §3.2) search with that
network; Oquab et al. (CVPR 2015, §3) turn all of its fully connected layers into convolutions.
`FcNetwork` puts such layers on the features of any network that has class activation maps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from wsltool.errors import ModelError
from wsltool.nets.architectures import gaussian, vgg16_features
from wsltool.nets.closed_form import ClosedForm, captured_feature, evaluating
from wsltool.nets.skipping import draws, module_calls, put_module
from wsltool.nets.weights import State, is_auxiliary

__all__ = ["AdaptedNetwork", "Backbone", "FcNetwork", "SlidingNetwork", "to_fc", "to_sliding"]

Backbone = Literal["alexnet", "vgg16"]

_LAST: dict[Backbone, tuple[int, int]] = {"alexnet": (256, 6), "vgg16": (512, 7)}
"""Channels and rows (= columns) of what fc6 reads, from 224×224 pixels."""

_NUM_HIDDEN = 4096
_NUM_ADAPTED = 2048
_NUM_FC = 1024
_MOST_WEIGHTS = 10**9
_BACKBONE = "features.net."


class AdaptedNetwork(nn.Module):
    """AlexNet or VGG16 with fc8 replaced by two fully connected adaptation layers.

    ``M_a = relu(W_a M_7 + B_a)``, scores ``W_b M_a + B_b`` (Bency et al. 2016, §3.2, before
    their softmax), dropout 0.5 between the two (Oquab et al. 2014). The names of
    ``features.*`` and ``classifier.*`` are torchvision's; weights of ``fa`` and ``fb``
    gaussian 0.01.

    Parameters
    ----------
    backbone
        ``alexnet`` (6×6 cells of 256 channels) or ``vgg16`` (7×7 of 512); torchvision's.
    num_classes
        Outputs of Fb.

    """

    def __init__(self, backbone: Backbone, num_classes: int = 20) -> None:
        super().__init__()
        num_channels, size = _LAST[backbone]
        self.features = _features(backbone)
        self.classifier = _classifier(
            backbone,
            nn.Linear(num_channels * size * size, _NUM_HIDDEN),
            nn.Linear(_NUM_HIDDEN, _NUM_HIDDEN),
        )
        self.fa = gaussian(nn.Linear(_NUM_HIDDEN, _NUM_ADAPTED))
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.5)
        self.fb = gaussian(nn.Linear(_NUM_ADAPTED, num_classes))

    def head_logits(self, feature_NCHW: Tensor) -> Tensor:
        """Return class scores (num_images, num_classes) of features on the fixed grid."""
        adapted_NC = self.fa(self.classifier(torch.flatten(feature_NCHW, 1)))
        scores_NK: Tensor = self.fb(self.dropout(self.relu(adapted_NC)))
        return scores_NK

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return class scores (num_images, num_classes)."""
        return self.head_logits(self.features(x_NCHW))


class SlidingNetwork(nn.Module):
    """The same network sliding over a picture (Oquab et al. 2015, §3).

    FC6, FC7 and the adaptation layers are convolutions, so each cell of the maps is the score
    of one 224×224 window, 32 pixels from its neighbours: 58×26 cells from 2048×1024 pixels,
    one cell from 224×224. Its own score is the mean over cells; the paper's is the maximum
    (pooling head ``gmp``). ``classifier.*`` bears torchvision's names, see `to_sliding`;
    weights of ``ca`` and ``cb`` gaussian 0.01.

    Parameters
    ----------
    backbone
        ``alexnet`` or ``vgg16``; torchvision's.
    num_classes
        Outputs of Cb.
    """

    def __init__(self, backbone: Backbone, num_classes: int = 20) -> None:
        super().__init__()
        num_channels, size = _LAST[backbone]
        self.features = _features(backbone)
        self.classifier = _classifier(
            backbone,
            nn.Conv2d(num_channels, _NUM_HIDDEN, size),
            nn.Conv2d(_NUM_HIDDEN, _NUM_HIDDEN, 1),
        )
        self.ca = gaussian(nn.Conv2d(_NUM_HIDDEN, _NUM_ADAPTED, 1))
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.5)
        self.cb = gaussian(nn.Conv2d(_NUM_ADAPTED, num_classes, 1))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return class scores (num_images, num_classes), the mean over all cells."""
        adapted_NCHW = self.relu(self.ca(self.classifier(self.features(x_NCHW))))
        map_NKHW: Tensor = self.cb(self.dropout(adapted_NCHW))
        return map_NKHW.mean((2, 3))


class FcNetwork(nn.Module):
    """The features of a network with class activation maps, under fully connected layers.

    ``h = relu(W_h d(f) + b_h)`` on the whole flattened grid f, scores ``W d(h) + b``, with d
    dropout 0.5 and 1024 numbers in h: AlexNet's head made small. Weights of ``hidden`` gaussian
    with variance 2 / inputs (He et al. 2015), of ``head`` gaussian 0.01; ``features.net`` is the
    other network without its head.

    Parameters
    ----------
    net
        The other network; its head, and dropout before its head, are taken away.
    form
        Where its features and its head are (`find_closed_form`).
    size_px
        Rows and columns of the input; they decide the grid.
    num_classes
        Outputs of the last layer.

    Raises
    ------
    ModelError
        The layer on the grid would hold more than 10⁹ weights.
    """

    def __init__(
        self, net: nn.Module, form: ClosedForm, size_px: int, num_classes: int = 20
    ) -> None:
        super().__init__()
        shape = _without_head(net, form, size_px)
        num_in = shape.numel()
        if num_in * _NUM_FC > _MOST_WEIGHTS:
            channels, rows, cols = shape
            raise ModelError(
                f"a fully connected layer on {cols}x{rows} cells of {channels} channels would "
                f"hold {num_in * _NUM_FC / 1e9:.1f} G numbers, at most 1 G are built. Pass a "
                "smaller --input-size, or take a network with a coarser grid."
            )
        self.features = Features(net, form)
        self.dropout = nn.Dropout(0.5)
        self.hidden = nn.Linear(num_in, _NUM_FC)
        nn.init.kaiming_normal_(self.hidden.weight, nonlinearity="relu")
        nn.init.zeros_(self.hidden.bias)
        self.relu = nn.ReLU(inplace=True)
        self.dropout_hidden = nn.Dropout(0.5)
        self.head = gaussian(nn.Linear(_NUM_FC, num_classes))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return class scores (num_images, num_classes)."""
        feature_NC = torch.flatten(self.features(x_NCHW), 1)
        hidden_NC = self.relu(self.hidden(self.dropout(feature_NC)))
        scores_NK: Tensor = self.head(self.dropout_hidden(hidden_NC))
        return scores_NK


class Features(nn.Module):
    """A network that returns its features instead of its scores."""

    def __init__(self, net: nn.Module, form: ClosedForm) -> None:
        super().__init__()
        self.net = net
        self.form = form

    def forward(self, x_NCHW: Tensor) -> Tensor:
        with captured_feature(self.net, self.form) as caught:
            self.net(x_NCHW)
        return caught.pop()


class _NoHead(nn.Module):
    """Returns a copy, so that nothing behind it changes the features."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


@torch.no_grad()
def _without_head(net: nn.Module, form: ClosedForm, size_px: int) -> torch.Size:
    """Take away a network's head and the dropout before it; return the features' shape."""
    x_NCHW = torch.zeros((1, 3, size_px, size_px)).to(next(net.parameters()))
    with evaluating(net), captured_feature(net, form) as caught:
        calls = module_calls(net, lambda: net(x_NCHW))
    learnt = [c.end for c in calls if c.name != form.head and _has_arrays(c.module)]
    for call in calls:
        if call.name and draws(call.module) and call.start > max(learnt, default=-1):
            put_module(net, call.name, nn.Identity())
    put_module(net, form.head, _NoHead())
    return caught[0].shape[1:]


def _has_arrays(part: nn.Module) -> bool:
    arrays = (*part.parameters(recurse=False), *part.buffers(recurse=False))
    return bool(arrays)


def to_fc(state: State, adapt: Callable[[State], State] | None = None) -> State:
    """Put the arrays of a network where `FcNetwork` has them; its own are left.

    Parameters
    ----------
    adapt
        What the network's own architecture does with weights of others.
    """
    if any(name.startswith(_BACKBONE) for name in state):
        return state
    own = state if adapt is None else adapt(state)
    return {f"{_BACKBONE}{n}": v for n, v in own.items() if not is_auxiliary(n)}


def to_sliding(state: State, backbone: Backbone) -> State:
    """Give the fully connected layers of torchvision or `AdaptedNetwork` a convolution's shape.

    A fully connected layer is a convolution with a kernel of its input's size (Oquab et al.
    2015, §3). ``fa`` and ``fb`` become ``ca`` and ``cb``; what has its shape already is left.
    """
    num_channels, size = _LAST[backbone]
    adapted: State = {}
    for name, value in state.items():
        layer, _, kind = name.rpartition(".")
        layer = {"fa": "ca", "fb": "cb"}.get(layer, layer)
        if kind == "weight" and value.ndim == 2:
            reads_grid = value.shape[1] == num_channels * size * size
            kernel = (num_channels, size, size) if reads_grid else (value.shape[1], 1, 1)
            value = value.reshape(value.shape[0], *kernel)
        adapted[f"{layer}.{kind}"] = value
    return adapted


def _features(backbone: Backbone) -> nn.Sequential:
    if backbone == "vgg16":
        return vgg16_features(5)
    relu, pool = partial(nn.ReLU, inplace=True), partial(nn.MaxPool2d, 3, 2)
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), relu(), pool()),
        *(nn.Conv2d(64, 192, 5, padding=2), relu(), pool()),
        *(nn.Conv2d(192, 384, 3, padding=1), relu()),
        *(nn.Conv2d(384, 256, 3, padding=1), relu()),
        *(nn.Conv2d(256, 256, 3, padding=1), relu(), pool()),
    )


def _classifier(backbone: Backbone, fc6: nn.Module, fc7: nn.Module) -> nn.Sequential:
    """Put fc6 and fc7 at torchvision's places: dropout before them, or behind their ReLU."""
    if backbone == "alexnet":
        return nn.Sequential(
            *(nn.Dropout(0.5), fc6, nn.ReLU(inplace=True)),
            *(nn.Dropout(0.5), fc7, nn.ReLU(inplace=True)),
        )
    return nn.Sequential(
        *(fc6, nn.ReLU(inplace=True), nn.Dropout(0.5)),
        *(fc7, nn.ReLU(inplace=True), nn.Dropout(0.5)),
    )
