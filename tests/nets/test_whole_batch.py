"""Dropout and batch normalisation see the whole batch, however it is divided."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from wsltool.nets.whole_batch import Share, whole_batch_layers


def outputs(module: nn.Module, x: torch.Tensor, pieces: list[int], seed: int = 3) -> torch.Tensor:
    share = Share(num_images=len(x), seed=seed)
    found, start = [], 0
    with whole_batch_layers(module, share):
        for size in pieces:
            share.start = start
            found.append(module(x[start : start + size]))
            start += size
    return torch.cat(found)


@pytest.mark.parametrize("layer", [nn.Dropout(0.3), nn.Dropout2d(0.4), StochasticDepth(0.5, "row")])
def test_pieces_drop_what_the_whole_batch_drops(layer: nn.Module) -> None:
    module = nn.Sequential(nn.Identity(), layer).train()
    x = torch.rand((7, 5, 3, 2)) + 1
    whole = outputs(module, x, [7])
    assert torch.equal(whole, outputs(module, x, [3, 1, 3]))
    assert not torch.equal(whole, outputs(module, x, [7], seed=4))
    assert module[1] is layer
    p = float(layer.p)
    kept = whole != 0
    assert torch.allclose(whole[kept], (x / (1 - p))[kept])
    if isinstance(layer, nn.Dropout2d):
        assert (kept.flatten(2).all(2) | ~kept.flatten(2).any(2)).all()
    if isinstance(layer, StochasticDepth):
        assert (kept.flatten(1).all(1) | ~kept.flatten(1).any(1)).all()


def test_the_share_that_is_dropped() -> None:
    module = nn.Sequential(nn.Dropout(0.25)).train()
    dropped = (outputs(module, torch.ones((40, 1000)), [40]) == 0).float().mean()
    assert float(dropped) == pytest.approx(0.25, abs=0.01)  # 40 000 draws: sd .002


def test_two_layers_draw_differently_and_evaluation_draws_nothing() -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
    x = torch.ones((4, 100))
    module.eval()
    assert torch.equal(outputs(module, x, [4]), x)
    module.train()
    # equal draws would keep half and make them 4; different ones keep a quarter
    assert float((outputs(module, x, [4]) != 0).float().mean()) == pytest.approx(0.25, abs=0.08)


def test_layers_come_back_after_an_error() -> None:
    module = nn.Sequential(nn.Dropout(0.5))
    layer = module[0]
    with pytest.raises(ZeroDivisionError), whole_batch_layers(module, Share()):
        raise ZeroDivisionError
    assert module[0] is layer
