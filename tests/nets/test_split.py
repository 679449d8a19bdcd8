"""Where classifiers split into features and a head that reads their whole grid."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torchvision import models as zoo

from wsltool.errors import ModelError
from wsltool.nets.architectures import SmallGap
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.closed_form import find_closed_form
from wsltool.nets.fc_networks import AdaptedNetwork
from wsltool.nets.layers import find_layer
from wsltool.nets.models import Model
from wsltool.nets.plain_network import PlainNetwork
from wsltool.nets.preprocess import Preprocess
from wsltool.nets.split import Split, find_split


def stack(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*layers)


class Written(nn.Module):
    """A network as people write it, with functions between its modules."""

    def __init__(self, kind: str = "") -> None:
        super().__init__()
        self.kind = kind
        self.one = nn.Conv2d(3, 4, 3, 2, 1)
        self.two = nn.Conv2d(4, 6, 3, 2, 1)
        self.gate = nn.Linear(6, 6)
        num_in = {"pooled": 6 * 4, "inner": 6 * 4, "beside": 6 * 16 + 3}.get(kind, 6 * 16)
        self.fc = nn.Linear(num_in, 8)
        self.out = nn.Linear(8, 5)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        feature_NCHW = torch.relu(self.one(x_NCHW))
        if self.kind == "inner":
            feature_NCHW = nn.functional.max_pool2d(feature_NCHW, 2)
        feature_NCHW = torch.relu(self.two(feature_NCHW))
        if self.kind == "gated":
            gate_NC = torch.sigmoid(self.gate(feature_NCHW.mean((2, 3))))
            feature_NCHW = feature_NCHW * gate_NC[:, :, None, None]
        if self.kind == "last":
            feature_NCHW = feature_NCHW.permute(0, 2, 3, 1)
        if self.kind == "pooled":
            feature_NCHW = nn.functional.max_pool2d(feature_NCHW, 2)
        flat_NC = feature_NCHW.flatten(1)
        if self.kind == "beside":
            flat_NC = torch.cat([flat_NC, x_NCHW.mean((2, 3))], 1)
        scores_NK: Tensor = self.out(torch.relu(self.fc(flat_NC)))
        return scores_NK


def plain(module: nn.Module, size_px: int) -> PlainNetwork:
    return PlainNetwork(module, find_split(module, "own", size_px)).eval()


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    ("make", "size_px", "wanted"),
    [
        (partial(zoo.alexnet, num_classes=3), 224, ("avgpool", "classifier.6", (6, 6), 256)),
        (partial(zoo.vgg11, num_classes=3), 64, ("avgpool", "classifier.6", (7, 7), 512)),
        (partial(AdaptedNetwork, "alexnet", 3), 224, ("features", "fb", (6, 6), 256)),
        (Written, 16, ("two", "out", (4, 4), 6)),
        (partial(Written, "last"), 16, ("two", "out", (4, 4), 6)),
        (partial(Written, "pooled"), 16, ("two", "out", (4, 4), 6)),
        (partial(Written, "gated"), 16, ("two", "out", (4, 4), 6)),
        (
            stack(nn.Conv2d(3, 2, 3), nn.Dropout2d(), nn.Flatten(), nn.Linear(72, 4)),
            8,
            ("1", "3", (6, 6), 2),
        ),
        (
            stack(nn.Conv2d(3, 2, (3, 5), (1, 2)), nn.ReLU(True), nn.Flatten(), nn.Linear(24, 4)),
            8,
            ("1", "3", (6, 2), 2),
        ),
        (
            stack(SmallGap().features, nn.Flatten(), nn.Linear(128 * 9, 7), nn.Linear(7, 4)),
            24,
            ("0", "3", (3, 3), 128),
        ),
    ],
)
def test_the_last_grid_before_the_fully_connected_layers(
    make: Callable[[], nn.Module], size_px: int, wanted: tuple[str, str, tuple[int, int], int]
) -> None:
    torch.manual_seed(0)
    network = plain(make(), size_px)
    split = network.split
    assert (split.feature, split.head, split.grid, split.num_channels) == wanted
    assert (network.head_name, network.grid, network.num_channels) == wanted[1:]
    assert network.num_classes == network.head.weight.shape[0]
    x_NCHW = noise(3, 3, size_px, size_px)
    with torch.inference_mode():
        feature_NCHW, logit_NK = network(x_NCHW)
        assert feature_NCHW.shape == (3, network.num_channels, *network.grid)
        assert torch.equal(logit_NK, network.module(x_NCHW))
        assert torch.equal(network.head_logits(feature_NCHW), logit_NK)
        other_NCHW = noise(*feature_NCHW.shape)
        if network.reader is not None:
            read_NC = network.reader(other_NCHW.flatten(1))
            behind_NK = network.logits_behind_reader(read_NC)
            assert torch.allclose(behind_NK, network.head_logits(other_NCHW), atol=1e-4)
        own = [network.head_logits(one[None]) for one in other_NCHW]
        assert torch.allclose(network.head_logits(other_NCHW), torch.cat(own), atol=1e-4)
    model = Model(network, "own", None, None, Preprocess(size_px), "softmax", "")
    assert find_layer(model).module == split.feature


def test_the_head_by_hand() -> None:
    """Features 1, −2, 3, 4 of one channel; the ReLU is a function and belongs to the head."""
    module = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Flatten(), nn.Linear(4, 2), nn.Linear(2, 2))
    network = plain(module, 2)
    with torch.no_grad():
        module[2].weight.copy_(torch.tensor([[1.0, 10.0, 100.0, 1000.0], [0.0, 0.0, 0.0, 1.0]]))
        module[2].bias.copy_(torch.tensor([0.5, 0.0]))
        module[3].weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 2.0]]))
        module[3].bias.copy_(torch.tensor([0.0, 7.0]))
        logit_NK = network.head_logits(torch.tensor([[[[1.0, -2.0], [3.0, 4.0]]]]))
    assert logit_NK.tolist() == [[1 - 20 + 300 + 4000 + 0.5 - 4, 15]]
    assert network.reader is module[2]
    assert network.logits_behind_reader(torch.tensor([[3.0, 5.0]])).tolist() == [[-2, 17]]


def test_nothing_is_left_behind() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(72, 4)
    )
    module[2].eval()
    own = {name: value.clone() for name, value in module.state_dict().items()}
    parts, random_before = list(module.modules()), torch.get_rng_state()
    skipped, read = ("0", "1", "2"), ("0", "1", "2", "3", "4")
    assert find_split(module, "own", 8) == Split("2", skipped, "4", (6, 6), 2, 8, "4", read)
    assert [part.training for part in parts] == [True, True, True, False, True, True]
    assert all(x is y for x, y in zip(module.modules(), parts, strict=True))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in parts)
    assert torch.equal(torch.get_rng_state(), random_before)
    assert all(torch.equal(own[name], value) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (stack(nn.Conv2d(3, 2, 3), nn.Linear(7, 2)), r"it failed on a random 16x16 picture \(Runt"),
        (stack(nn.Conv2d(3, 2, 3)), r"it returns \(2, 2, 14, 14\), expected one tensor of scores"),
        (SmallGap, "no fully connected layer reads a grid of features"),
        (stack(nn.Flatten(), nn.Linear(768, 2)), "no fully connected layer reads a grid of feat"),
        (
            stack(nn.Conv2d(3, 2, 16), nn.Flatten(), nn.Linear(2, 2)),
            "no fully connected layer reads a grid of features",
        ),
        (
            stack(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(392, 2), nn.Softmax(1)),
            "its scores are not the output of a linear layer",
        ),
        (
            partial(Written, "inner"),
            "the layers before the 2x2 grid that Linear fc reads cannot be passed over: a function",
        ),
    ],
)
def test_what_does_not_split(make: Callable[[], nn.Module], message: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(ModelError, match=rf"^own: does not split into .* grid: {message}.*NAME_fc"):
        find_split(make(), "own", 16)


def test_a_head_that_reads_the_picture_too() -> None:
    torch.manual_seed(0)
    with pytest.raises(ModelError, match=r"own: does not split .* no fully connected layer reads"):
        find_split(Written("beside"), "own", 16)


def test_any_size_where_the_network_pools_to_its_grid() -> None:
    network = plain(zoo.alexnet(num_classes=3), 224)
    with torch.inference_mode():
        assert network(noise(1, 3, 256, 320)).feature_NCHW.shape == (1, 256, 6, 6)
    fixed = plain(Written(), 16)
    with pytest.raises(ModelError, match=r"read 4x4 cells of a 16x16 picture, got 24x16 pixels\."):
        fixed(noise(1, 3, 16, 24))
    with pytest.raises(ModelError, match=r"read 4x4 cells of a 16x16 picture, got 99x77 pixels\."):
        fixed(noise(1, 3, 24, 24), input_px=(77, 99))
    with pytest.raises(ModelError, match=r"features must have 4x4 cells, got 2x3\."):
        fixed.head_logits(noise(1, 6, 3, 2))


@torch.inference_mode()
def test_maps_need_no_grid() -> None:
    """A network with maps gives scores of features on any grid."""
    module = SmallGap(3)
    network = CamNetwork(module, find_closed_form(module, "own"), pool="gmp").eval()
    feature_NCHW, logit_NK = network(noise(2, 3, 64, 64))
    assert torch.equal(network.head_logits(feature_NCHW), logit_NK)
    maps_NKHW = torch.einsum("kc,nchw->nkhw", network.class_weight, feature_NCHW[:, :, 1:4, 2:7])
    wanted_NK = maps_NKHW.amax((2, 3)) + network.class_bias
    assert torch.allclose(network.head_logits(feature_NCHW[:, :, 1:4, 2:7]), wanted_NK, atol=1e-5)
