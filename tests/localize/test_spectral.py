"""Spectral clusters against a dense solver, hand-worked classes, and classes that are odd."""

from __future__ import annotations

import re
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.cluster.vq import kmeans2
from threadpoolctl import threadpool_limits

from wsltool.errors import StoreError, UsageError
from wsltool.localize.spectral import PIECE_ROWS, find_unusable, spectral_clusters

from .real_patterns import imagenette_patterns


def in_pieces(pattern_PC, rows=PIECE_ROWS):
    return lambda: (pattern_PC[at : at + rows] for at in range(0, len(pattern_PC), rows))


def unit(pattern_PC):
    """Normalised in float64, without the rows of zeros."""
    pattern_PC = pattern_PC.astype(np.float64)
    length_P = np.linalg.norm(pattern_PC, axis=1, keepdims=True)
    return (pattern_PC / np.where(length_P > 0, length_P, 1))[length_P[:, 0] > 0]


def dense(pattern_PC, num, **how):
    """Return the smallest eigenvalues of L v = lambda D v, and their eigenvectors."""
    a_PC = unit(pattern_PC)
    w_PP = a_PC @ a_PC.T
    d_PP = np.diag(w_PP.sum(axis=1))
    last = min(num, len(a_PC)) - 1
    return scipy.linalg.eigh(d_PP - w_PP, d_PP, subset_by_index=(0, last), **how)


def dense_eigenvalues(pattern_PC, num):
    return dense(pattern_PC, num, eigvals_only=True)


def dense_labels(pattern_PC, num_clusters):
    """Return k-means labels of the rows of [v_1 ... v_k], the best of many plain starts."""
    row_PK = dense(pattern_PC, num_clusters)[1]
    row_PK = row_PK / np.abs(row_PK).max()
    best = np.inf, None
    for seed in range(20):
        centre_QK, label_P = kmeans2(row_PK, num_clusters, iter=200, minit="++", seed=seed)
        best = min(best, (np.square(row_PK - centre_QK[label_P]).sum(), label_P.tolist()))
    return np.array(best[1])


def share_equal(one_P, other_P):
    """Return the share of equal labels under the best renaming."""
    num = max(one_P.max(), other_P.max()) + 1
    return max((np.array(new)[one_P] == other_P).mean() for new in permutations(range(num)))


def random_patterns(num, channels, seed=0, dtype=np.float16):
    return np.random.default_rng(seed).random((num, channels), np.float32).astype(dtype)


def grouped_patterns(sizes, channels, noise, seed=0, dtype=np.float16):
    """Return patterns around prototypes, one group after the other, shuffled; and the groups."""
    rng = np.random.default_rng(seed)
    group_P = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    prototype_GC = rng.random((len(sizes), channels)) * (rng.random((len(sizes), channels)) < 0.2)
    pattern_PC = prototype_GC[group_P] + noise * rng.random((len(group_P), channels))
    length_P1 = rng.uniform(0.5, 20, (len(group_P), 1))
    return (pattern_PC * length_P1).astype(dtype), group_P


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("num", "channels"), [(4, 3), (60, 512), (700, 2), (700, 64), (1100, 33)])
def test_eigenvalues_equal_a_dense_solver(num, channels, dtype):
    for pattern_PC in (
        random_patterns(num, channels, dtype=dtype),
        grouped_patterns([num // 2, num - num // 2], channels, 0.1, dtype=dtype)[0],
    ):
        found = spectral_clusters(in_pieces(pattern_PC))
        np.testing.assert_allclose(found.eigenvalue_M, dense_eigenvalues(pattern_PC, 4), atol=1e-10)
        assert (np.diff(found.eigenvalue_M) >= 0).all()
        assert found.eigenvalue_M[0] == 0


def test_eigenvalues_equal_a_dense_solver_of_many_patterns():
    pattern_PC = grouped_patterns([800, 500, 200, 100], 512, 0.2)[0]
    found = spectral_clusters(in_pieces(pattern_PC))
    np.testing.assert_allclose(found.eigenvalue_M, dense_eigenvalues(pattern_PC, 4), atol=1e-10)


@pytest.mark.parametrize(("groups", "channels"), [(2, 2), (3, 8), (9, 16), (14, 64), (3, 512)])
@pytest.mark.parametrize("ordered", [False, True])
def test_eigenvalues_of_many_equal_patterns(groups, channels, ordered):
    """Sums of equal numbers are where float32 errs most, and always to one side."""
    rng = np.random.default_rng(groups)
    which_P = rng.integers(0, groups, 900)
    pattern_PC = random_patterns(groups, channels, dtype=np.float64)[
        np.sort(which_P) if ordered else which_P
    ] ** (4 if channels > 2 else 1)
    found = spectral_clusters(in_pieces(pattern_PC))
    np.testing.assert_allclose(found.eigenvalue_M, dense_eigenvalues(pattern_PC, 4), atol=1e-7)


@given(
    arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 5)), elements=st.integers(0, 3))
)
@settings(deadline=None, max_examples=150)
def test_any_class_of_small_numbers(pattern_PC):
    """Ties, duplicates, zeros and disconnected groups: the eigenvalues are those of dense ones."""
    before_PC = pattern_PC.copy()
    found = spectral_clusters(in_pieces(pattern_PC, 4), least=1)
    np.testing.assert_array_equal(pattern_PC, before_PC)
    good_PC = unit(pattern_PC)
    assert found.num_zero == len(pattern_PC) - len(good_PC)
    assert found.num_patterns == len(good_PC)
    assert ((found.label_P == -1) == ~pattern_PC.any(axis=1)).all()
    if not len(good_PC):
        assert found.note
        assert np.isnan(found.eigenvalue_M).all()
        return
    expected_M = np.full(4, np.nan)
    expected_M[: min(4, len(good_PC))] = dense_eigenvalues(pattern_PC, 4)
    np.testing.assert_allclose(found.eigenvalue_M, expected_M, atol=1e-6)
    label_P = found.label_P[found.label_P >= 0]
    assert found.size_Q.tolist() == np.bincount(label_P).tolist()
    assert (np.diff(found.size_Q) <= 0).all()
    assert (found.size_Q > 0).all()
    for cluster, centroid_C in enumerate(found.centroid_QC):
        np.testing.assert_allclose(centroid_C, good_PC[label_P == cluster].mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("sizes", [[300, 200], [200, 150, 100], [90, 80, 70, 60]])
def test_clusters_are_the_groups_they_were_drawn_from(sizes):
    pattern_PC, group_P = grouped_patterns(sizes, 128, 0.05)
    found = spectral_clusters(in_pieces(pattern_PC), least=len(sizes))
    assert found.size_Q.tolist() == sizes
    np.testing.assert_array_equal(found.label_P, group_P)
    a_PC = unit(pattern_PC)
    mean_QC = [a_PC[group_P == group].mean(axis=0) for group in range(len(sizes))]
    np.testing.assert_allclose(found.centroid_QC, mean_QC, atol=1e-6)


@pytest.mark.parametrize("num_clusters", [2, 3, 4])
def test_clusters_equal_those_of_dense_eigenvectors(num_clusters):
    pattern_PC = grouped_patterns([400, 250, 100, 50], 96, 0.6, seed=3)[0]
    found = spectral_clusters(in_pieces(pattern_PC), least=num_clusters, most=num_clusters)
    assert share_equal(found.label_P, dense_labels(pattern_PC, num_clusters)) == 1


def test_hand_worked_class():
    """Three patterns e1, two e2, one between: W has ones and 1/sqrt 2.

    s = (3 + r, 2 + r) with r = 1/sqrt 2; d = 3 + r, 2 + r, r (5 + 2 r). The Gram matrix is
    [[3/(3+r) + t, t], [t, 2/(2+r) + t]] with t = 1/2 / (r (5 + 2r)); its trace is 1 + mu_2.
    """
    r = 2**-0.5
    pattern_PC = np.array([[2, 0]] * 3 + [[0, 5]] * 2 + [[1, 1]], np.float32)
    found = spectral_clusters(in_pieces(pattern_PC), most=2)
    t = 0.5 / (r * (5 + 2 * r))
    mu = 3 / (3 + r) + 2 / (2 + r) + 2 * t - 1
    np.testing.assert_allclose(found.eigenvalue_M, [0, 1 - mu], atol=1e-12)
    assert found.size_Q.sum() == 6
    assert found.label_P[:5].tolist() == [0, 0, 0, 1, 1]


def test_number_of_clusters_is_that_of_small_eigenvalues_within_bounds():
    pattern_PC = grouped_patterns([90, 80, 70], 128, 0.05)[0]
    eigenvalue_M = spectral_clusters(in_pieces(pattern_PC)).eigenvalue_M
    assert eigenvalue_M[2] < 0.7 < eigenvalue_M[3]
    for (threshold, least, most), expected in {
        (0.7, 2, 4): 3,
        (0.7, 1, 4): 3,
        (float(eigenvalue_M[2]), 1, 4): 2,  # strictly below
        (0.0, 1, 4): 1,
        (0.0, 2, 4): 2,
        (0.7, 2, 2): 2,
        (0.7, 4, 4): 4,
        (1.0, 2, 4): 4,
    }.items():
        found = spectral_clusters(
            in_pieces(pattern_PC), threshold=threshold, least=least, most=most
        )
        assert len(found.size_Q) == expected, (threshold, least, most)
        assert len(found.eigenvalue_M) == most


def test_no_pattern():
    found = spectral_clusters(lambda: iter(()))
    assert found.note == "no patterns; 2 clusters need 2 or more"
    assert found.num_patterns == found.num_zero == 0
    assert found.centroid_QC.shape == (0, 0)
    assert np.isnan(found.eigenvalue_M).all()


def test_fewer_patterns_than_clusters():
    zeros_PC = np.zeros((3, 5), np.float16)
    one_PC = np.concatenate([zeros_PC, random_patterns(1, 5)])
    found = spectral_clusters(in_pieces(one_PC))
    assert found.note == "1 pattern, 3 of zeros left out; 2 clusters need 2 or more"
    assert (found.num_patterns, found.num_zero) == (0, 3)
    assert found.label_P.tolist() == [-1] * 4
    assert spectral_clusters(in_pieces(zeros_PC)).note.startswith("no patterns, 3 of zeros")
    two = spectral_clusters(in_pieces(random_patterns(2, 5)), least=2)
    assert two.size_Q.tolist() == [1, 1]
    assert two.label_P.tolist() == [0, 1]
    assert np.isnan(two.eigenvalue_M).tolist() == [False, False, True, True]
    assert spectral_clusters(in_pieces(random_patterns(2, 5)), least=3).note


@pytest.mark.parametrize("num", [2, 5, 3000])
def test_equal_patterns_are_one_cluster(num):
    """W is all ones: one eigenvalue of D^-1 W is 1, the others are 0."""
    pattern_PC = np.repeat(random_patterns(1, 40), num, axis=0)
    found = spectral_clusters(in_pieces(pattern_PC))
    assert found.eigenvalue_M[:num].tolist() == [0, 1, 1, 1][:num]
    assert found.size_Q.tolist() == [num]
    np.testing.assert_allclose(found.centroid_QC, unit(pattern_PC)[:1], atol=1e-7)


def test_groups_without_anything_in_common():
    """Two blocks of W: 0 is an eigenvalue twice, and its eigenvectors may turn."""
    pattern_PC = np.zeros((900, 20), np.float32)
    pattern_PC[::3, :10] = random_patterns(300, 10) + 0.1
    for offset in (1, 2):
        pattern_PC[offset::3, 10:] = random_patterns(300, 10, seed=offset) + 0.1
    found = spectral_clusters(in_pieces(pattern_PC))
    np.testing.assert_allclose(found.eigenvalue_M, dense_eigenvalues(pattern_PC, 4), atol=1e-12)
    assert abs(found.eigenvalue_M[1]) < 1e-12
    assert found.size_Q.tolist() == [600, 300]
    assert found.label_P.tolist() == [1, 0, 0] * 300


def test_more_clusters_than_different_patterns():
    pattern_PC = np.repeat(np.eye(3, 7, dtype=np.float16), [5, 9, 2], axis=0)
    found = spectral_clusters(in_pieces(pattern_PC), least=4)
    assert found.eigenvalue_M.tolist() == pytest.approx([0, 0, 0, 1])
    assert found.size_Q.tolist() == [9, 5, 2]
    assert found.label_P.tolist() == [1] * 5 + [0] * 9 + [2] * 2


def test_equal_patterns_are_not_divided_by_the_last_bits():
    """Equal rows at different places of a piece may differ by rounding of the BLAS."""
    which_P = np.random.default_rng(0).integers(0, 3, 1031)
    for seed in range(4):
        found = spectral_clusters(in_pieces(random_patterns(3, 37, seed)[which_P]), least=4)
        assert found.size_Q.tolist() == sorted(np.bincount(which_P).tolist(), reverse=True)


def test_equally_large_clusters_stand_in_the_order_of_their_first_patterns():
    pattern_PC = np.eye(3, dtype=np.float16)[[2, 0, 1, 1, 0, 2]]
    found = spectral_clusters(in_pieces(pattern_PC), least=3)
    assert found.label_P.tolist() == [0, 1, 2, 2, 1, 0]


def test_patterns_of_zeros_change_nothing():
    pattern_PC = grouped_patterns([50, 40], 30, 0.3)[0]
    plain = spectral_clusters(in_pieces(pattern_PC))
    place_P = np.arange(90) + np.arange(90) // 2
    holed_PC = np.zeros((place_P[-1] + 4, 30), np.float16)
    holed_PC[place_P] = pattern_PC
    holed = spectral_clusters(in_pieces(holed_PC, 7))
    assert holed.num_zero == len(holed_PC) - 90
    assert holed.label_P[place_P].tolist() == plain.label_P.tolist()
    np.testing.assert_allclose(holed.eigenvalue_M, plain.eigenvalue_M, atol=1e-12)
    np.testing.assert_allclose(holed.centroid_QC, plain.centroid_QC, atol=1e-7)


def test_order_and_length_of_patterns_and_order_of_channels_change_nothing():
    pattern_PC = grouped_patterns([300, 200], 64, 0.4, dtype=np.float64)[0]
    rng = np.random.default_rng(1)
    order_P, order_C = rng.permutation(500), rng.permutation(64)
    plain = spectral_clusters(in_pieces(pattern_PC))
    moved = spectral_clusters(
        in_pieces(pattern_PC[order_P][:, order_C] * rng.uniform(0.1, 9, (500, 1)))
    )
    np.testing.assert_allclose(moved.eigenvalue_M, plain.eigenvalue_M, atol=1e-12)
    assert share_equal(moved.label_P, plain.label_P[order_P]) == 1
    np.testing.assert_allclose(moved.centroid_QC, plain.centroid_QC[:, order_C], atol=1e-6)


def test_seed_decides_and_nothing_else():
    pattern_PC = random_patterns(6000, 32)
    one, same = (spectral_clusters(in_pieces(pattern_PC), least=4, seed=3) for _ in range(2))
    for name in ("eigenvalue_M", "centroid_QC", "size_Q", "label_P"):
        assert getattr(one, name).tobytes() == getattr(same, name).tobytes(), name


def test_threads_change_no_bit(monkeypatch):
    """Neither those that compute pieces, nor those that the BLAS has outside."""
    pattern_PC = grouped_patterns([9000, 5000], 700, 0.5)[0]
    found = []
    for num_threads in (1, 2, 5):
        monkeypatch.setattr("wsltool.localize.pattern_pieces._num_threads", lambda n=num_threads: n)
        with threadpool_limits(num_threads, user_api="blas"):
            found.append(spectral_clusters(in_pieces(pattern_PC)))
    for name in ("eigenvalue_M", "centroid_QC", "size_Q", "label_P"):
        assert len({getattr(one, name).tobytes() for one in found}) == 1, name


def test_unit_centroids_have_length_one():
    pattern_PC = grouped_patterns([50, 40], 30, 0.5)[0]
    mean = spectral_clusters(in_pieces(pattern_PC)).centroid_QC
    length_Q = np.linalg.norm(mean, axis=1)
    assert (length_Q < 0.999).all()
    bare = spectral_clusters(in_pieces(pattern_PC), centroid="unit").centroid_QC
    np.testing.assert_allclose(bare, mean / length_Q[:, None], atol=1e-6)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.nan, "channel 2 is nan, expected a finite number."),
        (np.inf, "channel 2 is inf, expected a finite number."),
        (-np.inf, "channel 2 is -inf, expected a finite number."),
        (-0.25, "channel 2 is -0.25, expected 0 or more: similarities of patterns must not be "
         "negative. Take the features of a layer after a ReLU: wsltool inspect --layers MODEL"),
    ],
)  # fmt: skip
def test_what_cannot_be_clustered_is_refused(value, said):
    pattern_PC = random_patterns(5000, 4)
    pattern_PC[4700:, 2] = value
    with pytest.raises(StoreError, match="^" + re.escape(f"pattern 4700: {said}")):
        spectral_clusters(in_pieces(pattern_PC))
    assert find_unusable(pattern_PC[:4700]) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threshold": 1.5}, "threshold must be in [0, 1], got 1.5."),
        ({"threshold": float("nan")}, "threshold must be in [0, 1], got nan."),
        ({"least": 0}, "least and most must be 1 <= least <= most, got 0 and 4."),
        ({"least": 5}, "least and most must be 1 <= least <= most, got 5 and 4."),
        ({"centroid": "median"}, 'centroid must be "mean" or "unit", got \'median\'.'),
    ],
)
def test_options_out_of_range(options, said):
    with pytest.raises(UsageError, match="^" + re.escape(said)):
        spectral_clusters(in_pieces(random_patterns(5, 4)), **options)


@pytest.mark.real
def test_real_patterns(data_dir: Path) -> None:
    """SqueezeNet's features of two classes: eigenvalues and clusters as from dense matrices."""
    for wnid in ("n03394916", "n03425413"):
        pattern_PC = imagenette_patterns(data_dir, 6, 224, [wnid])
        found = spectral_clusters(in_pieces(pattern_PC))
        np.testing.assert_allclose(found.eigenvalue_M, dense_eigenvalues(pattern_PC, 4), atol=1e-10)
        num_clusters = len(found.size_Q)
        assert num_clusters == max(2, (found.eigenvalue_M < 0.7).sum())
        assert share_equal(found.label_P, dense_labels(pattern_PC, num_clusters)) > 0.999
