"""What training starts from, and how it is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models as zoo

from wsltool.errors import ModelError
from wsltool.nets.architectures import SmallGap
from wsltool.nets.initial import start_network
from wsltool.nets.models import Model, save_model
from wsltool.nets.preprocess import Preprocess


def save_small(path: Path, num_classes: int = 3) -> None:
    start = start_network("small_gap", num_classes, init="none", seed=5, pool="gmp")
    model = Model(start.network, "small_gap", None, None, Preprocess(64), "logistic", "")
    save_model(path, model, {})


def test_summary_of_a_backbone(tmp_path: Path) -> None:
    whole = nn.ModuleDict({"features": zoo.vgg.make_layers(zoo.vgg.cfgs["D"])})
    state = {**whole.state_dict(), "classifier.6.weight": torch.zeros(1000, 40)}
    torch.save(state, tmp_path / "vgg16-397923af.pth")
    start = start_network("vgg_gap", 20, init=str(tmp_path / "vgg16-397923af.pth"))
    assert start.summary() == (
        "vgg_gap: 26 arrays (14.7 M numbers) from vgg16-397923af.pth; initialised: cam_conv, fc "
        "(2.4 M numbers); not used: classifier"
    )
    assert start.suppress_layer == "features"


def test_summary_with_batch_normalisation(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = zoo.resnet18().state_dict()
    nn.init.normal_(state["layer4.1.bn2.running_mean"])
    old = {n: v for n, v in state.items() if not n.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "r.pth")
    start = start_network("resnet18", 20, init=str(tmp_path / "r.pth"))
    own = start.network.module.state_dict()
    assert torch.equal(own["layer4.1.bn2.running_mean"], state["layer4.1.bn2.running_mean"])
    assert start.summary() == (
        "resnet18: 100 arrays (11.2 M numbers) from r.pth; initialised: fc (10260 numbers); "
        "not used: fc"
    )


def test_summary_without_weights_and_with_all(tmp_path: Path) -> None:
    assert start_network("small_gap", 2, init="none").summary() == (
        "small_gap: no weights loaded; initialised: features, fc (0.3 M numbers)"
    )
    save_small(tmp_path / "m.safetensors")
    start = start_network(str(tmp_path / "m.safetensors"), 3)
    assert start.summary() == "small_gap: 32 arrays (0.3 M numbers) from m.safetensors"


def test_summary_names_parts_of_parts(tmp_path: Path) -> None:
    state = SmallGap(2).state_dict()
    some = {n: v for n, v in state.items() if n.startswith(("features.0", "features.1.", "fc"))}
    more = {f"extra{place}.weight": torch.zeros(1) for place in range(7)}
    save_file({**some, **more}, tmp_path / "some.safetensors")
    start = start_network("small_gap", 2, init=str(tmp_path / "some.safetensors"))
    assert start.summary() == (
        "small_gap: 8 arrays (1251 numbers) from some.safetensors; initialised: features.3, "
        "features.4, features.6, features.7, features.9 and 3 more (0.3 M numbers); not used: "
        "extra0, extra1, extra2, extra3, extra4 and 2 more"
    )


def test_model_file_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WSLTOOL_MODELS", str(tmp_path))
    save_small(tmp_path / "bees.safetensors")
    start = start_network("bees", 3, init="published")
    assert (start.arch, start.preprocess.size) == ("small_gap", 64)
    assert start.source == str(tmp_path / "bees.safetensors")
    assert start.initialised == ()
    save_small(tmp_path / "small_gap.safetensors")  # the architecture goes first
    assert start_network("small_gap", 3).source == "none"
    with pytest.raises(ModelError, match=r'there is no model "wasps"'):
        start_network("wasps", 3)
    save_file({"a": torch.zeros(1)}, tmp_path / "wasps.safetensors")
    with pytest.raises(ModelError, match=r"wasps.safetensors: not written by wsltool train-cls"):
        start_network("wasps", 3)


def test_pool_and_padding_reach_the_network() -> None:
    start = start_network("small_gap", 2, init="none", pool="lse:5", count_padding=True)
    assert (start.network.pool, start.network.count_padding) == ("lse:5", True)
    with pytest.raises(ModelError, match=r"pool must be .*got \"max\""):
        start_network("small_gap", 2, init="none", pool="max")
