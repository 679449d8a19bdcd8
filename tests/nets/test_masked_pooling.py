"""Pooling inside true boxes (Oquab et al. 2015, section 5), by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wsltool.nets.initial import start_network
from wsltool.nets.losses import LOSSES
from wsltool.nets.masked_pooling import box_cells, masked_pooling_loss


def boxes(*rows: tuple[float, float, float, float, int]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(rows, float).reshape(-1, 5)
    return table[:, :4], table[:, 4].astype(np.int32)


def test_a_cell_is_inside_if_its_centre_is() -> None:
    found = box_cells([boxes((0.0, 0.25, 0.6, 0.9, 1))], 2, (4, 4))
    assert not found[0, 0].any()
    # columns centred .125 .375 .625 .875, rows likewise
    assert found[0, 1].astype(int).tolist() == [[0] * 4, [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]


def test_a_small_box_has_the_nearest_cell() -> None:
    found = box_cells([boxes((0.51, 0.99, 0.52, 1.0, 0))], 1, (2, 4))
    assert found[0, 0].astype(int).tolist() == [[0, 0, 0, 0], [0, 0, 1, 0]]


def test_boxes_of_a_class_are_united_and_unknown_classes_ignored() -> None:
    one = boxes((0.0, 0.0, 0.5, 0.5, 0), (0.5, 0.5, 1.0, 1.0, 0), (0.0, 0.0, 1.0, 1.0, 7))
    found = box_cells([one, boxes()], 1, (2, 2))
    assert found[0, 0].astype(int).tolist() == [[1, 0], [0, 1]]
    assert not found[1].any()


def test_cells_of_a_window_cover_a_part() -> None:
    found = box_cells([boxes((0.0, 0.0, 0.5, 1.0, 0))], 1, (1, 2), ((0.4, 0.6), (0.4, 0.8)))
    # columns centred at .5 and .7, the row at .5; .5 is not before the half-open edge
    assert found[0, 0].astype(int).tolist() == [[1, 0]]


def network(pool: str):  # type: ignore[no-untyped-def]
    start = start_network("small_gap", 2, init="none", pool=pool)
    weight = torch.zeros((2, 128))
    weight[0, 0], weight[1, 1] = 1.0, 1.0
    start.network.module.fc.weight.data.copy_(weight)
    start.network.module.fc.bias.data.copy_(torch.tensor([0.5, -0.5]))
    return start.network


def losses(label: list[int], *, outside: bool, cells: np.ndarray) -> tuple[float, torch.Tensor]:
    net = network("gmp")
    feature_NCHW = torch.zeros((1, 128, 2, 2))
    feature_NCHW[0, 0] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    feature_NCHW[0, 1] = torch.tensor([[4.0, 3.0], [2.0, 1.0]])
    feature_NCHW.requires_grad_()
    logit_NK = net.pooled_logits(feature_NCHW)
    label_NK = torch.tensor([label], dtype=torch.uint8)
    loss_N = masked_pooling_loss(
        net,
        feature_NCHW,
        logit_NK,
        label_NK,
        torch.from_numpy(cells[None]),
        LOSSES["logistic"],
        outside=outside,
    )
    loss_N.sum().backward()
    assert feature_NCHW.grad is not None
    return float(loss_N.detach()), feature_NCHW.grad


CELLS_KHW = np.array([[[True, True], [False, False]], [[False, False], [False, False]]])


def soft(x: float) -> float:
    return float(np.log1p(np.exp(x)))


def test_the_maximum_is_taken_inside() -> None:
    value, grad = losses([1, 0], outside=False, cells=CELLS_KHW)
    # class 0 inside the upper row: max 2 + .5; class 1 absent: its global max 4 - .5
    assert value == pytest.approx(soft(-2.5) + soft(3.5), rel=1e-6)
    assert grad[0, 0, 0, 1] < 0
    assert not grad[0, 0, 1].any()


def test_the_variant_lowers_what_is_outside() -> None:
    value, grad = losses([1, 0], outside=True, cells=CELLS_KHW)
    # outside the boxes of class 0: max 4 + .5, asked to be low
    assert value == pytest.approx(soft(-2.5) + soft(3.5) + soft(4.5), rel=1e-6)
    assert grad[0, 0, 1, 1] > 0


def test_a_present_class_without_a_box_is_pooled_as_usual() -> None:
    value, _ = losses([1, 1], outside=True, cells=CELLS_KHW)
    assert value == pytest.approx(soft(-2.5) + soft(-3.5) + soft(4.5), rel=1e-6)


def test_undecided_classes_do_not_count() -> None:
    value, _ = losses([255, 0], outside=True, cells=CELLS_KHW)
    assert value == pytest.approx(soft(3.5), rel=1e-6)


def test_a_box_over_everything_changes_nothing() -> None:
    everywhere = np.ones((2, 2, 2), bool)
    value, _ = losses([1, 1], outside=True, cells=everywhere)
    assert value == pytest.approx(soft(-4.5) + soft(-3.5), rel=1e-6)
