"""What earlier networks fired on is hidden, forward and backward (Kim et al. 2017, eqs. 1 to 4)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from wsltool.errors import ModelError, TrainingError
from wsltool.nets.initial import start_network
from wsltool.nets.models import Model
from wsltool.nets.preprocess import Preprocess
from wsltool.nets.suppression import Suppression, kept_cells, prepare_suppression, suppressing

MAP_KHW = [[[10.0, 6.0], [6.1, 0.0]], [[-5.0, -4.0], [-3.0, -9.0]], [[0.0, 2.0], [1.0, 1.9]]]


def mask(present: list[bool], threshold: float = 0.6) -> list[list[bool]]:
    map_NKHW = torch.tensor([MAP_KHW])
    found: list[list[bool]] = kept_cells(map_NKHW, torch.tensor([present]), threshold)[
        0, 0
    ].tolist()
    return found


def test_equation_1_by_hand() -> None:
    # 60 % of 10 is 6: strictly above it are 10 and 6.1
    assert mask([True, False, False]) == [[False, True], [False, True]]
    assert mask([True, False, False], 0.4) == [[False, False], [False, True]]


def test_a_map_whose_maximum_is_not_positive_hides_nothing() -> None:
    assert mask([False, True, False]) == [[True, True], [True, True]]
    zero_NKHW = torch.zeros((1, 1, 3, 3))
    assert bool(kept_cells(zero_NKHW, torch.ones((1, 1), dtype=torch.bool), 0.6).all())


def test_equation_2_the_masks_of_all_present_classes_are_multiplied() -> None:
    # class 2: 60 % of 2 is 1.2: 2 and 1.9 are hidden
    assert mask([False, False, True]) == [[True, False], [True, False]]
    assert mask([True, False, True]) == [[False, False], [False, False]]
    assert mask([False, False, False]) == [[True, True], [True, True]]


def model(num_classes: int = 2, names: list[str] | None = None, seed: int = 0) -> Model:
    start = start_network("small_gap", num_classes, init="none", seed=seed)
    return Model(
        network=start.network.eval(),
        arch="small_gap",
        class_name=names or ["red", "green"],
        class_id=None,
        preprocess=Preprocess(48),
        loss="logistic",
        fingerprint="",
    )


def prepared(first: Model, *thresholds: float, layer: str | None = None) -> Suppression:
    second = start_network("small_gap", 2, init="none", seed=1).network
    return prepare_suppression([first], thresholds, second, ["red", "green"], layer)


def test_hidden_cells_have_no_activation_and_no_gradient() -> None:
    """Equations 3 and 4, on a network with one convolution behind the suppressed layer."""
    network = start_network("small_gap", 2, init="none").network.eval()
    suppression = Suppression([], [], [], "features.5", False)
    kept = torch.ones((1, 1, 4, 4))
    kept[0, 0, 1, 2] = 0
    seen: list[torch.Tensor] = []
    part = network.module.get_submodule("features.4")

    def keep(_part: nn.Module, _args: Any, output: torch.Tensor) -> None:
        output.retain_grad()
        seen.append(output)

    part.register_forward_hook(keep)
    x_NCHW = torch.rand((1, 3, 16, 16))
    with suppressing(network, suppression, lambda grid: kept):
        network(x_NCHW).logit_NK[0, 0].backward()
    assert seen[0].grad is not None
    assert not seen[0].grad[0, :, 1, 2].any()
    assert seen[0].grad[0, :, 0, 0].any()
    with suppressing(network, suppression, None):
        plain = network(x_NCHW).logit_NK
    with suppressing(network, suppression, lambda grid: torch.ones((1, 1, *grid))):
        ones = network(x_NCHW).logit_NK
    assert torch.equal(plain, ones)
    with suppressing(network, suppression, lambda grid: kept * 0):
        nothing = network(x_NCHW).logit_NK
    assert not torch.equal(plain, nothing)


def test_a_grid_that_does_not_fit_is_told() -> None:
    network = start_network("small_gap", 2, init="none").network.eval()
    suppression = Suppression([], [], [], "features.5", False)
    with (
        pytest.raises(ModelError, match=r"features.5: gives \(4, 4\) cells, the suppression mask"),
        suppressing(network, suppression, lambda grid: torch.ones((1, 1, 3, 3))),
    ):
        network(torch.rand((1, 3, 16, 16)))


def test_masks_follow_the_first_network_and_the_labels() -> None:
    first = model(names=["green", "red"])
    suppression = prepared(first, 0.5)
    input_NCHW = torch.randint(0, 256, (3, 3, 48, 48), dtype=torch.uint8)
    label_NK = torch.tensor([[1, 0], [0, 255], [1, 1]], dtype=torch.uint8)
    found = suppression.mask_of_pictures(input_NCHW, label_NK, None, (6, 6))
    x_NCHW = first.preprocess.normalise(input_NCHW)
    with torch.no_grad():
        feature_NCHW = first.network(x_NCHW).feature_NCHW
        weight_KC = first.network.class_weight[[1, 0]]  # red is the first's second class
        map_NKHW = torch.einsum("kc,nchw->nkhw", weight_KC, feature_NCHW).numpy()
    wanted = np.ones((3, 1, 6, 6))
    for n, k in ((0, 0), (2, 0), (2, 1)):
        top = map_NKHW[n, k].max()
        if top > 0:
            wanted[n, 0] *= map_NKHW[n, k] <= 0.5 * top
    assert found.numpy().tolist() == wanted.tolist()
    assert bool(found[1].all())
    assert not bool(found[0].all())
    finer = suppression.mask_of_pictures(input_NCHW, label_NK, None, (12, 12))
    assert tuple(finer.shape) == (3, 1, 12, 12)


def test_thresholds_are_filled_in() -> None:
    second = start_network("small_gap", 2, init="none").network
    firsts = [model(), model(), model()]
    names = ["red", "green"]
    assert prepare_suppression(firsts, [], second, names, None).thresholds == [0.6, 0.4, 0.4]
    assert prepare_suppression(firsts, [0.5], second, names, None).thresholds == [0.5, 0.4, 0.4]
    assert prepared(model()).layer == "features"


@pytest.mark.parametrize(
    ("thresholds", "layer", "names", "message"),
    [
        ((0.5, 0.4), None, None, "--suppress-threshold: 2 thresholds for 1 networks"),
        ((1.0,), None, None, r"--suppress-threshold must be in \(0, 1\), got 1.0"),
        ((float("nan"),), None, None, r"--suppress-threshold must be in \(0, 1\), got nan"),
        ((), "features.99", None, '--suppress-layer "features.99": the network has no such module'),
        (
            (),
            None,
            ["red", "blue"],
            "the earlier small_gap does not know green; it knows red, blue",
        ),
    ],
)
def test_what_does_not_suit(
    thresholds: tuple[float, ...], layer: str | None, names: list[str] | None, message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        prepared(model(names=names), *thresholds, layer=layer)
