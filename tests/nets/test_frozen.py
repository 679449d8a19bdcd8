"""Where a network is cut into a part that stays and a part that learns."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wsltool.errors import TrainingError
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.closed_form import evaluating
from wsltool.nets.frozen import (
    Cut,
    entries_before,
    find_cut,
    hold_still,
    kept_activation,
    train_mode,
)
from wsltool.nets.initial import start_network
from wsltool.nets.skipping import skipping


def network(name: str, pool: str = "gap") -> CamNetwork:
    made = start_network(name, 3, init="none", pool=pool).network
    assert isinstance(made, CamNetwork)
    return made


def cut_after(net: CamNetwork, last: str, *, pooled: bool = False) -> tuple[Cut | None, set[str]]:
    frozen = entries_before(net, last, 96)
    still = hold_still(net, frozen, 96)
    return find_cut(net, 96, still=still, before=None, pooled=pooled), frozen


@pytest.mark.parametrize(
    ("name", "last", "place", "shape"),
    [
        ("small_gap", "features.8", "features.8", (96, 16, 16)),
        ("resnet18", "layer3", "layer3", (256, 4, 4)),
        ("squeezenet1_1", "features.10", "features.10", (384, 3, 3)),
        ("mobilenet_v2", "features.17", "features.17", (320, 2, 2)),
        ("densenet121", "features.denseblock3", "features.denseblock3", (1024, 4, 4)),
    ],
)
def test_the_rest_of_the_network_gives_the_same_scores(
    name: str, last: str, place: str, shape: tuple[int, ...]
) -> None:
    net = network(name)
    cut, frozen = cut_after(net, last)
    assert cut is not None
    assert cut.place == place
    x_NCHW = torch.rand((2, 3, 64, 64))
    with torch.no_grad(), evaluating(net):
        wanted = net(x_NCHW)
        kept = kept_activation(net, cut, x_NCHW)
        assert kept.shape[1:] == shape or name == "small_gap"
        before = set(net.module.state_dict())
        with skipping(net.module, cut.skipped):
            found = net(kept, input_px=(64, 64))
            assert not frozen & set(net.module.state_dict())
        assert set(net.module.state_dict()) == before
    assert torch.allclose(found.logit_NK, wanted.logit_NK, atol=1e-6)
    assert torch.allclose(found.feature_NCHW, wanted.feature_NCHW, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v2"])
def test_only_the_mean_is_kept_where_it_is_all_that_counts(name: str) -> None:
    net = network(name)
    frozen = {e for e in net.module.state_dict() if e.rpartition(".")[0] != net.form.head}
    still = hold_still(net, frozen, 96)
    cut = find_cut(net, 96, still=still, before=None, pooled=True)
    assert cut is not None
    assert cut.is_pooled
    x_NCHW = torch.rand((2, 3, 64, 64))
    with torch.no_grad(), evaluating(net):
        kept = kept_activation(net, cut, x_NCHW)
        assert kept.shape[2:] == (1, 1)
        wanted = net(x_NCHW).logit_NK
        with skipping(net.module, cut.skipped):
            assert torch.allclose(net(kept, input_px=(64, 64)).logit_NK, wanted, atol=1e-6)


def test_maps_are_kept_where_another_head_pools() -> None:
    net = network("resnet18", "lse:2")
    cut, _ = cut_after(net, "layer4")
    assert cut is not None
    assert not cut.is_pooled
    assert cut.place == net.form.feature


def test_what_must_still_be_computed_limits_the_cut() -> None:
    net = network("squeezenet1_1")
    frozen = entries_before(net, "features.10", 96)
    still = hold_still(net, frozen, 96)
    cut = find_cut(net, 96, still=still, before="features.9", pooled=False)
    assert cut is not None
    assert cut.place == "features.9"


def test_a_network_that_changes_its_input_first_is_not_cut() -> None:
    """GoogLeNet renormalises what it is given, which would spoil what was kept."""
    net = network("googlenet")
    cut, _ = cut_after(net, "inception4e")
    assert cut is None


def test_nothing_is_cut_where_everything_learns() -> None:
    net = network("small_gap")
    still = hold_still(net, set(), 96)
    assert find_cut(net, 96, still=still, before=None, pooled=False) is None
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_dropout_behind_the_frozen_part_stays_active() -> None:
    net = network("mobilenet_v2")
    frozen = entries_before(net, "features.18", 96)
    still = hold_still(net, frozen, 96)
    train_mode(net.module, still)
    assert net.module.classifier[0].training
    assert not net.module.features[0][1].training
    assert not [n for n, p in net.module.named_parameters() if p.requires_grad and "feat" in n]
    cut = find_cut(net, 96, still=still, before=None, pooled=False)
    assert cut is not None
    assert not any("classifier" in name for name in cut.skipped)


def test_dropout_inside_the_frozen_part_is_still() -> None:
    net = network("densenet121")
    still = hold_still(net, entries_before(net, "features.norm5", 96), 96)
    train_mode(net.module, still)
    assert not any(
        part.training for part in net.module.features.modules() if isinstance(part, nn.BatchNorm2d)
    )


def test_a_module_that_is_not_there() -> None:
    with pytest.raises(
        TrainingError, match=r'--freeze "layer9": the network has no such module; .*'
    ):
        entries_before(network("resnet18"), "layer9", 96)
