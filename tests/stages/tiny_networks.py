"""Networks whose maps are worked out by hand: four by four pixels a cell, weighted colours."""

from __future__ import annotations

import torch
from torch import nn

PLAIN = {"size": 8, "mean": [0.0] * 3, "std": [1.0] * 3}
"""The input is the picture squashed to 8 x 8, colours 0 to 1; so maps have 2 x 2 cells."""

WEIGHTS = [[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, -1.0]]
BIAS = [0.5, 0.0, 1.0]


class Cells(nn.Module):
    """Mean colour of each four by four pixels; NaN where such a cell is black, if asked.

    A lopsided one sees the right better than the left.
    """

    def __init__(self, black_is_nan, lopsided):
        super().__init__()
        self.black_is_nan, self.lopsided = black_is_nan, lopsided

    def forward(self, x_NCHW):
        if self.lopsided:
            x_NCHW = x_NCHW * torch.linspace(0, 1, x_NCHW.shape[3])
        cells = nn.functional.avg_pool2d(x_NCHW, 4)
        return torch.where(cells == 0, torch.nan, cells) if self.black_is_nan else cells


class Colours(nn.Module):
    """Class scores: a weighted sum of the mean colours."""

    def __init__(self, weights=WEIGHTS, bias=BIAS, *, black_is_nan=False, lopsided=False):
        super().__init__()
        self.cells = Cells(black_is_nan, lopsided)
        self.head = nn.Linear(3, len(weights))
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor(weights))
            self.head.bias.copy_(torch.tensor(bias))

    def forward(self, x_NCHW):
        return self.head(self.cells(x_NCHW).mean((2, 3)))


def colours():
    return Colours(), PLAIN


def named():
    return Colours(), PLAIN, ["red", "green", "blue"]


def shuffled():
    """The same classes in another order, and one more."""
    order = [2, 0, 1]
    weights = [WEIGHTS[k] for k in order] + [[0.1, 0.1, 0.1]]
    return Colours(weights, [BIAS[k] for k in order] + [0.0]), PLAIN, ["blue", "red", "green", "?"]


def twins():
    """Two classes of one name, as ImageNet's two cranes."""
    return Colours([*WEIGHTS, WEIGHTS[0]], [*BIAS, 9.0]), PLAIN, ["red", "crane", "blue", "crane"]


def other_order():
    return Colours(), PLAIN, ["green", "red", "blue"]


def nan_on_black():
    return Colours(black_is_nan=True), PLAIN


def lopsided():
    return Colours(lopsided=True), PLAIN


def huge():
    return Colours([[1e5, 0, 0], [0, 2.0, 0], [0, 0, -1.0]]), PLAIN


def other_mean():
    return Colours(), PLAIN | {"mean": [0.5, 0.0, 0.0]}
