"""k-means: hand-worked rows, the optimum of few rows, and rows of which many are equal."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from wsltool.localize import kmeans as module
from wsltool.localize.kmeans import kmeans


def inertia(row_PR, label_P):
    return sum(
        np.square(row_PR[label_P == one] - row_PR[label_P == one].mean(axis=0)).sum()
        for one in np.unique(label_P)
    )


def test_two_heaps_on_a_line():
    row_PR = np.array([[0.0], [0.1], [5.0], [5.1], [5.2], [0.2]])
    label_P = kmeans(row_PR, 2)
    assert label_P.dtype == np.int32
    assert len(set(label_P[[0, 1, 5]].tolist())) == len(set(label_P[2:5].tolist())) == 1
    assert sorted(set(label_P.tolist())) == [0, 1]


@pytest.mark.parametrize("seed", range(5))
def test_few_rows_have_the_best_of_all_divisions(seed):
    row_PR = np.random.default_rng(seed).random((9, 2))
    best = min(inertia(row_PR, np.array(labels)) for labels in product(range(3), repeat=9))
    assert inertia(row_PR, kmeans(row_PR, 3)) == pytest.approx(best)


@pytest.mark.parametrize(
    ("row_PR", "num_clusters", "expected"),
    [
        (np.zeros((4, 0)), 3, 1),
        (np.ones((4, 2)), 3, 1),
        (np.array([[0.0], [1.0], [0.0], [1.0]]), 4, 2),
        (np.array([[3.0, 1.0]]), 2, 1),
        (np.zeros((0, 2)), 2, 0),
        (np.arange(5.0)[:, None], 5, 5),
        (np.arange(5.0)[:, None], 1, 1),
    ],
)
def test_no_more_clusters_than_different_rows(row_PR, num_clusters, expected):
    label_P = kmeans(row_PR, num_clusters)
    assert len(label_P) == len(row_PR)
    assert sorted(set(label_P.tolist())) == list(range(expected))


def test_an_empty_cluster_is_left_out(monkeypatch):
    """A start whose second centre is nearest to no row, and no other start."""
    monkeypatch.setattr(module, "_started", lambda *_: np.array([[0.0], [99.0], [10.0]]))
    label_P = kmeans(np.array([[0.0], [1.0], [10.0], [11.0]]), 3)
    assert label_P.tolist() == [0, 0, 1, 1]


def test_many_rows_are_all_moved_from_the_starts_on_a_sample():
    """30 000 rows; the best of two heaps on a line is the threshold midway between the means."""
    rng = np.random.default_rng(0)
    row_PR = np.concatenate([rng.normal(0, 1, (20_000, 1)), rng.normal(3, 1, (10_000, 1))])
    label_P = kmeans(row_PR, 2)
    means = [row_PR[label_P == one].mean() for one in (0, 1)]
    upper = int(np.argmax(means))
    assert ((row_PR[:, 0] > np.mean(means)) == (label_P == upper)).all()


def test_the_seed_decides():
    row_PR = np.random.default_rng(1).random((500, 3))
    assert kmeans(row_PR, 4, seed=2).tolist() == kmeans(row_PR, 4, seed=2).tolist()
    before_PR = row_PR.copy()
    kmeans(row_PR, 4)
    np.testing.assert_array_equal(row_PR, before_PR)
