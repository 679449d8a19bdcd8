"""k-means with seeded starts, of which the best is kept; the iteration is scipy's."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
from scipy.cluster.vq import kmeans2

__all__ = ["kmeans"]

Float = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]

_STARTS = 10
_SAMPLE = 20_000  # rows on which the starts are tried
_STEPS = 10  # of scipy at once; then we look whether anything still moves
_ROUNDS = 100


def kmeans(row_PR: Float, num_clusters: int, *, seed: int = 0) -> Labels:
    """Return the cluster of each row.

    Lloyd's algorithm from ten k-means++ starts; the one with the lowest sum of squared
    distances is kept, the first of equals. Where there are more than 20 000 rows the starts are
    tried on so many, drawn from `seed`, and the best one goes on with all. It computes in one
    thread, and nothing but `seed` decides what is drawn.

    Parameters
    ----------
    row_PR : float64 ndarray of shape (P, R)
        Finite. R may be 0: then all rows are equal.
    num_clusters : int
        At least 1. As many as there are different rows where these are fewer; a cluster that
        no row is nearest to is left out.
    seed : int
        Of the starts.

    Returns
    -------
    label_P : int32 ndarray of shape (P,)
        Numbers from 0, without a gap.
    """
    generator = np.random.default_rng(seed)
    sample_SR = row_PR
    if len(row_PR) > _SAMPLE:
        drawn_S = generator.choice(len(row_PR), _SAMPLE, replace=False, shuffle=False)
        sample_SR = row_PR[np.sort(drawn_S)]
    num_clusters = min(num_clusters, _num_different(sample_SR, num_clusters))
    if num_clusters < 2:
        return np.zeros(len(row_PR), np.int32)
    best, best_QR = np.inf, row_PR[:0]
    for _ in range(_STARTS):
        centre_QR, label_S = _moved(sample_SR, _started(sample_SR, num_clusters, generator))
        inertia = float(np.square(sample_SR - centre_QR[label_S]).sum())
        if inertia < best:
            best, best_QR = inertia, centre_QR
    _, label_P = _moved(row_PR, best_QR)
    return np.unique(label_P, return_inverse=True)[1].astype(np.int32)


def _started(row_PR: Float, num_clusters: int, generator: np.random.Generator) -> Float:
    """Return centres drawn by k-means++, after one step."""
    with _empty_clusters_allowed():
        centre_QR: Float = kmeans2(
            row_PR, num_clusters, iter=1, minit="++", seed=generator, check_finite=False
        )[0]
    return centre_QR


def _moved(row_PR: Float, centre_QR: Float) -> tuple[Float, Labels]:
    """Run Lloyd's algorithm until no row changes its cluster; return centres and labels."""
    before_P = np.zeros(0, np.int32)
    with _empty_clusters_allowed():
        for _ in range(_ROUNDS):
            centre_QR, label_P = kmeans2(
                row_PR, centre_QR, iter=_STEPS, minit="matrix", check_finite=False
            )
            if np.array_equal(before_P, label_P):
                break
            before_P = label_P
    return centre_QR, label_P


def _empty_clusters_allowed() -> warnings.catch_warnings[None]:
    """Return a context without scipy's warning: a start with an empty cluster may lose or win."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)


def _num_different(row_PR: Float, most: int) -> int:
    """Return the number of different rows, counted up to `most`."""
    num = 0
    while len(row_PR) and num < most:
        row_PR = row_PR[(row_PR != row_PR[0]).any(axis=1)]
        num += 1
    return num
