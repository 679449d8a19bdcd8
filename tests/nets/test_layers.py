"""Layers by name: which are listed, what names mean, what is refused and why."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models as zoo

from wsltool.errors import ModelError
from wsltool.nets.architectures import SmallGap, VggCam41, VggGap
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.closed_form import find_closed_form
from wsltool.nets.fc_networks import AdaptedNetwork
from wsltool.nets.layers import Layer, captured_layer, find_layer, list_layers
from wsltool.nets.models import Model
from wsltool.nets.output_stride import set_output_stride
from wsltool.nets.plain_network import PlainNetwork
from wsltool.nets.preprocess import Preprocess
from wsltool.nets.split import find_split


def built(module: nn.Module, size_px: int = 64) -> Model:
    torch.manual_seed(0)
    network = (
        PlainNetwork(module, find_split(module, "own", size_px))
        if isinstance(module, AdaptedNetwork)
        else CamNetwork(module, find_closed_form(module, "own"))
    )
    return Model(network.eval(), "own", None, None, Preprocess(size_px), "softmax", "")


def small_densenet() -> nn.Module:
    return zoo.DenseNet(4, (1, 1), 8, 2, num_classes=3)


def caught(model: Model, layer: Layer, x_NCHW: Tensor) -> Tensor:
    with torch.inference_mode(), captured_layer(model.network, layer) as values:
        model.network(x_NCHW)
    assert len(values) == 1
    return values[0]


class Odd(nn.Module):
    """A network of parts that give all sorts of things."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.pair = Pair()
        self.relu = nn.ReLU()
        self.flat = nn.Flatten(2)
        self.where = Where()
        self.unused = nn.Conv2d(4, 4, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4, 2)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        feature_NCHW = self.relu(self.pair(self.conv(x_NCHW))[0])
        self.flat(feature_NCHW)
        self.where(feature_NCHW)
        feature_NCHW = self.relu(feature_NCHW - 0.1)
        scores: Tensor = self.head(self.pool(feature_NCHW).flatten(1))
        return scores


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Where(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(1)


@pytest.fixture(scope="module")
def odd() -> Model:
    return built(Odd())


@pytest.fixture(scope="module")
def vgg() -> Model:
    return built(VggGap(3), 32)


def test_every_layer_of_a_small_network() -> None:
    found = list_layers(built(SmallGap(3)))
    assert [(layer.name, layer.kind, layer.num_channels, layer.grid) for layer in found[:5]] == [
        ("features.0", "Conv2d", 32, (32, 32)),
        ("features.1", "BatchNorm2d", 32, (32, 32)),
        ("features.2", "ReLU", 32, (32, 32)),
        ("features.3", "Conv2d", 64, (16, 16)),
        ("features.4", "BatchNorm2d", 64, (16, 16)),
    ]
    assert [layer.name for layer in found[-3:]] == ["features.14", "features", "pool"]
    assert [layer.nonnegative for layer in found[:3]] == [False, False, True]
    assert [layer.name for layer in found if layer.is_default] == ["features"]
    assert (found[-1].grid, found[-1].num_channels) == ((1, 1), 128)


def test_each_listed_layer_is_found_as_listed(odd: Model) -> None:
    for model in (odd, built(SmallGap(3))):
        for layer in list_layers(model):
            assert find_layer(model, layer.name) == layer


def test_only_maps_of_features_are_listed(odd: Model) -> None:
    assert [layer.name for layer in list_layers(odd)] == ["conv", "relu", "pool"]


def test_nothing_is_left_behind(odd: Model) -> None:
    odd.network.train()
    state = torch.random.get_rng_state()
    list_layers(odd)
    find_layer(odd, "conv")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert odd.network.training
    odd.network.eval()
    parts = list(odd.network.modules())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in parts)
    model = built(SmallGap(3))
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    model.network.train()
    assert find_layer(model, "features.2").nonnegative
    after = model.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_the_default_is_what_the_maps_are_made_of() -> None:
    x_NCHW = torch.randn(2, 3, 64, 64)
    for module, name in (
        (SmallGap(3), "features"),
        (small_densenet(), "features:relu"),
        (zoo.squeezenet1_1(num_classes=3), "classifier.1:input"),
        (zoo.resnet18(num_classes=3), "layer4"),
    ):
        model = built(module)
        layer = find_layer(model)
        assert (layer.name, layer.is_default) == (name, True)
        assert [one.name for one in list_layers(model) if one.is_default] == [name]
        with torch.inference_mode():
            wanted = model.network(x_NCHW).feature_NCHW
        assert torch.equal(caught(model, layer, x_NCHW), wanted)


def test_a_network_without_maps() -> None:
    model = built(AdaptedNetwork("alexnet", 2), 224)
    layer = find_layer(model)
    assert (layer.name, layer.num_channels, layer.grid) == ("features", 256, (6, 6))
    names = [one.name for one in list_layers(model)]
    assert names == [f"features.{n}" for n in range(13)] + ["features"]
    with pytest.raises(ModelError, match=r'^--layer "classifier": gives an array of shape \(2, 40'):
        find_layer(model, "classifier")


def test_the_names_of_vgg(vgg: Model) -> None:
    names = [layer.name for layer in list_layers(vgg)]
    blocks = (2, 2, 3, 3, 3)
    wanted = [f"conv{b}_{n + 1}" for b, num in enumerate(blocks, 1) for n in range(num)]
    assert [name for name in names if name in wanted] == wanted
    assert names[names.index("conv5_3") - 1] == "features.29"
    layer = find_layer(vgg, "conv5_3")
    assert (layer.name, layer.module, layer.kind) == ("conv5_3", "features.29", "ReLU")
    assert (layer.num_channels, layer.grid, layer.nonnegative) == (512, (2, 2), True)


def test_conv5_3_is_rectified_as_caffes_blob(vgg: Model) -> None:
    """The convolution itself is not, though a ReLU works on its output in place."""
    x_NCHW = torch.randn(2, 3, 32, 32)
    raw = caught(vgg, find_layer(vgg, "features.28"), x_NCHW)
    assert raw.min() < 0
    assert torch.equal(caught(vgg, find_layer(vgg, "conv5_3"), x_NCHW), raw.relu())
    assert torch.equal(caught(vgg, find_layer(vgg, "features.28:relu"), x_NCHW), raw.relu())
    again = caught(vgg, find_layer(vgg, "features.29:input"), x_NCHW)
    assert torch.equal(again, raw)


class BatchVgg(nn.Module):
    """torchvision's VGG13 with batch normalisation, under a head that has maps."""

    def __init__(self) -> None:
        super().__init__()
        self.features = zoo.vgg13_bn(weights=None, init_weights=False).features
        self.head = nn.Linear(512, 3)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        scores: Tensor = self.head(self.features(x_NCHW).mean((2, 3)))
        return scores


@pytest.mark.parametrize(
    ("build", "size_px", "places"),
    [
        (VggCam41, 32, {"conv5_3": "features.29", "conv4_1": "features.18"}),
        (BatchVgg, 32, {"conv5_2": "features.33", "conv1_1": "features.2"}),
        (partial(AdaptedNetwork, "vgg16", 2), 224, {"conv5_1": "features.25"}),
    ],
)
def test_other_networks_built_like_vgg(
    build: Callable[[], nn.Module], size_px: int, places: dict[str, str]
) -> None:
    model = built(build(), size_px)
    assert {name: find_layer(model, name).module for name in places} == places


def test_a_vgg_with_another_output_stride() -> None:
    module = VggGap(2)
    set_output_stride(module, 8, "vgg_gap@8")
    layer = find_layer(built(module, 32), "conv5_3")
    assert (layer.module, layer.grid) == ("features.29", (4, 4))


@pytest.mark.parametrize("build", [SmallGap, zoo.squeezenet1_1, zoo.resnet18])
def test_no_other_network_has_vggs_names(build: Callable[..., nn.Module]) -> None:
    names = [layer.name for layer in list_layers(built(build(num_classes=2)))]
    assert not any(re.match(r"conv\d_", name) for name in names)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("convv", 'own has no such layer. Near names: conv. All of them: wsltool inspect --layers'),
        ("nix9", "own has no such layer. All of them: wsltool inspect --layers MODEL."),
        ("", "own has no such layer. All of them"),
        ("conv:", 'behind the colon stands "", expected input or relu.'),
        ("conv:output", 'behind the colon stands "output", expected input or relu.'),
        ("pair", "gives a tuple, expected one tensor (image, channel, row, column). All of them"),
        ("where", "gives a torch.int64, expected one tensor (image, channel, row, column)."),
        ("flat", "gives an array of shape (2, 4, 4096) for 2 images, expected (image, channel"),
        ("head", "gives an array of shape (2, 2) for 2 images, expected (image, channel, row"),
        ("head:input", "gives an array of shape (2, 4) for 2 images, expected (image, channel"),
        ("unused", "the network does not run that module. All of them: wsltool inspect --layers"),
    ],
)  # fmt: skip
def test_what_is_no_layer(odd: Model, name: str, message: str) -> None:
    with pytest.raises(ModelError, match="^" + re.escape(f'--layer "{name}": {message}')):
        find_layer(odd, name)


def test_near_names_of_vgg(vgg: Model) -> None:
    with pytest.raises(ModelError, match=r"no such layer\. Near names: conv5_3, conv5_2, conv5_1"):
        find_layer(vgg, "conv5_4")


def test_a_module_that_runs_twice_gives_its_last_output(odd: Model) -> None:
    x_NCHW = torch.randn(2, 3, 64, 64)
    first = caught(odd, find_layer(odd, "conv"), x_NCHW).relu()
    assert torch.equal(caught(odd, find_layer(odd, "relu"), x_NCHW), (first - 0.1).relu())


def test_an_input_size_at_which_the_network_fails() -> None:
    model = built(zoo.squeezenet1_1(num_classes=2), 64)
    model.preprocess = Preprocess(4)
    for look in (list_layers, find_layer):
        call: Any = look
        with pytest.raises(ModelError, match=r"^own on a picture of 4x4: failed \("):
            call(model)


def test_a_black_box_is_told_from_a_negative_layer() -> None:
    """A layer that gives NaN is not taken for nonnegative."""
    model = built(SmallGap(2))
    with torch.no_grad():
        model.network.module.get_parameter("features.12.weight").fill_(torch.nan)
    assert not find_layer(model, "features").nonnegative
