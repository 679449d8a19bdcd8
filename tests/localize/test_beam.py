"""Beam search over sub-grids: trees, beams and heat maps worked out by hand."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsltool.errors import UsageError
from wsltool.localize.beam import Candidates, ImageSearch, SearchTree, beam_heat


def tree(grid=(6, 6), mode="grid", levels=10, children=4):
    return SearchTree(grid, mode, levels, children)


def children(found):
    return [box for box, _ in found]


def searched(search, score):
    """Run a search to its end with a function of (class, crop, sub-grid)."""
    while not search.is_over:
        search.advance([[score(k, *place) for k in classes] for place, classes in search.wanted])
    return search


def area(_class, _crop, sub_grid):
    x0, y0, x1, y1 = sub_grid
    return (x1 - x0) * (y1 - y0) / 100


class TestTree:
    def test_four_children(self):
        """Figure 4 of the paper: a column or a row less, at either end."""
        found = tree().following((1, 2, 5, 4))
        assert children(found) == [(1, 3, 5, 4), (1, 2, 5, 3), (2, 2, 5, 4), (1, 2, 4, 4)]
        assert all(place == ((0, 0, 6, 6), box) for box, place in found)

    def test_a_side_of_one_cell_stays(self):
        assert children(tree().following((1, 2, 5, 3))) == [(2, 2, 5, 3), (1, 2, 4, 3)]
        assert tree().following((3, 3, 4, 4)) == []

    def test_nine_children(self):
        """Each side as it is, or one less at either end (section 3.3)."""
        found = children(tree(children=9).following((0, 0, 6, 6)))
        sides = [(0, 6), (1, 6), (0, 5)]
        assert sorted(found) == sorted((x[0], y[0], x[1], y[1]) for x, y in product(sides, sides))
        assert children(tree(children=9).following((3, 3, 4, 4))) == [(3, 3, 4, 4)]

    def test_crops_of_crops(self):
        """Each child is a sixth of its parent smaller, and scored on its parent's own grid."""
        one = tree(mode="recrop", levels=2)
        assert one.root == (0, 0, 36, 36)
        found = one.following((0, 0, 30, 36))
        assert children(found) == [
            (0, 6, 30, 36),
            (0, 0, 30, 30),
            (5, 0, 30, 36),
            (0, 0, 25, 36),
        ]
        crop = (0, 0, 30, 36)
        assert [place for _, place in found] == [
            (crop, (0, 1, 6, 6)),
            (crop, (0, 0, 6, 5)),
            (crop, (1, 0, 6, 6)),
            (crop, (0, 0, 5, 6)),
        ]

    def test_no_digit_is_lost_however_deep(self):
        """Twenty levels on a grid of 14: the numbers have more digits than a float."""
        one = tree((14, 14), "recrop", 20)
        box, exact = one.root, Fraction(1)
        for _ in range(20):
            box = one.following(box)[-1][0]
            exact *= Fraction(13, 14)
        assert Fraction(box[2], one.units_xy[0]) == exact
        assert one.fractions([box])[0, 2] == float(exact)

    def test_a_grid_that_is_no_square(self):
        one = tree((2, 3), "recrop", 1)
        assert one.root == (0, 0, 3, 2)
        assert children(one.following(one.root)) == [
            (0, 1, 3, 2),
            (0, 0, 3, 1),
            (1, 0, 3, 2),
            (0, 0, 2, 2),
        ]

    def test_a_grid_of_one_row(self):
        for mode in ("grid", "recrop"):
            one = tree((1, 3), mode, 1)
            assert len(one.following(one.root)) == 2

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"grid": (0, 3)}, r"a grid must have rows and columns, got \(0, 3\)\."),
            ({"levels": 0}, "--levels must be at least 1, got 0."),
            ({"children": 5}, "--children must be 4 or 9, got 5."),
        ],
    )
    def test_refused(self, values, message):
        with pytest.raises(UsageError, match=message):
            tree(**values)


class TestSearch:
    def test_every_sub_grid_once(self):
        """6 x 6 has 441 boxes (METHODS 5.6); all but the whole are asked for, each once."""
        search = ImageSearch(tree(), 3, beam=None)
        asked = []
        searched(search, lambda k, crop, sub: asked.append(sub) or area(k, crop, sub))
        assert len(set(asked)) == len(asked) / 3 == 440
        assert search.level == 10
        assert len(search.candidates(0).score_B) == 440

    def test_all_are_followed_and_the_best_counted(self):
        search = searched(ImageSearch(tree((3, 3)), 1, beam=None, counted=2), area)
        assert np.bincount(search.candidates(0).level_B).tolist() == [0, 2, 2, 2, 1 + 1]

    def test_greedy(self):
        """The score is highest where column 4 and row 1 are alone: the path leads there."""

        def score(_class, _crop, sub_grid):
            x0, y0, x1, y1 = sub_grid
            return ((x0 <= 4 < x1) and (y0 <= 1 < y1)) / ((x1 - x0) * (y1 - y0))

        found = searched(ImageSearch(tree(), 1, beam=1), score).candidates(0)
        assert found.level_B.tolist() == list(range(1, 11))
        assert (found.box_B4[-1] * 6).round(9).tolist() == [4, 1, 5, 2]

    def test_equal_scores_go_by_place(self):
        search = ImageSearch(tree((2, 2), levels=1), 1, beam=3)
        search.advance([[0.5]] * 4)
        assert (search.candidates(0).box_B4 * 2).tolist() == [
            [0, 0, 2, 1],
            [0, 0, 1, 2],
            [1, 0, 2, 2],
        ]

    def test_equal_boxes_are_one_with_the_higher_score(self):
        """Left, then top, is top, then left; its scores differ, for the crops do."""
        search = ImageSearch(tree((2, 2), "recrop", 2), 1)
        search.advance([[0.0]] * 4)
        assert len(search.wanted) == 16
        left, top = (2, 0, 4, 4), (0, 2, 4, 4)
        score = {(left, (0, 1, 2, 2)): 0.25, (top, (1, 0, 2, 2)): 0.75}  # the same quarter
        search.advance([[score.get(place, 0.0)] for place, _ in search.wanted])
        found = search.candidates(0)
        assert search.is_over
        assert found.score_B[4] == 0.75
        assert found.box_B4[4].tolist() == [0.5, 0.5, 1, 1]
        assert len(found.score_B) == 4 + 8  # 12 different boxes on level 2; 8 are kept

    def test_classes_do_not_meet(self):
        """Side by side or alone, a class finds the same; places are shared."""

        def score(k, _crop, sub_grid):
            x0, y0, x1, y1 = sub_grid
            return 1 / (1 + (x0 - k) ** 2 + (y0 - 2 * k) ** 2 + (x1 + y1) / 7)

        together = searched(ImageSearch(tree(), 3, beam=2), score)
        for k in range(3):
            alone = searched(ImageSearch(tree(), 1, beam=2), lambda _, *p, k=k: score(k, *p))
            for one, other in zip(together.candidates(k), alone.candidates(0), strict=True):
                np.testing.assert_array_equal(one, other)

    def test_what_is_shared(self):
        search = ImageSearch(tree((3, 3), "recrop"), 5)
        assert [classes for _, classes in search.wanted] == [[0, 1, 2, 3, 4]] * 4
        assert search.num_alone() == (20, 0)
        search.advance([[0.0] * 5] * 4)
        assert len(search.wanted) == 16
        assert search.num_alone() == (80, 20)

    def test_a_class_wants_its_own_places_alone(self):
        search = ImageSearch(tree((3, 3), levels=2), 2, beam=1)
        best = [(1, 0, 3, 3), (0, 0, 3, 2)]
        search.advance([[place.sub_grid == box for box in best] for place, _ in search.wanted])
        inside = {k: [p.sub_grid for p, classes in search.wanted if k in classes] for k in (0, 1)}
        for k, box in enumerate(best):
            assert set(inside[k]) == {child for child, _ in search.tree.following(box)}

    @pytest.mark.parametrize("mode", ["grid", "recrop"])
    def test_nothing_is_scored_twice(self, mode):
        """With nine children a box may stay for many levels."""
        search, asked = ImageSearch(tree((3, 3), mode, 6, 9), 1, beam=3), []
        searched(search, lambda k, crop, sub: asked.append((crop, sub)) or 1 / len(asked))
        assert search.level == 6
        assert len(set(asked)) == len(asked)

    def test_no_class(self):
        search = ImageSearch(tree(), 0)
        assert search.is_over
        assert search.wanted == []


class TestHeat:
    def test_by_hand(self):
        """A box over the left half and a smaller one that covers cells in part."""
        found = Candidates(
            np.array([[0, 0, 0.5, 1], [0.125, 0.5, 0.375, 0.75]]),
            np.array([0.5, 0.25]),
            np.array([1, 2], np.int16),
        )
        half, part = 0.5, 0.5 + 0.25 / 2
        expected = [[half, half, 0, 0], [half, half, 0, 0], [part, part, 0, 0], [half, half, 0, 0]]
        assert beam_heat(found, 4).tolist() == expected

    def test_nothing(self):
        none = Candidates(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int16))
        assert beam_heat(none, 3).tolist() == [[0] * 3] * 3

    @settings(max_examples=50, deadline=None)
    @given(st.integers(1, 40), st.integers(0, 20), st.integers(0, 2**32 - 1))
    def test_the_sum_is_that_of_score_and_area(self, map_size, num, seed):
        random = np.random.default_rng(seed)
        side = np.sort(random.random((num, 2, 2)), axis=1)
        box_B4, score_B = side.reshape(num, 4), random.random(num)
        heat = beam_heat(Candidates(box_B4, score_B, np.ones(num, np.int16)), map_size)
        area_B = np.prod(box_B4[:, 2:] - box_B4[:, :2], axis=1)
        np.testing.assert_allclose(heat.sum(), map_size**2 * (score_B * area_B).sum(), atol=1e-9)
        assert (heat >= 0).all()
