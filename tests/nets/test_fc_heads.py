"""Features of networks with maps under fully connected layers: built, trained, kept, read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.nets.conftest import Squares
from wsltool.errors import ModelError, WeightsMissingError
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.catalogue import find_architecture, is_known, without_stride
from wsltool.nets.closed_form import find_closed_form
from wsltool.nets.fc_networks import FcNetwork, to_fc
from wsltool.nets.frozen import Cut, find_cut, hold_still
from wsltool.nets.initial import start_network
from wsltool.nets.layers import find_layer, list_layers
from wsltool.nets.models import Model, load_model, save_model
from wsltool.nets.plain_network import PlainNetwork
from wsltool.nets.skipping import draws
from wsltool.nets.split import Split
from wsltool.nets.train_config import TrainConfig
from wsltool.nets.training import Labelled, Place, Watcher, train_classifier

LABEL_NK = np.eye(2, dtype=np.uint8)[np.arange(12) % 2]
CONFIG = TrainConfig(
    epochs=2, batch_size=4, input_size=48, freeze="features", augment="mirror", lr=1e-3
)
FACTORY = """
import torch
from wsltool.nets.architectures import SmallGap

def small():
    torch.manual_seed(3)
    return SmallGap(4), {"size": 48}

def small_fc():
    torch.manual_seed(4)
    return SmallGap(5), {"size": 48}

def plain():
    layers = torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten(), torch.nn.Linear(72, 4)
    return torch.nn.Sequential(*layers), {"size": 8}

def soft():
    return torch.nn.Sequential(SmallGap(4), torch.nn.Softmax(1)), {"size": 48}
"""


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's module in the current folder; its name."""
    monkeypatch.chdir(tmp_path)
    name = f"own_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(FACTORY)
    return name


@pytest.fixture(scope="module")
def gap_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file of `small_gap`."""
    start = start_network("small_gap", 3, init="none", seed=1)
    path = tmp_path_factory.mktemp("models") / "gap.safetensors"
    save_model(
        path, Model(start.network, "small_gap", None, None, start.preprocess, "softmax", ""), {}
    )
    return path


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


def closed(name: str) -> CamNetwork:
    torch.manual_seed(0)
    module = find_architecture(name).build()
    return CamNetwork(module, find_closed_form(module, name), rectified=False).eval()


@pytest.mark.parametrize(
    ("name", "grid", "num_channels"),
    [
        ("small_gap", (8, 8), 128),
        ("squeezenet1_1", (3, 3), 512),  # the head is a convolution, dropout before it
        ("densenet121", (2, 2), 1024),  # a ReLU outside any module
        ("googlenet", (2, 2), 1024),  # colours are rescaled outside any module
        ("vgg_gap", (4, 4), 1024),  # dropout between pooling and head
    ],
)
@torch.inference_mode()
def test_the_features_are_those_of_the_other_network(
    name: str, grid: tuple[int, int], num_channels: int
) -> None:
    other = closed(name)
    x_NCHW = noise(2, 3, 64, 64)
    wanted_NCHW = other(x_NCHW).feature_NCHW
    start = start_network(f"{name}_fc", 3, init="none", size_px=64)
    network = start.network
    assert isinstance(network, PlainNetwork)
    read = ("dropout", "features", "hidden")
    wanted = Split("features", ("features",), "head", grid, num_channels, 64, "hidden", read)
    assert network.split == wanted
    state = to_fc(other.module.state_dict())
    unknown = network.module.load_state_dict(state, strict=False).unexpected_keys
    assert unknown == [n for n in state if n.startswith(f"features.net.{other.head_name}.")]
    module = network.module.train()  # its dropout must not touch the features
    for part in module.modules():
        part.training = draws(part)
    feature_NCHW = module.features(x_NCHW)
    assert torch.equal(feature_NCHW, wanted_NCHW)
    assert [n for n, part in module.named_modules() if draws(part) and "features.net" not in n] == [
        "dropout",
        "dropout_hidden",
    ]
    hidden_NC = (feature_NCHW.flatten(1) @ module.hidden.weight.T + module.hidden.bias).relu()
    wanted_NK = hidden_NC @ module.head.weight.T + module.head.bias
    assert torch.allclose(network.eval()(x_NCHW).logit_NK, wanted_NK, atol=1e-4)
    assert module.hidden.weight.shape == (1024, num_channels * grid[0] * grid[1])


def test_names() -> None:
    assert all(map(is_known, ("resnet18_fc", "resnet18@16_fc", "small_gap_fc", "a:b_fc")))
    assert not any(map(is_known, ("bees_fc", "_fc", "resnet18_fc_fc", "fc")))
    assert [without_stride(n) for n in ("a@8", "a@8_fc", "a_fc", "p.q:f@8")] == [
        *("a", "a_fc", "a_fc", "p.q:f")
    ]
    architecture = find_architecture("efficientnet_lite0@16_fc")
    base = architecture.base
    assert base is not None
    assert (base.name, architecture.has_maps) == ("efficientnet_lite0@16", False)
    assert architecture.preprocess == find_architecture("efficientnet_lite0").preprocess
    resnet = find_architecture("resnet18")
    assert resnet.at(320) is resnet
    assert architecture.at(None) is architecture
    assert architecture.at(320).preprocess.size == 320


def test_a_denser_grid() -> None:
    dense = start_network("small_gap@4_fc", 3, init="none", size_px=32).network
    assert isinstance(dense, PlainNetwork)
    assert dense.grid == (8, 8)


@pytest.mark.parametrize(
    ("name", "size_px", "message"),
    [
        ("alexnet_fc", 64, "alexnet_fc: alexnet has fully connected layers already. Use it as it"),
        ("alexnet_adapted_fc", None, "alexnet_adapted has fully connected layers already"),
        ("small_gap_fc_fc", None, 'there is no model "small_gap_fc_fc"'),
        ("alexnet_sliding_fc", None, r"is the score of a window, .* Use alexnet_adapted\."),
        ("small_gap_fc@4", None, r"small_gap_fc@4: the output stride .* as in small_gap@4_fc\."),
        ("small_gap_fc@", None, r'small_gap_fc@: output stride must be a whole number .* got ""\.'),
        ("mobilenet_v3_small_fc", None, "_fc: needs the features of mobilenet_v3_small: no closed"),
        ("small_gap_fc", 1000, r"small_gap_fc: .* 125x125 cells of 128 channels would hold 2.0 G "),
        ("resnet5_fc", None, 'there is no model "resnet5_fc".* Did you mean resnet50_fc'),
        ("small_gap@5_fc", None, r"small_gap@5: an output stride of 5 cannot be had"),
    ],
)
def test_names_that_stand_for_nothing(name: str, size_px: int | None, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        start_network(name, 3, init="none", size_px=size_px)


def test_pooling_is_refused() -> None:
    with pytest.raises(ModelError, match=r"small_gap_fc: has no maps to pool, got pool gmp\."):
        start_network("small_gap_fc", 3, init="none", pool="gmp")


def test_weights_of_the_other_network_fill_the_features(gap_file: Path) -> None:
    start = start_network("small_gap_fc", 3, init=str(gap_file), size_px=32)
    given = load_model(str(gap_file)).network.module.state_dict()
    own = start.network.module.state_dict()
    assert {name for name in own if name in start.matched} == {
        f"features.net.{name}" for name in given if not name.startswith("fc.")
    }
    assert all(torch.equal(own[f"features.net.{n}"], given[n]) for n in given if "fc." not in n)
    assert start.initialised == ("hidden.weight", "hidden.bias", "head.weight", "head.bias")
    assert set(start.unused) == {"features.net.fc.weight", "features.net.fc.bias"}
    assert start.summary().endswith("not used: features.net.fc")


def test_published_weights() -> None:
    start = start_network("efficientnet_lite0_fc", 3, size_px=64)
    published = load_model("efficientnet_lite0")
    assert published.class_name is not None
    other, own = published.network.module.state_dict(), start.network.module.state_dict()
    assert len(start.matched) == len(other) - 2
    assert all(torch.equal(own[f"features.net.{n}"], other[n]) for n in other if "_fc." not in n)
    with pytest.raises(WeightsMissingError, match=r"lite0_fc: no weights are published for it\."):
        load_model("efficientnet_lite0_fc", maps=False)


def test_somebody_elses_network(user: str) -> None:
    start = start_network(f"{user}:small_fc", 3)  # a function of that name goes first
    assert isinstance(start.network, CamNetwork)
    before = find_architecture(f"{user}:small").build()
    start = start_network(f"{user}:small@4_fc", 3)
    assert isinstance(start.network, PlainNetwork)
    assert (start.network.grid, start.source) == ((12, 12), f"{user}:small@4")
    assert len(start.matched) == 30
    own, given = start.network.module.state_dict(), before.state_dict()
    assert all(torch.equal(own[f"features.net.{n}"], given[n]) for n in given if "fc." not in n)
    assert load_model(f"{user}:small").num_classes == 4  # which still has its head
    with pytest.raises(ModelError, match=r":plain_fc: .*:plain has fully connected layers already"):
        start_network(f"{user}:plain_fc", 3)
    with pytest.raises(
        ModelError, match=r":soft_fc: needs the features of .*:soft: no closed-form"
    ):
        start_network(f"{user}:soft_fc", 3)
    with pytest.raises(ModelError, match=r'has no function "smal"\. Did you mean small\?'):
        start_network(f"{user}:smal_fc", 3)
    with pytest.raises(ModelError, match=r"no.where:net_fc: module no.where cannot be imported"):
        start_network("no.where:net_fc", 3)


def test_networks_without_maps_by_name(user: str, no_network: Path) -> None:
    plain = load_model(f"{user}:plain", maps=False)
    assert isinstance(plain.network, PlainNetwork)
    with pytest.raises(ModelError, match=r":plain: no closed-form .* vgg_gap, or wsltool beam-se"):
        load_model(f"{user}:plain")
    neither = r"mobilenet_v3_small: no closed-form .* Nor does it split under .*: no fully connect"
    with pytest.raises(ModelError, match=neither):
        load_model("mobilenet_v3_small", maps=False)
    with pytest.raises(
        ModelError, match=r"soft: no closed-form .* Nor does it split .* linear lay"
    ):
        load_model(f"{user}:soft", maps=False)
    with pytest.raises(ModelError, match=r"alexnet: no closed-form .* fully connected layers read"):
        load_model("alexnet")
    with pytest.raises(
        WeightsMissingError, match=r"alexnet: weights are not here and .* cannot be"
    ):
        load_model("alexnet", maps=False)
    no_network.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    module = find_architecture("alexnet").build()
    torch.save(module.state_dict(), no_network / "alexnet-owt-7be5be79.pth")
    model = load_model("alexnet", maps=False)
    assert isinstance(model.network, PlainNetwork)
    assert (model.network.grid, model.num_classes) == ((6, 6), 1000)
    assert model.class_name is not None
    start = start_network("alexnet", 3)
    assert (len(start.matched), start.initialised) == (
        14,
        ("classifier.6.weight", "classifier.6.bias"),
    )
    with pytest.raises(ModelError, match=r"alexnet@16: no closed-form class activation map: fully"):
        start_network("alexnet@16", 3, init="none")


def test_only_the_head_runs_in_training() -> None:
    start = start_network("small_gap_fc", 2, init="none", size_px=48)
    frozen = {n for n in start.network.module.state_dict() if n.startswith("features.")}
    still = hold_still(start.network, frozen, 48)
    cut = find_cut(start.network, 48, still=still, before=None, pooled=True)
    assert cut == Cut("features", ("features",))


def test_trained_on_kept_features(gap_file: Path, tmp_path: Path, one_thread: object) -> None:
    seen: list[int] = []
    config = replace(CONFIG, init=str(gap_file))
    data = Labelled(Squares(), LABEL_NK, class_name=["red", "green"])
    models = []
    for folder in ("a", "b"):
        place = Place(tmp_path / folder, cache=tmp_path / "cache")
        watcher = Watcher(features=seen.append)
        models.append(train_classifier("small_gap_fc", data, place, config, watcher=watcher))
    assert sum(seen) == 12  # the second training finds them
    (kept,) = (tmp_path / "cache").glob("*.value.npy")
    value_NVCHW = np.load(kept)
    assert value_NVCHW.shape == (12, 2, 128, 6, 6)
    first, second = models
    own, other = first.network.module.state_dict(), second.network.module.state_dict()
    assert all(torch.equal(own[name], other[name]) for name in own)
    given = load_model(str(gap_file)).network.module.state_dict()
    assert all(torch.equal(own[f"features.net.{n}"], given[n]) for n in given if "fc." not in n)
    input_CHW, _ = first.preprocess.apply(Squares()(3))
    x_NCHW = first.preprocess.normalise(torch.from_numpy(input_CHW)[None])
    with torch.inference_mode():
        feature_NCHW = first.network(x_NCHW).feature_NCHW
    assert np.allclose(value_NVCHW[3, 0], feature_NCHW[0].numpy(), atol=1e-5)


def test_model_file_of_another_size(gap_file: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, init=str(gap_file), epochs=1)
    data = Labelled(Squares(), LABEL_NK)
    model = train_classifier("small_gap_fc", data, Place(tmp_path / "a"), config)
    path = tmp_path / "m.safetensors"
    save_model(path, model, model.provenance)
    read = load_model(str(path), maps=False)
    assert isinstance(read.network, PlainNetwork)
    assert (read.network.grid, read.preprocess.size, read.num_classes) == ((6, 6), 48, 2)
    x_NCHW = noise(2, 3, 48, 48)
    with torch.inference_mode():
        assert torch.equal(read.network(x_NCHW).logit_NK, model.network(x_NCHW).logit_NK)
    for name in (str(path), "small_gap_fc"):
        weights = None if name == str(path) else path
        with pytest.raises(
            ModelError, match=r"small_gap_fc: no closed-form .* --model small_gap, "
        ):
            load_model(name, weights=weights)
    assert load_model("small_gap_fc", weights=path, maps=False).preprocess.size == 48
    with pytest.raises(
        ModelError, match=r"other shapes: hidden.weight is \(1024, 4608\), expected"
    ):
        load_model("small_gap@4_fc", weights=path, maps=False)
    with pytest.raises(ModelError, match=r'm.safetensors: is a "small_gap_fc", not "small_gap"\.'):
        load_model("small_gap", weights=path)
    with pytest.raises(ModelError, match=r"read 6x6 cells of a 48x48 picture, got 56x56 pixels\."):
        read.network(noise(1, 3, 56, 56))
    again = start_network(str(path), 2)
    assert again.initialised == again.unused == ()
    larger = start_network(str(path), 2, size_px=64)
    assert larger.initialised == ("hidden.weight", "head.weight", "head.bias")
    assert isinstance(larger.network, PlainNetwork)
    assert larger.network.grid == (8, 8)


def test_layers(gap_file: Path) -> None:
    start = start_network("small_gap_fc", 3, init="none", size_px=48)
    preprocess = start.preprocess.at(48)
    model = Model(start.network.eval(), start.arch, None, None, preprocess, "softmax", "")
    layer = find_layer(model)
    assert (layer.name, layer.num_channels, layer.grid) == ("features", 128, (6, 6))
    names = [one.name for one in list_layers(model)]
    assert names[0] == "features.net.features.0"
    assert names[-1] == "features"
    assert isinstance(model.network.module, FcNetwork)
    assert not any(isinstance(p, nn.Linear) for p in model.network.module.features.modules())
