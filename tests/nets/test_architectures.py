"""Networks of the papers: sizes counted by hand, and the places of torchvision's weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision import models as zoo

from wsltool.nets.architectures import AlexNetGap, GoogleNetGap, VggCam41, VggGap
from wsltool.nets.catalogue import find_architecture
from wsltool.nets.fc_networks import AdaptedNetwork, SlidingNetwork
from wsltool.nets.initial import start_network

VGG16_CONVOLUTIONS = sum(
    9 * num_in * num_out + num_out
    for num_in, num_out in (
        *((3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)),
        *((256, 512), (512, 512), (512, 512), (512, 512), (512, 512), (512, 512)),
    )
)
ALEXNET_CONVOLUTIONS = sum(
    size * size * num_in * num_out + num_out
    for size, num_in, num_out in (
        *((11, 3, 64), (5, 64, 192), (3, 192, 384), (3, 384, 256), (3, 256, 256)),
    )
)
# in, 1x1, reduce, 3x3, reduce, 3x3 (5x5 in the paper), behind the pooling; GoogLeNet's table 1
INCEPTION = (
    *((192, 64, 96, 128, 16, 32, 32), (256, 128, 128, 192, 32, 96, 64)),
    *((480, 192, 96, 208, 16, 48, 64), (512, 160, 112, 224, 24, 64, 64)),
    *((512, 128, 128, 256, 24, 64, 64), (512, 112, 144, 288, 32, 64, 64)),
    (528, 256, 160, 320, 32, 128, 128),
)


def with_norm(size: int, num_in: int, num_out: int) -> int:
    """Numbers of a convolution without bias and of the scale and offset behind it."""
    return size * size * num_in * num_out + 2 * num_out


GOOGLENET_TO_4E = (
    with_norm(7, 3, 64)
    + with_norm(1, 64, 64)
    + with_norm(3, 64, 192)
    + sum(
        with_norm(1, n, a)
        + with_norm(1, n, b)
        + with_norm(3, b, c)
        + with_norm(1, n, d)
        + with_norm(3, d, e)
        + with_norm(1, n, f)
        for n, a, b, c, d, e, f in INCEPTION
    )
)
CAM_CONV_VGG = 1024 * (512 // 2) * 9 + 1024
CAM_CONV_GOOGLENET = 1024 * (832 // 2) * 9 + 1024
ADAPTATION = 4096 * 2048 + 2048 + 2048 * 20 + 20
FC7 = 4096 * 4096 + 4096
COUNTS = {
    "vgg_gap": VGG16_CONVOLUTIONS + CAM_CONV_VGG + 1024 * 20 + 20,
    "alexnet_gap": (96 * 3 * 121 + 96)
    + (256 * (96 // 2) * 25 + 256)
    + (384 * 256 * 9 + 384)
    + 2 * (384 * (384 // 2) * 9 + 384)
    + (512 * (384 // 2) * 9 + 512)
    + (512 * (512 // 2) * 9 + 512)
    + 512 * 20
    + 20,
    "googlenet_gap": GOOGLENET_TO_4E + CAM_CONV_GOOGLENET + 1024 * 20 + 20,
    "vgg_cam41": VGG16_CONVOLUTIONS
    + (1024 * 512 * 9 + 1024)
    + (1024 * 1024 * 9 + 1024)
    + 1024 * 20,
    "alexnet_adapted": ALEXNET_CONVOLUTIONS + (9216 * 4096 + 4096) + FC7 + ADAPTATION,
    "vgg16_adapted": VGG16_CONVOLUTIONS + (25088 * 4096 + 4096) + FC7 + ADAPTATION,
}
COUNTS |= {f"{name}_sliding": COUNTS[f"{name}_adapted"] for name in ("alexnet", "vgg16")}
BUILD = {
    "vgg_gap": VggGap,
    "alexnet_gap": AlexNetGap,
    "googlenet_gap": GoogleNetGap,
    "vgg_cam41": VggCam41,
    "alexnet_adapted": lambda num: AdaptedNetwork("alexnet", num),
    "vgg16_adapted": lambda num: AdaptedNetwork("vgg16", num),
    "alexnet_sliding": lambda num: SlidingNetwork("alexnet", num),
    "vgg16_sliding": lambda num: SlidingNetwork("vgg16", num),
}
GRIDS = [
    ("vgg_gap", "relu", (224, 224), (14, 14)),
    ("alexnet_gap", "features", (227, 227), (11, 11)),
    ("googlenet_gap", "relu", (224, 224), (14, 14)),
    ("vgg_cam41", "dropout7", (321, 321), (41, 41)),
    ("vgg_cam41", "features", (321, 481), (41, 61)),
    ("alexnet_adapted", "features", (224, 224), (6, 6)),
    ("vgg16_adapted", "features", (224, 224), (7, 7)),
    ("alexnet_sliding", "cb", (224, 224), (1, 1)),
    ("vgg16_sliding", "cb", (224, 224), (1, 1)),
    ("alexnet_sliding", "cb", (256, 256), (2, 2)),
    ("alexnet_sliding", "cb", (1024, 2048), (26, 58)),
    ("vgg16_sliding", "cb", (1024, 2048), (26, 58)),
]


def outline(name: str) -> nn.Module:
    """A network of shapes without numbers."""
    with torch.device("meta"):
        return BUILD[name](20)


def output_of(module: nn.Module, part: str, x_NCHW: Tensor) -> Tensor:
    caught: list[Tensor] = []
    hook = module.get_submodule(part).register_forward_hook(
        lambda _part, _args, output: caught.append(output.clone())
    )
    with torch.inference_mode():
        module.eval()(x_NCHW)
    hook.remove()
    return caught[0]


@pytest.mark.parametrize("name", COUNTS)
def test_number_of_parameters(name: str) -> None:
    assert sum(p.numel() for p in outline(name).parameters()) == COUNTS[name]
    assert find_architecture(name).name == name


def test_numbers_of_the_sources() -> None:
    """What the sources' authors and torchvision publish, to the last digit."""
    assert VGG16_CONVOLUTIONS == 14_714_688
    assert VGG16_CONVOLUTIONS + (25088 * 4096 + 4096) + FC7 + 4_097_000 == 138_357_544
    assert ALEXNET_CONVOLUTIONS + (9216 * 4096 + 4096) + FC7 + 4_097_000 == 61_100_840


@pytest.mark.parametrize(("name", "part", "size_px", "grid"), GRIDS)
def test_map_size(name: str, part: str, size_px: tuple[int, int], grid: tuple[int, int]) -> None:
    x_NCHW = torch.empty((1, 3, *size_px), device="meta")
    assert output_of(outline(name), part, x_NCHW).shape[2:] == grid


def test_layers_as_the_sources_have_them() -> None:
    alexnet = outline("alexnet_gap").get_submodule("features")
    kinds = [name for name, _ in alexnet.named_children()]
    assert kinds[:8] == ["conv1", "relu1", "pool1", "norm1", "conv2", "relu2", "pool2", "norm2"]
    cam41 = outline("vgg_cam41")
    assert isinstance(cam41.get_submodule("features.23"), nn.Identity)
    assert cam41.fc.bias is None
    assert AlexNetGap(2).features.conv2.bias.tolist() == [1.0] * 256
    assert GoogleNetGap(2).cam_conv.bias.tolist() == [1.0] * 1024
    assert not any(isinstance(part, nn.Dropout) for part in outline("googlenet_gap").modules())


def test_fc7_of_cam41_keeps_its_sign() -> None:
    """No ReLU behind fc7 (METHODS of SEC); the features of the other networks are rectified."""
    torch.manual_seed(0)
    x_NCHW = torch.randn(1, 3, 64, 64)
    assert float(output_of(VggCam41(2), "dropout7", x_NCHW).min()) < 0
    assert float(output_of(VggGap(2), "relu", x_NCHW).min()) == 0


def saved_vgg16(path: Path) -> nn.Module:
    """The convolutions of torchvision's vgg16 and one array of its classifier."""
    torch.manual_seed(1)
    whole = nn.ModuleDict({"features": zoo.vgg.make_layers(zoo.vgg.cfgs["D"])})
    state = {**whole.state_dict(), "classifier.6.weight": torch.zeros(1000, 40)}
    torch.save(state, path)
    return whole


@pytest.mark.parametrize(("name", "last", "pooled"), [("vgg_gap", 29, 23), ("vgg_cam41", 22, 16)])
def test_vgg16_weights_are_in_place(tmp_path: Path, name: str, last: int, pooled: int) -> None:
    whole = saved_vgg16(tmp_path / "vgg16.pth")
    start = start_network(name, 20, init=str(tmp_path / "vgg16.pth"))
    assert len(start.matched) == 26
    assert start.unused == ("classifier.6.weight",)
    x_NCHW = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        wanted_NCHW = whole["features"][: last + 1](x_NCHW)
    given_NCHW = output_of(start.network.module, f"features.{last}", x_NCHW)
    assert isinstance(whole["features"][pooled], nn.MaxPool2d)
    assert torch.equal(given_NCHW, wanted_NCHW)
    assert float(wanted_NCHW.std()) > 1e-3


def shaken_googlenet() -> nn.Module:
    """torchvision's network with batch normalisation that has seen something."""
    torch.manual_seed(2)
    whole: nn.Module = zoo.googlenet(
        weights=None, aux_logits=True, transform_input=True, init_weights=False
    )
    for part in whole.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    return whole


def test_googlenet_weights_are_in_place(tmp_path: Path) -> None:
    whole = shaken_googlenet()
    torch.save(whole.state_dict(), tmp_path / "googlenet.pth")
    start = start_network("googlenet_gap", 1000, init=str(tmp_path / "googlenet.pth"))
    assert set(start.initialised) == {"cam_conv.weight", "cam_conv.bias", "fc.weight", "fc.bias"}
    assert "inception4e.branch1.bn.running_var" in start.matched
    assert {name.partition(".")[0] for name in start.unused} == {
        *("inception5a", "inception5b", "googlenet", "aux1", "aux2")
    }
    x_NCHW = torch.randn(2, 3, 96, 128)
    given_NCHW = output_of(start.network.module, "inception4e", x_NCHW)
    wanted_NCHW = output_of(whole, "inception4e", x_NCHW)
    assert torch.allclose(given_NCHW, wanted_NCHW, rtol=1e-5, atol=1e-6)
    assert float(wanted_NCHW.std()) > 1e-2


def test_its_own_head_comes_back(tmp_path: Path) -> None:
    first = start_network("googlenet_gap", 7, init="none", seed=3)
    torch.save(first.network.module.state_dict(), tmp_path / "own.pth")
    start = start_network("googlenet_gap", 7, init=str(tmp_path / "own.pth"))
    assert start.initialised == start.unused == ()


def test_caffes_alexnet_by_caffes_names(tmp_path: Path) -> None:
    torch.manual_seed(4)
    shapes = {"conv1": (96, 3, 11, 11), "conv2": (256, 48, 5, 5), "conv3": (384, 256, 3, 3)}
    shapes |= {"conv4": (384, 192, 3, 3), "conv5": (256, 192, 3, 3)}
    state = {f"{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
    torch.save(state, tmp_path / "caffe.pth")
    start = start_network("alexnet_gap", 20, init=str(tmp_path / "caffe.pth"))
    assert start.matched == tuple(f"features.conv{n}.weight" for n in (1, 2, 3, 4))
    assert start.unused == ("features.conv5.weight",)
    assert torch.equal(start.network.module.features.conv4.weight, state["conv4.weight"])
