"""Cells of one grid against those of another, and where maps fire: by hand and by law."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsltool.errors import BadImageError
from wsltool.localize.cell_lookup import centers_inside, firing_cells, nearest_cells
from wsltool.localize.grid import cell_centers_px

WHOLE = (0, 0, 100, 50)
NAN = float("nan")


def nearest(*of_and_in):
    row_H, col_W = nearest_cells(*of_and_in)
    assert row_H.dtype == col_W.dtype == np.intp
    return row_H.tolist(), col_W.tolist()


def test_the_same_grid():
    assert nearest(WHOLE, (2, 3), WHOLE, (2, 3)) == ([0, 1], [0, 1, 2])


def test_a_finer_and_a_coarser_grid():
    """Centres at 1/8, 3/8, … of the width; and at 1/4 and 3/4, on edges of four cells."""
    assert nearest(WHOLE, (4, 4), WHOLE, (2, 2)) == ([0, 0, 1, 1], [0, 0, 1, 1])
    assert nearest(WHOLE, (2, 2), WHOLE, (4, 4)) == ([1, 3], [1, 3])
    assert nearest(WHOLE, (1, 1), WHOLE, (3, 4)) == ([1], [2])


def test_another_extent():
    """Centres at x 5, 15, …, 95 and y 12.5, 37.5; the other covers x 20 to 60, y -50 to 50."""
    rows, cols = nearest(WHOLE, (2, 10), (20, -50, 60, 50), (4, 2))
    assert rows == [2, 3]
    assert cols == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    inside_H, inside_W = centers_inside(WHOLE, (2, 10), (20, -50, 60, 50))
    assert inside_H.tolist() == [True, True]
    assert np.flatnonzero(inside_W).tolist() == [2, 3, 4, 5]


def test_a_centre_on_the_edge_of_the_extent_is_inside():
    assert centers_inside((0, 0, 4, 4), (2, 2), (1, 1, 3, 2.99))[1].tolist() == [True, True]
    assert centers_inside((0, 0, 4, 4), (2, 2), (1, 1, 3, 2.99))[0].tolist() == [True, False]


@given(
    st.floats(-300, 300, width=32),
    st.floats(1, 2000, width=32),
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_the_edge_between_two_cells_belongs_to_the_later_however_it_rounds(low, size, n, times):
    """The centre of cell i of n lies on an edge of 2 n k cells, whatever the extent."""
    extent = np.array([low, low, low + size, low + size], np.float32)
    rows, cols = nearest(extent, (n, n), extent, (2 * n * times, n))
    assert rows == [(2 * i + 1) * times for i in range(n)]
    assert cols == list(range(n))


@given(
    st.tuples(*[st.floats(-200, 200)] * 2, *[st.floats(1, 300)] * 2),
    st.tuples(*[st.floats(-200, 200)] * 2, *[st.floats(1, 300)] * 2),
    st.tuples(*[st.integers(1, 9)] * 4),
)
def test_no_other_centre_is_much_nearer(one, two, grids):
    of, into = (np.array([x, y, x + w, y + h]) for x, y, w, h in (one, two))
    rows, cols = nearest_cells(of, grids[:2], into, grids[2:])
    for axis, found in ((1, rows), (0, cols)):
        here = cell_centers_px(of, grids[:2])[axis]
        there = cell_centers_px(into, grids[2:])[axis]
        least = np.abs(here[:, None] - there).min(axis=1)
        assert (np.abs(here - there[found]) <= least + 1e-3 * two[3 if axis else 2]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0, 0, 0, 5), (2, 2), WHOLE, (2, 2)), "map_extent is 0 0 0 5; expected finite x0 < x1"),
        ((WHOLE, (2, 2), (0, 0, NAN, 5), (2, 2)), "map_extent is 0 0 nan 5; expected finite"),
        ((WHOLE, (0, 2), WHOLE, (2, 2)), "map grid is 0x2; expected rows x columns"),
        ((WHOLE, (2, 2), WHOLE, (2, 0)), "map grid is 2x0; expected rows x columns"),
    ],
)
def test_what_is_no_grid(arguments, message):
    with pytest.raises(BadImageError, match=re.escape(message)):
        nearest_cells(*arguments)


def test_firing_is_strictly_above_the_fraction_of_the_maximum():
    maps = np.array([[[10, 2, 2.1]], [[-1, -2, -3]], [[0, 0, 0]], [[4, -5, 1]]], np.float32)
    assert firing_cells(maps).tolist() == [
        [[True, False, True]],
        [[False] * 3],
        [[False] * 3],
        [[True, False, True]],
    ]
    assert firing_cells(maps, 0.0)[0].tolist() == [[True, True, True]]
    assert firing_cells(maps, 0.25)[3].tolist() == [[True, False, False]]


def test_float16_maps_are_compared_as_float64():
    """In float16 1.5 is 0.3 of 5; but 0.3 of 4 lies below its nearest float16, 1.2002."""
    assert firing_cells(np.array([[[5, 1.5]]], np.float16), 0.3).tolist() == [[[True, False]]]
    assert firing_cells(np.array([[[4, 1.2]]], np.float16), 0.3).tolist() == [[[True, True]]]


def test_suppressed_cells_neither_fire_nor_count_for_the_maximum():
    maps = np.array([[[100.0, 10, 3, 1]]])
    gone = np.array([[[1, 0, 0, 0]]], np.uint8)
    assert firing_cells(maps, 0.2, gone).tolist() == [[[False, True, True, False]]]
    assert firing_cells(maps, 0.2).tolist() == [[[True, False, False, False]]]
    all_gone = np.ones((1, 1, 4), np.uint8)
    assert firing_cells(maps, 0.2, all_gone).tolist() == firing_cells(maps, 0.2).tolist()


def test_no_slot_fires_nowhere():
    assert firing_cells(np.zeros((0, 2, 3))).shape == (0, 2, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite(value):
    maps = np.ones((2, 2, 2))
    maps[1, 0] = value
    with pytest.raises(
        BadImageError,
        match=r"^its maps have 2 values that are not finite; expected finite scores\.$",
    ):
        firing_cells(maps)


def test_a_map_without_a_cell():
    with pytest.raises(BadImageError, match=r"^its maps have 0x3 cells; expected at least 1x1\.$"):
        firing_cells(np.zeros((1, 0, 3)))
