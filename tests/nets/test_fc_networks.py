"""Fully connected layers as they are and as convolutions, with torchvision's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models as zoo

from wsltool.errors import ModelError
from wsltool.nets.catalogue import find_architecture
from wsltool.nets.fc_networks import AdaptedNetwork, Backbone, SlidingNetwork, to_sliding
from wsltool.nets.initial import head_entries, start_network
from wsltool.nets.models import Model, load_model, save_model
from wsltool.nets.plain_network import PlainNetwork
from wsltool.nets.preprocess import Preprocess
from wsltool.nets.window import Window


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """torchvision's network with random weights, and its file."""
    torch.manual_seed(0)
    whole: nn.Module = zoo.alexnet(weights=None)
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.save(whole.state_dict(), path)
    return whole.eval(), path


def pictures(rows: int = 224, cols: int = 224) -> Tensor:
    return torch.randn((2, 3, rows, cols), generator=torch.Generator().manual_seed(1))


def closeness(given: Tensor, wanted: Tensor) -> float:
    """Largest difference as a share of the largest number."""
    assert given.shape == wanted.shape
    return float((given - wanted).abs().max() / wanted.abs().max())


@torch.inference_mode()
def test_alexnet_both_ways(alexnet: tuple[nn.Module, Path]) -> None:
    """Torchvision's, fully connected and sliding: the same fc7, and the same scores."""
    whole, path = alexnet
    adapted = start_network("alexnet_adapted", 5, init=str(path), seed=7)
    sliding = start_network("alexnet_sliding", 5, init=str(path), seed=7)
    for start in (adapted, sliding):
        assert len(start.matched) == 14
        assert start.unused == ("classifier.6.weight", "classifier.6.bias")
    x_NCHW = pictures()
    feature_NCHW, _ = adapted.network.eval()(x_NCHW)
    wanted_NC = whole.classifier[:6](whole.features(x_NCHW).flatten(1))
    given_NC = adapted.network.module.classifier(feature_NCHW.flatten(1))
    slid_NC11 = sliding.network.eval().module.classifier(sliding.network.module.features(x_NCHW))
    assert closeness(given_NC, wanted_NC) <= 1e-5
    assert closeness(slid_NC11.flatten(1), wanted_NC) <= 1e-5
    state = to_sliding(adapted.network.module.state_dict(), "alexnet")
    sliding.network.module.load_state_dict(state)
    logit_NK = adapted.network(x_NCHW).logit_NK
    assert closeness(sliding.network(x_NCHW).logit_NK, logit_NK) <= 1e-4


@torch.inference_mode()
def test_each_cell_is_the_score_of_its_window() -> None:
    """A cell of the convolutions is what the fully connected layers give for its 6×6 cells."""
    torch.manual_seed(3)
    fixed, sliding = AdaptedNetwork("alexnet", 4), SlidingNetwork("alexnet", 4)
    sliding.load_state_dict(to_sliding(fixed.state_dict(), "alexnet"))
    feature_NCHW = torch.rand(1, 256, 9, 7, generator=torch.Generator().manual_seed(4))
    sliding.eval()
    fixed.eval()
    map_NKHW = sliding.cb(sliding.relu(sliding.ca(sliding.classifier(feature_NCHW))))
    assert map_NKHW.shape == (1, 4, 4, 2)
    for row, col in ((0, 0), (3, 1), (2, 0)):
        window_NCHW = feature_NCHW[:, :, row : row + 6, col : col + 6]
        wanted_NK = fixed.head_logits(window_NCHW)
        assert closeness(map_NKHW[:, :, row, col], wanted_NK) <= 1e-4


@torch.inference_mode()
def test_vgg16_both_ways() -> None:
    """torchvision's vgg16 up to fc7, whose arrays are shared and not copied."""
    torch.manual_seed(0)
    whole: Any = zoo.vgg16(weights=None, init_weights=False).eval()
    x_NCHW = pictures()[:1]
    wanted_NC = whole.classifier[:6](whole.features(x_NCHW).flatten(1))
    state = {n: v for n, v in whole.state_dict().items() if not n.startswith("classifier.6")}
    with torch.device("meta"):
        fixed, sliding = AdaptedNetwork("vgg16").eval(), SlidingNetwork("vgg16").eval()
    for module, own in ((fixed, state), (sliding, to_sliding(state, "vgg16"))):
        report = module.load_state_dict(own, assign=True, strict=False)
        assert report.unexpected_keys == []
        assert len(report.missing_keys) == 4
    given_NC = fixed.classifier(fixed.features(x_NCHW).flatten(1))
    assert closeness(given_NC, wanted_NC) <= 1e-4
    slid_NC11 = sliding.classifier(sliding.features(x_NCHW))
    assert closeness(slid_NC11.flatten(1), wanted_NC) <= 1e-4


@pytest.mark.parametrize("backbone", ["alexnet", "vgg16"])
def test_what_has_its_shape_is_left(backbone: Backbone) -> None:
    with torch.device("meta"):
        own = SlidingNetwork(backbone).state_dict()
        adapted = to_sliding(AdaptedNetwork(backbone).state_dict(), backbone)
    again = to_sliding(own, backbone)
    assert all(again[name] is own[name] for name in own)
    assert {name: value.shape for name, value in adapted.items()} == {
        name: value.shape for name, value in own.items()
    }


def test_sliding_in_the_catalogue() -> None:
    for backbone in ("alexnet", "vgg16"):
        sliding = find_architecture(f"{backbone}_sliding")
        assert sliding.window == Window(224, 32)
        assert sliding.preprocess == Preprocess(500, fit="letterbox")
        assert not find_architecture(f"{backbone}_adapted").has_maps
    assert find_architecture("alexnet_sliding@16").window == Window(224, 16)
    suppressed = {n: find_architecture(n).suppress_layer for n in ("vgg_cam41", "vgg_gap")}
    assert suppressed == {"vgg_cam41": "features", "vgg_gap": "features"}
    assert find_architecture("resnet18").suppress_layer is None


def test_sliding_maps_of_any_size() -> None:
    start = start_network("alexnet_sliding", 3, init="none", pool="gmp", count_padding=True)
    assert start.network.window == Window(224, 32)
    assert start.network.count_padding
    feature_NCHW, logit_NK = start.network.eval()(pictures(256, 320))
    map_NSHW = start.network.class_maps(feature_NCHW, torch.arange(3).expand(2, -1))
    assert map_NSHW.shape == (2, 3, 2, 4)
    wanted_NK = map_NSHW.amax((2, 3)) + start.network.class_bias
    assert torch.allclose(logit_NK, wanted_NK, atol=1e-6)


@pytest.fixture(scope="module")
def plain() -> PlainNetwork:
    start = start_network("alexnet_adapted", 3, init="none")
    assert isinstance(start.network, PlainNetwork)
    assert head_entries(start.network, start.network.module.state_dict()) == [
        "fb.weight",
        "fb.bias",
    ]
    return start.network.eval()


@torch.inference_mode()
def test_plain_network(plain: PlainNetwork) -> None:
    feature_NCHW, logit_NK = plain(pictures(), inside_N4=torch.rand(2, 4))
    assert feature_NCHW.shape == (2, 256, 6, 6)
    assert (plain.grid, plain.num_channels, plain.num_classes) == ((6, 6), 256, 3)
    assert (plain.pool, plain.rectified, plain.count_padding) == ("none", False, False)
    assert torch.equal(plain.head_logits(feature_NCHW), logit_NK)
    assert torch.equal(plain.module(pictures()), logit_NK)


def test_plain_network_of_another_size(plain: PlainNetwork) -> None:
    with pytest.raises(ModelError, match=r"read 6x6 cells of a 224x224 picture, got 320x256 pix"):
        plain(pictures(256, 320))
    with pytest.raises(ModelError, match=r"features must have 6x6 cells, got 3x5\."):
        plain.head_logits(torch.zeros(1, 256, 5, 3))


def test_plain_model_file(plain: PlainNetwork, tmp_path: Path) -> None:
    model = Model(plain, "alexnet_adapted", None, None, Preprocess(224), "softmax-bce", "")
    path = tmp_path / "m.safetensors"
    save_model(path, model, {})
    message = r"alexnet_adapted: no closed-form .*: fully .* alexnet_sliding, or wsltool beam-s"
    with pytest.raises(ModelError, match=message):
        load_model(str(path))
    with pytest.raises(ModelError, match=message):
        load_model("alexnet_adapted")
    with pytest.raises(ModelError, match=message):
        _ = model.cam_network
    read = load_model(str(path), maps=False)
    assert isinstance(read.network, PlainNetwork)
    assert read.loss == "softmax-bce"
    with torch.inference_mode():
        assert torch.equal(read.network(pictures()).logit_NK, plain(pictures()).logit_NK)
    slides = start_network("alexnet_sliding", 3, init=str(path))
    assert slides.initialised == slides.unused == ()


def test_nothing_to_pool() -> None:
    with pytest.raises(ModelError, match=r"alexnet_adapted: has no maps to pool, got pool lse:3"):
        start_network("alexnet_adapted", 3, init="none", pool="lse:3")
