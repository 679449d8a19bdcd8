"""Losses of each image: by hand, against torch, at the ends of float32, gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wsltool.errors import TrainingError
from wsltool.nets.losses import LOSSES, check_labels, logistic, softmax, softmax_bce

LOG3 = math.log(3.0)


def labels(rows: list[list[int]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.uint8)


def test_softmax_by_hand() -> None:
    logit_NK = torch.tensor([[0.0, LOG3], [0.0, 0.0]])
    loss_N = softmax(logit_NK, labels([[0, 1], [1, 255]]))
    assert loss_N.tolist() == pytest.approx([math.log(4 / 3), math.log(2)])


def test_logistic_by_hand() -> None:
    logit_NK = torch.tensor([[0.0, LOG3, 5.0], [0.0, 0.0, -200.0], [1.0, 2.0, 3.0]])
    loss_N = logistic(logit_NK, labels([[0, 1, 255], [1, 255, 0], [255, 255, 255]]))
    assert loss_N.tolist() == pytest.approx([math.log(2) + math.log(4 / 3), math.log(2), 0.0])


def test_softmax_bce_by_hand() -> None:
    """q = 1/2, 1/3, 1/6; the second image has two classes, the third one decided."""
    logit_NK = torch.tensor([[3.0, 2.0, 1.0]] * 4).log()
    loss_N = softmax_bce(logit_NK, labels([[1, 0, 0], [1, 0, 1], [255, 1, 255], [255] * 3]))
    wanted = [
        -(math.log(1 / 2) + math.log(2 / 3) + math.log(5 / 6)) / 3,
        -(math.log(1 / 2) + math.log(2 / 3) + math.log(1 / 6)) / 3,
        math.log(3),
        0.0,
    ]
    assert loss_N.tolist() == pytest.approx(wanted)


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 9), st.integers(0, 999), st.sampled_from([0.1, 3.0]))
def test_softmax_bce_is_binary_cross_entropy_of_the_softmax(k: int, seed: int, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logit_NK = size * torch.randn((4, k), generator=generator, dtype=torch.float64)
    label_NK = torch.randint(0, 2, (4, k), generator=generator, dtype=torch.uint8)
    wanted_NK = torch.nn.functional.binary_cross_entropy(
        logit_NK.softmax(1), label_NK.double(), reduction="none"
    )
    assert torch.allclose(softmax_bce(logit_NK, label_NK), wanted_NK.mean(1))
    assert torch.allclose(softmax_bce(logit_NK + 90, label_NK), wanted_NK.mean(1))


def test_softmax_bce_where_probabilities_are_0_and_1() -> None:
    """log(1 − q) of a sure class comes from the others: −200 and −60, which float32's q hides."""
    logit_NK = torch.tensor([[200.0, 0.0], [60.0, 0.0], [0.0, 60.0]], requires_grad=True)
    loss_N = softmax_bce(logit_NK, labels([[0, 1], [1, 0], [1, 1]]))
    assert loss_N.tolist() == pytest.approx([200.0, 0.0, 30.0])
    loss_N.sum().backward()
    assert logit_NK.grad is not None
    wanted = [[1.0, -1.0], [0.0, 0.0], [-0.5, 0.5]]
    assert logit_NK.grad.flatten().tolist() == pytest.approx(np.ravel(wanted).tolist(), abs=1e-6)


@pytest.mark.parametrize("name", list(LOSSES))
def test_gradients(name: str) -> None:
    generator = torch.Generator().manual_seed(4)
    logit_NK = 4 * torch.randn((5, 4), generator=generator, dtype=torch.float64)
    logit_NK[1, 0], logit_NK[2] = 40.0, 0.0
    logit_NK.requires_grad_()
    rows = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [255, 1, 0, 255], [0, 0, 255, 1]]
    assert torch.autograd.gradcheck(lambda z: LOSSES[name](z, labels(rows)), (logit_NK,))


@pytest.mark.parametrize("name", list(LOSSES))
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999))
def test_each_image_alone_and_classes_in_any_order(name: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logit_NK = 9 * torch.randn((4, 5), generator=generator)
    label_NK = torch.eye(5, dtype=torch.uint8)[torch.randperm(5, generator=generator)[:4]]
    label_NK[0, int((label_NK[0] == 0).nonzero()[0])] = 255
    loss_N = LOSSES[name](logit_NK, label_NK)
    assert loss_N.shape == (4,)
    assert (loss_N >= 0).all()
    for n in range(4):
        alone = LOSSES[name](logit_NK[n : n + 1], label_NK[n : n + 1])
        assert torch.allclose(alone, loss_N[n : n + 1])
    order = torch.randperm(5, generator=generator)
    shuffled = LOSSES[name](logit_NK[:, order], label_NK[:, order])
    assert torch.allclose(shuffled, loss_N, rtol=1e-4, atol=1e-6)
    assert LOSSES[name](logit_NK[:0], label_NK[:0]).shape == (0,)


@pytest.mark.parametrize("name", ["logistic", "softmax-bce"])
def test_undecided_labels_teach_nothing(name: str) -> None:
    """Logistic: no gradient. Softmax: none of its own, only as one of the others."""
    logit_NK = torch.zeros((2, 2), requires_grad=True)
    LOSSES[name](logit_NK, labels([[255, 0], [255, 255]])).sum().backward()
    assert logit_NK.grad is not None
    first = {"logistic": [0.0, 0.5], "softmax-bce": [-0.5, 0.5]}[name]
    assert logit_NK.grad.tolist() == [first, [0.0, 0.0]]


@pytest.mark.parametrize("name", list(LOSSES))
def test_nan_is_told(name: str) -> None:
    logit_NK = torch.tensor([[0.0, torch.nan], [0.0, 1.0]])
    assert LOSSES[name](logit_NK, labels([[0, 1], [0, 1]])).isnan().tolist() == [True, False]


@pytest.mark.parametrize(
    ("label", "loss", "message"),
    [
        ([[0, 0], [0, 0]], "softmax", "none of the 2 images has a class; training needs at"),
        ([[0, 255], [0, 255]], "logistic", "none of the 2 images has a class; training needs at"),
        ([[1, 0], [0, 1], [0, 0]], "softmax", r"row 12: has 0 classes \(none\); softmax needs"),
        ([[1, 0], [1, 1]], "softmax", r"row 11: has 2 classes \(cat, dog\); .* --loss logistic"),
        ([[1, 2], [0, 1]], "logistic", "labels must be 0, 1 or 255, got 2"),
        (np.zeros((0, 2)), "softmax", r"labels are \(0, 2\), expected \(0, 2\) with at least"),
        ([[1], [0]], "softmax-bce", r'needs at least two classes, got one \("cat"\)\. Pass --loss'),
    ],
)
def test_labels_that_teach_nothing(label: Any, loss: str, message: str) -> None:
    label_NK = np.asarray(label, np.uint8)
    names = ["cat", "dog"][: label_NK.shape[1]]
    with pytest.raises(TrainingError, match=message):
        check_labels(label_NK, loss, rows=range(10, 10 + len(label_NK)), class_name=names)


@pytest.mark.parametrize("loss", ["logistic", "softmax-bce"])
def test_several_classes_an_image(loss: str) -> None:
    check_labels(np.array([[1, 1], [0, 255]], np.uint8), loss, rows=[0, 1], class_name=["a", "b"])
