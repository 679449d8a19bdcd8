"""The paired bootstrap, by arithmetic."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from wsltool.errors import ProtocolError, UsageError
from wsltool.metrics.bootstrap import bootstrap_difference
from wsltool.metrics.pixel_histogram import histogram_ap

GOOD = [[0, 1], [1, 0]]  # the object's pixel is hot, the other cold
BAD = [[1, 0], [0, 1]]


def test_equal_counts_differ_by_nothing():
    counts = np.array([GOOD, BAD, GOOD])
    assert bootstrap_difference(counts, counts, 50, 1) == (0, 0, 0)


def test_equal_images_leave_nothing_to_chance():
    """a is right throughout, 100; b ranks the object last, 50."""
    a, b = np.array([GOOD] * 4), np.array([BAD] * 4)
    assert bootstrap_difference(a, b, 50, 1) == (50, 50, 50)
    assert bootstrap_difference(b, a, 50, 1) == (-50, -50, -50)


def test_ends_are_percentiles_of_what_can_be_drawn():
    """Two images, four draws of equal chance: both twice the first, the second, or each."""
    a, b = np.array([GOOD, BAD]), np.array([BAD, BAD])
    values = []
    for draw in itertools.product((0, 1), repeat=2):
        one, other = (counts[list(draw)].sum(axis=0) for counts in (a, b))
        values.append(histogram_ap(one) - histogram_ap(other))
    assert (min(values), max(values)) == (0, 50)
    found = bootstrap_difference(a, b, 4000, 0)
    assert found.difference == pytest.approx(
        histogram_ap(a.sum(axis=0)) - histogram_ap(b.sum(axis=0))
    )
    assert (found.low, found.high) == (min(values), max(values))


def test_the_seed_decides():
    rng = np.random.default_rng(0)
    mask = rng.integers(1, 50, (20, 2, 1))
    share = rng.dirichlet(np.ones(8), (2, 20, 2))
    a, b = (
        np.stack(
            [rng.multinomial(n, p) for n, p in zip(mask.ravel(), one.reshape(-1, 8), strict=True)]
        ).reshape(20, 2, 8)
        for one in share
    )
    first = bootstrap_difference(a, b, 200, 7)
    assert first == bootstrap_difference(a, b, 200, 7)
    assert first != bootstrap_difference(a, b, 200, 8)
    assert first.low < first.difference < first.high
    order = rng.permutation(20)
    assert bootstrap_difference(a[order], b[order], 200, 7).difference == first.difference


@pytest.mark.parametrize(
    ("a", "b", "line"),
    [
        (
            np.zeros((0, 2, 3)),
            np.zeros((0, 2, 3)),
            "counts of images have shapes (0, 2, 3) and (0, 2, 3); expected two of (images, 2, "
            "bins), at least one image.",
        ),
        (
            np.ones((1, 2, 3)),
            np.ones((1, 2, 4)),
            "counts of images have shapes (1, 2, 3) and (1, 2, 4); expected two of (images, 2, "
            "bins), at least one image.",
        ),
        (
            np.array([GOOD, [[0, 2], [1, 0]]]),
            np.array([GOOD, BAD]),
            "image 1: [2, 1] and [1, 1] pixels of objects and of anything else; expected the same "
            "in both, some of an object.",
        ),
        (
            np.array([[[0, 0], [1, 0]]]),
            np.array([[[0, 0], [1, 0]]]),
            "image 0: [0, 1] and [0, 1] pixels of objects and of anything else; expected the same "
            "in both, some of an object.",
        ),
    ],
)
def test_refused(a, b, line):
    with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
        bootstrap_difference(a, b)


def test_no_samples():
    with pytest.raises(UsageError, match=r"^num_samples must be at least 1, got 0\.$"):
        bootstrap_difference(np.array([GOOD]), np.array([GOOD]), 0)
