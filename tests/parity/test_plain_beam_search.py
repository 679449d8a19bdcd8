"""The plain beam search itself, worked out by hand with heads that are known sums."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from wsltool.nets.preprocess import Preprocess

from .plain_beam_search import (
    WHOLE,
    Candidate,
    PlainSearch,
    children_of,
    in_pixels,
    plain_heat,
    probability,
)

HALF = Fraction(1, 2)


def _search(grid, mode, **options):
    """Features are the red of `grid` x `grid` pixels, the one score is their mean."""
    preprocess = Preprocess(grid, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    return PlainSearch(
        features=lambda x_NCHW: x_NCHW[:, :1],
        head=lambda feature_NCHW: feature_NCHW.mean((1, 2, 3))[:, None] / 100,
        preprocess=preprocess,
        mode=mode,
        loss="logistic",
        **options,
    )


def _picture(red):
    return np.repeat(np.array(red, np.uint8)[:, :, None], 3, axis=2)


def _sigmoid(value):
    return 1 / (1 + math.exp(-value))


def _found(search, red):
    return search(_picture(red), 0).candidates


def test_grid_greedy():
    """1 2 / 3 4: bottom row (mean 3.5), then its right cell (4), then nothing is left."""
    candidates = _found(_search(2, "grid", follow=1), [[10, 20], [30, 40]])
    assert [c.box for c in candidates] == [(0, HALF, 1, 1), (HALF, HALF, 1, 1)]
    assert [c.level for c in candidates] == [1, 2]
    np.testing.assert_allclose([c.score for c in candidates], [_sigmoid(0.35), _sigmoid(0.4)])


def test_grid_beam_of_two():
    """Level 1: bottom row 35, right column 30. Level 2: the cells 40 (of both), 30, 20."""
    search = _search(2, "grid", follow=2)
    found = search(_picture([[10, 20], [30, 40]]), 0)
    boxes = [(0, HALF, 1, 1), (HALF, 0, 1, 1), (HALF, HALF, 1, 1), (0, HALF, HALF, 1)]
    assert [c.box for c in found.candidates] == boxes
    scores = [_sigmoid(value) for value in (0.35, 0.3, 0.4, 0.3)]
    np.testing.assert_allclose([c.score for c in found.candidates], scores)
    assert (found.num_features, found.num_heads) == (1, 4 + 3)
    assert found.least_gap == pytest.approx(_sigmoid(0.35) - _sigmoid(0.3))


def test_all_followed_and_the_best_kept():
    candidates = _found(_search(2, "grid", follow=None, count=1), [[10, 20], [30, 40]])
    assert [c.box for c in candidates] == [(0, HALF, 1, 1), (HALF, HALF, 1, 1)]
    assert len(_found(_search(2, "grid", follow=None), [[10, 20], [30, 40]])) == 4 + 4


def test_interpolated_inside_alone():
    """0 1 2 | 90: three columns become four, 0 .625 1.375 2; what lies beyond is not read."""
    search = _search(4, "grid", follow=1, levels=1)
    feature = torch.tensor([0.0, 10, 20, 90]).expand(1, 1, 4, 4)
    seen = []
    search.head = lambda part: (seen.append(part), torch.zeros(1, 1))[1]
    search.features = lambda x_NCHW: feature
    search(_picture(np.zeros((4, 4))), 0)
    rows = [part[0, 0, 0].tolist() for part in seen]
    assert [0, 6.25, 13.75, 20] in rows
    assert [10, 16.25, 46.25, 90] in rows


def test_recrop():
    """Rows 0 0 140 140 of a 2 x 4 picture are warped to 20, 120; its lower half stays 140.

    Level 1: top off 120, bottom off 20, left or right off 70. Level 2: all are 140, so that the
    place decides: y0, x0, then the lower end, so that the bottom row goes.
    """
    search = _search(2, "recrop", follow=1, levels=2)
    candidates = search(_picture([[0, 0], [0, 0], [140, 140], [140, 140]]), 0).candidates
    assert [c.box for c in candidates] == [(0, HALF, 1, 1), (0, HALF, 1, 3 * HALF / 2)]
    np.testing.assert_allclose([c.score for c in candidates], [_sigmoid(1.2), _sigmoid(1.4)])


def test_recrop_shrinks_by_a_share_of_the_parent():
    red = np.tile(np.arange(0, 240, 10), (24, 1))
    candidates = _found(_search(4, "recrop", follow=1, levels=3), red)
    side = Fraction(3, 4)
    assert [c.box[0] for c in candidates] == [1 - side**level for level in (1, 2, 3)]
    assert {c.box[1:] for c in candidates} == {(0, 1, 1)}


def test_recrop_keeps_the_higher_score_of_two_parents():
    """Right off then top off, or the other way: one box, two crops, two scores."""
    red = np.arange(64).reshape(8, 8) * 3
    search = _search(2, "recrop", follow=None, levels=2)
    by_box = {c.box: c.score for c in _found(search, red) if c.level == 2}
    alone = []
    for first in ((0, 0, HALF, 1), (0, HALF, 1, 1)):
        again = _search(2, "recrop", follow=1, levels=2)
        again._grid_level = None
        scores = again._recrop_level(_picture(red), [first], 0, search(_picture(red), 0))
        alone.append(scores[0, HALF, HALF, 1])
    assert alone[0] != alone[1]
    assert by_box[0, HALF, HALF, 1] == max(alone)


def test_no_children_of_one_cell():
    assert _found(_search(1, "grid"), [[9]]) == []
    assert _found(_search(1, "recrop"), [[9]]) == []
    nine = _found(_search(1, "recrop", children=9, levels=3), [[9]])
    assert [c.box for c in nine] == [WHOLE] * 3


def test_children():
    assert set(children_of((0, 0, 2, 3), 4)) == {
        (1, 0, 2, 3),
        (0, 0, 1, 3),
        (0, 1, 2, 3),
        (0, 0, 2, 2),
    }
    assert children_of((4, 1, 5, 3), 4) == [(4, 2, 5, 3), (4, 1, 5, 2)]
    assert children_of((4, 1, 5, 2), 4) == []
    assert len(set(children_of((0, 0, 6, 6), 9))) == 9
    assert (1, 0, 6, 5) in children_of((0, 0, 6, 6), 9)
    assert (0, 0, 6, 6) in children_of((0, 0, 6, 6), 9)


def test_probability():
    assert probability([0.0, math.log(3)], 1, "softmax") == pytest.approx(0.75)
    assert probability([5.0, 0.0], 1, "logistic") == 0.5


def test_heat():
    """Two of three columns over four cells: 1, 1, 2/3, 0; a quarter of the rows: the first."""
    box = (Fraction(0), Fraction(0), Fraction(2, 3), Fraction(3, 8))
    heat = plain_heat([Candidate(box, 0.6, 1), Candidate(WHOLE, 0.1, 2)], 4)
    expected = 0.1 + 0.6 * np.outer([1, 0.5, 0, 0], [1, 1, 2 / 3, 0])
    np.testing.assert_allclose(heat, expected, rtol=1e-14)


def test_pixels():
    box = (Fraction(0), HALF, Fraction(1, 4), Fraction(1))
    assert in_pixels(box, (10.0, 20.0, 50.0, 40.0)) == (10, 30, 20, 40)
