"""One map at many thresholds: the law that it is one threshold at a time, and what is best."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsltool.errors import BadImageError, UsageError
from wsltool.localize.boxes import boxes_from_heat
from wsltool.localize.grid import resample
from wsltool.localize.thresholds import best_threshold, largest_boxes, threshold_grid


def test_the_grid_goes_to_95():
    assert threshold_grid(0.25).tolist() == [0, 0.25, 0.5, 0.75]
    assert threshold_grid(0.95).tolist() == [0, 0.95]
    grid = threshold_grid(0.01)
    assert grid.tolist() == [float(f"{n / 100:.2f}") for n in range(96)]
    assert len(threshold_grid(0.001)) == 951


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["normal", "positive", "negative", "whole", "constant", "zero"]),
    step=st.sampled_from([0.01, 0.03, 0.3]),
    of=st.sampled_from(["max", "range"]),
    connectivity=st.sampled_from([4, 8]),
    empty=st.sampled_from(["none", "whole"]),
    inside=st.booleans(),
)
def test_it_is_one_threshold_at_a_time(seed, kind, step, of, connectivity, empty, inside):
    rng = np.random.default_rng(seed)
    cells = rng.normal(size=tuple(rng.integers(1, 9, 2)))
    cells = {
        "normal": cells,
        "positive": np.abs(cells),
        "negative": -np.abs(cells),
        "whole": np.round(cells),
        "constant": np.full_like(cells, 0.7),
        "zero": np.zeros_like(cells),
    }[kind]
    width, height = (int(side) for side in rng.integers(1, 40, 2))
    extent = (0, 0, width, height) if inside else (0, 0, width / 2 + 1, height / 2 + 1)
    heat = resample(cells, extent, (width, height))
    before = heat.copy()
    options = {"of": of, "connectivity": connectivity, "empty": empty}
    found = largest_boxes(heat, threshold_grid(step), **options)
    for threshold, box in zip(threshold_grid(step), found, strict=True):
        expected = boxes_from_heat(heat, threshold=threshold, **options).box_xyxy_B4
        assert box.tolist() == (expected[0].tolist() if len(expected) else [0, 0, 0, 0])
    np.testing.assert_array_equal(heat, before)


def test_by_hand():
    """2 of 4 columns are at 1, the third at .5, the last at .25; strictly above counts."""
    heat = np.tile([1.0, 1.0, 0.5, 0.25], (3, 1))
    found = largest_boxes(heat, [0.0, 0.25, 0.4, 0.5, 0.95])
    assert found[:, 2].tolist() == [4, 3, 3, 2, 2]
    assert found[:, [0, 1, 3]].tolist() == [[0, 0, 3]] * 5


def test_bad_heat_and_bad_thresholds_are_refused():
    heat = np.ones((2, 2))
    with pytest.raises(UsageError, match=r"^threshold must be in \[0, 1\), got 1\.$"):
        largest_boxes(heat, [0.5, 1.0])
    heat[0, 0] = np.nan
    with pytest.raises(BadImageError, match=r"^heat map of shape \(2, 2\) has the maximum nan;"):
        largest_boxes(heat, [0.5])


@pytest.mark.parametrize(
    ("objective", "best"),
    [
        ([1, 3, 2], 1),
        ([3, 1, 1], 0),
        ([1, 2, 2, 2, 1], 2),  # the middle
        ([1, 2, 2, 1], 1),  # the lower one of two
        ([2, 1, 2, 2, 2, 1, 2, 2, 2], 3),  # the longest run, the lower of equals
        ([5, 5, 5], 1),
        ([7], 0),
    ],
)
def test_the_middle_of_the_best(objective, best):
    assert best_threshold(np.array(objective, float)) == best
