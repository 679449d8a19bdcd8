"""A chosen output stride: more cells, and the old ones among them unchanged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models as zoo

from wsltool.errors import ModelError
from wsltool.nets.architectures import SmallGap
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.catalogue import find_architecture
from wsltool.nets.closed_form import find_closed_form
from wsltool.nets.initial import start_network
from wsltool.nets.models import Model, load_model, save_model
from wsltool.nets.output_stride import DilatedPool, set_output_stride
from wsltool.nets.preprocess import Preprocess

# name, stride it has, cells from 128 (131) pixels, place of the first old cell
DENSE = [
    ("resnet18@16", 32, 8, 0),
    ("resnet18@8", 32, 16, 0),
    ("resnet50@8", 32, 16, 0),
    ("squeezenet1_0@8", 16, 15, 1),
    ("densenet121@16", 32, 8, 0),
    ("mobilenet_v2@4", 32, 32, 0),
    ("shufflenet_v2_x0_5@8", 32, 16, 0),
    ("googlenet@8", 32, 16, 2),
    ("efficientnet_lite0@16", 32, 8, 1),
    ("efficientnet_lite0@8", 32, 16, 3),
    ("vgg_gap@8", 16, 16, 0),
    ("small_gap@4", 8, 32, 0),
    ("alexnet_gap@8", 16, 11, 1),
]


def features(name: str, x_NCHW: Tensor) -> Tensor:
    torch.manual_seed(0)
    architecture = find_architecture(name)
    module = architecture.build()
    network = CamNetwork(module, find_closed_form(module, name)).eval()
    with torch.inference_mode():
        return network(x_NCHW).feature_NCHW


@pytest.mark.parametrize(("name", "stride_px", "num_cells", "first"), DENSE)
def test_old_cells_among_the_new(name: str, stride_px: int, num_cells: int, first: int) -> None:
    base, _, wanted_px = name.partition("@")
    size_px = 131 if base == "alexnet_gap" else 128
    x_NCHW = torch.randn(1, 3, size_px, size_px, generator=torch.Generator().manual_seed(1))
    old_NCHW, new_NCHW = features(base, x_NCHW), features(name, x_NCHW)
    step = stride_px // int(wanted_px)
    assert new_NCHW.shape[2:] == (num_cells, num_cells)
    among_NCHW = new_NCHW[:, :, first::step, first::step]
    rows, cols = old_NCHW.shape[2:]
    inner = slice(1, -1)
    difference_NCHW = (among_NCHW[:, :, :rows, :cols] - old_NCHW)[:, :, inner, inner]
    assert float(difference_NCHW.abs().max()) <= 1e-4 * float(old_NCHW.abs().max())
    between_NCHW = new_NCHW[:, :, first + 1 :: step, first::step]  # and the others are others
    num = min(rows, between_NCHW.shape[2])
    other_NCHW = (between_NCHW[:, :, :num, :cols] - old_NCHW[:, :, :num])[:, :, inner, inner]
    assert float(other_NCHW.abs().max()) > 1e-2 * float(old_NCHW.abs().max())


@pytest.mark.parametrize("name", ["squeezenet1_0", "densenet121", "efficientnet_lite0"])
def test_names_and_shapes_of_arrays_stay(name: str) -> None:
    base, dense = (find_architecture(n).build().state_dict() for n in (name, f"{name}@8"))
    assert {n: v.shape for n, v in base.items()} == {n: v.shape for n, v in dense.items()}


def test_own_stride_changes_nothing() -> None:
    x_NCHW = torch.randn(1, 3, 64, 96)
    assert torch.equal(features("resnet18@32", x_NCHW), features("resnet18", x_NCHW))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18@5", r"resnet18@5: an output stride of 5 cannot be had; expected 1, 2, 4, 8, 16"),
        ("resnet18@64", r"stride of 64 cannot be had; expected 1, 2, 4, 8, 16, 32\.$"),
        ("squeezenet1_0@32", r"stride of 32 cannot be had; expected 1, 2, 4, 8, 16\.$"),
        ("swin_t@8", r"swin_t@8: an output stride of 8 cannot be had; expected 32\.$"),
        ("inception_v3@16", r"of 16 cannot be had, since something else than .*; expected 32\.$"),
        ("resnet18@", r'resnet18@: output stride must be a whole number of pixels, got ""\. Write'),
        ("resnet18@0", r'must be a whole number of pixels, got "0"'),
        ("resnet18@8.5", r'must be a whole number of pixels, got "8.5"'),
        ("alexnet_adapted@8", r"alexnet_adapted@8: has no maps, so no output stride"),
        ("resnet5@16", r'there is no model "resnet5".* Did you mean resnet50'),
    ],
)
def test_strides_that_cannot_be_had(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        find_architecture(name).build()


class Branches(nn.Module):
    """Two ways that meet: windows of three cells from the first one on, and a plain 1×1."""

    def __init__(self, shared: bool = False, uneven: bool = False) -> None:
        super().__init__()
        size, stride = ((3, 1), (2, 1)) if uneven else (3, 2)
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(size, stride, ceil_mode=True)
        self.short = nn.Conv2d(8, 8, 1, stride=stride)
        self.last = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.fc = nn.Linear(8, 4)
        self.shared = shared

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.shared:
            x = self.last(x)
        x = self.last(self.pool(x) + self.short(x))
        scores: Tensor = self.fc(x.relu().mean((2, 3)))
        return scores


def test_branches_stay_in_step() -> None:
    torch.manual_seed(0)
    module = Branches().eval()
    x_NCHW = torch.randn(1, 3, 32, 48)
    caught: list[Tensor] = []
    module.last.register_forward_hook(lambda _part, _args, output: caught.append(output))
    module(x_NCHW)
    set_output_stride(module, 2, "own@2")
    module(x_NCHW)
    old_NCHW, new_NCHW = caught[0], caught[-1]
    assert new_NCHW.shape == (1, 8, 16, 24)
    assert torch.allclose(new_NCHW[:, :, ::2, ::2], old_NCHW, atol=1e-6)


def test_layers_that_cannot_be_changed() -> None:
    with pytest.raises(ModelError, match=r"own@2: last runs at two strides\. Leave out"):
        set_output_stride(Branches(shared=True), 2, "own@2")
    with pytest.raises(ModelError, match=r"own@2: an output stride of 2 cannot be had; expected 4"):
        set_output_stride(Branches(uneven=True), 2, "own@2")
    with pytest.raises(ModelError, match=r"own@2: no map in it grows with its input; an output"):
        set_output_stride(nn.Sequential(nn.AdaptiveAvgPool2d(1)), 2, "own@2")
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(ModelError, match=r"strides cannot be found, it failed on 512x512 pixels"):
        set_output_stride(fixed, 2, "own@2")


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3, 2, padding=1),
        nn.MaxPool2d(2, 2),
        nn.AvgPool2d(2, 2),
        nn.AvgPool2d(3, 2, padding=1),
        nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
        nn.AvgPool2d(2, 2, divisor_override=3),
    ],
    ids=str,
)
def test_dilated_pool(pool: nn.MaxPool2d | nn.AvgPool2d) -> None:
    """At every second cell of a map that repeats each cell, it gives what the pool gives."""
    x_NCHW = torch.randn(2, 3, 8, 10, generator=torch.Generator().manual_seed(0))
    repeated_NCHW = x_NCHW.repeat_interleave(2, 2).repeat_interleave(2, 3)
    padding = 2 * int(pool.padding)
    dense = DilatedPool(pool, 2, (padding, padding, padding, padding))
    wanted_NCHW = pool(x_NCHW)
    given_NCHW = dense(repeated_NCHW)[:, :, ::4, ::4]
    rows, cols = wanted_NCHW.shape[2:]
    assert torch.allclose(given_NCHW[:, :, :rows, :cols], wanted_NCHW, atol=1e-6)


def test_added_cells_do_not_count() -> None:
    one_NCHW = torch.ones(1, 1, 4, 4)
    for pool in (nn.AvgPool2d(2, 2), nn.MaxPool2d(2, 2)):
        dense = DilatedPool(pool, 1, (0, 1, 0, 1))
        assert torch.equal(dense(-one_NCHW), -one_NCHW)
    counted = DilatedPool(nn.AvgPool2d(3, 2, padding=1), 1, (1, 1, 1, 1))(one_NCHW)
    assert torch.allclose(counted, functional.avg_pool2d(one_NCHW, 3, 1, 1))


def test_model_files_and_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    state = zoo.resnet18(num_classes=5).state_dict()
    save_file(state, "plain.safetensors")
    start = start_network("resnet18@8", 5, init="plain.safetensors")
    assert start.arch == "resnet18@8"
    assert start.initialised == ()
    model = Model(start.network, start.arch, None, None, Preprocess(64), "softmax", "")
    save_model(tmp_path / "m.safetensors", model, {})
    x_NCHW = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        for read in (
            load_model("m.safetensors"),
            load_model("resnet18@8", weights=Path("plain.safetensors")),
            load_model("resnet18@8", weights=Path("m.safetensors")),
        ):
            assert read.arch == "resnet18@8"
            assert read.cam_network(x_NCHW).feature_NCHW.shape == (1, 512, 8, 8)
        other = load_model("resnet18", weights=Path("m.safetensors"))
        assert other.cam_network(x_NCHW).feature_NCHW.shape == (1, 512, 2, 2)


def test_users_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"dense_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(
        "from wsltool.nets.architectures import SmallGap\n"
        "def net():\n    return SmallGap(2), {'size': 64}\n"
    )
    model = load_model(f"{name}:net@4")
    assert model.arch == f"{name}:net@4"
    assert model.network(torch.zeros(1, 3, 64, 64)).feature_NCHW.shape == (1, 128, 16, 16)


@pytest.mark.parametrize("build", [SmallGap, Branches])
def test_nothing_is_left_behind(build: Callable[[], nn.Module]) -> None:
    module = build().train()
    set_output_stride(module, 2, "own@2")
    assert all(part.training for part in module.modules() if not isinstance(part, DilatedPool))
    assert not any(part._forward_hooks for part in module.modules())
    assert all(value.device.type == "cpu" for value in module.state_dict().values())
