"""Which networks have closed-form maps, and which are refused with what reason."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision import models as zoo

from wsltool.errors import ModelError
from wsltool.nets.architectures import SmallGap, VggGap
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.closed_form import ClosedForm, find_closed_form

ACCEPTED = [
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "mnasnet0_5",
    "mobilenet_v2",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_0",
    "squeezenet1_1",
    "swin_t",
    "swin_v2_t",
]
REFUSED = {
    "alexnet": r"fully connected layers \(Linear classifier.1, .*\) read the flattened 6x6 map",
    "convnext_tiny": "LayerNorm2d classifier.0 stands between the pooling and the linear head",
    "maxvit_t": "a hidden layer .*Tanh classifier.4.* stands between the pooling and the linear",
    "mobilenet_v3_small": r"a hidden layer \(Linear classifier.0, Hardswish classifier.1\) stands",
    "vgg11": r"fully connected layers .* read the flattened 7x7 map, not its mean. .*vgg_gap",
    "vit_b_32": "no convolutional map before the head: .* layers stand between",
}


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    aux = {"transform_input": True, "aux_logits": False, "init_weights": False}
    options = aux if name in ("googlenet", "inception_v3") else {}
    module: nn.Module = zoo.get_model(name, weights=None, **options)
    return module


def num_hooks(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


@pytest.mark.parametrize("name", ACCEPTED)
def test_mean_of_map_plus_bias_is_the_logit(name: str) -> None:
    module = build(name).train()
    random_before = torch.get_rng_state()
    form = find_closed_form(module, name)
    assert torch.equal(torch.get_rng_state(), random_before)
    assert all(part.training for part in module.modules())
    assert num_hooks(module) == 0
    network = CamNetwork(module, form).eval()
    x_NCHW = torch.randn((2, 3, 96, 128), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        direct_NK = module(x_NCHW)
        feature_NCHW, logit_NK = network(x_NCHW)
        class_NS = torch.tensor([[0, 7, 999, -1], [3, -1, 500, 2]])
        map_NSHW = network.class_maps(feature_NCHW, class_NS)
        all_NKHW = network.class_maps(feature_NCHW, torch.arange(1000).expand(2, -1))
    assert num_hooks(module) == 0
    assert torch.equal(direct_NK, logit_NK)
    assert feature_NCHW.shape[2] * feature_NCHW.shape[3] > 1
    bias_K = 0 if form.rectified else network.class_bias
    scale = float(logit_NK.abs().max())
    assert torch.allclose(all_NKHW.mean((2, 3)) + bias_K, logit_NK, atol=1e-4 * scale, rtol=0)
    for image in range(2):
        for slot, k in enumerate(class_NS[image].tolist()):
            wanted = all_NKHW[image, k] if k >= 0 else torch.zeros_like(all_NKHW[0, 0])
            assert torch.allclose(map_NSHW[image, slot], wanted, atol=1e-4 * scale, rtol=0)
    assert form.rectified == name.startswith("squeezenet")
    assert form.fixed_size_px is None


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name_with_the_reason(name: str) -> None:
    module = build(name)
    message = f"^{name}: no closed-form class activation map: {REFUSED[name]}"
    with pytest.raises(ModelError, match=message):
        find_closed_form(module, name)
    assert num_hooks(module) == 0


@pytest.mark.parametrize("module", [SmallGap(7), VggGap(5)], ids=["small_gap", "vgg_gap"])
def test_own_networks(module: nn.Module) -> None:
    form = find_closed_form(module, "own")
    assert (form.head, form.relu, form.rectified) == ("fc", False, False)


class Gap(nn.Module):
    """A network of a user, to be varied."""

    def __init__(self, pool: nn.Module | None = None, after: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.pool = pool or nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 4)
        self.after = after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.after(self.fc(self.pool(self.conv(x).relu_()).flatten(1)))
        return result


def test_functional_relu_is_found() -> None:
    form = find_closed_form(Gap(), "own")
    assert form == ClosedForm("conv", True, "fc")


def test_network_of_one_size_only() -> None:
    module = Gap(nn.AvgPool2d(14))
    form = find_closed_form(module, "own", 56)
    assert form.fixed_size_px == (56, 56)
    network = CamNetwork(module, form)
    with pytest.raises(ModelError, match="takes 56x56 pictures only, got 64x32"):
        network(torch.zeros(1, 3, 32, 64))


def test_softmax_behind_the_head() -> None:
    with pytest.raises(ModelError, match=r"neither the output of a linear .*Softmax after"):
        find_closed_form(Gap(after=nn.Softmax(1)), "own")


def test_maximum_instead_of_mean() -> None:
    with pytest.raises(ModelError, match="Linear fc does not read the spatial mean of the last"):
        find_closed_form(Gap(nn.AdaptiveMaxPool2d(1)), "own")


def test_dead_network_matches_nothing() -> None:
    module = Gap()
    nn.init.zeros_(module.conv.weight)
    nn.init.constant_(module.conv.bias, -1.0)
    with pytest.raises(ModelError, match="do not vary on random pictures"):
        find_closed_form(module, "own")


class Fails(nn.Module):
    """Raises, or returns something else, while it is looked at."""

    def __init__(self, value: object = None) -> None:
        super().__init__()
        self.inner = Gap()
        self.value = value

    def forward(self, x: Tensor) -> object:
        self.inner(x)
        if self.value is None:
            raise KeyError("gone")
        return self.value


def test_failing_network_keeps_no_hook() -> None:
    module = Fails()
    with pytest.raises(ModelError, match=r"failed on a random 224x224 picture \(KeyError: 'gone'"):
        find_closed_form(module, "own")
    assert num_hooks(module) == 0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"out": 1}, "it returns dict, expected one tensor"),
        (torch.zeros(2, 4, 5), r"it returns \(2, 4, 5\), expected one tensor"),
        (torch.full((2, 4), float("nan")), "scores on a random picture are not finite"),
    ],
)
def test_strange_output(value: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        find_closed_form(Fails(value), "own")


def test_hook_goes_when_a_forward_pass_fails() -> None:
    module = Gap()
    network = CamNetwork(module, find_closed_form(module, "own"))
    with pytest.raises(RuntimeError, match="channels"):
        network(torch.zeros(1, 5, 32, 32))
    assert num_hooks(module) == 0


def test_classes_out_of_range() -> None:
    module = Gap()
    network = CamNetwork(module, find_closed_form(module, "own"))
    with pytest.raises(ModelError, match=r"classes must be in -1 ... 3, got -1 ... 4\."):
        network.class_maps(torch.zeros(1, 8, 2, 2), torch.tensor([[-1, 4]]))


def test_same_maps_as_torchcam() -> None:
    from torchcam.methods import CAM

    module = build("resnet18").eval().requires_grad_(False)
    network = CamNetwork(module, find_closed_form(module, "resnet18"))
    x_NCHW = torch.randn((1, 3, 160, 96), generator=torch.Generator().manual_seed(2))
    with CAM(module, "layer4", "fc", input_shape=(3, 160, 96)) as extractor:
        scores_NK = module(x_NCHW)
        (reference_HW,) = extractor(5, scores_NK, normalized=False)
    feature_NCHW, _ = network(x_NCHW)
    map_HW = network.class_maps(feature_NCHW, torch.tensor([[5]]))[0, 0]
    # torchcam cuts negative values off, whether it normalises or not
    assert torch.allclose(map_HW.relu(), reference_HW.reshape(map_HW.shape).relu(), atol=1e-5)
    assert float(reference_HW.abs().max()) > 0.01
