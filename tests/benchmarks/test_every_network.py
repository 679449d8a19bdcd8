"""Every classifier of torchvision, random weights: closed form that holds, or a named refusal."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
from torchvision import models as zoo

from wsltool.errors import ModelError
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.catalogue import find_architecture
from wsltool.nets.closed_form import find_closed_form

pytestmark = pytest.mark.benchmark

# METHODS of this field: pooling and one linear layer, and nothing between.
WITH_FORM = ("resnet", "resnext", "wide_resnet", "regnet", "densenet", "googlenet", "inception")
WITH_FORM += ("mobilenet_v2", "mnasnet", "efficientnet", "shufflenet", "squeezenet", "swin")


def _largest_difference(name: str) -> float:
    """Return the largest |mean(map) + bias - logit| as a share of the logits' scale."""
    torch.manual_seed(0)
    architecture = find_architecture(name)
    module = architecture.build()
    size_px = architecture.preprocess.size
    network = CamNetwork(module, find_closed_form(module, name, size_px)).eval()
    x_NCHW = torch.randn(1, 3, size_px, size_px, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        feature_NCHW, logit_NK = network(x_NCHW)
        map_NSHW = network.class_maps(feature_NCHW, torch.arange(logit_NK.shape[1])[None])
        bias_K = 0 if network.rectified else network.class_bias
        difference_NK = map_NSHW.mean((2, 3)) + bias_K - logit_NK
    return float(difference_NK.abs().max() / logit_NK.abs().max())


def test_every_torchvision_network(record: Callable[..., None]) -> None:
    """Accepted exactly those with a closed form, mean(map) + bias = logit to 1e-4 of its scale."""
    worst, refused = {}, {}
    for name in zoo.list_models(module=zoo):
        try:
            worst[name] = _largest_difference(name)
        except ModelError as error:
            refused[name] = str(error)
        gc.collect()
    assert all(name.startswith(WITH_FORM) for name in worst)
    assert not [name for name in refused if name.startswith(WITH_FORM)]
    assert all(line.startswith(f"{name}: no closed-form") for name, line in refused.items())
    record(
        num_accepted=len(worst),
        num_refused=len(refused),
        largest_difference=max(worst.values()),
        refused=sorted(refused),
    )
    assert max(worst.values()) <= 1e-4
