"""Beam search on feature maps (Bency et al. 2016, §3.3 and §3.4), one candidate at a time.

A plain transcription that shares nothing with the package but the preprocessing: one class, one
candidate a call of the network, nothing kept from class to class or from level to level. Boxes
are exact fractions of the frame, which is what the network's input shows of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

WHOLE = (Fraction(0), Fraction(0), Fraction(1), Fraction(1))
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class Candidate(NamedTuple):
    """A box that was kept: fractions of the frame (x0, y0, x1, y1), its score, its level."""

    box: tuple
    score: float
    level: int


@dataclass
class Found:
    """What a search kept, by level and then rank, and what it took.

    `least_gap` is the smallest difference of scores on which something hung: between neighbours
    of what was kept, and between the last that was kept and the first that was not.
    """

    candidates: list = field(default_factory=list)
    num_features: int = 0
    num_heads: int = 0
    least_gap: float = math.inf


@dataclass
class PlainSearch:
    """The search for one class in one picture.

    `features` takes a picture (1, 3, row, column), normalised, and returns (1, channel, R, C);
    `head` takes that and returns (1, num_classes) logits. `loss` is ``softmax`` or ``logistic``.
    Of each level the first `follow` boxes have children, and of these the first `count` are
    candidates; None stands for all.
    """

    features: Callable
    head: Callable
    preprocess: object
    mode: str
    loss: str = "softmax"
    follow: int | None = 8
    count: int | None = None
    levels: int = 10
    children: int = 4

    def __call__(self, picture_HWC, class_index):
        found = Found()
        if self.mode == "grid":
            input_CHW, _ = self.preprocess.apply(picture_HWC)
            feature = self._computed(input_CHW.transpose(1, 2, 0), found)
        parents = [WHOLE]
        for level in range(1, self.levels + 1):
            if self.mode == "grid":
                score_of = self._grid_level(feature, parents, class_index, found)
            else:
                score_of = self._recrop_level(picture_HWC, parents, class_index, found)
            if not score_of:
                break
            ranked = sorted(score_of, key=lambda box: _order(box, score_of[box]))
            parents = ranked[: self.follow]
            kept = parents[: self.count]
            found.candidates += [Candidate(box, score_of[box], level) for box in kept]
            for better, worse in zip(kept, ranked[1:], strict=False):
                found.least_gap = min(found.least_gap, score_of[better] - score_of[worse])
        return found

    def _grid_level(self, feature, parents, class_index, found):
        """Score sub-grids of the one feature map; equal boxes are one."""
        rows, cols = feature.shape[2:]
        score_of = {}
        for parent in parents:
            for cells in children_of(_in_cells(parent, rows, cols), self.children):
                box = _in_fractions(cells, rows, cols)
                if box not in score_of:
                    score_of[box] = self._score(feature, cells, class_index, found)
        return score_of

    def _recrop_level(self, picture_HWC, parents, class_index, found):
        """Crop the picture at each parent; a box of two parents has the higher score."""
        score_of = {}
        for parent in parents:
            feature = self._computed(self._cropped(picture_HWC, parent), found)
            rows, cols = feature.shape[2:]
            for cells in children_of((0, 0, cols, rows), self.children):
                box = _within(parent, _in_fractions(cells, rows, cols))
                score = self._score(feature, cells, class_index, found)
                score_of[box] = max(score, score_of.get(box, score))
        return score_of

    def _cropped(self, picture_HWC, box):
        """Warp a part of the frame to the network's input (row, column, 3)."""
        height_px, width_px = picture_HWC.shape[:2]
        side = (self.preprocess.size_px, self.preprocess.size_px)
        resample = RESAMPLING[self.preprocess.interpolation]
        within_px = in_pixels(box, self.preprocess.extent(width_px, height_px))
        within_px = (*within_px[:2], min(within_px[2], width_px), min(within_px[3], height_px))
        return np.asarray(Image.fromarray(picture_HWC).resize(side, resample, box=within_px))

    def _computed(self, input_HWC, found):
        mean, std = np.array(self.preprocess.mean), np.array(self.preprocess.std)
        normal_HWC = ((input_HWC / 255 - mean) / std).astype(np.float32)
        found.num_features += 1
        return self.features(torch.from_numpy(normal_HWC.transpose(2, 0, 1).copy())[None])

    def _score(self, feature, cells, class_index, found):
        """The probability of the class from the activations inside `cells` alone (§3.3)."""
        x0, y0, x1, y1 = cells
        size = tuple(feature.shape[2:])
        part = feature[:, :, y0:y1, x0:x1]
        spread = torch.nn.functional.interpolate(
            part, size=size, mode="bilinear", align_corners=False
        )
        found.num_heads += 1
        return probability(self.head(spread)[0].tolist(), class_index, self.loss)


def probability(logits, class_index, loss):
    """Of one class: the sigmoid of its logit for ``logistic``, else its share of the softmax."""
    if loss == "logistic":
        return 1 / (1 + math.exp(-logits[class_index]))
    return 1 / sum(math.exp(logit - logits[class_index]) for logit in logits)


def children_of(cells, children):
    """The sub-grids under (x0, y0, x1, y1): one cell less at one end of one side (eq. 6).

    With nine, each of width and height is as it is, or one less at either end (§3.3).
    """
    x0, y0, x1, y1 = cells
    across, down = [(x0, x1)], [(y0, y1)]
    if x1 - x0 > 1:
        across += [(x0 + 1, x1), (x0, x1 - 1)]
    if y1 - y0 > 1:
        down += [(y0 + 1, y1), (y0, y1 - 1)]
    every = [((left, right), (top, bottom)) for left, right in across for top, bottom in down]
    if children == 4:
        every = [(a, d) for a, d in every if (a == (x0, x1)) != (d == (y0, y1))]
    return [(a[0], d[0], a[1], d[1]) for a, d in every]


def plain_heat(candidates, map_size):
    """Each candidate's score times the share of a cell that it covers, summed, cell by cell."""
    heat = [[0.0] * map_size for _ in range(map_size)]
    for (x0, y0, x1, y1), score, _ in candidates:
        for row in range(map_size):
            high = float(_overlap(y0, y1, row, map_size))
            if high == 0:
                continue
            for col in range(map_size):
                heat[row][col] += score * high * float(_overlap(x0, x1, col, map_size))
    return np.array(heat)


def in_pixels(box, extent):
    """A box in pixels of the picture; `extent` is the frame."""
    left, top, right, bottom = (Fraction(value) for value in extent)
    x0, y0, x1, y1 = box
    wide, high = right - left, bottom - top
    return tuple(
        float(value)
        for value in (left + x0 * wide, top + y0 * high, left + x1 * wide, top + y1 * high)
    )


def _overlap(low, high, cell, num_cells):
    """The share of a cell of an axis that low to high covers."""
    start, end = Fraction(cell, num_cells), Fraction(cell + 1, num_cells)
    return max(Fraction(0), min(high, end) - max(low, start)) * num_cells


def _order(box, score):
    x0, y0, x1, y1 = box
    return -score, y0, x0, y1, x1


def _in_fractions(cells, rows, cols):
    x0, y0, x1, y1 = cells
    return Fraction(x0, cols), Fraction(y0, rows), Fraction(x1, cols), Fraction(y1, rows)


def _in_cells(box, rows, cols):
    x0, y0, x1, y1 = box
    return int(x0 * cols), int(y0 * rows), int(x1 * cols), int(y1 * rows)


def _within(parent, box):
    """A box of fractions of the parent as fractions of the frame."""
    left, top, right, bottom = parent
    x0, y0, x1, y1 = box
    wide, high = right - left, bottom - top
    return left + x0 * wide, top + y0 * high, left + x1 * wide, top + y1 * high
